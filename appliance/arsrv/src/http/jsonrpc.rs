//! JSON-RPC 2.0 over HTTP: the method of a request is the name of a service, its params are the service's request.
//!
//! As in 3.2 a channel's white list says which services requests may name.  Each call of a batch is a call like any
//! other: it counts on every limit and needs its own grant.  What is wrong with one of them is an error object in
//! its place; what is wrong with the request itself (credentials, size) has a status of HTTP and an error object
//! without an id.
//!
//! **Invariant:** a call without an id is never answered, whatever comes of it.

use std::time::Instant;

use arapi::names::Cid;
use arbase::Chain;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use hyper::body::Incoming;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::door::Door;
use super::steps::{self, Denied, Trail, Visit};
use super::value;
use crate::call::{Call, Failure, Outcome};
use crate::limits::Ticket;
use crate::security::Passed;

/// Most calls of one batch.
const BATCH: usize = 1000;
/// How many calls of a batch run at a time.
const AT_ONCE: usize = 8;

/// The codes of the specification, and the two that 3.2 adds.
mod code {
    pub(super) const PARSE: i32 = -32700;
    pub(super) const INVALID_REQUEST: i32 = -32600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32601;
    pub(super) const INVALID_PARAMS: i32 = -32602;
    pub(super) const SERVER: i32 = -32000;
    pub(super) const FORBIDDEN: i32 = -32403;
    pub(super) const RATE_LIMIT: i32 = -32429;
}

/// What a request holds.
#[derive(Debug)]
enum Sent<'r> {
    One(Item<'r>),
    Batch(Vec<Item<'r>>),
}

/// One call, or what should have been one.
#[derive(Debug)]
struct Item<'r> {
    /// None: the caller wants no answer.
    id: Option<&'r RawValue>,
    /// The call; else why it is none.
    call: Result<Named<'r>, Fault>,
}

/// A call by name.
#[derive(Debug)]
struct Named<'r> {
    method: String,
    params: Option<&'r RawValue>,
}

/// An error object.
#[derive(Debug)]
struct Fault {
    code: i32,
    message: String,
    /// The status that HTTP would have had, where there was one.
    status: Option<u16>,
    details: Value,
}

/// A request object as it is written.
#[derive(Deserialize)]
struct Written<'r> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'r RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'r RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'r RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'r RawValue>,
}

/// A member that is there, also where it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Fault {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status: None, details: Value::Null }
    }

    /// Of a request, or a call, that goes no further.
    fn of_denied(denied: &Denied) -> Self {
        let Some(sentence) = &denied.sentence else { return Self::method_not_found() };
        let code = match denied.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => code::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS => code::RATE_LIMIT,
            status if status.is_client_error() => code::INVALID_REQUEST,
            _ => code::SERVER,
        };
        Self { status: Some(denied.status.as_u16()), ..Self::new(code, sentence) }
    }

    fn method_not_found() -> Self {
        Self::new(code::METHOD_NOT_FOUND, "there is no such method here")
    }

    /// Of a call that was not carried out, or that the service refused.
    fn of_failure(failure: &Failure, return_tracebacks: bool) -> Self {
        if matches!(failure.kind.as_str(), "not-found" | "inactive") {
            return Self::method_not_found();
        }
        let code = match failure.status {
            400 => code::INVALID_PARAMS,
            401 | 403 => code::FORBIDDEN,
            429 => code::RATE_LIMIT,
            _ => code::SERVER,
        };
        let mut details = failure.details.clone();
        let own = match &details {
            Value::String(sentence) if !sentence.is_empty() => Some(sentence.clone()),
            _ => None,
        };
        let message = match failure.status {
            // The words of 3.2; the exception's arguments are details.
            500 => "Message could not be handled".to_owned(),
            504 => "the service did not answer in time".to_owned(),
            503 => own.unwrap_or("the service cannot be run now; try again".to_owned()),
            _ => own.unwrap_or("the service refused the request".to_owned()),
        };
        if failure.status == 500 && !return_tracebacks {
            details = Value::Null;
        }
        Self { code, message, status: Some(failure.status), details }
    }

    /// The error object; 3.2 has the correlation id below `data.ctx`.
    fn write(&self, cid: &Cid) -> Value {
        let mut data = json!({"ctx": {"cid": cid}});
        if let Some(fields) = data.as_object_mut() {
            if let Some(status) = self.status {
                fields.insert("status".to_owned(), status.into());
            }
            if !matches!(&self.details, Value::Null | Value::String(_)) {
                fields.insert("details".to_owned(), self.details.clone());
            }
        }
        json!({"code": self.code, "message": self.message, "data": data})
    }
}

