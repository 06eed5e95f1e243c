//! The rules for a message's head on its way through (RFC 9110, 7.6; RFC 9112, 3.2 and 6.1).
//!
//! What a client says about itself that only a proxy may say (`X-Forwarded-*`, `Forwarded`, `X-Real-IP`,
//! `X-Zato-CID`) is dropped, in the spelling with underscores too: Python services see headers as
//! `HTTP_X_…`, where both spellings are one.
//!
//! Pure functions; a message that passed them has one meaning for everybody behind.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use crate::exchange::Peer;
use crate::refusal::{Refusal, is_taken};
use crate::trace::{
    CID_HEADER, CLIENT_CID_HEADER, Ids, TRACEPARENT_HEADER, is_cid, is_traceparent,
};

/// From whom, as the first trusted proxy saw it.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// By `http` or `https`.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// To which host.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// With which certificate.
pub const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Marks a request that wants its connection to become a WebSocket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantsWebSocket;

/// What stands in the way of a header.
enum Fate {
    Keep,
    /// It is about this connection only, or said by one who may not say it.
    Drop,
    /// `Connection`: it names more that is about this connection only.
    Connection,
    Host,
    TransferEncoding,
    Upgrade,
    Expect,
    Cid,
    Traceparent,
    Forwarded,
}

fn fate(name: &str) -> Fate {
    match name {
        "host" => Fate::Host,
        "connection" => Fate::Connection,
        "transfer-encoding" => Fate::TransferEncoding,
        "upgrade" => Fate::Upgrade,
        "expect" => Fate::Expect,
        "x-zato-cid" => Fate::Cid,
        "traceparent" => Fate::Traceparent,
        "x-client-cid"
        | "keep-alive"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "proxy-authorization" => Fate::Drop,
        "forwarded" | "x-real-ip" => Fate::Forwarded,
        _ if name.starts_with("x-forwarded-") => Fate::Forwarded,
        _ if name.contains('_') => fate_of_underscored(name),
        _ => Fate::Keep,
    }
}

/// A name that is one of ours once underscores count as hyphens is dropped; all others are kept.
fn fate_of_underscored(name: &str) -> Fate {
    match fate(&name.replace('_', "-")) {
        Fate::Keep => Fate::Keep,
        _ => Fate::Drop,
    }
}

fn bad(details: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, details).closing()
}

/// Checks a request's head and makes of it what a backend is to see.
pub fn admit(head: &mut Parts, peer: &Peer, ids: &Ids) -> Result<(), Refusal> {
    if !is_taken(&head.method) {
        let details = format!("the method {} is not taken here", head.method);
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, details).closing());
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    let authority = origin_form(head)?;
    let mut hosts = 0;
    let mut cid_of_client = None;
    let mut keeps_traceparent = false;
    let mut codings = 0;
    let mut wants_web_socket = false;
    // Stays empty, and so unallocated, for most requests.
    let mut doomed: Vec<HeaderName> = Vec::new();
    for (name, value) in &head.headers {
        match fate(name.as_str()) {
            Fate::Keep => {}
            Fate::Host => hosts += 1,
            Fate::Drop => doomed.push(name.clone()),
            Fate::Connection => {
                doomed.push(name.clone());
                nominated(value, &mut doomed);
            }
            Fate::TransferEncoding => {
                codings += 1;
                if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    let details = "the only transfer coding taken here is `chunked`, once";
                    return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, details).closing());
                }
                doomed.push(name.clone());
            }
            Fate::Upgrade => {
                // Any other offer may be left unanswered: the request is served as it is.
                wants_web_socket |= value.as_bytes().eq_ignore_ascii_case(b"websocket");
                doomed.push(name.clone());
            }
            Fate::Expect => {
                if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                    let details = "the only expectation taken here is `100-continue`";
                    return Err(Refusal::new(StatusCode::EXPECTATION_FAILED, details).closing());
                }
                doomed.push(name.clone());
            }
            Fate::Cid => cid_of_client = Some(value.clone()),
            Fate::Traceparent => keeps_traceparent = is_traceparent(value.as_bytes()),
            Fate::Forwarded => {
                if !peer.trusted {
                    doomed.push(name.clone());
                }
            }
        }
    }
    if wants_web_socket {
        let is_named = doomed.iter().filter(|name| **name == header::UPGRADE).count() > 1;
        if head.method != Method::GET || head.version != Version::HTTP_11 || !is_named {
            let details = "a WebSocket is asked for by GET with `Connection: Upgrade`, in HTTP/1.1";
            return Err(bad(details));
        }
        if codings > 0 || head.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(bad("a request for a WebSocket has no body"));
        }
    }
    for name in doomed {
        head.headers.remove(name);
    }
    if wants_web_socket {
        offer_web_socket(&mut head.headers);
        head.extensions.insert(WantsWebSocket);
    }
    match (authority, hosts) {
        (Some(authority), 0 | 1) => {
            // RFC 9112, 3.2.2: the target's authority replaces what the client's Host says.
            head.headers.insert(header::HOST, authority);
        }
        (None, 1) => {}
        (None, 0) if head.version == Version::HTTP_10 => {
            head.headers.insert(header::HOST, HeaderValue::from_static(""));
        }
        (None, 0) => return Err(bad("the request has no Host header")),
        (_, _) => return Err(bad("the request has more than one Host header")),
    }
    if let Some(cid) = cid_of_client.filter(|cid| is_cid(cid.as_bytes())) {
        head.headers.insert(CLIENT_CID_HEADER, cid);
    }
    head.headers.insert(CID_HEADER, ids.cid.clone());
    if !keeps_traceparent {
        head.headers.insert(TRACEPARENT_HEADER, ids.traceparent.clone());
    }
    forwarded(&mut head.headers, peer);
    head.version = Version::HTTP_11;
    Ok(())
}

