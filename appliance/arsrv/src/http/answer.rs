//! Outcomes as HTTP responses, with the error bodies of 3.2.
//!
//! A service says status, content type and headers, within bounds: what would break the connection or
//! smuggle a second response is never sent.  Hop-by-hop headers are the connection's, not the service's, and are
//! left out; a header that is none makes the answer a 500, because sending half of it would be a lie.

use std::pin::Pin;
use std::task::{Context, Poll};

use arapi::names::Cid;
use arapi::objects::DataFormat;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;

use crate::call::{BrokenOff, Failure, Pieces, Reply};
use crate::channel::Channel;
use crate::outgoing::download::Download;
use crate::worker::frame::put_json_string;

/// A response of the data path.
pub type Answer = Response<Payload>;

/// What a response carries.
#[derive(Debug)]
pub enum Payload {
    /// All of it.
    Whole(Bytes),
    /// The first piece, and what is still to come.
    Streamed(Bytes, Pieces),
    /// What another system sends, as it comes.
    Passed(Box<Download>),
}

impl Payload {
    /// The body, if all of it is here.
    pub fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Whole(whole) => Some(whole.clone()),
            Self::Streamed(..) | Self::Passed(_) => None,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Self::Streamed(first, _) if !first.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(first)))))
            }
            Self::Streamed(_, pieces) => pieces.poll(cx).map_ok(Frame::data),
            Self::Passed(download) => Pin::new(&mut **download).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Streamed(..) => false,
            Self::Passed(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => {
                SizeHint::with_exact(u64::try_from(whole.len()).unwrap_or(u64::MAX))
            }
            Self::Streamed(..) => SizeHint::default(),
            Self::Passed(download) => download.size_hint(),
        }
    }
}

/// The correlation id's header.
pub const CID: HeaderName = HeaderName::from_static("x-zato-cid");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// What callers see of an error that they may not see more of.
pub const HIDDEN: &str = "An error has occurred";

