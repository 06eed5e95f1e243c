//! Channels that speak another protocol than plain REST: SOAP, JSON-RPC, WebSocket.

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::channel;
use super::document::Entry;
use super::fields::{Fields, Refused};
use super::limits;
use super::plan::{Draft, Made};

/// What is in every export of such a channel and means nothing here, as the protocol decides it.
const DECIDED: &[&str] = &[
    "content_type",
    "data_encoding",
    "data_format",
    "host",
    "http_accept",
    "hl7_version",
    "merge_url_params_req",
    "method",
    "params_pri",
    "ping_method",
    "pool_size",
    "sec_tls_ca_cert_id",
    "serialization_type",
    "timeout",
    "url_params_pri",
];

/// A SOAP channel.
pub(super) fn soap(
    draft: &Draft<'_>,
    entry: &Entry,
    fields: &mut Fields<'_>,
) -> Result<Made, Refused> {
    let mut spec = Map::from_iter([("type".to_owned(), json!("soap"))]);
    spec.insert("url_path".to_owned(), fields.needed(&["url_path"])?.into());
    spec.insert("service".to_owned(), channel::service(fields)?.into());
    if let Some(action) = fields.text(&["soap_action"])? {
        spec.insert("soap_action".to_owned(), action.trim_matches('"').into());
    }
    match fields.text(&["soap_version"])?.as_deref() {
        None => {}
        Some(version @ ("1.1" | "1.2")) => {
            spec.insert("soap_version".to_owned(), version.into());
        }
        Some(other) => {
            return Err(Refused::fault(format!("`{other}` is no version of SOAP: 1.1 or 1.2")));
        }
    }
    if let Some(flag) = fields.flag(&["match_slash"])? {
        spec.insert("match_slash".to_owned(), flag.into());
    }
    over_http(draft, entry, fields, spec)
}

/// A JSON-RPC channel.
pub(super) fn json_rpc(
    draft: &Draft<'_>,
    entry: &Entry,
    fields: &mut Fields<'_>,
) -> Result<Made, Refused> {
    let mut spec = Map::from_iter([("type".to_owned(), json!("json_rpc"))]);
    spec.insert("url_path".to_owned(), fields.needed(&["url_path"])?.into());
    let services = fields.texts(channel::SERVICES)?;
    if services.is_empty() {
        return Err(Refused::new(
            "it names no services that requests may name",
            "list them in `service_whitelist`",
        ));
    }
    spec.insert("service_whitelist".to_owned(), services.into());
    fields.pass_over(&["service", "service_name", "soap_action", "soap_version", "match_slash"]);
    over_http(draft, entry, fields, spec)
}

/// What channels over HTTP have in common beside path and service.
fn over_http(
    draft: &Draft<'_>,
    entry: &Entry,
    fields: &mut Fields<'_>,
    mut spec: Map<String, Value>,
) -> Result<Made, Refused> {
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    if let Some(flag) = fields.flag(&["is_active"])? {
        set("is_active", flag.into());
    }
    if let Some(limit) = limits::limit(draft, fields)? {
        set("rate_limit", limit);
    }
    if fields.raw(&["cache_id", "cache_name", "response_cache"]).is_some() {
        fields.note("answers are kept for REST channels only, so its cache is left out");
    }
    fields.pass_over(&["cache_expiry"]);
    channel::qualities(fields, &mut set)?;
    channel::credentials(draft, entry, fields, &mut set)?;
    fields.pass_over(DECIDED);
    Ok(Made::new(Kind::Channel, spec.into()))
}

/// A WebSocket channel.
pub(super) fn web_socket(
    draft: &Draft<'_>,
    entry: &Entry,
    fields: &mut Fields<'_>,
) -> Result<Made, Refused> {
    let mut spec = Map::from_iter([("type".to_owned(), json!("web_socket"))]);
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    set("url_path", path(fields)?.into());
    set("service", channel::service(fields)?.into());
    if let Some(flag) = fields.flag(&["is_active"])? {
        set("is_active", flag.into());
    }
    for (field, highest) in [
        ("new_token_wait_time", 300),
        ("token_ttl", 31_536_000),
        ("ping_interval", 240),
        ("pings_missed_threshold", 100),
    ] {
        let Some(given) = fields.number(&[field])? else { continue };
        let taken = given.clamp(1, highest);
        if taken != given {
            fields.note(format!("`{field}` is {taken}, as {given} is not between 1 and {highest}"));
        }
        set(field, taken.into());
    }
    if let Some(hook) = fields.text(&["hook_service", "hook_service_name"])? {
        set("hook_service", hook.into());
    }
    if let Some(limit) = limits::limit(draft, fields)? {
        set("rate_limit", limit);
    }
    let mut is_audited = false;
    for flag in ["is_audit_log_active", "is_audit_log_received_active", "is_audit_log_sent_active"]
    {
        is_audited |= fields.flag(&[flag])? == Some(true);
    }
    if is_audited {
        fields.note("messages of WebSockets are not kept");
    }
    channel::credentials(draft, entry, fields, &mut set)?;
    fields.pass_over(DECIDED);
    fields.pass_over(&[
        "is_internal",
        "is_out",
        "max_bytes_per_message_received",
        "max_bytes_per_message_sent",
        "max_len_messages_received",
        "max_len_messages_sent",
        "token_format",
    ]);
    Ok(Made::new(Kind::Channel, spec.into()))
}

/// The path of an address such as `ws://0.0.0.0:48902/orders`.
fn path(fields: &mut Fields<'_>) -> Result<String, Refused> {
    let address = fields.needed(&["address", "url_path"])?;
    let Some((_, behind)) = address.split_once("://") else {
        return if address.starts_with('/') {
            Ok(address)
        } else {
            Err(Refused::fault(format!(
                "`{address}` is no address such as `ws://0.0.0.0:48902/orders`"
            )))
        };
    };
    let (server, path) = behind.split_at(behind.find('/').unwrap_or(behind.len()));
    fields.note(format!(
        "its clients connect to the port of all channels, 11223 or that of HTTPS, and no more to `{server}`"
    ));
    Ok(if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}
