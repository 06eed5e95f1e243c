//! The table of channels that requests are matched against.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arapi::arsrv::ChannelStatus;
use arapi::names::{Kind, ObjectName};
use arapi::objects::access::fits_pattern;
use arapi::objects::{ChannelSpec, ChannelType, DataFormat, HttpMethod, SecretText, Spec};
use arbase::metrics::Histogram;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::accept::MediaRange;
use super::onward::Onward;
use super::pattern::Pattern;
use super::quality::Quality;
use super::stable_id;
use crate::http::soap;
use crate::limits::{Limiter, Limits};
use crate::security::attempts::Attempts;
use crate::security::grants::{Granted, Grants};
use crate::security::{Gate, Keys, Shared};
use crate::world::World;

/// The security that deployments from editors need.
pub const IDE_PUBLISHER: &str = "ide_publisher";

/// Largest SOAP message where the channel does not say otherwise: as a tree it takes many times its size.
const SOAP_BYTES: u64 = 8 * 1024 * 1024;
/// Largest message of a WebSocket where the channel does not say otherwise: there are many of them open.
const MESSAGE_BYTES: u64 = 1024 * 1024;

/// What a table needs of the config.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Longest time for a request where neither channel nor service says otherwise.
    pub timeout: Duration,
    /// Largest body where the channel does not say otherwise.
    pub max_body_bytes: u64,
}

/// Every channel, ready to be matched.
#[derive(Debug, Default)]
pub struct Table {
    /// The revision it was made from.
    pub revision: u64,
    /// Who may deploy from an editor.
    pub ide: Gate,
    /// Opened by every security there is.
    pub all_keys: Gate,
    /// How much may come in.
    pub limits: Limits,
    /// What opens gates.
    pub keys: Keys,
    /// Who may invoke what.
    pub grants: Grants,
    exact: HashMap<Box<[u8]>, Box<[Arc<Channel>]>>,
    patterns: Vec<(Pattern, Vec<Arc<Channel>>)>,
    /// All of them, the inactive and hidden ones too, by name.
    all: BTreeMap<ObjectName, Arc<Channel>>,
}

/// A channel.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: ObjectName,
    /// What was configured.
    pub spec: ChannelSpec,
    /// The service; of a gateway, the patterns of those it leads to.  For people.
    pub service: Arc<str>,
    /// What it invokes.
    pub targets: Targets,
    /// The part of the path that names the service, of a REST channel that is a gateway.
    pub service_part: Option<&'static str>,
    /// Whether its service answers.
    pub standing: Standing,
    /// Who may pass.
    pub gate: Gate,
    /// How much may come in by it.
    pub limit: Option<Arc<Limiter>>,
    /// Longest time for one request, whatever its service.
    pub timeout: Duration,
    /// Largest body.
    pub max_body_bytes: u64,
    /// What answers are in where the service does not say.
    pub content_type: HeaderValue,
    /// What it has done; goes on when the channel is changed.
    pub counts: Arc<Counts>,
    /// The part of the `http` document before the security, and the part behind it.
    pub document: (Bytes, Bytes),
    /// What it does beside invoking its service.
    pub quality: Option<Box<Quality>>,
    accept: Option<MediaRange>,
}

/// What a channel invokes.
#[derive(Debug)]
pub enum Targets {
    /// Always the same service.
    One(Target),
    /// Which one, the request says: those of the white list that answer.
    Named(HashMap<Arc<str>, Target>),
    /// No service: requests are passed on to an outgoing connection.
    Onward(Box<Onward>),
}

/// A service as one channel invokes it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service.
    pub service: Arc<str>,
    /// Where a caller needs a grant: those that fit.
    pub granted: Option<Granted>,
    /// How often it may be invoked.
    pub limit: Option<Arc<Limiter>>,
    /// Longest time for one request.
    pub timeout: Duration,
}

/// What a channel has done since the core's start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests.
    pub calls: AtomicU64,
    /// Answers of 500 and above.
    pub failures: AtomicU64,
    /// Requests above a rate limit: its own, its service's or its caller's.
    pub limited: AtomicU64,
    /// Answers by the class of their status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [AtomicU64; 5],
    /// How long it took until an answer began.
    pub times: Histogram,
    /// Failed attempts to pass its gate.
    pub attempts: Attempts,
    /// Clients that are connected now.
    pub connections: AtomicU64,
}

