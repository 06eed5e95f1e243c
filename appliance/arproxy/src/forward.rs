//! The service of a balancer: each request to the best backend, again to another where that is safe.
//!
//! Small bodies are read whole before a backend is troubled, so that a slow client costs no backend
//! anything and the request can be sent again; larger ones flow through.  So do answers.
//!
//! A request is sent again in these cases only:
//!
//! * nothing of it was taken (the connection was already closed);
//! * it went to a Unix socket and the kernel says that the other end did not read all of it;
//! * its method is idempotent, all of its body is here, and it was not repeated before.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::admission::{Admission, Full, Place};
use crate::backend::{Backend, BackendSet, InFlight};
use crate::body::{Outgoing, join};
use crate::exchange::Exchange;
use crate::headers::{self, WantsWebSocket};
use crate::link::{Link, SendFault};
use crate::refusal::Refusal;
use crate::tunnel::{self, Asked};

/// Bodies up to this many bytes are held whole.
const HELD_BODY: usize = 64 * 1024;
/// How many connections that turn out to be closed a request may meet.
const MAX_UNSENT: u32 = 8;

/// How a [`Forward`] behaves.
#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// Requests on their way to backends at once.
    pub max_in_flight: usize,
    /// Requests that may wait for their turn.
    pub max_queue: usize,
    /// How long they may wait.
    pub queue_timeout: Duration,
}

/// Sends requests to the backends of a set.  Clones are the same balancer.
#[derive(Debug, Clone)]
pub struct Forward(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    backends: Arc<BackendSet>,
    door: Admission,
    retried: AtomicU64,
}

impl Forward {
    /// A balancer over `backends`.
    pub fn new(backends: Arc<BackendSet>, settings: &ForwardSettings) -> Self {
        let door =
            Admission::new(settings.max_in_flight, settings.max_queue, settings.queue_timeout);
        Self(Arc::new(Shared { backends, door, retried: AtomicU64::new(0) }))
    }

    /// Requests that were sent a second time.
    pub fn retried(&self) -> u64 {
        self.0.retried.load(Relaxed)
    }
}

/// What [`Forward`] gives back while it works.
pub type Forwarding = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Refusal>> + Send>>;

impl tower::Service<Exchange> for Forward {
    type Response = Response<AnswerBody>;
    type Error = Refusal;
    type Future = Forwarding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange) -> Forwarding {
        Box::pin(forward(Arc::clone(&self.0), exchange))
    }
}

async fn forward(shared: Arc<Shared>, exchange: Exchange) -> Result<Response<AnswerBody>, Refusal> {
    if exchange.head.extensions.get::<WantsWebSocket>().is_some() {
        // Boxed: hardly any request is one.
        return Box::pin(web_socket(shared, exchange)).await;
    }
    let Exchange { head, body, cid, peer: _, watch } = exchange;
    let body = match Outgoing::gather(body, HELD_BODY).await {
        Ok(body) => body,
        Err(fault) => return Err(Refusal::from(fault)),
    };
    let place = shared.enter().await?;
    let idempotent = head.method.is_idempotent();
    let mut request = Request::from_parts(head, body);
    let mut unsent = 0;
    let mut repeated = false;
    let mut failed_at: Option<Arc<Backend>> = None;
    loop {
        let (backend, mut link) = shared.connect(failed_at.as_deref()).await?;
        let in_flight = Arc::clone(&backend).begin();
        let spare = again(&request);
        let answer = match link.exchange(request).await {
            Ok(answer) => receive(&mut link, answer).await,
            Err(fault) => Err(fault),
        };
        let fault = match answer {
            Ok((mut head, body)) => {
                backend.note_answer();
                headers::answer(&mut head.headers, &cid);
                let body = match body {
                    Received::Whole(bytes) => {
                        backend.give_back(link, shared.backends.settings().max_idle);
                        AnswerBody::Whole(bytes)
                    }
                    Received::Part(rest) => {
                        let max_idle = shared.backends.settings().max_idle;
                        let link = Some(link);
                        AnswerBody::Stream(Box::new(Stream {
                            rest,
                            link,
                            max_idle,
                            in_flight,
                            _place: place,
                        }))
                    }
                };
                return Ok(Response::from_parts(head, body));
            }
            Err(fault) => fault,
        };
        if let Some(fault) = watch.body_fault() {
            return Err(Refusal::from(fault));
        }
        let error = with_cause(&fault.source);
        let next = if let Some(request) = fault.unsent {
            // The connection had been closed while it was idle, as connections are.
            backend.close_idle(Duration::ZERO, Instant::now());
            unsent += 1;
            (unsent <= MAX_UNSENT).then_some(request)
        } else if fault.untouched {
            backend.request_failed(&error);
            unsent += 1;
            spare.filter(|_| unsent <= MAX_UNSENT)
        } else {
            backend.request_failed(&error);
            let again = spare.filter(|_| idempotent && !repeated);
            repeated = true;
            again
        };
        let Some(next) = next else {
            let details = "the integrator core ended the connection before it answered; \
                           the request may have been carried out";
            let cause = format!("backend `{}`: {error}", backend.name());
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, details).caused_by(cause));
        };
        shared.retried.fetch_add(1, Relaxed);
        request = next;
        failed_at = Some(backend);
    }
}

