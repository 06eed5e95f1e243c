//! What a client is told when the proxy itself answers: one sentence, a status, and the correlation id.
//!
//! The body has the form of 3.2: `{"result":"Error","cid":"…","details":"…"}`.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use crate::trace::CID_HEADER;
use crate::watch::BodyFault;

/// An answer of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// One sentence for the client.
    pub details: Cow<'static, str>,
    /// The cause, for the log only.
    pub cause: Option<String>,
    /// Whether the connection closes after it.
    pub close: bool,
}

/// The methods that channels take.
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const SOON: HeaderValue = HeaderValue::from_static("1");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

impl Refusal {
    /// A refusal that leaves the connection open.
    pub fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> Self {
        Self { status, details: details.into(), cause: None, close: false }
    }

    /// The same, closing the connection: what comes next on it cannot be trusted or is not wanted.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The same with a cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// 413.
    pub fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {limit} bytes"),
        )
        .closing()
    }

    /// The body as JSON.
    pub fn body(&self, cid: &str) -> Bytes {
        let mut text = String::with_capacity(64 + self.details.len());
        text.push_str(r#"{"result":"Error","cid":""#);
        push_json(&mut text, cid);
        text.push_str(r#"","details":""#);
        push_json(&mut text, &self.details);
        text.push_str(r#""}"#);
        Bytes::from(text)
    }

    /// The answer for hyper.
    pub(crate) fn response(&self, cid: &HeaderValue) -> http::Response<Bytes> {
        let mut response = http::Response::new(self.body(cid.to_str().unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(CID_HEADER, cid.clone());
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, SOON);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, ALLOWED);
            }
            _ => {}
        }
        if self.close {
            headers.insert(header::CONNECTION, CLOSE);
        }
        response
    }

    /// The answer as bytes, for a connection that hyper has given up; it always closes.
    pub(crate) fn bytes(&self, cid: &str) -> Vec<u8> {
        let body = self.body(cid);
        let reason = self.status.canonical_reason().unwrap_or("Refused");
        let retry =
            if self.status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             x-zato-cid: {cid}\r\n{retry}connection: close\r\n\r\n",
            self.status.as_u16(),
            body.len(),
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => {
                let details = "the request body is larger than allowed";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, details).closing()
            }
            BodyFault::TooSlow => {
                let details = "the request's body came too slowly";
                Self::new(StatusCode::REQUEST_TIMEOUT, details).closing()
            }
            BodyFault::Broken => {
                let details = "the request body broke off or is not well-formed";
                Self::new(StatusCode::BAD_REQUEST, details).closing()
            }
        }
    }
}

/// `OPTIONS *` asks about the server as a whole: the answer is ours, and empty.
pub(crate) fn options_answer(cid: &HeaderValue) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::new());
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response.headers_mut().insert(CID_HEADER, cid.clone());
    response
}

/// Whether channels take this method at all.
pub(crate) fn is_taken(method: &Method) -> bool {
    *method != Method::CONNECT && *method != Method::TRACE
}

fn push_json(text: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            char if u32::from(char) < 0x20 => {
                use std::fmt::Write as _;
                // Writing to a String cannot fail.
                write!(text, "\\u{:04x}", u32::from(char)).ok();
            }
            char => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_json_whatever_the_sentence_holds() {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "a \"b\" \\ \n\u{1}");
        assert_eq!(
            refusal.body("abc"),
            r#"{"result":"Error","cid":"abc","details":"a \"b\" \\ \n\u0001"}"#
        );
    }

    #[test]
    fn an_answer_without_hyper_is_complete() {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not now; try again");
        assert_eq!(
            String::from_utf8(refusal.bytes("abc")).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             content-length: 61\r\nx-zato-cid: abc\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
             {\"result\":\"Error\",\"cid\":\"abc\",\"details\":\"not now; try again\"}"
        );
    }
}
