//! Channels: the doors in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quality::check_schema;
use super::{Audit, Broken, ContentEncoding, Cors, Priority, RateLimit, ResponseCache, Rules, yes};
use crate::names::{Kind, ObjectName};

/// A REST channel: requests to its path invoke its service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// The protocol; `rest` in this release.
    #[serde(rename = "type", default)]
    pub channel_type: ChannelType,
    /// The path, starting with `/`; `{name}` stands for a part that the service gets as a parameter.
    pub url_path: String,
    /// The service that is invoked.  It need not be deployed yet; until then the channel answers 404.
    pub service: ObjectName,
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
    /// Largest request body, bytes; default: the core's (64 MiB).
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

impl Rules for ChannelSpec {
    fn check(&self) -> Result<(), Broken> {
        check_path(&self.url_path).map_err(|rule| ("url_path", rule))?;
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
        securities.chain(groups).chain(tiers).collect()
    }
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
