//! Where a document's operations are: its servers.

use serde_json::Value;

use super::document::{Document, join};

/// Where a document's operations are.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) written: String,
    pub(super) host: String,
    pub(super) base: String,
    pub(super) notes: Vec<String>,
}

/// The address of the first server; where the document has none, of the first path that has one.
pub(super) fn written(doc: &Document) -> Option<&str> {
    let of_paths = || {
        let paths = doc.value.get("paths").and_then(Value::as_object);
        paths.into_iter().flatten().find_map(|(_, path)| path.pointer("/servers/0/url")?.as_str())
    };
    doc.text("/servers/0/url").or_else(of_paths)
}

/// The first server, with what a person says instead; fails where there is no host.
pub(super) fn of(doc: &Document, given: Option<&str>) -> Result<Server, String> {
    let mut notes = Vec::new();
    let servers = doc.value.get("servers").and_then(Value::as_array).map_or(0, Vec::len);
    let first = written(doc).unwrap_or("/").to_owned();
    let mut url = first.clone();
    for (name, _) in doc.fields("/servers/0/variables") {
        let value = doc.text(&format!("{}/default", join("/servers/0/variables", name)));
        let value = value.unwrap_or_default();
        if url.contains(&format!("{{{name}}}")) {
            url = url.replace(&format!("{{{name}}}"), value);
            notes.push(format!(
                "`{{{name}}}` of the address is `{value}`; `--host` gives another one"
            ));
        }
    }
    if servers > 1 && given.is_none() {
        notes.push(format!("it is the first of {servers}; `--host` gives another one"));
    }
    let base_of = |url: &str| {
        let (_, rest) = url.split_once("://").unwrap_or(("", url));
        let at = if url.contains("://") { rest.find('/').unwrap_or(rest.len()) } else { 0 };
        let base = rest.get(at..).unwrap_or_default().trim_end_matches('/');
        if base.is_empty() || base.starts_with('/') { base.to_owned() } else { format!("/{base}") }
    };
    let host_of = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        Some(format!("{scheme}://{authority}"))
    };
    if let Some(given) = given {
        let host = host_of(given).ok_or_else(|| {
            format!(
                "`{}` is no host: something like `https://api.example.com` was expected",
                given.escape_debug()
            )
        })?;
        let own = base_of(given);
        let base = if own.is_empty() { base_of(&url) } else { own };
        notes.push(format!("the document has `{first}`"));
        return Ok(Server { written: given.to_owned(), host, base, notes });
    }
    let host = host_of(&url).ok_or_else(|| {
        format!(
            "{} line {}: the document's server is `{}`, which has no host; say where it is with `--host https://…`",
            doc.file,
            doc.line("/servers/0/url"),
            first.escape_debug()
        )
    })?;
    Ok(Server { base: base_of(&url), written: first, host, notes })
}

/// The path that all of a document's paths are below.
pub(super) fn base(doc: &Document) -> String {
    // The host does not matter here, and one that is given is not missed.
    of(doc, Some("http://box")).map(|server| server.base).unwrap_or_default()
}
