//! SOAP 1.1 and 1.2 over HTTP (SOAP 1.1, section 6; SOAP 1.2 part 2, section 7).
//!
//! The door checks the envelope ([`envelope`]), takes credentials out of its header, and has the service called with
//! the message as it came; the worker gives what stands in the body, and makes the body of the answer.  Whatever goes
//! wrong is a [`fault`] in the version of the request.  [`wsdl`] describes the channels of a path.
//!
//! Headers of a message are the service's: none is refused because of `mustUnderstand`, as in 3.2.

pub mod envelope;
pub mod fault;
pub mod wsdl;

use std::time::Instant;

use arapi::names::Cid;
use arapi::objects::{HttpMethod, SoapVersion};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;

use self::fault::{Code, Fault};
use super::answer::{self, Answer};
use super::door::Door;
use super::steps::{Denied, Trail, Visit};
use crate::call::{Outcome, Reply};
use crate::channel::Channel;

const XML_11: &str = "text/xml; charset=utf-8";
const XML_12: &str = "application/soap+xml; charset=utf-8";

/// Why there is no answer of the service.
enum Trouble {
    /// The request goes no further; with the headers that go with it.
    Denied(Denied),
    /// Something is wrong with the message, or the service failed.
    Fault(Fault),
}

impl From<Denied> for Trouble {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The action of a request: of SOAP 1.1 a header, of SOAP 1.2 a parameter of the content type.  Without quotes.
pub fn action(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get("soapaction") {
        return value.to_str().ok().map(|text| text.trim().trim_matches('"'));
    }
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    content_type.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_action = name.trim().eq_ignore_ascii_case("action");
        is_action.then(|| value.trim().trim_matches('"'))
    })
}

/// Whether a request is a message of SOAP, as far as its headers tell.
pub fn is_message(headers: &HeaderMap) -> bool {
    headers.contains_key("soapaction") || is_12(headers)
}

fn is_12(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let bare = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    bare.trim().eq_ignore_ascii_case("application/soap+xml")
}

/// The version that an answer has where the message does not tell.
fn version_of(channel: Option<&Channel>, headers: &HeaderMap) -> SoapVersion {
    match channel.and_then(|channel| channel.spec.soap_version) {
        Some(version) => version,
        None if is_12(headers) => SoapVersion::V12,
        None => SoapVersion::V11,
    }
}

fn content_type(version: SoapVersion) -> &'static str {
    match version {
        SoapVersion::V11 => XML_11,
        SoapVersion::V12 => XML_12,
    }
}

/// There is no channel for a message.
pub fn not_found(headers: &HeaderMap, cid: &Cid) -> Answer {
    of_fault(&Fault::of_denied(&Denied::hidden()), version_of(None, headers), cid)
}

fn of_fault(fault: &Fault, version: SoapVersion, cid: &Cid) -> Answer {
    let content_type = HeaderValue::from_static(content_type(version));
    answer::with_body(fault.status(version), content_type, fault.write(version, cid.as_str()))
}

/// Answers a request to a SOAP channel.
pub async fn answer(door: &Door, visit: &Visit<'_>, body: Incoming, trail: &mut Trail) -> Answer {
    let mut version = version_of(Some(visit.channel()), &visit.parts.headers);
    let trouble = match serve(door, visit, body, trail, &mut version).await {
        Ok(answer) => return answer,
        Err(trouble) => trouble,
    };
    match trouble {
        Trouble::Denied(denied) => {
            let mut answer = of_fault(&Fault::of_denied(&denied), version, visit.cid);
            answer.headers_mut().extend(denied.headers);
            answer
        }
        Trouble::Fault(fault) => {
            log::debug!(
                cid:% = visit.cid, channel:% = visit.channel().name, error = fault.reason;
                "message is answered with a fault"
            );
            of_fault(&fault, version, visit.cid)
        }
    }
}