/// Whether a channel answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Serving,
    /// It was switched off.
    Inactive,
    /// There is no such service (yet).
    NotDeployed,
    /// Its service was switched off.
    ServiceInactive,
    /// Another channel has the same path, method and Accept.
    HiddenBy(ObjectName),
    /// Its path is not UTF-8 once it is percent-decoded.
    BadPath,
    /// One of its schemas is none; why.
    BadSchema(String),
    /// It cannot be passed on to its outgoing connection; why.
    NoWay(String),
}

/// The channel that a request is for, with the path's parameters.
#[derive(Debug)]
pub struct Found<'t> {
    /// The channel.
    pub channel: &'t Arc<Channel>,
    /// Names and values of the parameters.
    pub params: Vec<(&'t str, String)>,
    /// All channels of its path.
    same_path: &'t [Arc<Channel>],
}

impl<'t> Found<'t> {
    /// A channel that was found before.
    pub fn of(channel: &'t Arc<Channel>, params: Vec<(&'t str, String)>) -> Self {
        Self { channel, params, same_path: std::slice::from_ref(channel) }
    }
    /// The channels of its path that are of its type, itself among them.
    pub fn alike(&self) -> impl Iterator<Item = &'t Arc<Channel>> {
        let own = self.channel.spec.channel_type;
        self.same_path.iter().filter(move |other| other.spec.channel_type == own)
    }
}

impl Counts {
    /// Notes an answer.
    pub fn note(&self, status: http::StatusCode, took: Duration) {
        self.times.note(took);
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.classes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if status.is_server_error() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Table {
    /// Builds the table of a world.
    ///
    /// `secret` gives the values of secrets as far as they are known; counts go on from `before`.
    pub fn plan(
        world: &World,
        secret: impl Fn(&str) -> Option<SecretText>,
        before: &Self,
        defaults: Defaults,
        shared: &Shared,
        now: SystemTime,
    ) -> Self {
        let limits = Limits::plan(world, &before.limits);
        let keys = Keys::plan(world, &limits, secret, shared, now);
        let grants = Grants::plan(world);
        let mut table = Self { revision: world.revision, ..Self::default() };
        if let Ok(name) = ObjectName::parse(IDE_PUBLISHER) {
            table.ide = Gate::of_one(&name, &keys);
        }
        let mut exact: HashMap<Box<[u8]>, Vec<Arc<Channel>>> = HashMap::new();
        let mut patterns: Vec<(Pattern, Vec<Arc<Channel>>)> = Vec::new();
        for object in world.of_kind(Kind::Channel) {
            let Spec::Channel(spec) = &object.spec else { continue };
            let name = &object.name;
            let known = before.all.get(name);
            let counts = known.map(|channel| Arc::clone(&channel.counts));
            let gate = Gate::of(spec, world, &keys);
            let quality = Quality::of(object, spec, world, &gate, known.map(|channel| &**channel));
            let planned = Planned { world, limits: &limits, grants: &grants, defaults };
            let targets = planned.targets(name, spec, &gate);
            let mut channel = Channel {
                name: name.clone(),
                service: service_name(spec),
                standing: standing(spec, world),
                gate,
                limit: limits.of(Kind::Channel, name).cloned(),
                timeout: targets.longest(spec, defaults),
                max_body_bytes: max_body_bytes(spec, defaults),
                targets,
                service_part: spec.is_gateway().then(|| spec.service_part()).flatten(),
                content_type: content_type(spec),
                counts: counts.unwrap_or_default(),
                document: document(name, spec),
                quality: None,
                accept: spec
                    .http_accept
                    .as_deref()
                    .filter(|accept| *accept != "*/*")
                    .and_then(MediaRange::parse),
                spec: spec.clone(),
            };
            match quality {
                Ok(quality) => channel.quality = quality,
                Err(_) if channel.standing == Standing::Inactive => {}
                Err(fault) => channel.standing = Standing::BadSchema(fault),
            }
            let parsed = Pattern::parse(&spec.url_path, spec.match_slash);
            if parsed.is_err() {
                channel.standing = Standing::BadPath;
            }
            let same_path = match &parsed {
                Ok(pattern) if channel.standing != Standing::Inactive => match pattern.exact() {
                    Some(path) => Some(exact.entry(path.into()).or_default()),
                    None => {
                        let at = patterns.iter().position(|(known, _)| known == pattern);
                        let at = at.unwrap_or_else(|| {
                            patterns.push((pattern.clone(), Vec::new()));
                            patterns.len() - 1
                        });
                        patterns.get_mut(at).map(|(_, channels)| channels)
                    }
                },
                Ok(_) | Err(_) => None,
            };
            let Some(same_path) = same_path else {
                table.all.insert(name.clone(), Arc::new(channel));
                continue;
            };
            let twin = same_path.iter().find(|other| {
                other.spec.only_method() == spec.only_method()
                    && other.spec.soap_action == spec.soap_action
                    && other.accept == channel.accept
            });
            if let Some(twin) = twin {
                channel.standing = Standing::HiddenBy(twin.name.clone());
                table.all.insert(name.clone(), Arc::new(channel));
                continue;
            }
            let channel = Arc::new(channel);
            same_path.push(Arc::clone(&channel));
            table.all.insert(name.clone(), channel);
        }
        patterns.sort_by_cached_key(|(pattern, channels)| {
            (pattern.rank(), channels.first().map(|channel| channel.name.clone()))
        });
        table.limits = limits;
        table.all_keys = Gate::of_all(&keys);
        table.keys = keys;
        table.grants = grants;
        table.patterns = patterns;
        table.exact = exact.into_iter().map(|(path, found)| (path, found.into())).collect();
        table
    }

    /// The channel that a request is for.
    pub fn find(&self, path: &[u8], method: HttpMethod, headers: &HeaderMap) -> Option<Found<'_>> {
        if let Some(channels) = self.exact.get(path)
            && let Some(channel) = choose(channels, method, headers)
        {
            return Some(Found { channel, params: Vec::new(), same_path: channels });
        }
        self.patterns.iter().find_map(|(pattern, channels)| {
            let values = pattern.matches(path)?;
            let channel = choose(channels, method, headers)?;
            let params = pattern.names().zip(values).collect();
            Some(Found { channel, params, same_path: channels })
        })
    }

    /// All channels, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.all.values()
    }

