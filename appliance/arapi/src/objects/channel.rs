//! Channels: the doors in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quality::check_schema;
use super::{
    Audit, Broken, ContentEncoding, Cors, PassThrough, Priority, RateLimit, ResponseCache, Rules,
    yes,
};
use crate::names::{Kind, ObjectName};

/// A channel: requests to its path invoke a service, or are passed on to an outgoing connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// The protocol; default `rest`.
    #[serde(rename = "type", default)]
    pub channel_type: ChannelType,
    /// The path, starting with `/`; `{name}` stands for a part that the service gets as a parameter.
    pub url_path: String,
    /// The service that is invoked.  It need not be deployed yet; until then the channel answers 404.
    /// Not for channels whose requests name the service, which have `service_whitelist` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectName>,
    /// The services that a request may name, as patterns in which `*` stands for any text: by the part
    /// `{service_name}` of a REST channel's path, by the method of a JSON-RPC request, by the element `service` of a
    /// message to a WebSocket channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_whitelist: Vec<String>,
    /// The outgoing connection that requests are passed on to, instead of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_through: Option<PassThrough>,
    /// Whether the channel answers; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// The one method it takes; absent: every method allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// What the `Accept` header must admit, for example `application/json`; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_accept: Option<String>,
    /// The form of requests and responses; default `none`.
    #[serde(default)]
    pub data_format: DataFormat,
    /// Whether a `{name}` of the path may also stand for text with slashes in it; default true.
    #[serde(default = "yes")]
    pub match_slash: bool,
    /// Whether parameters of path and query are merged into the service's input; default true.
    #[serde(default = "yes")]
    pub merge_url_params_req: bool,
    /// Which wins where the query and the path have the same parameter.
    #[serde(default)]
    pub url_params_pri: UrlParamsPriority,
    /// Which wins where parameters and the message have the same element.
    #[serde(default)]
    pub params_pri: ParamsPriority,
    /// Securities of which a caller must satisfy one; empty (and no groups): open to all.
    #[serde(default)]
    pub security: Vec<ObjectName>,
    /// Groups of which a caller must satisfy one member.
    #[serde(default)]
    pub security_groups: Vec<ObjectName>,
    /// Longest time for one request, milliseconds, 1 to 3600000; default: the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The `Content-Type` of responses where the service sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Largest request body, bytes; default: the core's (64 MiB), for SOAP 8 MiB, for a message of a WebSocket 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// How much may come in by this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Whether a caller needs a grant (kind `Grant`) beside its credentials; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_rbac: bool,
    /// How answers are packed where the client takes that; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<ContentEncoding>,
    /// Answers to GET and HEAD that are kept for those that ask the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_cache: Option<ResponseCache>,
    /// Which pages of other origins may call it from a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// The JSON Schema that requests have to satisfy; needs `data_format: json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_schema: Option<serde_json::Value>,
    /// The JSON Schema that answers have to satisfy; needs `data_format: json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<serde_json::Value>,
    /// What is kept of requests and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Whether its calls go before others or after them where they wait for a worker; default `interactive`.
    #[serde(default, skip_serializing_if = "is_interactive")]
    pub priority: Priority,
    /// SOAP: the action a request must have; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soap_action: Option<String>,
    /// SOAP: the one version it takes, `1.1` or `1.2`; absent: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soap_version: Option<SoapVersion>,
    /// SOAP: whether `GET` of its path with `?wsdl` gives its description; default true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub serve_wsdl: bool,
    /// WebSocket: seconds in which a client has to create its session, 1 to 300; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_token_wait_time: Option<u32>,
    /// WebSocket: seconds after which the session of a silent client ends, 1 to 31536000; default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<u32>,
    /// WebSocket: seconds between two pings, 1 to 240; default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_interval: Option<u32>,
    /// WebSocket: how many pings in a row a client may leave unanswered, 1 to 100; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pings_missed_threshold: Option<u32>,
    /// WebSocket: the service, a `WSXHook`, that is told of clients that come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_service: Option<ObjectName>,
    /// WebSocket: most clients at one time on one box, 1 to 100000; default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

fn is_interactive(priority: &Priority) -> bool {
    *priority == Priority::Interactive
}

