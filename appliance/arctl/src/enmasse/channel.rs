//! Channels.
//!
//! **Invariant:** a channel is only made with the credentials it had; without them it is not made at all.

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::document::Entry;
use super::fields::{Fields, Refused, is_same};
use super::plan::{Draft, Made};
use super::{grants, limits, protocol};

/// How exports name a channel's or connection's credentials.
pub(super) const SECURITY: &[&str] = &["security", "sec_def", "security_name", "security_def"];
/// How exports name the services that a request may name.
pub(super) const SERVICES: &[&str] =
    &["service_whitelist", "service_list", "gateway_service_list", "gateway_services"];
/// What stands there for none.
const NO_SECURITY: &[&str] =
    &["zato-no-security", "zato_none", "zato-none", "zato_no_security", "no-security", "none"];
/// What stands there for "whoever has a role".
const BY_ROLE: &[&str] = &["zato_sec_use_rbac", "zato-sec-use-rbac"];

/// What an entry is about, as far as HTTP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    RestChannel,
    SoapChannel,
    RestOut,
    SoapOut,
}

/// What a section and the fields of an entry say it is.
pub(super) fn http(entry: &Entry) -> Option<Http> {
    let says =
        |field: &str, value: &str| entry.fields.get(field).and_then(Value::as_str) == Some(value);
    Some(match entry.section.as_str() {
        "channel_plain_http" | "channel_rest" => Http::RestChannel,
        "channel_soap" => Http::SoapChannel,
        "outconn_plain_http" | "outgoing_rest" => Http::RestOut,
        "outconn_soap" | "outgoing_soap" => Http::SoapOut,
        "http_soap" => match (says("connection", "outgoing"), says("transport", "soap")) {
            (false, false) => Http::RestChannel,
            (false, true) => Http::SoapChannel,
            (true, false) => Http::RestOut,
            (true, true) => Http::SoapOut,
        },
        _ => return None,
    })
}

/// The named credentials; None: none.
pub(super) fn security_name(fields: &mut Fields<'_>) -> Result<Option<String>, Refused> {
    let name = fields.text(SECURITY)?;
    Ok(name.filter(|name| !NO_SECURITY.contains(&name.to_ascii_lowercase().as_str())))
}

/// Channels.
pub(super) fn channels(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        match (entry.section.as_str(), http(entry)) {
            (_, Some(Http::RestChannel)) => {
                draft.each(index, entry, |draft, fields| rest(draft, entry, fields));
            }
            (_, Some(Http::SoapChannel)) => {
                draft.each(index, entry, |draft, fields| protocol::soap(draft, entry, fields));
            }
            ("json_rpc" | "channel_json_rpc", _) => {
                draft.each(index, entry, |draft, fields| protocol::json_rpc(draft, entry, fields));
            }
            ("web_socket" | "channel_web_socket" | "channel_wsx", _) => {
                draft
                    .each(index, entry, |draft, fields| protocol::web_socket(draft, entry, fields));
            }
            _ => {}
        }
    }
}

fn rest(draft: &Draft<'_>, entry: &Entry, fields: &mut Fields<'_>) -> Result<Made, Refused> {
    let mut spec = Map::new();
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    set("url_path", fields.needed(&["url_path"])?.into());
    match gateway(fields)? {
        Some(services) => set("service_whitelist", services.into()),
        None => set("service", service(fields)?.into()),
    }
    for (field, names) in [
        ("is_active", &["is_active"][..]),
        ("match_slash", &["match_slash"]),
        ("merge_url_params_req", &["merge_url_params_req"]),
    ] {
        if let Some(flag) = fields.flag(names)? {
            set(field, flag.into());
        }
    }
    for (field, names) in [
        ("url_params_pri", &["url_params_pri"][..]),
        ("params_pri", &["params_pri"]),
        ("content_type", &["content_type"]),
    ] {
        if let Some(text) = fields.text(names)? {
            set(field, text.into());
        }
    }
    if let Some(method) = fields.text(&["method"])?
        && !method.eq_ignore_ascii_case("any")
    {
        set("method", method.trim().to_ascii_uppercase().into());
    }
    if let Some(accept) = fields.text(&["http_accept"])?
        && accept != "*/*"
    {
        set("http_accept", accept.into());
    }
    let format = fields.text(&["data_format"])?.unwrap_or_default().to_ascii_lowercase();
    let format = match format.as_str() {
        "json" | "csv" | "xml" => format,
        "form" | "post" => "form".to_owned(),
        "hl7" | "hl7-v2" => "hl7".to_owned(),
        "" | "none" => "none".to_owned(),
        other => {
            fields.note(format!(
                "data format `{other}` is not here, so the service gets bytes as they are"
            ));
            "none".to_owned()
        }
    };
    set("data_format", format.into());
    if let Some(limit) = limits::limit(draft, fields)? {
        set("rate_limit", limit);
    }
    qualities(fields, &mut set)?;
    cached(fields, &mut set)?;
    credentials(draft, entry, fields, &mut set)?;
    // What only the other kinds of connection have, and what is always in an export and says nothing.
    fields.pass_over(&[
        "host",
        "ping_method",
        "pool_size",
        "soap_action",
        "soap_version",
        "serialization_type",
        "timeout",
        "sec_tls_ca_cert_id",
        "hl7_version",
        "data_encoding",
    ]);
    Ok(Made::new(Kind::Channel, spec.into()))
}

