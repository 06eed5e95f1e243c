//! Outgoing connections, and caches.

use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::channel::{self, Http};
use super::document::Entry;
use super::fields::{Fields, Refused, Secret, is_same};
use super::plan::{Draft, Made, Missing, Outcome};

/// Outgoing connections, and what stands beside them.
pub(super) fn outgoing(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        match entry.section.as_str() {
            "outconn_sql" | "sql" | "outgoing_sql" => {
                draft.each(index, entry, |draft, fields| sql(draft, entry, fields));
            }
            "zato_cache_builtin" | "cache_builtin" | "cache" => {
                let notes = vec![
                    "caches need no configuration: `self.cache` makes each with the first value in it, and entries stay as long as their expiry says".to_owned(),
                ];
                draft.tell(index, Outcome::Changed, Vec::new(), notes, None);
            }
            "tls_ca_cert" => ca_cert(draft, index, entry),
            _ if channel::http(entry) == Some(Http::RestOut) => {
                draft.each(index, entry, rest);
            }
            _ if channel::http(entry) == Some(Http::SoapOut) => {
                draft.each(index, entry, soap);
            }
            _ => {}
        }
    }
}

/// A certificate authority of the export by its number or name.
fn ca_pem(draft: &Draft<'_>, named: &str) -> Option<String> {
    let all = draft.entries.iter().filter(|entry| entry.section == "tls_ca_cert");
    let is = |entry: &&Entry| {
        entry.name == named || entry.fields.get("id").is_some_and(|id| is_same(id, named))
    };
    let entry = { all }.find(is)?;
    let text = entry.fields.get("value").or_else(|| entry.fields.get("ca_cert_payload"))?;
    Some(text.as_str()?.replace("\\n", "\n"))
}

/// Authorities stand in the connections that trust them.
fn ca_cert(draft: &mut Draft<'_>, index: usize, entry: &Entry) {
    let is_named = |one: &&Entry| {
        ["sec_tls_ca_cert_id", "sec_tls_ca_cert_name"].iter().any(|field| {
            let named = one.fields.get(*field);
            named.is_some_and(|named| {
                named.as_str() == Some(entry.name.as_str()) || Some(named) == entry.fields.get("id")
            })
        })
    };
    let users: Vec<String> = draft
        .entries
        .iter()
        .filter(is_named)
        .map(|one| format!("{}/{}", Kind::Outgoing, one.name))
        .collect();
    if users.is_empty() {
        draft.refuse(
            index,
            Refused::new(
                "no connection of the export trusts it, and an authority stands in the connection that does",
                "write it into `tls_ca_pem` of the connection that needs it",
            ),
        );
    } else {
        let notes = vec!["it stands in `tls_ca_pem` of the connections that trust it".to_owned()];
        draft.tell(index, Outcome::Changed, users, notes, None);
    }
}

/// Scheme, host and port; the path behind them, if any, goes before the connection's own.
fn address(fields: &mut Fields<'_>) -> Result<(String, String), Refused> {
    let host = fields.needed(&["host", "address"])?;
    let path = fields.text(&["url_path"])?.unwrap_or_else(|| "/".to_owned());
    let behind =
        host.find("://").and_then(|at| host.get(at + 3..)?.find('/').map(|slash| at + 3 + slash));
    let (server, base) = match behind {
        Some(at) => (host.get(..at).unwrap_or(&host), host.get(at..).unwrap_or_default()),
        None => (host.as_str(), ""),
    };
    let base = base.trim_end_matches('/');
    if base.is_empty() {
        return Ok((server.to_owned(), path));
    }
    fields.note("the path in `host` stands in `url_path`");
    Ok((server.to_owned(), format!("{base}{path}")))
}