/// The protocols of channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelType {
    /// HTTP.
    #[default]
    Rest,
    /// JSON-RPC 2.0 over HTTP: the method is the service's name.
    JsonRpc,
    /// SOAP 1.1 and 1.2 over HTTP.
    Soap,
    /// WebSocket, with the messages of 3.2.
    WebSocket,
}

impl ChannelType {
    /// The word that is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::JsonRpc => "json_rpc",
            Self::Soap => "soap",
            Self::WebSocket => "web_socket",
        }
    }

    /// Whether each request is one of HTTP.
    pub fn is_http(self) -> bool {
        self != Self::WebSocket
    }

    /// The one method by which it takes requests, if that is not the admin's choice.
    pub fn own_method(self) -> Option<HttpMethod> {
        match self {
            Self::Rest => None,
            Self::JsonRpc | Self::Soap => Some(HttpMethod::Post),
            Self::WebSocket => Some(HttpMethod::Get),
        }
    }
}

/// The versions of SOAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Version")]
pub enum SoapVersion {
    /// SOAP 1.1.
    #[serde(rename = "1.1")]
    V11,
    /// SOAP 1.2.
    #[serde(rename = "1.2")]
    V12,
}

/// A version as people write it: YAML takes `1.1` without quotes for a number.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Version {
    Text(String),
    Number(serde_json::Number),
}

impl TryFrom<Version> for SoapVersion {
    type Error = String;

    fn try_from(written: Version) -> Result<Self, String> {
        let text = match written {
            Version::Text(text) => text,
            Version::Number(number) => number.to_string(),
        };
        match text.as_str() {
            "1.1" => Ok(Self::V11),
            "1.2" => Ok(Self::V12),
            other => Err(format!("`{}` is neither 1.1 nor 1.2", other.escape_debug())),
        }
    }
}

/// The form of requests and responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// JSON (RFC 8259) both ways.
    Json,
    /// `application/x-www-form-urlencoded` in, JSON out.
    #[serde(alias = "post")]
    Form,
    /// XML: services get the document as an object tree.
    Xml,
    /// Comma-separated values: services get rows.
    Csv,
    /// HL7 version 2, passed through as text.
    Hl7,
    /// Bytes as they are.
    #[default]
    None,
}

impl DataFormat {
    /// The word services see: `json`, `form`, `xml`, `csv`, `hl7`, or nothing.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
            Self::Xml => "xml",
            Self::Csv => "csv",
            Self::Hl7 => "hl7",
            Self::None => "",
        }
    }
}

/// The methods a channel can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the methods of RFC 9110 and RFC 5789 by their names")]
pub enum HttpMethod {
    Get,
    Post,
    Delete,
    Put,
    Patch,
    Head,
    Options,
}

impl HttpMethod {
    /// Every method allowed.
    pub const ALL: &[Self] =
        &[Self::Get, Self::Post, Self::Delete, Self::Put, Self::Patch, Self::Head, Self::Options];

    /// The method as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}

/// Which wins where the query and the path have the same parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UrlParamsPriority {
    /// The query.
    #[default]
    QsOverPath,
    /// The path.
    PathOverQs,
}

impl UrlParamsPriority {
    /// The word of 3.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QsOverPath => "qs-over-path",
            Self::PathOverQs => "path-over-qs",
        }
    }
}

/// Which wins where parameters and the message have the same element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParamsPriority {
    /// The parameters.
    #[default]
    ChannelParamsOverMsg,
    /// The message.
    MsgOverChannelParams,
}

impl ParamsPriority {
    /// The word of 3.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChannelParamsOverMsg => "channel-params-over-msg",
            Self::MsgOverChannelParams => "msg-over-channel-params",
        }
    }
}

impl ChannelSpec {
    /// The parts of a REST channel's path that can name the service.
    pub const SERVICE_PARTS: [&str; 2] = ["service_name", "service"];

    /// Whether requests name the service.
    pub fn is_gateway(&self) -> bool {
        !self.service_whitelist.is_empty()
    }

    /// The one method it takes, if there is one.
    pub fn only_method(&self) -> Option<HttpMethod> {
        self.channel_type.own_method().or(self.method)
    }