/// Answers a request to a JSON-RPC channel.
pub async fn answer(door: &Door, visit: &Visit<'_>, body: Incoming, trail: &mut Trail) -> Answer {
    match serve(door, visit, body, trail).await {
        Ok(answer) => answer,
        Err(denied) => {
            let fault = Fault::of_denied(&denied);
            let mut answer = answer::json(denied.status, response(None, &Err(fault), visit.cid));
            answer.headers_mut().extend(denied.headers);
            answer
        }
    }
}

async fn serve(
    door: &Door,
    visit: &Visit<'_>,
    body: Incoming,
    trail: &mut Trail,
) -> Result<Answer, Denied> {
    visit.enter(trail)?;
    let passed = visit.identify(door, trail, None).await?;
    let passed = passed.as_deref();
    visit.serving()?;
    let end = Instant::now() + visit.channel().timeout;
    let (body, _, _held) = visit.body(door, visit.coding()?, body, None).await?.into_parts();
    trail.note_body(&body);
    let (items, is_batch) = match parse(&body) {
        Ok(Sent::One(item)) => (vec![item], false),
        Ok(Sent::Batch(items)) => (items, true),
        Err(fault) => {
            log::debug!(
                cid:% = visit.cid, channel:% = visit.channel().name, error = fault.message;
                "request is no JSON-RPC"
            );
            let document = response(None, &Err(fault), visit.cid);
            return Ok(answer::json(StatusCode::OK, document));
        }
    };
    // What each call is allowed is settled before the first of them runs.
    let mut calls: Vec<BoxFuture<'_, Option<Vec<u8>>>> = Vec::with_capacity(items.len());
    for (at, Item { id, call }) in items.into_iter().enumerate() {
        let call = call.and_then(|named| plan(visit, passed, &named, at, &mut trail.ticket, end));
        calls.push(Box::pin(answered(door, visit, id, call)));
    }
    let answers = stream::iter(calls).buffered(AT_ONCE);
    let answers: Vec<Vec<u8>> = answers.filter_map(std::future::ready).collect().await;
    if answers.is_empty() {
        // RFC 9110: nothing to say, and nothing went wrong that the caller wanted to know of.
        let mut nothing = answer::json(StatusCode::NO_CONTENT, Bytes::new());
        nothing.headers_mut().remove(http::header::CONTENT_TYPE);
        return Ok(nothing);
    }
    let mut body = answers.join(&b',');
    if is_batch {
        body.insert(0, b'[');
        body.push(b']');
    }
    Ok(answer::json(StatusCode::OK, body))
}

/// What one call becomes.
fn plan(
    visit: &Visit<'_>,
    passed: Option<&Passed>,
    named: &Named<'_>,
    at: usize,
    ticket: &mut Ticket,
    end: Instant,
) -> Result<Call, Fault> {
    let channel = visit.channel();
    let denied = |denied: Denied| Fault::of_denied(&denied);
    let Some(target) = channel.targets.find(&named.method) else {
        log::warn!(
            cid:% = visit.cid, channel:% = channel.name, service:% = named.method.escape_debug();
            "request names a service that this channel does not lead to"
        );
        return Err(Fault::method_not_found());
    };
    if at == 0 {
        visit.authorize(target, passed, ticket).map_err(denied)?;
    } else {
        let mut own = Ticket::new(ticket.addr, ticket.now);
        steps::enter_again(channel, &mut own).map_err(denied)?;
        visit.authorize(target, passed, &mut own).map_err(denied)?;
    }
    let deadline = end.min(Instant::now() + target.timeout);
    Ok(visit.call(target, passed, "json", value::body_of(named.params), deadline))
}

/// A call with its response object; None where the caller wants none.
async fn answered(
    door: &Door,
    visit: &Visit<'_>,
    id: Option<&RawValue>,
    call: Result<Call, Fault>,
) -> Option<Vec<u8>> {
    let outcome = match call {
        Ok(call) => carry_out(door, visit, call).await,
        Err(fault) => Err(fault),
    };
    id.map(|id| response(Some(id), &outcome, visit.cid))
}