fn rest(draft: &Draft<'_>, fields: &mut Fields<'_>) -> Result<Made, Refused> {
    let (host, path) = address(fields)?;
    let mut spec = Map::from_iter([
        ("type".to_owned(), json!("rest")),
        ("host".to_owned(), host.into()),
        ("url_path".to_owned(), path.into()),
    ]);
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    if let Some(flag) = fields.flag(&["is_active"])? {
        set("is_active", flag.into());
    }
    let format = fields.text(&["data_format"])?.unwrap_or_default().to_ascii_lowercase();
    match format.as_str() {
        "json" => set("data_format", "json".into()),
        "form" | "post" => set("data_format", "form".into()),
        "" | "none" => set("data_format", "none".into()),
        other => {
            fields.note(format!(
                "data format `{other}` is not here, so the service sends texts as they are"
            ));
            set("data_format", "none".into());
        }
    }
    if let Some(text) = fields.text(&["content_type"])? {
        set("content_type", text.into());
    }
    if let Some(method) = fields.text(&["ping_method"])? {
        set("ping_method", method.trim().to_ascii_uppercase().into());
    }
    over_http(draft, fields, &mut set)?;
    fields.pass_over(&["soap_action", "soap_version", "serialization_type"]);
    Ok(Made::new(Kind::Outgoing, spec.into()))
}

/// A SOAP connection.  The address of an export is often that of the description: `/orders?wsdl`.
fn soap(draft: &Draft<'_>, fields: &mut Fields<'_>) -> Result<Made, Refused> {
    let (host, path) = address(fields)?;
    let mut spec =
        Map::from_iter([("type".to_owned(), json!("soap")), ("host".to_owned(), host.into())]);
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    match path.split_once('?') {
        Some((before, _)) => {
            set("url_path", before.into());
            set("wsdl_path", path.as_str().into());
        }
        None => set("url_path", path.into()),
    }
    if let Some(flag) = fields.flag(&["is_active"])? {
        set("is_active", flag.into());
    }
    if fields.text(&["soap_action"])?.is_some() | fields.text(&["soap_version"])?.is_some() {
        fields.note("action and version are those of the WSDL");
    }
    if fields.text(&["serialization_type"])?.as_deref() == Some("suds") {
        fields.note("the client is zeep instead of suds");
    }
    over_http(draft, fields, &mut set)?;
    fields.pass_over(&["data_format", "content_type", "ping_method"]);
    Ok(Made::new(Kind::Outgoing, spec.into()))
}

/// What connections over HTTP have in common beside their address.
fn over_http(
    draft: &Draft<'_>,
    fields: &mut Fields<'_>,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Refused> {
    if let Some(size) = fields.number(&["pool_size"])? {
        set("pool_size", size.clamp(1, 1000).into());
    }
    if let Some(seconds) = fields.number(&["timeout"])? {
        set("timeout_ms", seconds.saturating_mul(1000).clamp(1, 3_600_000).into());
    }
    tls(draft, fields, set)?;
    if let Some(name) = channel::security_name(fields)? {
        let is_certificate = draft
            .spec_of(Kind::Security, &name)
            .is_some_and(|spec| spec.get("type").and_then(Value::as_str) == Some("tls_key_cert"));
        set(if is_certificate { "tls_client" } else { "security" }, name.into());
    }
    // What only channels have, and what is always in an export and says nothing.
    fields.pass_over(&[
        "method",
        "service",
        "service_name",
        "has_rbac",
        "sec_use_rbac",
        "match_slash",
        "merge_url_params_req",
        "url_params_pri",
        "params_pri",
        "http_accept",
        "cache_expiry",
        "hl7_version",
        "data_encoding",
        "rate_limit_type",
        "rate_limit_def",
        "is_rate_limit_active",
        "rate_limit_check_parent_def",
        "service_whitelist",
        "max_len_messages_received",
        "max_len_messages_sent",
        "max_bytes_per_message_received",
        "max_bytes_per_message_sent",
        "is_wrapper",
        "wrapper_type",
    ]);
    Ok(())
}