/// A response with a body.
pub fn with_body(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Payload::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A JSON document.
pub fn json(status: StatusCode, document: impl Into<Bytes>) -> Answer {
    with_body(status, JSON, document)
}

/// A sentence.
pub fn text(status: StatusCode, sentence: impl Into<Bytes>) -> Answer {
    with_body(status, TEXT, sentence)
}

/// There is nothing for this request; says no more than that.
pub fn not_found(cid: &Cid) -> Answer {
    text(StatusCode::NOT_FOUND, format!("URL not found (CID:{cid})"))
}

/// An error in the form of the channel's data format: for `json` and `hl7` a document, else the bare text.
pub fn error(format: DataFormat, status: StatusCode, cid: &Cid, details: &Value) -> Answer {
    if !matches!(format, DataFormat::Json | DataFormat::Hl7) {
        let bare = match details {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        return text(status, bare);
    }
    let mut body = Vec::with_capacity(128);
    body.extend_from_slice(b"{\"result\":\"Error\",\"cid\":");
    put_json_string(&mut body, cid.as_str());
    if !is_nothing(details) {
        body.extend_from_slice(b",\"details\":");
        body.extend_from_slice(details.to_string().as_bytes());
    }
    body.push(b'}');
    json(status, body)
}

fn is_nothing(details: &Value) -> bool {
    match details {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The answer of a service.
pub fn of_reply(channel: &Channel, cid: &Cid, reply: Reply) -> Answer {
    of_parts(channel, cid, reply, None)
}

/// The answer of a service that sends it piece by piece.
pub fn of_streamed(channel: &Channel, cid: &Cid, reply: Reply, rest: Pieces) -> Answer {
    of_parts(channel, cid, reply, Some(rest))
}

fn of_parts(channel: &Channel, cid: &Cid, reply: Reply, rest: Option<Pieces>) -> Answer {
    let status = match StatusCode::from_u16(reply.status) {
        Ok(status) if !status.is_informational() => status,
        Ok(_) | Err(_) => {
            log::error!(
                cid:% = cid, service:% = channel.service, status = reply.status;
                "service answered with a status that is none"
            );
            return broken(channel, cid);
        }
    };
    let mut answer = Response::new(Payload::from(Bytes::new()));
    *answer.status_mut() = status;
    if set_headers(answer.headers_mut(), channel, cid, &reply.headers).is_err() {
        return broken(channel, cid);
    }
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match reply.content_type {
        Some(own) => match HeaderValue::from_maybe_shared(Bytes::from(own)) {
            Ok(own) => {
                answer.headers_mut().insert(CONTENT_TYPE, own);
            }
            Err(_) => {
                log_bad_header(channel, cid, "Content-Type");
                return broken(channel, cid);
            }
        },
        None if has_body && !answer.headers().contains_key(CONTENT_TYPE) => {
            answer.headers_mut().insert(CONTENT_TYPE, channel.content_type.clone());
        }
        None => {}
    }
    if has_body {
        *answer.body_mut() = match rest {
            Some(rest) => Payload::Streamed(reply.body, rest),
            None => Payload::from(reply.body),
        };
    }
    answer
}

/// A service that failed, or could not be run.
pub fn of_failure(
    channel: &Channel,
    cid: &Cid,
    failure: &Failure,
    return_tracebacks: bool,
) -> Answer {
    if matches!(failure.kind.as_str(), "not-found" | "inactive") {
        return not_found(cid);
    }
    let status = StatusCode::from_u16(failure.status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let sentence = match status {
        _ if !is_nothing(&failure.details) => None,
        StatusCode::GATEWAY_TIMEOUT => Some("the service did not answer in time"),
        StatusCode::SERVICE_UNAVAILABLE => Some("the service cannot be run now; try again"),
        _ => None,
    };
    let hidden = status == StatusCode::INTERNAL_SERVER_ERROR && !return_tracebacks;
    let details = match sentence {
        _ if hidden => &Value::from(HIDDEN),
        Some(sentence) => &Value::from(sentence),
        None => &failure.details,
    };
    let mut answer = error(channel.spec.data_format, status, cid, details);
    let mut headers = HeaderMap::new();
    // Bad headers of a service that has failed anyway change nothing about its failure.
    if set_headers(&mut headers, channel, cid, &failure.headers).is_ok() {
        headers.remove(CONTENT_TYPE);
        answer.headers_mut().extend(headers);
    }
    if let Some(wait) = failure.retry_after {
        // Whole seconds, never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    answer
}

/// The answer where a service's own cannot be sent.
fn broken(channel: &Channel, cid: &Cid) -> Answer {
    let details = Value::from("the service's answer cannot be sent; the log says why");
    error(channel.spec.data_format, StatusCode::INTERNAL_SERVER_ERROR, cid, &details)
}

struct BadHeader;

fn set_headers(
    headers: &mut HeaderMap,
    channel: &Channel,
    cid: &Cid,
    given: &[(String, String)],
) -> Result<(), BadHeader> {
    for (name, value) in given {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let (Ok(parsed), Ok(value)) = (parsed, HeaderValue::from_bytes(value.as_bytes())) else {
            log_bad_header(channel, cid, name);
            return Err(BadHeader);
        };
        // The connection's own, and ours.
        let is_hop = [
            CONNECTION,
            KEEP_ALIVE,
            PROXY_CONNECTION,
            TE,
            TRAILER,
            TRANSFER_ENCODING,
            UPGRADE,
            CONTENT_LENGTH,
            CID,
        ]
        .contains(&parsed);
        if is_hop {
            continue;
        }
        // One is all there can be of it.
        if parsed == CONTENT_TYPE {
            headers.insert(parsed, value);
        } else {
            headers.append(parsed, value);
        }
    }
    Ok(())
}

fn log_bad_header(channel: &Channel, cid: &Cid, name: &str) {
    // The value may hold anything, a secret too.
    log::error!(
        cid:% = cid, service:% = channel.service, header:% = name.escape_debug();
        "service set a header that cannot be sent: its name is none or its value has a control character"
    );
}