async fn carry_out(door: &Door, visit: &Visit<'_>, call: Call) -> Result<Box<RawValue>, Fault> {
    let service = std::sync::Arc::clone(&call.service);
    match door.invoker.call(call).await {
        // A service with `handle_<METHOD>` and no `handle` is not for this protocol.
        Outcome::Done(reply) if reply.status == 405 && reply.body.is_empty() => {
            Err(Fault::method_not_found())
        }
        Outcome::Done(reply) => value::of_reply(reply).map_err(|sentence| {
            log::warn!(cid:% = visit.cid, service:% = service, error = sentence; "answer cannot be sent");
            Fault::new(code::SERVER, sentence)
        }),
        // The SDK streams nothing but answers to REST channels.
        Outcome::Streamed(..) => Err(Fault::new(
            code::SERVER,
            "the service streams its answer, which JSON-RPC cannot carry",
        )),
        Outcome::Failed(failure) => {
            visit.log_failure(&service, &failure);
            Err(Fault::of_failure(&failure, door.return_tracebacks))
        }
    }
}

/// One response object.
fn response(id: Option<&RawValue>, outcome: &Result<Box<RawValue>, Fault>, cid: &Cid) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    match outcome {
        Ok(result) => {
            out.extend_from_slice(b"\"result\":");
            out.extend_from_slice(result.get().as_bytes());
        }
        Err(fault) => {
            out.extend_from_slice(b"\"error\":");
            out.extend_from_slice(fault.write(cid).to_string().as_bytes());
        }
    }
    out.extend_from_slice(b",\"id\":");
    out.extend_from_slice(id.map_or(b"null".as_slice(), |id| id.get().as_bytes()));
    out.push(b'}');
    out
}

/// What a body holds; fails where it is neither a call nor a batch of some.
fn parse(body: &[u8]) -> Result<Sent<'_>, Fault> {
    let text = std::str::from_utf8(body).map_err(|err| {
        let at = err.valid_up_to();
        Fault::new(
            code::PARSE,
            format!("the request is not UTF-8 at byte {at}, and JSON has to be"),
        )
    })?;
    let whole: &RawValue = serde_json::from_str(text)
        .map_err(|err| Fault::new(code::PARSE, format!("the request is not JSON: {err}")))?;
    if !whole.get().starts_with('[') {
        return Ok(Sent::One(item(whole)));
    }
    let items: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(|err| {
        Fault::new(code::PARSE, format!("the request is not JSON: {}", Chain(&err)))
    })?;
    if items.is_empty() {
        return Err(Fault::new(code::INVALID_REQUEST, "the batch is empty"));
    }
    if items.len() > BATCH {
        let message = format!("the batch has {} calls, and {BATCH} are the most", items.len());
        return Err(Fault::new(code::INVALID_REQUEST, message));
    }
    Ok(Sent::Batch(items.into_iter().map(item).collect()))
}

/// One call; where it is none, it is answered with its id, if that can be told.
fn item(raw: &RawValue) -> Item<'_> {
    // What is no call at all has no id, and is answered all the same.
    let null = || serde_json::from_str::<&RawValue>("null").ok();
    let invalid =
        |id, message: &str| Item { id, call: Err(Fault::new(code::INVALID_REQUEST, message)) };
    let Ok(written) = serde_json::from_str::<Written<'_>>(raw.get()) else {
        return invalid(
            null(),
            "a call is an object with `jsonrpc`, `method`, and perhaps `params` and `id`",
        );
    };
    let id = match written.id {
        None => None,
        Some(id) if matches!(id.get().as_bytes(), [b'"' | b'-' | b'0'..=b'9', ..] | b"null") => {
            Some(id)
        }
        Some(_) => return invalid(null(), "`id` is neither a text nor a number"),
    };
    let text = |raw: Option<&RawValue>| serde_json::from_str::<String>(raw?.get()).ok();
    if text(written.jsonrpc).as_deref() != Some("2.0") {
        return invalid(
            id.or_else(null),
            "`jsonrpc` is not \"2.0\", the one version that is spoken here",
        );
    }
    let Some(method) = text(written.method) else {
        return invalid(id.or_else(null), "`method` is not a text");
    };
    let params = match written.params.map(RawValue::get) {
        // Some clients send null where they mean nothing.
        None | Some("null") => None,
        Some(text) if text.starts_with(['{', '[']) => written.params,
        Some(_) => return invalid(id.or_else(null), "`params` is neither an object nor an array"),
    };
    Item { id, call: Ok(Named { method, params }) }
}