async fn serve(
    door: &Door,
    visit: &Visit<'_>,
    body: Incoming,
    trail: &mut Trail,
    version: &mut SoapVersion,
) -> Result<Answer, Trouble> {
    let channel = visit.channel();
    visit.enter(trail)?;
    if visit.method == HttpMethod::Get {
        return describe(door, visit, trail).await;
    }
    // Where the credentials are in the message, it has to be read to find them.
    let in_message = channel.gate.asks_username_token();
    let mut passed = None;
    if !in_message {
        passed = visit.identify(door, trail, None).await?;
    }
    let deadline = Instant::now() + channel.timeout;
    let (body, _, _held) = visit.body(door, visit.coding()?, body, None).await?.into_parts();
    // A password that stands in the message is not kept with it.
    if !in_message {
        trail.note_body(&body);
    }
    let headers = &visit.parts.headers;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type
        .is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("multipart/"))
    {
        let sentence =
            "messages with attachments (MIME, MTOM) are not taken here; send the envelope alone";
        return Err(Denied::because(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).into());
    }
    let envelope = envelope::read(&body)?;
    if let Some(only) = channel.spec.soap_version
        && only != envelope.version
    {
        let reason = match only {
            SoapVersion::V11 => "this channel takes SOAP 1.1 only",
            SoapVersion::V12 => "this channel takes SOAP 1.2 only",
        };
        return Err(Fault::new(Code::VersionMismatch, reason).into());
    }
    *version = envelope.version;
    if in_message {
        let identified = visit.identify(door, trail, envelope.token.as_ref()).await;
        passed = identified.map_err(|denied| of_token(channel, denied))?;
    }
    let passed = passed.as_deref();
    // A SOAP channel has one service: arapi sees to that.
    let target = channel.targets.one().ok_or_else(Denied::hidden)?;
    visit.authorize(target, passed, &mut trail.ticket)?;
    visit.serving()?;
    let call =
        visit.call(target, passed, "xml", body, deadline.min(Instant::now() + target.timeout));
    match door.invoker.call(call).await {
        Outcome::Done(reply) => Ok(of_reply(channel, visit.cid, *version, reply)),
        // The SDK streams nothing but answers to REST channels.
        Outcome::Streamed(..) => Err(Fault::new(
            Code::Receiver,
            "the service streams its answer, which SOAP cannot carry",
        )
        .into()),
        Outcome::Failed(failure) => {
            visit.log_failure(&target.service, &failure);
            let fault = Fault::of_failure(&failure, door.return_tracebacks);
            let mut answer = of_fault(&fault, *version, visit.cid);
            if let Some(wait) = failure.retry_after {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let seconds = HeaderValue::from(seconds.max(1));
                answer.headers_mut().insert(http::header::RETRY_AFTER, seconds);
            }
            Ok(answer)
        }
    }
}

/// A refusal of credentials that may have been in the message.
fn of_token(channel: &Channel, denied: Denied) -> Trouble {
    // HTTP has a word for it only where it can be said how to do better by HTTP.
    if denied.status != StatusCode::UNAUTHORIZED || !channel.gate.challenges().is_empty() {
        return denied.into();
    }
    let reason = denied.sentence.unwrap_or_default();
    Fault::new(Code::FailedAuthentication, reason).into()
}

/// The service's answer in an envelope.
fn of_reply(channel: &Channel, cid: &Cid, version: SoapVersion, mut reply: Reply) -> Answer {
    // The worker says by the type whether it is a whole message or what stands in the body.
    let is_whole =
        reply.content_type.as_deref().is_some_and(|text| text.starts_with("application/soap+xml"));
    if !is_whole {
        let namespace = envelope::namespace(version);
        let mut out = Vec::with_capacity(reply.body.len() + 256);
        out.extend_from_slice(
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soap:Envelope xmlns:soap=\"",
        );
        out.extend_from_slice(namespace.as_bytes());
        out.extend_from_slice(b"\"><soap:Body>");
        out.extend_from_slice(&reply.body);
        out.extend_from_slice(b"</soap:Body></soap:Envelope>");
        reply.body = Bytes::from(out);
    }
    reply.content_type = Some(content_type(version).to_owned());
    answer::of_reply(channel, cid, reply)
}

/// The description of the channels of a path.
async fn describe(door: &Door, visit: &Visit<'_>, trail: &mut Trail) -> Result<Answer, Trouble> {
    let channel = visit.channel();
    let query = visit.parts.uri.query().unwrap_or_default();
    let is_asked = query
        .split('&')
        .any(|part| part.split('=').next().is_some_and(|name| name.eq_ignore_ascii_case("wsdl")));
    if !is_asked || !channel.spec.serve_wsdl {
        let mut denied =
            Denied::because(StatusCode::METHOD_NOT_ALLOWED, "messages of SOAP are sent by POST");
        denied.headers.push((ALLOW, HeaderValue::from_static("POST")));
        return Err(denied.into());
    }
    // There is no header for credentials that stand in messages: what opens by them only is described to everybody.
    if !channel.gate.asks_username_token() || !channel.gate.challenges().is_empty() {
        visit.identify(door, trail, None).await?;
    }
    visit.serving()?;
    let document = wsdl::of_path(door, visit).await.map_err(Trouble::Fault)?;
    let content_type = HeaderValue::from_static(XML_11);
    Ok(answer::with_body(StatusCode::OK, content_type, document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &'static str, value: &'static str, expected: Option<&str>) {
        let headers = [(http::HeaderName::from_static(name), HeaderValue::from_static(value))]
            .into_iter()
            .collect();
        assert_eq!(action(&headers), expected);
    }

    #[test]
    fn the_action_is_where_each_version_has_it() {
        check("soapaction", "\"urn:crm:Get\"", Some("urn:crm:Get"));
        check("soapaction", "urn:crm:Get", Some("urn:crm:Get"));
        check("soapaction", "\"\"", Some(""));
        check(
            "content-type",
            "application/soap+xml; charset=utf-8; action=\"urn:a\"",
            Some("urn:a"),
        );
        check("content-type", "text/xml", None);
    }
}