    /// The part of the path that names the service.
    pub fn service_part(&self) -> Option<&'static str> {
        let has = |part: &&'static str| self.url_path.contains(&format!("{{{part}}}"));
        Self::SERVICE_PARTS.into_iter().find(has)
    }

    /// Whether there is one service, or a list of them, as the protocol wants it.
    fn check_service(&self) -> Result<(), Broken> {
        let word = self.channel_type.as_str();
        super::access::check_patterns("service_whitelist", &self.service_whitelist)?;
        if self.pass_through.is_some() {
            return PassThrough::check(self);
        }
        match (self.channel_type, &self.service, self.is_gateway()) {
            (ChannelType::JsonRpc, Some(_), _) => Err((
                "service",
                "requests of JSON-RPC name the service; list those they may name in `service_whitelist`".to_owned(),
            )),
            (ChannelType::JsonRpc, None, false) => Err((
                "service_whitelist",
                "it is empty; the services that requests may name were expected".to_owned(),
            )),
            (ChannelType::Soap, _, true) => {
                Err(("service_whitelist", format!("a channel of type `{word}` has one `service`")))
            }
            (_, Some(_), true) => Err((
                "service",
                "`service` and `service_whitelist` exclude each other: requests name the service, or do not".to_owned(),
            )),
            (_, None, false) => Err((
                "service",
                "it is missing; the name of the service that requests invoke was expected".to_owned(),
            )),
            (ChannelType::Rest, None, true) if self.service_part().is_none() => Err((
                "url_path",
                format!(
                    "`{}` has no `{{service_name}}`, by which a request names one of `service_whitelist`",
                    self.url_path
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Whether every field belongs to the protocol.
    fn check_protocol(&self) -> Result<(), Broken> {
        let kind = self.channel_type;
        let only = |field: &'static str, is_set: bool, of: ChannelType| {
            if !is_set || kind == of {
                return Ok(());
            }
            let rule = format!(
                "only channels of type `{}` have it, and this is `{}`",
                of.as_str(),
                kind.as_str()
            );
            Err((field, rule))
        };
        only("soap_action", self.soap_action.is_some(), ChannelType::Soap)?;
        only("soap_version", self.soap_version.is_some(), ChannelType::Soap)?;
        only("serve_wsdl", !self.serve_wsdl, ChannelType::Soap)?;
        only("new_token_wait_time", self.new_token_wait_time.is_some(), ChannelType::WebSocket)?;
        only("token_ttl", self.token_ttl.is_some(), ChannelType::WebSocket)?;
        only("ping_interval", self.ping_interval.is_some(), ChannelType::WebSocket)?;
        only(
            "pings_missed_threshold",
            self.pings_missed_threshold.is_some(),
            ChannelType::WebSocket,
        )?;
        only("hook_service", self.hook_service.is_some(), ChannelType::WebSocket)?;
        only("max_connections", self.max_connections.is_some(), ChannelType::WebSocket)?;
        only("response_cache", self.response_cache.is_some(), ChannelType::Rest)?;
        only("request_schema", self.request_schema.is_some(), ChannelType::Rest)?;
        only("response_schema", self.response_schema.is_some(), ChannelType::Rest)?;
        if let (Some(own), Some(method)) = (kind.own_method(), self.method)
            && own != method
        {
            let rule = format!("a channel of type `{}` takes {} only", kind.as_str(), own.as_str());
            return Err(("method", rule));
        }
        for (field, is_set) in
            [("audit", self.audit.is_some()), ("content_encoding", self.content_encoding.is_some())]
        {
            if is_set && kind == ChannelType::WebSocket {
                let rule = "messages of WebSockets are neither kept nor packed; leave it out";
                return Err((field, rule.to_owned()));
            }
        }
        let fits = match kind {
            ChannelType::Rest => true,
            ChannelType::JsonRpc | ChannelType::WebSocket => {
                matches!(self.data_format, DataFormat::None | DataFormat::Json)
            }
            ChannelType::Soap => matches!(self.data_format, DataFormat::None | DataFormat::Xml),
        };
        if !fits {
            let rule = format!(
                "a channel of type `{}` has a format of its own; leave it out",
                kind.as_str()
            );
            return Err(("data_format", rule));
        }
        if let Some(action) = &self.soap_action
            && (action.is_empty() || action.chars().any(|c| c.is_control() || c == '"'))
        {
            return Err((
                "soap_action",
                format!(
                    "`{}` is no action: text without quotes was expected",
                    action.escape_debug()
                ),
            ));
        }
        let within = |field: &'static str, value: Option<u32>, low: u32, high: u32| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err((field, format!("{value} is not between {low} and {high}")))
            }
            _ => Ok(()),
        };
        within("new_token_wait_time", self.new_token_wait_time, 1, 300)?;
        within("token_ttl", self.token_ttl, 1, 31_536_000)?;
        within("ping_interval", self.ping_interval, 1, 240)?;
        within("pings_missed_threshold", self.pings_missed_threshold, 1, 100)?;
        within("max_connections", self.max_connections, 1, 100_000)
    }
}

impl Rules for ChannelSpec {
    fn check(&self) -> Result<(), Broken> {
        check_path(&self.url_path).map_err(|rule| ("url_path", rule))?;
        self.check_service()?;
        self.check_protocol()?;
        if let Some(ms) = self.timeout_ms
            && !(1..=3_600_000).contains(&ms)
        {
            return Err(("timeout_ms", format!("{ms} is not between 1 and 3600000")));
        }
        if let Some(content_type) = &self.content_type
            && http::HeaderValue::from_str(content_type).is_err()
        {
            return Err(("content_type", "it is not the value of an HTTP header".to_owned()));
        }
        if let Some(accept) = &self.http_accept
            && !accept.contains('/')
        {
            return Err((
                "http_accept",
                format!(
                    "`{}` is not a media type such as `application/json`",
                    accept.escape_debug()
                ),
            ));
        }
        if self.use_rbac && self.security.is_empty() && self.security_groups.is_empty() {
            return Err((
                "use_rbac",
                "a channel that asks for no credentials cannot know whom something was granted to"
                    .to_owned(),
            ));
        }
        ResponseCache::check(self.response_cache.as_ref())?;
        Cors::check(self.cors.as_ref())?;
        Audit::check(self.audit.as_ref())?;
        for (field, schema) in
            [("request_schema", &self.request_schema), ("response_schema", &self.response_schema)]
        {
            if schema.is_some() && self.data_format != DataFormat::Json {
                return Err((
                    field,
                    "only channels of `data_format: json` have schemas".to_owned(),
                ));
            }
            check_schema(field, schema.as_ref())?;
        }
        RateLimit::check(self.rate_limit.as_ref())
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        let securities = self.security.iter().map(|name| (Kind::Security, name));
        let groups = self.security_groups.iter().map(|name| (Kind::SecurityGroup, name));
        let tiers = RateLimit::references(self.rate_limit.as_ref());
        let passed = self.pass_through.iter().map(|pass| (Kind::Outgoing, &pass.outgoing));
        securities.chain(groups).chain(tiers).chain(passed).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip by reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Checks a path pattern: it starts with `/`, and braces hold a name each.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("`{}` does not start with `/`", path.escape_debug()));
    }
    if path.chars().any(|c| c.is_control() || c == ' ' || c == '?' || c == '#') {
        return Err(format!(
            "`{}` has a blank, `?`, `#` or a control character",
            path.escape_debug()
        ));
    }
    let mut rest = path;
    let mut seen: Vec<&str> = Vec::new();
    while let Some((before, after)) = rest.split_once('{') {
        let fits = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        match after.split_once('}') {
            Some((name, tail)) if fits(name) && !before.contains('}') => {
                if seen.contains(&name) {
                    return Err(format!("`{path}` has the parameter `{name}` twice"));
                }
                seen.push(name);
                rest = tail;
            }
            _ => {
                return Err(format!(
                    "`{path}` has a brace that is no parameter: `{{name}}` with letters, digits, `-` or `_` was expected"
                ));
            }
        }
    }
    if rest.contains('}') { Err(format!("`{path}` has a `}}` without its `{{`")) } else { Ok(()) }
}