    /// One channel.
    pub fn channel(&self, name: &ObjectName) -> Option<&Arc<Channel>> {
        self.all.get(name)
    }
}

/// Among channels of one path, the one that fits best.
fn choose<'t>(
    channels: &'t [Arc<Channel>],
    method: HttpMethod,
    headers: &HeaderMap,
) -> Option<&'t Arc<Channel>> {
    let mut best = None;
    for channel in channels {
        let Some((is_own, has_action)) = channel.takes(method, headers) else { continue };
        let quality = channel.accept.as_ref().map(|accept| accept.quality(headers));
        if quality == Some(0) {
            continue;
        }
        let rank = (is_own, has_action, quality);
        if best.as_ref().is_none_or(|(so_far, _)| rank > *so_far) {
            best = Some((rank, channel));
        }
    }
    best.map(|(_, channel)| channel)
}

fn standing(spec: &ChannelSpec, world: &World) -> Standing {
    if !spec.is_active {
        return Standing::Inactive;
    }
    if let Some(pass) = &spec.pass_through {
        return Onward::fault(spec, pass, world).map_or(Standing::Serving, Standing::NoWay);
    }
    // Which services of a white list there are is seen when a request names one.
    let Some(service) = &spec.service else { return Standing::Serving };
    match world.object(Kind::Service, service).map(|object| &object.spec) {
        Some(Spec::Service(service)) if service.is_active => Standing::Serving,
        Some(Spec::Service(_)) => Standing::ServiceInactive,
        _ => Standing::NotDeployed,
    }
}

/// The service of a channel, or the patterns of its white list, for people.
fn service_name(spec: &ChannelSpec) -> Arc<str> {
    match &spec.service {
        Some(service) => service.as_str().into(),
        None => spec.service_whitelist.join(", ").into(),
    }
}

