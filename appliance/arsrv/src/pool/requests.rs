//! What services ask for: calls of other services are answered here, everything else by the outgoing connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arapi::names::Cid;
use arapi::objects::Priority;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{DEEPEST, Inner, keeper::Event};
use crate::call::{Call, Outcome, WorkerRequest};
use crate::telemetry::trace;
use crate::worker::frame::MetaBody;
use crate::worker::{End, Host, Origin, Worker};

impl Host for Hosting {
    fn request(&self, worker: &Arc<Worker>, id: u64, parts: MetaBody) {
        let (inner, worker) = (Arc::clone(&self.0), Arc::clone(worker));
        // A request takes as long as another system does: it must not hold up the frames behind it.
        tokio::spawn(async move {
            let (meta, body) = inner.answer(&worker, parts).await;
            worker.reply(id, meta.to_string().as_bytes(), &body);
        });
    }

    fn doomed(&self, worker: &Arc<Worker>) {
        self.0.leave_groups(worker);
        self.0.tell(Event::Wanting);
    }

    fn worn_out(&self, worker: &Arc<Worker>) {
        self.0.tell(Event::WornOut(Arc::clone(worker)));
    }

    fn ended(&self, worker: &Arc<Worker>, end: &End) {
        self.0.leave_groups(worker);
        self.0.bury(worker, end);
    }
}

/// The pool as workers see it.
pub(super) struct Hosting(pub(super) Arc<Inner>);

impl Inner {
    async fn answer(self: &Arc<Self>, worker: &Arc<Worker>, parts: MetaBody) -> (Value, Bytes) {
        let meta: Value = match serde_json::from_slice(&parts.meta) {
            Ok(meta) => meta,
            Err(err) => {
                return refused(
                    "bad-request",
                    &format!("the request's metadata cannot be read: {err}"),
                );
            }
        };
        let origin = worker.origin(meta.get("call").and_then(Value::as_u64).unwrap_or(0));
        let cid = text(&meta, "cid").and_then(|cid| Cid::parse(cid).ok());
        let cid = cid.or_else(|| origin.cid.clone()).unwrap_or_else(Cid::random);
        let trace = origin.trace.clone();
        if text(&meta, "op") == Some("invoke") {
            return trace::scope(trace, self.invoke(&meta, parts.body, cid, &origin)).await;
        }
        if text(&meta, "op") == Some("later") {
            return match self.accept(&parts.body, trace.as_ref()) {
                Ok(()) => (json!({}), Bytes::new()),
                Err((kind, message)) => refused(kind, &message),
            };
        }
        let request = WorkerRequest { meta, body: parts.body, cid, deadline: origin.deadline };
        let reply = trace::scope(trace, self.outside.answer(request)).await;
        (reply.meta, reply.body)
    }

    async fn invoke(&self, meta: &Value, body: Bytes, cid: Cid, origin: &Origin) -> (Value, Bytes) {
        let Some(service) = text(meta, "service") else {
            return refused("bad-request", "`invoke` needs `service`");
        };
        let depth = origin.depth.saturating_add(1);
        if depth > DEEPEST {
            let message = format!(
                "service `{service}` cannot be invoked: {DEEPEST} services wait for each other already"
            );
            return refused("refused", &message);
        }
        let data_format = match text(meta, "data_format") {
            Some("json") => "json",
            Some("form") => "form",
            Some("xml") => "xml",
            Some("csv") => "csv",
            Some("hl7") => "hl7",
            Some("") => "",
            _ => "dict",
        };
        let environ = match meta.get("environ") {
            None | Some(Value::Null) => Bytes::new(),
            Some(environ) => environ.to_string().into(),
        };
        let timeout = meta.get("timeout_ms").and_then(Value::as_u64).map(Duration::from_millis);
        let deadline = match timeout {
            Some(timeout) => origin.deadline.min(Instant::now() + timeout),
            None => origin.deadline,
        };
        let call = Call {
            service: service.into(),
            cid,
            channel: "invoke",
            data_format,
            method: None,
            http: Bytes::new(),
            environ,
            body,
            deadline,
            spool: None,
            priority: Priority::Interactive,
            is_idempotent: false,
        };
        // Boxed: a service that invokes leads back here.
        match Box::pin(self.call(call, depth)).await {
            Outcome::Done(reply) => {
                let meta = json!({
                    "status": reply.status,
                    "content_type": reply.content_type,
                    "headers": headers_of(reply.headers),
                });
                (meta, reply.body)
            }
            // The SDK streams nothing but answers to channels.
            Outcome::Streamed(..) => refused(
                "internal",
                &format!("service `{service}` streams its answer, which only a channel can take"),
            ),
            Outcome::Failed(failure) => {
                let by_us = matches!(
                    failure.kind.as_str(),
                    "not-found"
                        | "inactive"
                        | "timeout"
                        | "busy"
                        | "worker-died"
                        | "too-large"
                        | "internal"
                );
                if by_us {
                    // The words of docs/worker-protocol.md.
                    let kind = match failure.kind.as_str() {
                        "busy" | "worker-died" => "refused",
                        kind => kind,
                    };
                    return refused(kind, &failure.message);
                }
                let meta = json!({
                    "status": failure.status,
                    "headers": headers_of(failure.headers),
                    "error": {
                        "details": failure.details,
                        "type": failure.kind,
                        "message": failure.message,
                    },
                });
                (meta, Bytes::new())
            }
        }
    }
}

fn text<'a>(meta: &'a Value, key: &str) -> Option<&'a str> {
    meta.get(key).and_then(Value::as_str)
}

fn refused(kind: &str, message: &str) -> (Value, Bytes) {
    (json!({"error": {"type": kind, "message": message}}), Bytes::new())
}

/// Pairs as the protocol has them: a name with a value, or with a list where there are several.
fn headers_of(pairs: Vec<(String, String)>) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in pairs {
        match headers.entry(name) {
            serde_json::map::Entry::Vacant(place) => {
                place.insert(Value::String(value));
            }
            serde_json::map::Entry::Occupied(mut place) => match place.get_mut() {
                Value::Array(values) => values.push(Value::String(value)),
                first => *first = json!([first.take(), value]),
            },
        }
    }
    Value::Object(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_become_lists() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers =
            headers_of(vec![pair("a", "1"), pair("b", "2"), pair("a", "3"), pair("a", "4")]);
        assert_eq!(headers, json!({"a": ["1", "3", "4"], "b": "2"}));
    }
}