/// The services that a request may name, where the channel is a gateway.
fn gateway(fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, Refused> {
    let services = fields.texts(SERVICES)?;
    if services.is_empty() {
        return Ok(None);
    }
    let path = fields.needed(&["url_path"])?;
    if !path.contains("{service_name}") {
        return Err(Refused::new(
            format!("its requests name the service, but `{path}` has no `{{service_name}}`"),
            "let its callers name the service in the path, and put `{service_name}` there",
        ));
    }
    fields.pass_over(&["service", "service_name"]);
    Ok(Some(services))
}

/// What the channel does beside invoking its service.
pub(super) fn qualities(
    fields: &mut Fields<'_>,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Refused> {
    match fields.text(&["content_encoding"])?.as_deref() {
        None => {}
        Some("gzip") => set("content_encoding", "gzip".into()),
        Some(other) => fields.note(format!("answers are not packed by `{other}`")),
    }
    let both = fields.flag(&["is_audit_log_active"])? == Some(true);
    let received = fields.flag(&["is_audit_log_received_active"])? == Some(true) || both;
    let sent = fields.flag(&["is_audit_log_sent_active"])? == Some(true) || both;
    let mut most = |names: [&'static str; 2]| -> Result<Option<u64>, Refused> {
        let [one, other] = names;
        Ok(fields.number(&[one])?.max(fields.number(&[other])?))
    };
    let messages = most(["max_len_messages_received", "max_len_messages_sent"])?;
    let bytes = most(["max_bytes_per_message_received", "max_bytes_per_message_sent"])?;
    if received || sent {
        let mut audit = Map::from_iter([
            ("is_received_active".to_owned(), received.into()),
            ("is_sent_active".to_owned(), sent.into()),
        ]);
        if let Some(messages) = messages {
            audit.insert("max_len_messages".to_owned(), messages.clamp(1, 10_000).into());
        }
        if let Some(bytes) = bytes {
            audit.insert("max_bytes_per_message".to_owned(), bytes.min(1_000_000).into());
        }
        set("audit", audit.into());
    }
    Ok(())
}

/// Which answers it keeps.
fn cached(fields: &mut Fields<'_>, set: &mut impl FnMut(&str, Value)) -> Result<(), Refused> {
    // The number that Zato gives a cache and its name say that there is one.
    let has_cache = fields.raw(&["cache_id", "cache_name"]).is_some();
    let expiry = fields.number(&["cache_expiry"])?;
    match fields.raw(&["response_cache"]) {
        Some(Value::Object(cache)) => set("response_cache", response_cache(cache)?),
        Some(_) => return Err(Refused::fault("field `response_cache` is no map")),
        None if has_cache => {
            fields.note("answers are kept for GET and HEAD only, and for each caller its own");
            let ttl = expiry.filter(|ttl| *ttl > 0).unwrap_or(LONGEST_CACHE).min(LONGEST_CACHE);
            set("response_cache", json!({"ttl": ttl}));
        }
        None => {}
    }
    Ok(())
}

/// Longest time that an answer is kept, seconds.
const LONGEST_CACHE: u64 = 2_592_000;

/// The response cache of 4.1.
fn response_cache(cache: &Map<String, Value>) -> Result<Value, Refused> {
    let mut made = Map::new();
    for field in
        ["is_enabled", "is_shared_across_callers", "vary_by_headers", "ignored_query_parameters"]
    {
        if let Some(value) = cache.get(field).filter(|value| !value.is_null()) {
            made.insert(field.to_owned(), value.clone());
        }
    }
    let env = super::fields::Env::new();
    let mut fields = Fields::new(cache, &env);
    let unit = match fields.text(&["ttl_unit"])?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "s" | "second" | "seconds" => 1,
        "m" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        other => {
            return Err(Refused::fault(format!("`{other}` is no unit of `response_cache.ttl`")));
        }
    };
    if let Some(ttl) = fields.number(&["ttl"])? {
        made.insert("ttl".to_owned(), ttl.saturating_mul(unit).clamp(1, LONGEST_CACHE).into());
    }
    Ok(made.into())
}