/// The largest body that a channel takes.
fn max_body_bytes(spec: &ChannelSpec, defaults: Defaults) -> u64 {
    let own = match spec.channel_type {
        ChannelType::Rest | ChannelType::JsonRpc => defaults.max_body_bytes,
        ChannelType::Soap => SOAP_BYTES.min(defaults.max_body_bytes),
        ChannelType::WebSocket => MESSAGE_BYTES.min(defaults.max_body_bytes),
    };
    spec.max_body_bytes.unwrap_or(own)
}

/// What the targets of channels are made from.
struct Planned<'p> {
    world: &'p World,
    limits: &'p Limits,
    grants: &'p Grants,
    defaults: Defaults,
}

impl Planned<'_> {
    /// What a channel invokes.
    fn targets(&self, name: &ObjectName, spec: &ChannelSpec, gate: &Gate) -> Targets {
        if let Some(pass) = &spec.pass_through {
            let timeout = spec.timeout_ms.map_or(self.defaults.timeout, Duration::from_millis);
            let target = Target {
                service: Arc::from(""),
                granted: spec.use_rbac.then(|| self.grants.of_channel(name, "")),
                limit: None,
                timeout,
            };
            return Targets::Onward(Box::new(Onward::of(pass, gate, target)));
        }
        if let Some(service) = &spec.service {
            return Targets::One(self.target(name, spec, service));
        }
        let mut named = HashMap::new();
        for object in self.world.of_kind(Kind::Service) {
            let Spec::Service(service) = &object.spec else { continue };
            let is_listed = spec
                .service_whitelist
                .iter()
                .any(|pattern| fits_pattern(pattern, object.name.as_str()));
            if is_listed && service.is_active {
                let target = self.target(name, spec, &object.name);
                named.insert(Arc::clone(&target.service), target);
            }
        }
        Targets::Named(named)
    }

    fn target(&self, channel: &ObjectName, spec: &ChannelSpec, service: &ObjectName) -> Target {
        let of_service = || match &self.world.object(Kind::Service, service)?.spec {
            Spec::Service(service) => service.timeout_ms,
            _ => None,
        };
        let timeout = spec.timeout_ms.or_else(of_service);
        Target {
            service: service.as_str().into(),
            granted: spec.use_rbac.then(|| self.grants.of_channel(channel, service.as_str())),
            limit: self.limits.of(Kind::Service, service).cloned(),
            timeout: timeout.map_or(self.defaults.timeout, Duration::from_millis),
        }
    }
}

impl Targets {
    /// The longest time that a request may take, before it is known which service it is for.
    fn longest(&self, spec: &ChannelSpec, defaults: Defaults) -> Duration {
        match self {
            Self::One(target) => target.timeout,
            Self::Onward(onward) => onward.target.timeout,
            Self::Named(_) => spec.timeout_ms.map_or(defaults.timeout, Duration::from_millis),
        }
    }

    /// The one service, where it is always the same.
    pub fn one(&self) -> Option<&Target> {
        match self {
            Self::One(target) => Some(target),
            Self::Named(_) | Self::Onward(_) => None,
        }
    }

    /// The service of this name, if requests may reach it.
    pub fn find(&self, service: &str) -> Option<&Target> {
        match self {
            Self::One(target) => (*target.service == *service).then_some(target),
            Self::Named(named) => named.get(service),
            Self::Onward(_) => None,
        }
    }

    fn is_limited(&self) -> bool {
        match self {
            Self::One(target) => target.limit.is_some(),
            Self::Onward(_) => false,
            Self::Named(named) => named.values().any(|target| target.limit.is_some()),
        }
    }
}

fn content_type(spec: &ChannelSpec) -> HeaderValue {
    let configured = spec.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    configured.unwrap_or(match spec.data_format {
        DataFormat::Json => HeaderValue::from_static("application/json"),
        DataFormat::Form
        | DataFormat::Xml
        | DataFormat::Csv
        | DataFormat::Hl7
        | DataFormat::None => HeaderValue::from_static("text/plain"),
    })
}

/// What a call by a channel is, in the words of 3.2.
pub fn word(channel_type: ChannelType) -> &'static str {
    match channel_type {
        ChannelType::Rest | ChannelType::Soap => "http-soap",
        ChannelType::JsonRpc => "json-rpc",
        ChannelType::WebSocket => "web-socket",
    }
}

