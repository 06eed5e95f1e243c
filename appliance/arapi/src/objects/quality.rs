//! Qualities of channels: what a channel does with requests and answers beside invoking its service.
//!
//! Each is a field of its own of [`super::ChannelSpec`], and absent means that nothing is done.

use std::collections::HashSet;

use http::{HeaderName, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Broken, HttpMethod, yes};

/// How answers are packed where the client takes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentEncoding {
    /// gzip (RFC 1952).
    Gzip,
}

/// Which calls come first where they wait for a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It may take longer: others go first.
    Batch,
}

/// Answers kept for those that ask the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseCache {
    /// Whether answers are kept; default true.
    #[serde(default = "yes")]
    pub is_enabled: bool,
    /// How long an answer is good, seconds, 1 to 2592000; default 60.
    #[serde(default = "minute")]
    pub ttl: u32,
    /// Whether callers get one another's answers; default false: each has its own.
    #[serde(default)]
    pub is_shared_across_callers: bool,
    /// Headers of requests that make a difference to the answer.
    #[serde(default)]
    pub vary_by_headers: Vec<String>,
    /// Parameters of the query that make none.
    #[serde(default)]
    pub ignored_query_parameters: Vec<String>,
}

/// Which pages of other origins may call the channel from a browser (the CORS protocol of the Fetch standard).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins such as `https://app.example.com`, `https://*.example.com` for every name below, or `*` for all.
    pub origins: Vec<String>,
    /// Methods that may be used; default: those that the channel takes.
    #[serde(default)]
    pub methods: Vec<HttpMethod>,
    /// Headers that requests may have beside those that always may; `*`: any.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Headers of answers that pages may read beside those that they always may.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Whether requests may carry cookies, certificates and HTTP authentication; default false.
    #[serde(default)]
    pub allow_credentials: bool,
    /// How long a browser may keep what it was told, seconds, 0 to 86400; default 600.
    #[serde(default = "ten_minutes")]
    pub max_age: u32,
}

/// What is kept of requests and answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Whether requests are kept; default true.
    #[serde(default = "yes")]
    pub is_received_active: bool,
    /// Whether answers are kept; default true.
    #[serde(default = "yes")]
    pub is_sent_active: bool,
    /// How many of each are kept, 1 to 10000; default 50.
    #[serde(default = "fifty")]
    pub max_len_messages: u32,
    /// How much of each body is kept, bytes, 0 to 1000000; default 500.
    #[serde(default = "five_hundred")]
    pub max_bytes_per_message: u32,
    /// Names of fields whose values are not kept, wherever they stand in a JSON document, a form or a query.
    #[serde(default)]
    pub masked_fields: Vec<String>,
    /// Headers whose values are not kept, beside those that carry credentials.
    #[serde(default)]
    pub masked_headers: Vec<String>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            is_received_active: true,
            is_sent_active: true,
            max_len_messages: fifty(),
            max_bytes_per_message: five_hundred(),
            masked_fields: Vec::new(),
            masked_headers: Vec::new(),
        }
    }
}

fn minute() -> u32 {
    60
}

fn ten_minutes() -> u32 {
    600
}

fn fifty() -> u32 {
    50
}

fn five_hundred() -> u32 {
    500
}

impl ResponseCache {
    pub(super) fn check(cache: Option<&Self>) -> Result<(), Broken> {
        let Some(cache) = cache else { return Ok(()) };
        within("response_cache.ttl", cache.ttl, 1, 2_592_000)?;
        names("response_cache.vary_by_headers", &cache.vary_by_headers)
    }
}

impl Cors {
    pub(super) fn check(cors: Option<&Self>) -> Result<(), Broken> {
        let Some(cors) = cors else { return Ok(()) };
        if cors.origins.is_empty() {
            let rule = "there is no origin in it; `https://app.example.com` or `*` was expected";
            return Err(("cors.origins", rule.to_owned()));
        }
        for origin in &cors.origins {
            if !is_origin(origin) {
                let rule = format!(
                    "`{}` is no origin; `https://app.example.com`, `https://*.example.com` or `*` was expected",
                    origin.escape_debug()
                );
                return Err(("cors.origins", rule));
            }
            if origin == "*" && cors.allow_credentials {
                let rule = "browsers take no credentials from a channel that is for every origin; name the origins";
                return Err(("cors.allow_credentials", rule.to_owned()));
            }
        }
        within("cors.max_age", cors.max_age, 0, 86_400)?;
        let headers: Vec<String> =
            cors.headers.iter().filter(|name| *name != "*").cloned().collect();
        names("cors.headers", &headers)?;
        names("cors.expose_headers", &cors.expose_headers)
    }
}

impl Audit {
    pub(super) fn check(audit: Option<&Self>) -> Result<(), Broken> {
        let Some(audit) = audit else { return Ok(()) };
        within("audit.max_len_messages", audit.max_len_messages, 1, 10_000)?;
        within("audit.max_bytes_per_message", audit.max_bytes_per_message, 0, 1_000_000)?;
        names("audit.masked_headers", &audit.masked_headers)
    }
}

/// Largest JSON Schema, as text.
const LARGEST_SCHEMA: usize = 256 * 1024;

/// Checks what can be said of a JSON Schema without an engine for them: that it is one by its form, and that it refers
/// to nothing but itself.
pub(super) fn check_schema(field: &'static str, schema: Option<&Value>) -> Result<(), Broken> {
    let Some(schema) = schema else { return Ok(()) };
    if !schema.is_object() && !schema.is_boolean() {
        return Err((field, "it is no JSON Schema: an object was expected".to_owned()));
    }
    let length = schema.to_string().len();
    if length > LARGEST_SCHEMA {
        return Err((field, format!("{length} bytes are above the {LARGEST_SCHEMA} allowed")));
    }
    match foreign_reference(schema) {
        None => Ok(()),
        Some(found) => Err((
            field,
            format!(
                "`{}` refers to another document, and nothing is fetched; put that into `$defs` and refer to `#/$defs/…`",
                found.escape_debug()
            ),
        )),
    }
}

fn foreign_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| match (name.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => {
                    (!to.starts_with('#')).then_some(to.as_str())
                }
                // What stands in these is data, not schema.
                ("const" | "enum" | "default" | "examples", _) => None,
                (_, value) => foreign_reference(value),
            })
        }
        Value::Array(items) => items.iter().find_map(foreign_reference),
        _ => None,
    }
}

fn is_origin(origin: &str) -> bool {
    if origin == "*" {
        return true;
    }
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let plain = host.strip_prefix("*.").unwrap_or(host);
    let fits = |uri: Uri| {
        uri.path() == "/"
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| authority.as_str() == plain)
    };
    matches!(scheme, "http" | "https")
        && !plain.is_empty()
        && !plain.contains(['*', '@', '/'])
        && origin.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        && format!("{scheme}://{plain}").parse().is_ok_and(fits)
}

fn names(field: &'static str, names: &[String]) -> Result<(), Broken> {
    let mut seen = HashSet::new();
    for name in names {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err((field, format!("`{}` is not the name of a header", name.escape_debug())));
        };
        if !seen.insert(parsed) {
            return Err((field, format!("it has `{name}` twice")));
        }
    }
    Ok(())
}

fn within(field: &'static str, found: u32, least: u32, most: u32) -> Result<(), Broken> {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err((field, format!("{found} is not between {least} and {most}")))
    }
}