/// What is asked of callers.
pub(super) fn credentials(
    draft: &Draft<'_>,
    entry: &Entry,
    fields: &mut Fields<'_>,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Refused> {
    let by_rbac = fields.flag(&["sec_use_rbac"])?.or(None);
    let has_rbac = fields.flag(&["has_rbac"])?;
    let mut by_rbac = by_rbac == Some(true) || has_rbac == Some(true);
    let mut securities = Vec::new();
    if let Some(name) = security_name(fields)? {
        if BY_ROLE.contains(&name.to_ascii_lowercase().as_str()) {
            by_rbac = true;
        } else {
            if let Some(spec) = draft.spec_of(Kind::Security, &name) {
                let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default();
                if matches!(kind, "oauth" | "ntlm" | "tls_key_cert") {
                    return Err(Refused::new(
                        format!(
                            "its Security `{name}` is of type `{kind}`, which only outgoing connections present"
                        ),
                        "give the channel a Security of type `jwt_issuer`, `basic`, `api_key` or another that callers can present",
                    ));
                }
            }
            securities.push(name);
        }
    }
    let groups = groups(draft, fields)?;
    if by_rbac && securities.is_empty() && groups.is_empty() {
        securities = grants::clients(draft);
        if securities.is_empty() {
            return Err(Refused::new(
                format!("`{}` is for who has a role, and nobody in the export has one", entry.name),
                "import the securities and client roles as well, or name a Security in the channel",
            ));
        }
        fields.note("it asks for one of the securities that have a role, and for a grant");
    }
    if !securities.is_empty() {
        set("security", securities.into());
    }
    if !groups.is_empty() {
        set("security_groups", groups.into());
    }
    if by_rbac {
        set("use_rbac", true.into());
    }
    Ok(())
}

/// Groups by name, or by the number that an export gives them.
fn groups(draft: &Draft<'_>, fields: &mut Fields<'_>) -> Result<Vec<String>, Refused> {
    let by_number = |number: &str| {
        draft.entries.iter().find(|entry| {
            matches!(entry.section.as_str(), "groups" | "security_groups" | "group")
                && entry.fields.get("id").is_some_and(|id| is_same(id, number))
        })
    };
    let mut names = Vec::new();
    for named in fields.texts(&["security_groups", "groups"])? {
        let name = if draft.is_there(Kind::SecurityGroup, &named) {
            named
        } else {
            by_number(&named).map_or(named, |entry| entry.name.clone())
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The service; services of Zato itself are not here.
pub(super) fn service(fields: &mut Fields<'_>) -> Result<String, Refused> {
    let service = fields.needed(&["service", "service_name"])?;
    fields.pass_over(&["service_name"]);
    if service == "pub.zato.ping" || service.starts_with("zato.ping") {
        return Err(Refused::new(
            format!("`{service}` is a service of Zato"),
            "ask `/zato/ping`, which every box answers",
        ));
    }
    if service.starts_with("zato.") || service.starts_with("pub.zato.") {
        return Err(Refused::new(
            format!("`{service}` is a service of Zato and not part of ARINT"),
            "deploy a service of your own, and bind the channel to that",
        ));
    }
    if service.starts_with("helpers.") || service.starts_with("demo.") {
        fields.note(format!("`{service}` came with Zato; the channel answers 404 until you deploy a service of this name"));
    }
    Ok(service)
}