/// Has a connection become a WebSocket, if the backend agrees.  It is asked once: whoever wants one tries again.
async fn web_socket(
    shared: Arc<Shared>,
    exchange: Exchange,
) -> Result<Response<AnswerBody>, Refusal> {
    let Exchange { head, body: _, cid, peer: _, watch } = exchange;
    let _place = shared.enter().await?;
    let Some(backend) = shared.backends.pick_patiently(None).await else {
        let details = "no integrator core is available; try again";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, details));
    };
    let limit = shared.backends.settings().connect_timeout;
    let in_flight = Arc::clone(&backend).begin();
    let asked =
        tunnel::ask(&backend, limit, Request::from_parts(head, Outgoing::Whole(Bytes::new())));
    let (mut head, answer) = asked.await.map_err(|error| {
        backend.request_failed(&error);
        let details = "the integrator core ended the connection before it answered";
        let cause = format!("backend `{}`: {error}", backend.name());
        Refusal::new(StatusCode::BAD_GATEWAY, details).caused_by(cause)
    })?;
    backend.note_answer();
    headers::answer(&mut head.headers, &cid);
    let body = match answer {
        Asked::Refused(body) => body,
        Asked::Tunnel(tunnel) => {
            headers::offer_web_socket(&mut head.headers);
            watch.set_tunnel(tunnel);
            Bytes::new()
        }
    };
    drop(in_flight);
    Ok(Response::from_parts(head, AnswerBody::Whole(body)))
}

impl Shared {
    /// A place for one more request on its way.
    async fn enter(&self) -> Result<Place, Refusal> {
        self.door.enter().await.map_err(|full| {
            let details = match full {
                Full::Queue => "too many requests are in progress; try again",
                Full::Waited => "too many requests are in progress and no turn came; try again",
            };
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, details)
        })
    }

    /// A backend and a connection to it.
    async fn connect(&self, but: Option<&Backend>) -> Result<(Arc<Backend>, Box<Link>), Refusal> {
        loop {
            let Some(backend) = self.backends.pick_patiently(but).await else {
                let details = "no integrator core is available; try again";
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, details));
            };
            while let Some(link) = backend.take_idle() {
                if link.is_ready() {
                    return Ok((backend, link));
                }
            }
            let limit = self.backends.settings().connect_timeout;
            let opened = match tokio::time::timeout(limit, open(&backend)).await {
                Ok(opened) => opened,
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("not within {limit:?}")))
                }
            };
            match opened {
                Ok(link) => return Ok((backend, link)),
                Err(err) if is_ours(&err) => {
                    let details = "the balancer has too many connections open; try again";
                    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, details);
                    return Err(refusal.caused_by(err.to_string()));
                }
                Err(err) => backend.is_gone(&err),
            }
        }
    }
}

/// Connects, waiting while the backend's queue of connections is full.
async fn open(backend: &Backend) -> io::Result<Box<Link>> {
    loop {
        match Link::open(backend.address()).await {
            // A Unix socket says so at once where TCP would wait (connect(2), EAGAIN).
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            opened => return opened,
        }
    }
}

/// Whether it is this process that is out of something, and not the backend that is at fault.
fn is_ours(err: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(err.raw_os_error(), Some(EMFILE | ENFILE))
}

enum Received {
    Whole(Bytes),
    Part(Incoming),
}

/// Receives an answer: a small one whole, of a larger one the head.
async fn receive(
    link: &mut Link,
    answer: Response<Incoming>,
) -> Result<(http::response::Parts, Received), SendFault> {
    let (head, mut body) = answer.into_parts();
    if body.is_end_stream() {
        std::future::poll_fn(|cx| {
            link.settle(cx);
            Poll::Ready(())
        })
        .await;
        return Ok((head, Received::Whole(Bytes::new())));
    }
    let small = |length: u64| usize::try_from(length).is_ok_and(|length| length <= HELD_BODY);
    if !body.size_hint().exact().is_some_and(small) {
        return Ok((head, Received::Part(body)));
    }
    let mut pieces = VecDeque::new();
    let mut length = 0;
    std::future::poll_fn(|cx| {
        loop {
            if body.is_end_stream() {
                link.settle(cx);
                return Poll::Ready(Ok(()));
            }
            match ready!(link.poll_body(&mut body, cx)) {
                Some(Ok(piece)) => {
                    length += piece.len();
                    pieces.push_back(piece);
                }
                Some(Err(source)) => return Poll::Ready(Err(source)),
                None => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
    .map_err(|source| SendFault { unsent: None, untouched: false, source })?;
    Ok((head, Received::Whole(join(pieces, length))))
}

/// The same request again, if all of it is here.
fn again(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let mut copy = Request::new(request.body().again()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn with_cause(err: &hyper::Error) -> String {
    match std::error::Error::source(err) {
        Some(cause) => format!("{err}: {cause}"),
        None => err.to_string(),
    }
}

/// An answer's body: whole, or flowing from its backend.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// A part at a time.
    Stream(Box<Stream>),
}

/// An answer's body that flows.
pub struct Stream {
    rest: Incoming,
    /// None once it has been given back.
    link: Option<Box<Link>>,
    max_idle: usize,
    in_flight: InFlight,
    _place: Place,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        let polled = ready!(link.poll_body(&mut self.rest, cx));
        if matches!(polled, Some(Ok(_))) && !self.rest.is_end_stream() {
            return Poll::Ready(polled);
        }
        link.settle(cx);
        if let Some(link) = self.link.take()
            && !matches!(polled, Some(Err(_)))
        {
            self.in_flight.0.give_back(link, self.max_idle);
        }
        Poll::Ready(polled)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Self::Stream(stream) => ready!(stream.poll(cx)),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Stream(stream) => stream.rest.size_hint(),
        }
    }
}