/// What is trusted.
fn tls(
    draft: &Draft<'_>,
    fields: &mut Fields<'_>,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), Refused> {
    if let Some(checked) = fields.flag(&["tls_verify", "validate_tls"])? {
        set("validate_tls", checked.into());
    }
    if let Some(named) = fields.text(&["sec_tls_ca_cert_name", "sec_tls_ca_cert_id"])? {
        match (named.to_ascii_uppercase().as_str(), ca_pem(draft, &named)) {
            (_, Some(pem)) => set("tls_ca_pem", pem.into()),
            (
                "ZATO_DEFAULT" | "ZATO_DEFAULT_BUNDLE" | "ZATO_TLS_CA_CERT_DEFAULT" | "DEFAULT",
                None,
            ) => {}
            ("ZATO_NONE" | "ZATO_SKIP" | "SKIP_VERIFY" | "ZATO_SKIP_TLS_VERIFICATION", None) => {
                set("validate_tls", false.into());
            }
            (_, None) => {
                return Err(Refused::new(
                    format!("it trusts the authority `{named}`, which is not in the export"),
                    "export the authorities (`tls_ca_cert`) as well, or write the authority into `tls_ca_pem` of a connection of your own",
                ));
            }
        }
    }
    Ok(())
}

fn sql(draft: &Draft<'_>, entry: &Entry, fields: &mut Fields<'_>) -> Result<Made, Refused> {
    let engine = fields.needed(&["engine", "type"])?;
    let engine = match engine.split('+').next().unwrap_or_default() {
        "postgresql" | "postgres" => "postgresql+psycopg",
        "mysql" | "mariadb" => "mysql+pymysql",
        "sqlite" => "sqlite",
        other => {
            return Err(Refused::new(
                format!("databases of type `{other}` are not in this release"),
                "use PostgreSQL, MariaDB, MySQL or SQLite, or a Python library in the service",
            ));
        }
    };
    let mut spec =
        Map::from_iter([("type".to_owned(), json!("sql")), ("engine".to_owned(), engine.into())]);
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    let db_name = fields.needed(&["db_name", "database"])?;
    match db_name.split_once('?') {
        Some((name, options)) => {
            fields.note(format!("the options `{options}` behind the database's name are left out"));
            set("db_name", name.into());
        }
        None => set("db_name", db_name.into()),
    }
    if let Some(flag) = fields.flag(&["is_active"])? {
        set("is_active", flag.into());
    }
    if let Some(size) = fields.number(&["pool_size"])? {
        if size > 100 {
            fields.note(format!("100 connections are kept by each worker at most, not {size}"));
        }
        set("pool_size", size.clamp(1, 100).into());
    }
    let mut missing = Vec::new();
    if engine != "sqlite" {
        set("host", fields.needed(&["host"])?.into());
        if let Some(port) = fields.number(&["port"])? {
            set("port", port.into());
        }
        let username = fields.text(&["username", "user"])?;
        match fields.secret(&["password", "secret"])? {
            Secret::Given(value) => set("password", json!({"value": value})),
            Secret::Missing(why) if username.is_some() => {
                let there = draft.present.get(&(Kind::Outgoing, entry.name.clone()));
                let kept = there.is_some_and(|spec| spec.get("password").is_some());
                let means = if kept {
                    "the box keeps the one it has"
                } else {
                    "the connection logs in without one until it is set"
                };
                let object = format!("{}/{}", Kind::Outgoing, entry.name);
                let why = format!("{why}; {means}");
                missing.push(Missing { object, field: "password".to_owned(), why });
            }
            Secret::Missing(_) => {}
        }
        if let Some(username) = username {
            set("username", username.into());
        }
    } else {
        fields.pass_over(&["host", "port", "username", "user", "password", "secret"]);
    }
    Ok(Made { kind: Kind::Outgoing, spec: spec.into(), missing })
}
