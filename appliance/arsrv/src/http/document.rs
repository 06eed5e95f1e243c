//! Writes the `http` document of a call (docs/worker-protocol.md).
//!
//! By hand, into one buffer: it is written for every request, and read only by services that look at it.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::gzip::Coding;
use super::listen::Peer;
use crate::channel::table::Found;
use crate::security::Passed;
use crate::worker::frame::put_json_string;

/// Where the balancer says the client is.  It replaces what clients say; what a trusted proxy says it keeps,
/// and adds that proxy, so that of several entries the last but one is the client as the proxy saw it.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Whether the client came by `http` or `https`.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The `http` document of a request.
pub fn write(
    parts: &Parts,
    path: &str,
    found: &Found<'_>,
    passed: Option<&Passed>,
    peer: &Peer,
    coding: Coding,
) -> Bytes {
    let headers = &parts.headers;
    let mut out = Vec::with_capacity(768);
    out.extend_from_slice(b"{\"path\":");
    put_json_string(&mut out, path);
    out.extend_from_slice(b",\"query\":");
    put_json_string(&mut out, parts.uri.query().unwrap_or_default());
    out.extend_from_slice(b",\"headers\":[");
    // What was unpacked is no longer what these are about.
    let is_told = |name: &HeaderName| {
        coding == Coding::Identity || (*name != CONTENT_ENCODING && *name != CONTENT_LENGTH)
    };
    for (at, (name, value)) in headers.iter().filter(|(name, _)| is_told(name)).enumerate() {
        out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
        put_json_string(&mut out, name.as_str());
        out.push(b',');
        put_bytes(&mut out, value.as_bytes());
        out.push(b']');
    }
    out.extend_from_slice(b"],\"params\":{");
    // Which service was named is no parameter of the service.
    let named = found.channel.service_part;
    let params = found.params.iter().filter(|(name, _)| Some(*name) != named);
    for (at, (name, value)) in params.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put_json_string(&mut out, name);
        out.push(b':');
        put_json_string(&mut out, value);
    }
    out.extend_from_slice(b"},\"remote\":");
    put_json_string(&mut out, remote(headers, peer));
    out.extend_from_slice(b",\"scheme\":");
    let scheme = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    put_json_string(&mut out, scheme.unwrap_or("http"));
    out.extend_from_slice(b",\"host\":");
    match headers.get(http::header::HOST) {
        Some(host) => put_bytes(&mut out, host.as_bytes()),
        None => out.extend_from_slice(b"\"\""),
    }
    out.push(b',');
    let (before, behind) = &found.channel.document;
    out.extend_from_slice(before);
    out.extend_from_slice(passed.map_or(b"null", |passed| &passed.document));
    out.extend_from_slice(behind);
    out.into()
}

/// The client's address, as the balancer or the connection tells it.
pub fn remote<'r>(headers: &'r HeaderMap, peer: &'r Peer) -> &'r str {
    let values = headers.get_all(FORWARDED_FOR).iter();
    let mut entries =
        values.rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    let last = entries.next();
    entries.next().or(last).map_or(&peer.0, str::trim)
}

/// Writes bytes that are not sure to be UTF-8: what is not is read as Latin-1, as WSGI has it.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => put_json_string(out, text),
        Err(_) => {
            put_json_string(out, &bytes.iter().map(|byte| char::from(*byte)).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf_8_are_read_as_latin_1() {
        let mut out = Vec::new();
        put_bytes(&mut out, b"caf\xe9");
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "café");
    }

    #[test]
    fn the_client_is_who_the_balancer_or_its_trusted_proxy_saw() {
        let mut headers = HeaderMap::new();
        let peer = Peer("unix".into());
        assert_eq!(remote(&headers, &peer), "unix");
        headers.append(FORWARDED_FOR, http::HeaderValue::from_static("192.0.2.7:50112"));
        assert_eq!(remote(&headers, &peer), "192.0.2.7:50112");
        // What the client said to the proxy comes first, the proxy itself last.
        let chain = http::HeaderValue::from_static("1.1.1.1, 192.0.2.7, 10.0.0.1");
        headers.insert(FORWARDED_FOR, chain);
        assert_eq!(remote(&headers, &peer), "192.0.2.7");
    }
}
