//! Writes the `http` document of a call (docs/worker-protocol.md) and other JSON of the data path.
//!
//! By hand, into one buffer: it is written for every request, and read only by services that look at it.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;

use super::listen::Peer;
use crate::channel::table::Found;
use crate::security::Passed;

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
) -> Bytes {
    let headers = &parts.headers;
    let mut out = BytesMut::with_capacity(768);
    out.put_slice(b"{\"path\":");
    put_text(&mut out, path);
    out.put_slice(b",\"query\":");
    put_text(&mut out, parts.uri.query().unwrap_or_default());
    out.put_slice(b",\"headers\":[");
    for (at, (name, value)) in headers.iter().enumerate() {
        out.put_slice(if at == 0 { b"[" } else { b",[" });
        put_text(&mut out, name.as_str());
        out.put_u8(b',');
        put_bytes(&mut out, value.as_bytes());
        out.put_u8(b']');
    }
    out.put_slice(b"],\"params\":{");
    for (at, (name, value)) in found.params.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        put_text(&mut out, name);
        out.put_u8(b':');
        put_text(&mut out, value);
    }
    out.put_slice(b"},\"remote\":");
    put_text(&mut out, remote(headers, peer));
    out.put_slice(b",\"scheme\":");
    let scheme = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    put_text(&mut out, scheme.unwrap_or("http"));
    out.put_slice(b",\"host\":");
    match headers.get(http::header::HOST) {
        Some(host) => put_bytes(&mut out, host.as_bytes()),
        None => out.put_slice(b"\"\""),
    }
    out.put_u8(b',');
    let (before, behind) = &found.channel.document;
    out.put_slice(before);
    out.put_slice(passed.map_or(b"null", |passed| &passed.document));
    out.put_slice(behind);
    out.freeze()
}

/// The client's address, as the balancer or the connection tells it.
pub fn remote<'r>(headers: &'r HeaderMap, peer: &'r Peer) -> &'r str {
    let values = headers.get_all(FORWARDED_FOR).iter();
    let mut entries =
        values.rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    let last = entries.next();
    entries.next().or(last).map_or(&peer.0, str::trim)
}

/// Writes a text as a JSON string.
pub fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, tail) = rest.split_at(at);
        out.put_slice(plain);
        match tail.split_first() {
            Some((b'"', tail)) => {
                out.put_slice(b"\\\"");
                rest = tail;
            }
            Some((b'\\', tail)) => {
                out.put_slice(b"\\\\");
                rest = tail;
            }
            Some((control, tail)) => {
                let digit = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble)).copied();
                out.put_slice(b"\\u00");
                out.put_u8(digit(control >> 4).unwrap_or(b'0'));
                out.put_u8(digit(control & 15).unwrap_or(b'0'));
                rest = tail;
            }
            None => rest = tail,
        }
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

/// Writes bytes that are not sure to be UTF-8: what is not is read as Latin-1, as WSGI has it.
fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => put_text(out, text),
        Err(_) => put_text(out, &bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_being_written_as_json() {
        use rand::prelude::*;
        let mut random = StdRng::seed_from_u64(1);
        let alphabet: Vec<char> = (0..0x30)
            .filter_map(char::from_u32)
            .chain(['"', '\\', 'ż', '\u{2028}', '😀'])
            .collect();
        for length in 0..500 {
            let text: String =
                (0..length % 40).map(|_| *alphabet.choose(&mut random).unwrap()).collect();
            let mut out = BytesMut::new();
            put_text(&mut out, &text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_read_as_latin_1() {
        let mut out = BytesMut::new();
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