/// The form of requests and responses, which a protocol may settle.
fn data_format(spec: &ChannelSpec) -> DataFormat {
    match spec.channel_type {
        ChannelType::Rest => spec.data_format,
        ChannelType::JsonRpc | ChannelType::WebSocket => DataFormat::Json,
        ChannelType::Soap => DataFormat::Xml,
    }
}

/// The parts of the `http` document (docs/worker-protocol.md) that are the same for every request.
fn document(name: &ObjectName, spec: &ChannelSpec) -> (Bytes, Bytes) {
    let method = spec.only_method().map_or(".*", HttpMethod::as_str);
    let accept = spec.http_accept.as_deref().unwrap_or("*/*");
    let action = spec.soap_action.as_deref().unwrap_or_default();
    let before = format!(
        "\"channel\":{{\"id\":{},\"name\":{},\"type\":{},\"data_format\":{},\
         \"is_internal\":false,\"match_target\":{},\"security\":",
        stable_id(Kind::Channel, name),
        json!(name),
        json!(word(spec.channel_type)),
        json!(data_format(spec).as_str()),
        json!(format!("{action}:::{method}:::{accept}:::{}", spec.url_path)),
    );
    let behind = format!(
        "}},\"url_params_pri\":\"{}\",\"params_pri\":\"{}\",\"merge_url_params_req\":{}}}",
        spec.url_params_pri.as_str(),
        spec.params_pri.as_str(),
        spec.merge_url_params_req,
    );
    (before.into(), behind.into())
}

impl Channel {
    /// Whether it takes a request with this method and these headers; if so, whether for the method's sake and for
    /// that of the action of SOAP.
    fn takes(&self, method: HttpMethod, headers: &HeaderMap) -> Option<(bool, bool)> {
        let only = self.spec.only_method();
        if self.spec.channel_type == ChannelType::Soap {
            // Its description is asked for by GET, whatever its action; anything else at this path comes first.
            if method == HttpMethod::Get {
                return Some((false, false));
            }
            if let Some(action) = &self.spec.soap_action
                && soap::action(headers) != Some(action)
            {
                return None;
            }
        }
        if only.is_some_and(|only| only != method) {
            return None;
        }
        Some((only.is_some(), self.spec.soap_action.is_some()))
    }

    /// Whether requests reach its service.
    pub fn is_serving(&self) -> bool {
        self.standing == Standing::Serving
    }

    /// Whether any limit may hold for a request.
    pub fn may_be_limited(&self) -> bool {
        self.limit.is_some() || self.targets.is_limited() || self.gate.has_limits()
    }

    /// Whether the limit of a caller's security holds here.
    pub fn checks_caller(&self) -> bool {
        self.spec.rate_limit.as_ref().is_none_or(|limit| limit.check_parent)
    }

    /// How it is.
    pub fn status(&self) -> ChannelStatus {
        ChannelStatus {
            name: self.name.to_string(),
            url_path: self.spec.url_path.clone(),
            channel_type: self.spec.channel_type,
            service: self.service.to_string(),
            outgoing: self.spec.pass_through.as_ref().map(|pass| pass.outgoing.to_string()),
            state: self.state(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            limited: self.counts.limited.load(Ordering::Relaxed),
            connections: self.counts.connections.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> String {
        match &self.standing {
            Standing::Serving if self.gate.is_shut() => {
                format!("nobody can pass: {}", self.gate.faults().join("; "))
            }
            Standing::Serving => "serving".to_owned(),
            Standing::Inactive => "inactive".to_owned(),
            Standing::NotDeployed => "service not deployed".to_owned(),
            Standing::ServiceInactive => "service inactive".to_owned(),
            Standing::HiddenBy(other) => {
                format!("hidden by channel `{other}`, which has the same path, method and Accept")
            }
            Standing::BadSchema(fault) | Standing::NoWay(fault) => fault.clone(),
            Standing::BadPath => {
                format!("path `{}` is not UTF-8 once it is decoded", self.spec.url_path)
            }
        }
    }
}

#[cfg(test)]
mod tests;
