//! A call of a service, and what came of it: the seam between the doors (channels, the control
//! interface) and the workers.
//!
//! A door turns what came in into a [`Call`]; [`Invoker::call`] gets it run in a worker; the door
//! turns the [`Outcome`] into bytes.  Neither side knows how the other does its part.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arapi::names::Cid;
use arapi::objects::Priority;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::http::spool::Spool;

/// One call of a service.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which service.
    pub service: Arc<str>,
    /// The request it belongs to.
    pub cid: Cid,
    /// How it came, in the words of 3.2: `http-soap`, `invoke`, `invoke-async`, …
    pub channel: &'static str,
    /// `json`, `form`, `xml`, `csv`, `hl7`, `dict` or nothing.
    pub data_format: &'static str,
    /// The HTTP method, if it came by HTTP.
    pub method: Option<&'static str>,
    /// The `http` document of docs/worker-protocol.md; empty if it did not come by HTTP.
    pub http: Bytes,
    /// What the caller passed along beside the payload, a JSON object; empty if nothing.
    pub environ: Bytes,
    /// What was sent, if it is not spooled.
    pub body: Bytes,
    /// What was sent, if it is too large for memory.
    pub spool: Option<Arc<Spool>>,
    /// When its caller stops waiting; the service's own limit may be earlier.
    pub deadline: Instant,
    /// Whether it goes before others or after them where they wait for a worker.
    pub priority: Priority,
    /// Whether it may be run a second time when the worker dies under it (RFC 9110, section 9.2.2).
    pub is_idempotent: bool,
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome {
    /// The service answered.
    Done(Reply),
    /// The service answers piece by piece; the reply's body is the first.
    Streamed(Reply, Pieces),
    /// It failed, or could not be run.
    Failed(Failure),
}

/// A service's answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The content type the service set.
    pub content_type: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// The rest of a streamed answer.  Dropping this ends the service's generator: its client has gone away.
pub struct Pieces {
    rest: BoxStream<'static, Result<Bytes, BrokenOff>>,
    held: Vec<Box<dyn Any + Send>>,
}

/// A streamed answer ended before it was complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokenOff(pub String);

impl Pieces {
    /// Pieces as they come.
    pub fn new(rest: BoxStream<'static, Result<Bytes, BrokenOff>>) -> Self {
        Self { rest, held: Vec::new() }
    }

    /// Keeps something until the answer has ended.
    pub fn hold(&mut self, held: impl Any + Send) {
        self.held.push(Box::new(held));
    }

    /// The next piece.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let next = self.rest.as_mut().poll_next(cx);
        if let Poll::Ready(None | Some(Err(_))) = next {
            self.held.clear();
        }
        next
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces")
    }
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The HTTP status that goes with it.
    pub status: u16,
    /// Headers the service had set before it failed.
    pub headers: Vec<(String, String)>,
    /// What the caller may see; null: nothing.
    pub details: serde_json::Value,
    /// The exception's class, or a word of ours: `timeout`, `worker-died`, `busy`, `not-found`, `inactive`.
    pub kind: String,
    /// One sentence for the log and for callers inside.
    pub message: String,
    /// How long the caller should wait before it tries again.
    pub retry_after: Option<Duration>,
}

/// A call under way.
pub type Calling<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Gets calls run.  Implemented by the pool of workers.
///
/// Dropping the future gives the call up: its caller has gone away.
pub trait Invoker: Send + Sync + 'static {
    /// Runs one call.  Never hangs: ends at the latest a moment after the deadline.
    fn call(&self, call: Call) -> Calling<'_>;

    /// Counts changes of what calls are run with: a call that began under one number and ended under another may have
    /// been run with either.
    fn generation(&self) -> u64;
}

/// A REQUEST of a worker (docs/worker-protocol.md): what a service wants of the outside.
#[derive(Debug, Clone)]
pub struct WorkerRequest {
    /// The `meta` document with `op`.
    pub meta: serde_json::Value,
    /// The body.
    pub body: Bytes,
    /// The request it belongs to.
    pub cid: Cid,
    /// When the call it belongs to ends.
    pub deadline: Instant,
}

/// The REPLY to it.
#[derive(Debug, Clone)]
pub struct WorkerReply {
    /// The `meta` document.
    pub meta: serde_json::Value,
    /// The body.
    pub body: Bytes,
}

/// A worker's request being answered.
pub type Answering<'a> = Pin<Box<dyn Future<Output = WorkerReply> + Send + 'a>>;

/// Answers workers' requests.  Implemented by the outgoing connections; `invoke` is answered by the
/// pool itself.
pub trait Outside: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: WorkerRequest) -> Answering<'_>;

    /// The indexes of Python packages in use, in the order of their names.  Whoever stands before another passes them
    /// on: without a default, none can forget to.
    fn indexes(&self) -> Vec<Arc<crate::outgoing::index::Index>>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request of a worker, for tests of what answers them.
    pub(crate) fn worker_request() -> WorkerRequest {
        WorkerRequest {
            meta: serde_json::Value::Null,
            body: Bytes::new(),
            cid: Cid::random(),
            deadline: Instant::now() + Duration::from_secs(5),
        }
    }
}