/// HTTP/2 may send cookies one by one; HTTP/1.1 has one line for all (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(b"; ".as_slice()))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says that the connection is to become a WebSocket, or has become one.
pub(crate) fn offer_web_socket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Brings the target into origin-form, and gives the authority of one that had it.
fn origin_form(head: &mut Parts) -> Result<Option<HeaderValue>, Refusal> {
    let Some(authority) = head.uri.authority() else {
        let path = head.uri.path();
        let fits = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
        return if fits {
            Ok(None)
        } else {
            Err(bad("the request target does not begin with `/`"))
        };
    };
    if head.uri.scheme().is_none() {
        return Err(bad("the request target does not begin with `/`"));
    }
    let text = authority.as_str();
    if text.contains('@') {
        return Err(bad("the request target names a user, which is not allowed"));
    }
    let value =
        HeaderValue::from_str(text).map_err(|_| bad("the request target has a malformed host"))?;
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Ok(Some(value))
}

/// The names in a `Connection` header.  What frames or addresses the message is not the client's to take
/// away.
fn nominated(value: &HeaderValue, doomed: &mut Vec<HeaderName>) {
    for name in value.as_bytes().split(|b| *b == b',') {
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive") {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(name)
            && name != header::HOST
            && name != header::CONTENT_LENGTH
        {
            doomed.push(name);
        }
    }
}

/// Says for whom the request is.
fn forwarded(headers: &mut HeaderMap, peer: &Peer) {
    if !peer.trusted {
        // What the client said itself is gone already.
        headers.insert(FORWARDED_FOR, peer.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, peer.scheme.clone());
        if let Some(host) = headers.get(header::HOST).cloned() {
            headers.insert(FORWARDED_HOST, host);
        }
        if let Some(certificate) = &peer.certificate {
            headers.insert(FORWARDED_CLIENT_CERT, certificate.clone());
        }
        return;
    }
    let mut chain = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.forwarded_for.as_bytes());
    if let Ok(chain) = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, peer.scheme.clone());
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Makes of a backend's answer head what a client is to see.
pub fn answer(headers: &mut HeaderMap, cid: &HeaderValue) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    for (name, value) in &*headers {
        match name.as_str() {
            "connection" => {
                doomed.push(name.clone());
                nominated(value, &mut doomed);
            }
            "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding"
            | "upgrade" => doomed.push(name.clone()),
            _ => {}
        }
    }
    for name in doomed {
        headers.remove(name);
    }
    headers.insert(CID_HEADER, cid.clone());
}

#[cfg(test)]
mod tests;
