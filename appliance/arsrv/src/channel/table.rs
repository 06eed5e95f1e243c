//! The table of channels that requests are matched against.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arapi::arsrv::ChannelStatus;
use arapi::names::{Kind, ObjectName};
use arapi::objects::{ChannelSpec, DataFormat, HttpMethod, SecretText, Spec};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::accept::MediaRange;
use super::pattern::Pattern;
use super::quality::Quality;
use super::stable_id;
use crate::limits::{Limiter, Limits};
use crate::security::attempts::Attempts;
use crate::security::grants::{Granted, Grants};
use crate::security::{Gate, Keys, Shared};
use crate::world::World;

/// The security that deployments from editors need.
pub const IDE_PUBLISHER: &str = "ide_publisher";

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
    /// The service.
    pub service: Arc<str>,
    /// Whether its service answers.
    pub standing: Standing,
    /// Who may pass.
    pub gate: Gate,
    /// Where a caller needs a grant: those that fit.
    pub granted: Option<Granted>,
    /// How much may come in by it.
    pub limit: Option<Arc<Limiter>>,
    /// How often its service may be invoked.
    pub service_limit: Option<Arc<Limiter>>,
    /// Longest time for one request.
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

/// What a channel has done since the core's start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests.
    pub calls: AtomicU64,
    /// Answers of 500 and above.
    pub failures: AtomicU64,
    /// Requests above a rate limit: its own, its service's or its caller's.
    pub limited: AtomicU64,
    /// Failed attempts to pass its gate.
    pub attempts: Attempts,
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
}

/// The channel that a request is for, with the path's parameters.
#[derive(Debug)]
pub struct Found<'t> {
    /// The channel.
    pub channel: &'t Arc<Channel>,
    /// Names and values of the parameters.
    pub params: Vec<(&'t str, String)>,
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
            let mut channel = Channel {
                name: name.clone(),
                service: spec.service.as_str().into(),
                standing: standing(spec, world),
                gate,
                granted: spec.use_rbac.then(|| grants.of_channel(name, spec.service.as_str())),
                limit: limits.of(Kind::Channel, name).cloned(),
                service_limit: limits.of(Kind::Service, &spec.service).cloned(),
                timeout: timeout(spec, world, defaults.timeout),
                max_body_bytes: spec.max_body_bytes.unwrap_or(defaults.max_body_bytes),
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
            let twin = same_path
                .iter()
                .find(|other| other.spec.method == spec.method && other.accept == channel.accept);
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
            return Some(Found { channel, params: Vec::new() });
        }
        self.patterns.iter().find_map(|(pattern, channels)| {
            let values = pattern.matches(path)?;
            let channel = choose(channels, method, headers)?;
            Some(Found { channel, params: pattern.names().zip(values).collect() })
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
        if channel.spec.method.is_some_and(|only| only != method) {
            continue;
        }
        let quality = channel.accept.as_ref().map(|accept| accept.quality(headers));
        if quality == Some(0) {
            continue;
        }
        let rank = (channel.spec.method.is_some(), quality);
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
    match world.object(Kind::Service, &spec.service).map(|object| &object.spec) {
        Some(Spec::Service(service)) if service.is_active => Standing::Serving,
        Some(Spec::Service(_)) => Standing::ServiceInactive,
        _ => Standing::NotDeployed,
    }
}

fn timeout(spec: &ChannelSpec, world: &World, default: Duration) -> Duration {
    let of_service = || match &world.object(Kind::Service, &spec.service)?.spec {
        Spec::Service(service) => service.timeout_ms,
        _ => None,
    };
    spec.timeout_ms.or_else(of_service).map_or(default, Duration::from_millis)
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

/// The parts of the `http` document (docs/worker-protocol.md) that are the same for every request.
fn document(name: &ObjectName, spec: &ChannelSpec) -> (Bytes, Bytes) {
    let method = spec.method.map_or(".*", HttpMethod::as_str);
    let accept = spec.http_accept.as_deref().unwrap_or("*/*");
    let before = format!(
        "\"channel\":{{\"id\":{},\"name\":{},\"type\":\"http-soap\",\"data_format\":{},\
         \"is_internal\":false,\"match_target\":{},\"security\":",
        stable_id(Kind::Channel, name),
        json!(name),
        json!(spec.data_format.as_str()),
        json!(format!(":::{method}:::{accept}:::{}", spec.url_path)),
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
    /// Whether requests reach its service.
    pub fn is_serving(&self) -> bool {
        self.standing == Standing::Serving
    }

    /// Whether any limit may hold for a request.
    pub fn may_be_limited(&self) -> bool {
        self.limit.is_some() || self.service_limit.is_some() || self.gate.has_limits()
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
            service: self.service.to_string(),
            state: self.state(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            limited: self.counts.limited.load(Ordering::Relaxed),
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
            Standing::BadSchema(fault) => fault.clone(),
            Standing::BadPath => {
                format!("path `{}` is not UTF-8 once it is decoded", self.spec.url_path)
            }
        }
    }
}

#[cfg(test)]
mod tests;
