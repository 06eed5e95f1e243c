//! WebSocket channels (RFC 6455), with the messages of 3.2: a connection is opened here, and lives in a [`session`].
//!
//! What HTTP has to do with it ends with the answer to the request: credentials are asked for by the first message, so
//! that browsers can send them too.  [`hub`] knows all sessions, [`message`] reads and writes what is said.

pub mod hub;
pub mod message;
mod session;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use ring::digest;

pub use self::hub::{Hub, Sockets};
use self::session::Setup;
use super::answer::{Answer, Payload};
use super::door::Door;
use super::steps::{Denied, Trail, Visit};

/// The one version of the protocol.
const VERSION: &str = "13";
/// What the key of a request is joined with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request's connection becomes, if it asks for a WebSocket.  To be called before the request is parted.
pub fn upgrade_of<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    let asks = request.headers().get(UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    asks.then(|| hyper::upgrade::on(request))
}

/// Opens a WebSocket.
pub fn answer(
    door: &Door,
    visit: &Visit<'_>,
    upgrade: Option<OnUpgrade>,
    trail: &mut Trail,
) -> Result<Answer, Denied> {
    visit.enter(trail)?;
    visit.serving()?;
    let Some(upgrade) = upgrade else {
        let sentence = "this is a WebSocket: it is opened with `Upgrade: websocket`";
        let mut denied = Denied::because(StatusCode::UPGRADE_REQUIRED, sentence);
        denied.headers.push((UPGRADE, HeaderValue::from_static("websocket")));
        return Err(denied);
    };
    let accept = accept(&visit.parts.headers)?;
    let channel = visit.channel();
    let most = channel.spec.max_connections.unwrap_or(CONNECTIONS);
    let place = door.hub.enter(&channel.name, &channel.counts, most).ok_or_else(|| {
        let sentence = "as many clients are connected as may be; try again";
        Denied::because(StatusCode::SERVICE_UNAVAILABLE, sentence).retry_after(5)
    })?;
    let setup = Setup::of(door, visit, place);
    tokio::spawn(session::run(setup, upgrade));
    let mut answer = Response::new(Payload::from(bytes::Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// Most clients of a channel that does not say otherwise.
const CONNECTIONS: u32 = 1000;

/// The proof that the request was understood.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Denied> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        let sentence = "version 13 of WebSocket is spoken here";
        let mut denied = Denied::because(StatusCode::UPGRADE_REQUIRED, sentence);
        denied.headers.push((SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION)));
        return Err(denied);
    }
    let bad = || {
        let sentence = "`Sec-WebSocket-Key` is not 16 bytes in base64";
        Denied::because(StatusCode::BAD_REQUEST, sentence)
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(bad)?.as_bytes();
    if BASE64_STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(bad());
    }
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    let accept = BASE64_STANDARD.encode(context.finish());
    // Base64 is always a fitting value.
    HeaderValue::from_str(&accept).map_err(|_| bad())
}

/// What sessions share with the door.
pub(super) fn shared(door: &Door) -> session::Shared {
    session::Shared {
        tables: door.tables.clone(),
        invoker: Arc::clone(&door.invoker),
        gates: Arc::clone(&door.shared),
        hub: Arc::clone(&door.hub),
        return_tracebacks: door.return_tracebacks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_the_specification_has_it() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("c2hvcnQ="));
        assert_eq!(accept(&headers).unwrap_err().status, StatusCode::BAD_REQUEST);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(accept(&headers).unwrap_err().status, StatusCode::UPGRADE_REQUIRED);
    }
}
