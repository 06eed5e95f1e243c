//! The balancer's own step of the last requests, for `GET /v1/traces/{cid}`: when a request came, how long its answer took.
//!
//! It is a layer around the forwarding, so it sees what is sent to a core; what the front refuses is in the log.
//!
//! **Invariant:** [`KEPT`] requests are kept, whatever comes.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arapi::trace::TraceStep;
use arproxy::forward::{AnswerBody, Forwarding};
use arproxy::{Exchange, Forward, Peer, Refusal};
use http::{HeaderValue, Method, Response};

/// Requests that are kept.
const KEPT: usize = 4096;

#[derive(Debug)]
struct Seen {
    cid: HeaderValue,
    method: Method,
    peer: Arc<Peer>,
    at_us: u64,
    took: Duration,
    status: u16,
}

/// The last requests.  Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces(Arc<Mutex<VecDeque<Seen>>>);

impl Traces {
    fn keep(&self, seen: Seen) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(seen);
    }

    /// The steps of a request.
    pub(crate) fn of(&self, cid: &str) -> Vec<TraceStep> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().filter(|seen| seen.cid.as_bytes() == cid.as_bytes()).map(Seen::wire).collect()
    }
}

impl Seen {
    fn wire(&self) -> TraceStep {
        let notes = [
            ("method".to_owned(), self.method.to_string()),
            ("remote".to_owned(), self.peer.addr.to_string()),
        ];
        TraceStep {
            unit: "arldb".to_owned(),
            what: "balancer".to_owned(),
            name: String::new(),
            at_us: self.at_us,
            took_us: micros(self.took),
            status: Some(self.status),
            failed: self.status >= 500,
            span: String::new(),
            parent: String::new(),
            notes: BTreeMap::from(notes),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The forwarding, with its steps noted.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) inner: Forward,
    pub(crate) traces: Traces,
}

impl tower::Service<Exchange> for Traced {
    type Response = Response<AnswerBody>;
    type Error = Refusal;
    type Future = Tracing;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange) -> Tracing {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun = Some(Begun {
            cid: exchange.cid.clone(),
            method: exchange.head.method.clone(),
            peer: Arc::clone(&exchange.peer),
            at_us: micros(since),
            at: Instant::now(),
        });
        Tracing { inner: self.inner.call(exchange), begun, traces: self.traces.clone() }
    }
}

struct Begun {
    cid: HeaderValue,
    method: Method,
    peer: Arc<Peer>,
    at_us: u64,
    at: Instant,
}

/// A request under way.
pub(crate) struct Tracing {
    inner: Forwarding,
    begun: Option<Begun>,
    traces: Traces,
}

impl Tracing {
    fn end(&mut self, status: u16) {
        if let Some(Begun { cid, method, peer, at_us, at }) = self.begun.take() {
            self.traces.keep(Seen { cid, method, peer, at_us, took: at.elapsed(), status });
        }
    }
}

impl Future for Tracing {
    type Output = Result<Response<AnswerBody>, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.inner.as_mut().poll(cx);
        if let Poll::Ready(ended) = &polled {
            self.end(ended.as_ref().map_or_else(|it| it.status, Response::status).as_u16());
        }
        polled
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // The client went away, or waited too long: nginx's word for it is 499.
        self.end(499);
    }
}
