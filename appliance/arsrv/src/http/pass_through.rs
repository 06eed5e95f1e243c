//! Requests that are passed on to an outgoing connection, without a worker.
//!
//! Bodies flow through in both directions; only where something needs the whole of one (a schema, `data_format: json`,
//! audit, the cache, gzip) is it read first, and short ones are, because that is cheaper.
//!
//! **Invariant:** what opened the channel does not leave the box, unless the channel names it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use arapi::objects::{DataFormat, HttpMethod};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::answer::{self, Answer, Payload};
use super::body::BodyError;
use super::cache;
use super::checked;
use super::door::{Door, check_json_aside};
use super::gzip::{self, Coding};
use super::spool;
use super::steps::{Denied, Trail, Visit};
use crate::call::Reply;
use crate::channel::onward::{Onward, is_hop_by_hop};
use crate::outgoing::connection::CallError;
use crate::outgoing::download::Download;
use crate::outgoing::passing::{Carried, HELD, PassError, PassedBack, Passing};
use crate::outgoing::upload::{Lender, Upload, UploadFault};
use crate::security::Passed;
use crate::telemetry::trace::{self, What};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// We, as `Via` has it (RFC 9110, section 7.6.3).
const VIA_US: &str = "1.1 arint";

/// Passes a request on that may pass.
pub(super) async fn answer(
    door: &Door,
    visit: &Visit<'_>,
    onward: &Onward,
    passed: Option<&Passed>,
    body: Incoming,
    trail: &mut Trail,
) -> Result<Answer, Denied> {
    let (channel, cid) = (visit.channel(), visit.cid);
    let quality = channel.quality.as_deref();
    let keeps = quality.and_then(|quality| quality.keeps.as_ref());
    let mut slot = None;
    if let Some(keeping) = keeps {
        let has_body = !body.is_end_stream();
        let generation = door.invoker.generation();
        let (method, parts) = (visit.method, visit.parts);
        match door.cache.find(keeping, generation, method, parts, passed, has_body) {
            cache::Found::Answer(answer) => return Ok(*answer),
            cache::Found::Nothing(empty) => slot = Some(empty),
            cache::Found::NotForUs => {}
        }
    }
    let deadline = Instant::now() + channel.timeout;
    let reads_answers =
        quality.is_some_and(|has| has.schemas.response.is_some() || has.audit.is_some());
    let Sent { upload, unpacked, _held } = upload(door, visit, body, trail).await?;
    let mut headers = headers_of(visit, onward);
    if unpacked {
        headers.remove(CONTENT_ENCODING);
    }
    if reads_answers {
        headers.remove(ACCEPT_ENCODING);
    }
    // Nothing else says that there is no body where the method lets expect one (RFC 9110, section 8.6).
    if !matches!(&upload, Upload::Whole(whole) if whole.is_empty()) {
        headers.remove(CONTENT_LENGTH);
    }
    let passing = Passing {
        method: method_of(visit.method),
        params: &visit.found.params,
        query: visit.parts.uri.query(),
        headers,
        upload,
        deadline,
        cid,
    };
    let back = pass(door, onward, passing).await.map_err(|err| denied(visit, err))?;
    let PassedBack { status, headers, body } = back;
    if status.is_informational() {
        log::warn!(cid:% = cid, channel:% = channel.name, status = status.as_u16(); "an answer that is none came back");
        let sentence = "the system behind this channel answered with what is no answer";
        return Err(Denied::because(StatusCode::BAD_GATEWAY, sentence));
    }
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let needs_all = quality.is_some_and(|has| has.schemas.response.is_some());
    let wants_all = reads_answers
        || slot.is_some()
        || quality.is_some_and(|has| has.packs && gzip::is_wanted(&visit.parts.headers));
    let body = match body {
        Carried::Streamed(download) if needs_all || wants_all && is_short(&download) => {
            Payload::Whole(whole(*download).await?)
        }
        Carried::Streamed(download) => Payload::Passed(download),
        Carried::Whole(whole) => Payload::Whole(whole),
    };
    if let Some(schema) = quality.and_then(|quality| quality.schemas.response.as_ref()) {
        let reply = Reply {
            status: status.as_u16(),
            content_type: None,
            headers: Vec::new(),
            body: body.whole().unwrap_or_default(),
        };
        if let Err(violation) = checked::reply(schema, &reply).await {
            return Ok(checked::not_sent(channel, cid, &violation));
        }
    }
    let mut answer = Answer::new(if has_body { body } else { Payload::Whole(Bytes::new()) });
    *answer.status_mut() = status;
    // What there would be with another method or without the condition; else the body says how long it is.
    let tells_length = visit.method == HttpMethod::Head || status == StatusCode::NOT_MODIFIED;
    for (name, value) in &headers {
        let is_kept = onward.response.takes(name)
            && *name != answer::CID
            && (*name != CONTENT_LENGTH || tells_length)
            && !is_hop_by_hop(name, &headers);
        if is_kept {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let (Some(keeping), Some(slot)) = (keeps, &slot) {
        door.cache.keep(keeping, slot, &mut answer);
    }
    Ok(answer)
}

/// The body of a request, and what is held for it meanwhile.
struct Sent {
    upload: Upload,
    unpacked: bool,
    _held: Box<dyn Send>,
}

/// Takes the body as it is to be passed on: whole where something needs it or it is short, else as it comes.
async fn upload(
    door: &Door,
    visit: &Visit<'_>,
    body: Incoming,
    trail: &mut Trail,
) -> Result<Sent, Denied> {
    let channel = visit.channel();
    let quality = channel.quality.as_deref();
    let is_json = channel.spec.data_format == DataFormat::Json;
    let needs_all =
        is_json || quality.is_some_and(|has| has.schemas.request.is_some() || has.audit.is_some());
    let declared = body.size_hint().exact();
    if !needs_all && declared.is_none_or(|length| length > HELD) {
        if declared.is_some_and(|length| length > channel.max_body_bytes) {
            return Err(too_large(channel.max_body_bytes));
        }
        let upload = Upload::Streamed(Lender::of(body, channel.max_body_bytes));
        return Ok(Sent { upload, unpacked: false, _held: Box::new(()) });
    }
    let coding = if needs_all { visit.coding()? } else { Coding::Identity };
    let (body, _, held) = visit.body(door, coding, body, None).await?.into_parts();
    trail.note_body(&body);
    if is_json && !body.is_empty() {
        let checked = check_json_aside(&body).await;
        checked.map_err(|sentence| Denied::because(StatusCode::BAD_REQUEST, sentence))?;
    }
    if let Some(schema) = quality.and_then(|quality| quality.schemas.request.as_ref())
        && let Err(violation) = checked::request(schema, visit.method, &body).await
    {
        let sentence = format!("the request breaks the channel's schema: {violation}");
        return Err(Denied::because(StatusCode::BAD_REQUEST, sentence));
    }
    let unpacked = coding != Coding::Identity;
    Ok(Sent { upload: Upload::Whole(body), unpacked, _held: Box::new(held) })
}

/// The headers that go along, with those that say who asks.
fn headers_of(visit: &Visit<'_>, onward: &Onward) -> HeaderMap {
    let came = &visit.parts.headers;
    let mut headers = HeaderMap::with_capacity(came.keys_len() + 3);
    for (name, value) in came {
        let is_ours = *name == HOST
            || *name == EXPECT
            || *name == FORWARDED
            || *name == TRACEPARENT
            || *name == answer::CID
            || name.as_str().starts_with("x-forwarded-");
        let goes = !is_ours
            && (*name == CONTENT_LENGTH || onward.request.takes(name))
            && !is_hop_by_hop(name, came);
        if goes {
            headers.append(name.clone(), value.clone());
        }
    }
    if onward.preserve_host
        && let Some(host) = came.get(HOST)
    {
        headers.insert(HOST, host.clone());
    }
    if onward.forwarded.has_x() {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            for value in came.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    if onward.forwarded.has_standard()
        && let Some(value) = forwarded(came)
    {
        headers.insert(FORWARDED, value);
    }
    headers.append(VIA, HeaderValue::from_static(VIA_US));
    if let Ok(cid) = HeaderValue::from_str(visit.cid.as_str()) {
        headers.insert(answer::CID, cid);
    }
    headers
}

/// What the balancer says about the client, as `Forwarded` (RFC 7239): one element for each station, the last with the
/// protocol and the host.
fn forwarded(came: &HeaderMap) -> Option<HeaderValue> {
    let text = |name| came.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let quoted = |value: &str| {
        let is_token =
            value.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if is_token && !value.is_empty() {
            value.to_owned()
        } else {
            format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    let stations = came
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|station| !station.is_empty());
    let mut elements: Vec<String> = stations
        .map(|station| match station.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("for=\"[{address}]\""),
            Err(_) => format!("for={}", quoted(station)),
        })
        .collect();
    let last = elements.last_mut()?;
    if let Some(proto) = text(X_FORWARDED_PROTO) {
        last.push_str(&format!(";proto={}", quoted(proto)));
    }
    if let Some(host) = text(X_FORWARDED_HOST) {
        last.push_str(&format!(";host={}", quoted(host)));
    }
    HeaderValue::from_str(&elements.join(", ")).ok()
}

/// Has the connection pass it on, and counts and traces that.
async fn pass(
    door: &Door,
    onward: &Onward,
    mut passing: Passing<'_>,
) -> Result<PassedBack, PassError> {
    let rest = door.outgoing.rest(&onward.outgoing)?;
    let started = Instant::now();
    let step = trace::current().map(|trace| {
        let mut step = trace.open(What::Outgoing, &onward.outgoing);
        step.say("op", "pass_through");
        step.say("method", passing.method.as_str());
        if let Ok(value) = HeaderValue::from_str(&step.inside().traceparent()) {
            passing.headers.insert(TRACEPARENT, value);
        }
        step
    });
    let ended = rest.pass(passing).await;
    let (status, has_failed) = match &ended {
        Ok(back) => (back.status.as_u16(), back.status.is_server_error()),
        Err(_) => (0, true),
    };
    if let Some(step) = step {
        step.end(status, has_failed);
    }
    if let Some(figures) = door.figures.of(&onward.outgoing) {
        figures.times.note(started.elapsed());
        figures.errors.fetch_add(u64::from(has_failed), Ordering::Relaxed);
    }
    ended
}

/// Whether an answer is of a known length that may be kept in memory.
fn is_short(download: &Download) -> bool {
    let most = u64::try_from(spool::FROM).unwrap_or(u64::MAX);
    download.size_hint().exact().is_some_and(|length| length <= most)
}

async fn whole(download: Download) -> Result<Bytes, Denied> {
    match download.collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(_) => Err(Denied::because(StatusCode::BAD_GATEWAY, BROKE_OFF)),
    }
}

const BROKE_OFF: &str =
    "the system behind this channel ended the connection before its answer was complete";

fn too_large(limit: u64) -> Denied {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Denied::of_body(&BodyError::TooLarge { limit })
}

/// What the client learns of a request that could not be passed on: not where it should have gone.
fn denied(visit: &Visit<'_>, err: PassError) -> Denied {
    let channel = visit.channel();
    let err = match err {
        PassError::Call(err) => err,
        PassError::Upload(UploadFault::TooLarge) => return too_large(channel.max_body_bytes),
        PassError::Upload(UploadFault::Broken(err)) => {
            return Denied::of_body(&BodyError::Broken(err));
        }
        PassError::ClientLate => {
            return Denied::of_body(&BodyError::Late { limit: channel.timeout });
        }
    };
    let (status, sentence) = match &err {
        CallError::Timeout { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "the system behind this channel did not answer in time")
        }
        CallError::Unreachable { .. } => {
            (StatusCode::BAD_GATEWAY, "the system behind this channel cannot be reached")
        }
        CallError::Broken { .. } => (StatusCode::BAD_GATEWAY, BROKE_OFF),
        CallError::TooLarge { .. } => {
            (StatusCode::BAD_GATEWAY, "the answer of the system behind this channel is too large")
        }
        CallError::Address { .. } => (
            StatusCode::BAD_REQUEST,
            "the path cannot be passed on: it has `.` or `..` between slashes, or a part is missing",
        ),
        CallError::CircuitOpen { again_in, .. } => {
            let seconds = again_in.as_secs() + u64::from(again_in.subsec_nanos() > 0);
            let sentence = "the system behind this channel fails; try again later";
            let denied = Denied::because(StatusCode::SERVICE_UNAVAILABLE, sentence);
            return denied.retry_after(seconds.max(1));
        }
        CallError::NotFound { .. }
        | CallError::WrongType { .. }
        | CallError::UnknownOp { .. }
        | CallError::Inactive { .. }
        | CallError::SecurityInactive { .. }
        | CallError::SecretUnknown { .. }
        | CallError::Token { .. }
        | CallError::NoSecurity { .. }
        | CallError::NoToken(_)
        | CallError::BadRequest { .. }
        | CallError::Tls { .. }
        | CallError::File { .. } => {
            let sentence = "requests cannot be passed on now; the log says why";
            let denied = Denied::because(StatusCode::SERVICE_UNAVAILABLE, sentence);
            return denied.retry_after(1);
        }
    };
    Denied::because(status, sentence)
}

fn method_of(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Options => Method::OPTIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_become_elements_of_forwarded() {
        let mut came = HeaderMap::new();
        assert_eq!(forwarded(&came), None);
        came.insert(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.7, 2001:db8::1"));
        came.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        came.insert(X_FORWARDED_HOST, HeaderValue::from_static("api.example.com:8443"));
        let expected =
            "for=192.0.2.7, for=\"[2001:db8::1]\";proto=https;host=\"api.example.com:8443\"";
        assert_eq!(forwarded(&came).unwrap(), expected);
        came.insert(X_FORWARDED_HOST, HeaderValue::from_static("a\"b"));
        assert!(forwarded(&came).unwrap().to_str().unwrap().ends_with(r#"host="a\"b""#));
    }
}
