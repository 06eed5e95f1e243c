//! Counts and traces what services ask of the outside: a layer in front of whatever answers them.
//!
//! It knows no kind of connection: how long the answer took and whether it was one is all that it looks at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arbase::metrics::Histogram;
use serde_json::Value;

use super::trace::{self, Open, What};
use crate::call::{Answering, Outside, WorkerReply, WorkerRequest};

/// Most connections that figures are kept for.
const MOST: usize = 4096;

/// What calls on one connection came to.
#[derive(Debug, Default)]
pub struct CallFigures {
    /// How long they took.
    pub times: Histogram,
    /// Those that got no answer, or one of 500 and above.
    pub errors: AtomicU64,
}

/// The figures of all connections, by name.  Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct OutsideFigures(Arc<Mutex<BTreeMap<String, Arc<CallFigures>>>>);

impl OutsideFigures {
    /// All of them, by name.
    pub fn all(&self) -> Vec<(String, Arc<CallFigures>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, figures)| (name.clone(), Arc::clone(figures))).collect()
    }

    /// Forgets the connections that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_there(name));
    }

    /// Those of one; none where there are too many already.
    pub fn of(&self, name: &str) -> Option<Arc<CallFigures>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(name) {
            return Some(Arc::clone(known));
        }
        if all.len() >= MOST {
            return None;
        }
        Some(Arc::clone(all.entry(name.to_owned()).or_default()))
    }
}

/// The layer.
pub struct Watched {
    inner: Arc<dyn Outside>,
    figures: OutsideFigures,
}

impl Watched {
    /// In front of what answers.
    pub fn before(inner: Arc<dyn Outside>, figures: OutsideFigures) -> Self {
        Self { inner, figures }
    }
}

/// The connection a request is a call on; none where it only asks for something of the core's own.
fn connection(meta: &Value) -> Option<&str> {
    match meta.get("op").and_then(Value::as_str)? {
        "rest_info" | "crypto" | "bearer_token" => None,
        _ => meta.get("conn").and_then(Value::as_str),
    }
}

/// What came of it: the status, and whether it is a failure; none where there is no such connection.
fn verdict(meta: &Value) -> Option<(Option<u16>, bool)> {
    if let Some(error) = meta.get("error") {
        let kind = error.get("type").and_then(Value::as_str);
        return (kind != Some("not-found")).then_some((None, true));
    }
    let status = meta.get("status").and_then(Value::as_u64).and_then(|it| u16::try_from(it).ok());
    Some((status, status.is_some_and(|status| status >= 500)))
}

impl Outside for Watched {
    fn indexes(&self) -> Vec<Arc<crate::outgoing::index::Index>> {
        self.inner.indexes()
    }

    fn answer(&self, request: WorkerRequest) -> Answering<'_> {
        let Some(name) = connection(&request.meta).map(ToOwned::to_owned) else {
            return self.inner.answer(request);
        };
        Box::pin(async move {
            let started = Instant::now();
            let step = trace::current().map(|trace| {
                let mut step = trace.open(What::Outgoing, &name);
                let text = |key: &str| request.meta.get(key).and_then(Value::as_str);
                step.say("op", text("op").unwrap_or_default());
                if let Some(method) = text("method") {
                    step.say("method", method);
                }
                step
            });
            let inside = step.as_ref().map(Open::inside).or_else(trace::current);
            let reply: WorkerReply = trace::scope(inside, self.inner.answer(request)).await;
            let verdict = verdict(&reply.meta);
            if let Some(step) = step {
                let (status, has_failed) = verdict.unwrap_or((None, true));
                step.end(status.unwrap_or_default(), has_failed);
            }
            if let Some((_, has_failed)) = verdict
                && let Some(figures) = self.figures.of(&name)
            {
                figures.times.note(started.elapsed());
                figures.errors.fetch_add(u64::from(has_failed), Ordering::Relaxed);
            }
            reply
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    struct Fixed(Value);

    impl Outside for Fixed {
        fn indexes(&self) -> Vec<Arc<crate::outgoing::index::Index>> {
            Vec::new()
        }

        fn answer(&self, _: WorkerRequest) -> Answering<'_> {
            Box::pin(async { WorkerReply { meta: self.0.clone(), body: Bytes::new() } })
        }
    }

    async fn figures(meta: Value, answer: Value) -> Vec<(String, u64, u64)> {
        let figures = OutsideFigures::default();
        let watched = Watched::before(Arc::new(Fixed(answer)), figures.clone());
        watched.answer(WorkerRequest { meta, ..crate::call::tests::worker_request() }).await;
        let all = figures.all().into_iter();
        all.map(|(name, one)| (name, one.times.seen().count(), one.errors.load(Ordering::Relaxed)))
            .collect()
    }

    #[tokio::test]
    async fn a_call_is_counted_under_its_connection_and_a_failure_as_one() {
        let call = json!({"op": "rest", "conn": "crm"});
        let counted = |calls, errors| vec![("crm".to_owned(), calls, errors)];
        assert_eq!(figures(call.clone(), json!({"status": 200})).await, counted(1, 0));
        assert_eq!(figures(call.clone(), json!({"status": 503})).await, counted(1, 1));
        let refused = json!({"error": {"type": "timeout", "message": "late"}});
        assert_eq!(figures(call, refused).await, counted(1, 1));
    }

    #[tokio::test]
    async fn names_that_services_invent_are_not_kept() {
        let call = json!({"op": "rest", "conn": "invented"});
        let unknown = json!({"error": {"type": "not-found", "message": "there is none"}});
        assert_eq!(figures(call, unknown).await, []);
        let asked = json!({"op": "crypto", "action": "encrypt"});
        assert_eq!(figures(asked, json!({})).await, []);
    }
}