/// For fuzzing: any bytes as a request.  Panics where what is accepted breaks a promise.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(bytes: &[u8]) {
    let cid = Cid::random();
    let items = match parse(bytes) {
        Ok(Sent::One(item)) => vec![item],
        Ok(Sent::Batch(items)) => items,
        Err(fault) => vec![Item { id: None, call: Err(fault) }],
    };
    for Item { id, call } in items {
        let outcome = match call {
            Ok(named)
                if named.params.is_some_and(|params| !params.get().starts_with(['{', '['])) =>
            {
                panic!("params of no structure were accepted: {named:?}")
            }
            Ok(_) => Ok(RawValue::NULL.to_owned()),
            Err(fault) => Err(fault),
        };
        let written = response(id, &outcome, &cid);
        if serde_json::from_slice::<Value>(&written).is_err() {
            panic!("a response that is no JSON: {}", String::from_utf8_lossy(&written));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method and params of a call, or the code of what is wrong; and the id.
    fn seen(item: &Item<'_>) -> (String, Option<String>) {
        let call = match &item.call {
            Ok(named) => {
                format!("{} {}", named.method, named.params.map_or("-", RawValue::get))
            }
            Err(fault) => fault.code.to_string(),
        };
        (call, item.id.map(|id| id.get().to_owned()))
    }

    #[track_caller]
    fn check(body: &str, expected: &[(&str, Option<&str>)]) {
        let found = match parse(body.as_bytes()) {
            Ok(Sent::One(item)) => vec![seen(&item)],
            Ok(Sent::Batch(items)) => items.iter().map(seen).collect(),
            Err(fault) => vec![(format!("whole {}", fault.code), None)],
        };
        let expected: Vec<_> = expected
            .iter()
            .map(|(call, id)| ((*call).to_owned(), id.map(ToOwned::to_owned)))
            .collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn calls_are_read_as_the_specification_has_them() {
        let named = r#"{"jsonrpc":"2.0","method":"sum","params":{"a":1},"id":"x"}"#;
        check(named, &[("sum {\"a\":1}", Some("\"x\""))]);
        let listed = r#"{"jsonrpc":"2.0","method":"sum","params":[1, 2],"id":-3}"#;
        check(listed, &[("sum [1, 2]", Some("-3"))]);
        check(r#"{"jsonrpc":"2.0","method":"note"}"#, &[("note -", None)]);
        check(r#"{"jsonrpc":"2.0","method":"null-id","id":null}"#, &[("null-id -", Some("null"))]);
        check(
            r#"[{"jsonrpc":"2.0","method":"a","id":1}, {"jsonrpc":"2.0","method":"b"}]"#,
            &[("a -", Some("1")), ("b -", None)],
        );
    }

    #[test]
    fn what_is_no_call_is_told_so_with_its_id_where_it_has_one() {
        check(r#"{"jsonrpc":"2.0","method":"#, &[("whole -32700", None)]);
        check("", &[("whole -32700", None)]);
        check("[]", &[("whole -32600", None)]);
        check("1", &[("-32600", Some("null"))]);
        check("[1, {}]", &[("-32600", Some("null")), ("-32600", Some("null"))]);
        check(r#"{"jsonrpc":"1.0","method":"a","id":7}"#, &[("-32600", Some("7"))]);
        check(r#"{"method":"a","id":7}"#, &[("-32600", Some("7"))]);
        check(r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, &[("-32600", Some("null"))]);
        check(r#"{"jsonrpc":"2.0","method":"a","params":"bar","id":1}"#, &[("-32600", Some("1"))]);
        check(r#"{"jsonrpc":"2.0","method":"a","id":{}}"#, &[("-32600", Some("null"))]);
        check(r#"{"jsonrpc":"2.0","method":"a","id":true}"#, &[("-32600", Some("null"))]);
    }

    #[test]
    fn a_batch_has_a_most() {
        let call = r#"{"jsonrpc":"2.0","method":"a"}"#;
        let batch = |count| format!("[{}]", vec![call; count].join(","));
        assert!(parse(batch(BATCH).as_bytes()).is_ok());
        let fault = parse(batch(BATCH + 1).as_bytes()).unwrap_err();
        assert_eq!(fault.message, "the batch has 1001 calls, and 1000 are the most");
    }
}
