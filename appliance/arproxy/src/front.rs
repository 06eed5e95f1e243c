//! The side of the proxy that clients see: connections, limits, refusals, and the end of it all.
//!
//! Every connection has one task.  It drives hyper and one timer that is set again only when it has to fire
//! earlier, so that limits of time cost a request next to nothing; what the limit is at any
//! moment, `watch` knows.
//!
//! The front writes the answer itself where hyper would answer without a word (malformed or too large heads)
//! or not at all (a head that does not come to its end).
//!
//! **Invariant:** once asked to stop, no request that reached the box is lost: what waits in the
//! queue of the socket is accepted, what is in flight is finished, and connections that are kept alive are
//! closed with an answer that says so, or after a moment without a request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

use crate::body::{ClientBody, FrontBody};
use crate::exchange::{Exchange, Peer};
use crate::headers;
use crate::limits::Limits;
use crate::quiet::LineGate;
use crate::refusal::{Refusal, options_answer};
use crate::socket::Watched;
use crate::streams::{Rewound, Streams};
use crate::tls::{self, HANDSHAKE, Tls};
use crate::trace::Ids;
use crate::trust::Network;
use crate::watch::{Overdue, Phase, Watch};

/// How long a connection without a request stays open once the front stops: time for a request that
/// is on its way to arrive.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// How long a WebSocket stays open once the front stops: its ends may be saying good-bye, because the core stops too.
const TUNNEL_GRACE: Duration = Duration::from_secs(3);
/// How long what a refused client still sends is read and dropped, so that the refusal reaches it.
const LINGER: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// hyper's least buffer.
const LEAST_BUFFER: usize = 8192;
/// Header lines that hyper takes without allocating for each request.
const DEFAULT_HEADER_COUNT: usize = 100;
/// Requests of one HTTP/2 connection at once.
const MOST_STREAMS: u32 = 128;
/// How much of a body may be on its way to us: of one stream, and of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How often a client of HTTP/2 is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How often the streams of a connection are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Lines about refused requests, a second.
const REFUSAL_LINES: u32 = 20;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Why there is no listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("cannot listen on `{addr}`: another program has port {}", addr.port())]
    InUse {
        /// Where.
        addr: SocketAddr,
    },
    /// The port is one that only root may have.
    #[error(
        "cannot listen on `{addr}`: port {} needs privileges; take one above 1023",
        addr.port()
    )]
    Denied {
        /// Where.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on `{addr}`")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A socket that takes connections.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl Listening {
    /// Listens on `addr`, within a tokio runtime.  `[::]` takes IPv4 as well; where the box has no IPv6 it
    /// becomes `0.0.0.0`.
    pub fn on(addr: SocketAddr) -> Result<Self, ListenError> {
        let any_v6 = addr.is_ipv6() && addr.ip().is_unspecified();
        let bound = match bind(addr) {
            Err(err) if any_v6 && lacks_v6(&err) => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
            }
            bound => bound,
        };
        let listener = bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { addr },
            io::ErrorKind::PermissionDenied => ListenError::Denied { addr },
            _ => ListenError::Bind { addr, source },
        })?;
        let addr = listener.local_addr().map_err(|source| ListenError::Bind { addr, source })?;
        Ok(Self { listener, addr, tls: None })
    }

    /// The same, with TLS for clients that begin with it.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<Tls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A port of connections that ended just now is free; one that is listened on is not.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn lacks_v6(err: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    err.raw_os_error() == Some(EAFNOSUPPORT) || err.kind() == io::ErrorKind::AddrNotAvailable
}

/// What the front has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontView {
    /// Connections open now.
    pub connections: u64,
    /// Requests so far.
    pub requests: u64,
    /// Those that the proxy itself refused.
    pub refused: u64,
}

/// The front.  Clones are the same front.
#[derive(Debug, Clone)]
pub struct Front(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    trusted: Vec<Network>,
    stopping: AtomicBool,
    /// Told once when it stops.
    stop: tokio::sync::watch::Sender<bool>,
    requests: AtomicU64,
    refused: AtomicU64,
    refusal_lines: LineGate,
    connections: Mutex<HashMap<u64, Connection>>,
}

#[derive(Debug)]
struct Connection {
    watch: Arc<Watch>,
    task: tokio::task::AbortHandle,
}

impl Front {
    /// A front with these limits; `trusted` peers are believed about whom they ask for.
    pub fn new(limits: Limits, trusted: Vec<Network>) -> Self {
        Self(Arc::new(Shared {
            limits,
            trusted,
            stopping: AtomicBool::new(false),
            stop: tokio::sync::watch::Sender::new(false),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusal_lines: LineGate::new(REFUSAL_LINES),
            connections: Mutex::default(),
        }))
    }

    /// What it has done so far.
    pub fn view(&self) -> FrontView {
        let connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner).len();
        FrontView {
            connections: u64::try_from(connections).unwrap_or(u64::MAX),
            requests: self.0.requests.load(Relaxed),
            refused: self.0.refused.load(Relaxed),
        }
    }

    /// Serves until `stop` is done, and then finishes what is in flight.
    pub async fn serve<S, B>(
        &self,
        listening: Listening,
        service: S,
        stop: impl Future<Output = ()>,
    ) where
        S: Service<Exchange, Response = Response<B>, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let Listening { listener, tls, .. } = listening;
        let mut next_id = 0;
        {
            let mut stop = pin!(stop);
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = &mut stop => break,
                };
                self.accepted(accepted, tls.as_ref(), &service, &mut next_id).await;
            }
        }
        self.0.stopping.store(true, Relaxed);
        self.0.stop.send_replace(true);
        // Whoever is in the queue has been told by the kernel that he is connected.
        while let Some(accepted) = std::future::poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(accepted.ok()),
            Poll::Pending => Poll::Ready(None),
        })
        .await
        {
            self.accepted(Ok(accepted), tls.as_ref(), &service, &mut next_id).await;
        }
        drop(listener);
        self.finish().await;
    }

    async fn accepted<S, B>(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        tls: Option<&Arc<Tls>>,
        service: &S,
        next_id: &mut u64,
    ) where
        S: Service<Exchange, Response = Response<B>, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Of one connection that ended already nobody need know; being out of file
                // descriptors passes only if we wait.
                if err.kind() != io::ErrorKind::ConnectionAborted {
                    if let Some(dropped) = self.0.refusal_lines.pass(Instant::now()) {
                        log::warn!(error:% = err, dropped; "cannot accept a connection");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
        };
        let peer = Arc::new(Peer::new(addr, "http", &self.0.trusted));
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= self.0.limits.max_connections {
            drop(connections);
            let details = "too many connections are open; try again";
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, details);
            let ids = Ids::random();
            let cid = ids.cid.to_str().unwrap_or_default();
            self.0.note_refusal(&refusal, cid, &peer);
            // A new socket's buffer has room; if not, closing says enough.  Who expects TLS could not read it.
            if tls.is_none() {
                stream.try_write(&refusal.bytes(cid)).ok();
            }
            return;
        }
        // Each answer is written at once; waiting for more would only delay it.
        stream.set_nodelay(true).ok();
        let id = *next_id;
        *next_id += 1;
        let watch = Arc::new(Watch::starting_at(Instant::now()));
        let leave = Leave { shared: Arc::clone(&self.0), id };
        let (shared, service) = (Arc::clone(&self.0), service.clone());
        let task = match tls.cloned() {
            None => {
                let serving = shared.connection(stream, peer, service, Arc::clone(&watch));
                tokio::spawn(async move {
                    serving.await;
                    drop(leave);
                })
            }
            Some(tls) => {
                let serving =
                    Box::pin(shared.begun(stream, tls, peer, service, Arc::clone(&watch)));
                tokio::spawn(async move {
                    serving.await;
                    drop(leave);
                })
            }
        };
        // The entry is made under the lock that the end of the task takes, so that it comes first.
        connections.insert(id, Connection { watch, task: task.abort_handle() });
    }

    /// Waits for what is in flight, and closes what only waits.
    async fn finish(&self) {
        let begun = Instant::now();
        loop {
            {
                let connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
                if connections.is_empty() {
                    return;
                }
                let waited = begun.elapsed();
                let over = waited >= self.0.limits.stop_grace;
                if over {
                    log::warn!(connections = connections.len(), waited:? = waited; "requests cut off by the stop");
                }
                for connection in connections.values() {
                    let grace = match connection.watch.is_tunnel() {
                        true => TUNNEL_GRACE,
                        false => IDLE_GRACE,
                    };
                    if over || (waited >= grace && connection.watch.is_idle()) {
                        connection.task.abort();
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Takes a connection out of the list however its task ends.
struct Leave {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// How hyper's part in a connection ended.
enum Ended {
    Hyper(hyper::Result<()>),
    Overdue(Overdue),
}

impl Shared {
    fn note_refusal(&self, refusal: &Refusal, cid: &str, peer: &Peer) {
        self.refused.fetch_add(1, Relaxed);
        let Some(dropped) = self.refusal_lines.pass(Instant::now()) else { return };
        let status = refusal.status.as_u16();
        let details = &*refusal.details;
        let cause = refusal.cause.as_deref().unwrap_or_default();
        if refusal.status.is_server_error() {
            log::warn!(cid, addr:% = peer.addr, status, details, cause, dropped; "request refused");
        } else {
            log::info!(cid, addr:% = peer.addr, status, details, dropped; "request refused");
        }
    }

    /// A connection of which it is not known yet whether it speaks TLS.
    async fn begun<S, B>(
        self: Arc<Self>,
        stream: TcpStream,
        tls: Arc<Tls>,
        peer: Arc<Peer>,
        service: S,
        watch: Arc<Watch>,
    ) where
        S: Service<Exchange, Response = Response<B>, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limit = self.limits.header_timeout;
        let until = tokio::time::Instant::now() + limit;
        let mut first = [0];
        match tokio::time::timeout_at(until, stream.peek(&mut first)).await {
            Ok(Ok(1)) => {}
            Ok(_) | Err(_) => return,
        }
        if first != [HANDSHAKE] {
            if !tls.is_required {
                return self.connection(stream, peer, service, watch).await;
            }
            let details = "this port speaks TLS only; use https";
            let refusal = Refusal::new(StatusCode::BAD_REQUEST, details);
            return self.say(stream, refusal, &watch, &peer).await;
        }
        let stream = match tokio::time::timeout_at(until, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(err)) => {
                log::debug!(addr:% = peer.addr, error:% = err; "no TLS came about");
                return;
            }
            Err(_) => {
                log::debug!(addr:% = peer.addr; "TLS did not come about in time");
                return;
            }
        };
        let session = stream.get_ref().1;
        let mut secure = Peer::new(peer.addr, "https", &self.trusted);
        secure.certificate = tls::forwarded(session.peer_certificates());
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        let secure = Arc::new(secure);
        if is_h2 {
            self.multiplexed(stream, secure, service, watch).await;
        } else {
            self.connection(stream, secure, service, watch).await;
        }
    }

    /// A connection that speaks HTTP/2.
    async fn multiplexed<T, S, B>(
        self: Arc<Self>,
        stream: T,
        peer: Arc<Peer>,
        service: S,
        watch: Arc<Watch>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send,
        S: Service<Exchange, Response = Response<B>, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limits = &self.limits;
        let streams = Arc::new(Streams::default());
        let answering = {
            let (shared, peer) = (Arc::clone(&self), Arc::clone(&peer));
            let (streams, watch) = (Arc::clone(&streams), Arc::clone(&watch));
            service_fn(move |request| {
                let now = Instant::now();
                watch.enter(Phase::Working, now);
                let of_stream = streams.begin(now);
                let shared = Arc::clone(&shared);
                shared.answer_stream(request, service.clone(), Arc::clone(&peer), of_stream)
            })
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(PING_EVERY))
            .keep_alive_timeout(limits.write_timeout);
        let mut http = pin!(builder.serve_connection(TokioIo::new(stream), answering));
        let mut stop = self.stop.subscribe();
        let mut is_closing = false;
        let mut idle_since = Some(Instant::now());
        loop {
            let wait = if is_closing { IDLE_GRACE / 4 } else { LOOK };
            tokio::select! {
                ended = &mut http => {
                    if let Err(err) = ended {
                        log::debug!(addr:% = peer.addr, error:% = err; "connection ended");
                    }
                    return;
                }
                _ = stop.wait_for(|is_stopping| *is_stopping), if !is_closing => {
                    http.as_mut().graceful_shutdown();
                    is_closing = true;
                }
                () = tokio::time::sleep(wait) => {}
            }
            let now = Instant::now();
            let (open, overdue) = streams.look(limits, now);
            if let Some(due) = overdue {
                let why = match due {
                    Overdue::Write => "the client takes nothing of its answer",
                    _ => "the answer or the body does not go on",
                };
                if let Some(dropped) = self.refusal_lines.pass(now) {
                    log::info!(addr:% = peer.addr, why, dropped; "connection cut off");
                }
                return;
            }
            if open > 0 {
                idle_since = None;
                continue;
            }
            if !watch.is_idle() {
                watch.enter(Phase::Idle, now);
            }
            let idle = now.saturating_duration_since(*idle_since.get_or_insert(now));
            if idle > limits.keep_alive_timeout + limits.header_timeout {
                return;
            }
            if idle > limits.keep_alive_timeout && !is_closing {
                http.as_mut().graceful_shutdown();
                is_closing = true;
            }
        }
    }

    /// The answer to one request of a connection that has several, within the limits of time until it begins.
    async fn answer_stream<S, B>(
        self: Arc<Self>,
        request: Request<Incoming>,
        service: S,
        peer: Arc<Peer>,
        watch: Arc<Watch>,
    ) -> Result<Response<FrontBody<B>>, Infallible>
    where
        S: Service<Exchange, Response = Response<B>, Error = Refusal>,
        B: Body<Data = Bytes> + Unpin,
    {
        let limits = &self.limits;
        let mut work = pin!(Arc::clone(&self).answer(request, service, peer, Arc::clone(&watch)));
        let mut armed = u64::MAX;
        let mut timer = pin!(tokio::time::sleep_until(watch.instant(armed).into()));
        let answered = std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = work.as_mut().poll(cx) {
                    return Poll::Ready(answer);
                }
                let deadline = watch.deadline_ms(limits);
                if deadline != armed {
                    timer.as_mut().reset(watch.instant(deadline).into());
                    armed = deadline;
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match watch.overdue(limits, Instant::now()) {
                    Some(due) => watch.set_expired(due),
                    // A moment too early: the clock of the timer counts whole milliseconds.
                    None => armed = 0,
                }
            }
        });
        let mut answer = answered.await?;
        // This is about connections of HTTP/1.1.
        answer.headers_mut().remove(header::CONNECTION);
        Ok(answer)
    }

    async fn connection<T, S, B>(
        self: Arc<Self>,
        stream: T,
        peer: Arc<Peer>,
        service: S,
        watch: Arc<Watch>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Exchange, Response = Response<B>, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limits = &self.limits;
        let mut builder = http1::Builder::new();
        builder
            .header_read_timeout(None)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size((limits.max_header_bytes + 1).max(LEAST_BUFFER).max(64 * 1024));
        if limits.max_header_count != DEFAULT_HEADER_COUNT {
            builder.max_headers(limits.max_header_count);
        }
        let socket = TokioIo::new(Watched::new(stream, Arc::clone(&watch)));
        let answering = {
            let (shared, peer, watch) = (Arc::clone(&self), Arc::clone(&peer), Arc::clone(&watch));
            let service = service.clone();
            service_fn(move |request| {
                let shared = Arc::clone(&shared);
                shared.answer(request, service.clone(), Arc::clone(&peer), Arc::clone(&watch))
            })
        };
        let mut http = builder.serve_connection(socket, answering);
        let mut armed = watch.deadline_ms(limits);
        let mut timer = pin!(tokio::time::sleep_until(watch.instant(armed).into()));
        let mut is_registered = false;
        let ended = std::future::poll_fn(|cx| {
            if timer.is_elapsed() {
                match watch.overdue(limits, Instant::now()) {
                    // Before the answer began it can be told; the next poll below does so.
                    Some(due @ (Overdue::Request | Overdue::Body)) if !watch.has_answered() => {
                        watch.set_expired(due);
                    }
                    Some(due) => return Poll::Ready(Ended::Overdue(due)),
                    None => {}
                }
                armed = u64::MAX;
            }
            if let Poll::Ready(ended) = Pin::new(&mut http).poll(cx) {
                return Poll::Ready(Ended::Hyper(ended));
            }
            let deadline = watch.deadline_ms(limits);
            if deadline < armed {
                timer.as_mut().reset(watch.instant(deadline).into());
                armed = deadline;
                is_registered = false;
            }
            if !is_registered {
                // Once is enough: the task stays the same.
                if timer.as_mut().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                is_registered = true;
            }
            Poll::Pending
        })
        .await;
        let parts = http.into_parts();
        let stream = parts.io.into_inner().io;
        if let (Ended::Hyper(Ok(())), Some(tunnel)) = (&ended, watch.take_tunnel()) {
            return tunnel.run(stream, parts.read_buf, limits.write_timeout).await;
        }
        if let Ended::Hyper(Err(err)) = &ended
            && err.is_parse_version_h2()
            && !watch.had_request()
        {
            // Prior knowledge (RFC 9113, section 3.3): what was read of it is read again.
            let stream = Rewound::new(parts.read_buf, stream);
            return Box::pin(self.multiplexed(stream, peer, service, watch)).await;
        }
        self.part(stream, ended, &watch, &peer).await;
    }

    /// Says one sentence and closes.
    async fn say<T>(&self, mut stream: T, refusal: Refusal, watch: &Watch, peer: &Peer)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let ids = Ids::random();
        let cid = ids.cid.to_str().unwrap_or_default();
        self.requests.fetch_add(1, Relaxed);
        self.note_refusal(&refusal, cid, peer);
        let bytes = refusal.bytes(cid);
        if matches!(tokio::time::timeout(LINGER, stream.write_all(&bytes)).await, Ok(Ok(()))) {
            watch.set_linger();
            close(stream, watch).await;
        }
    }

    /// The last word on a connection.
    async fn part<T>(&self, stream: T, ended: Ended, watch: &Watch, peer: &Peer)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let refusal = match ended {
            Ended::Hyper(Ok(())) => None,
            Ended::Hyper(Err(err)) if watch.is_between_requests() => {
                refusal_for(&err, &self.limits)
            }
            Ended::Hyper(Err(err)) => {
                log::debug!(addr:% = peer.addr, error:% = err; "connection ended");
                return;
            }
            Ended::Overdue(Overdue::Head) => {
                let limit = self.limits.header_timeout;
                let details = format!("the request's headers were not complete within {limit:?}");
                Some(Refusal::new(StatusCode::REQUEST_TIMEOUT, details))
            }
            Ended::Overdue(Overdue::Close) => None,
            Ended::Overdue(due) => {
                let why = match due {
                    Overdue::Write => "the client takes nothing of its answer",
                    _ => "the answer or the body does not go on",
                };
                if let Some(dropped) = self.refusal_lines.pass(Instant::now()) {
                    log::info!(addr:% = peer.addr, why, dropped; "connection cut off");
                }
                return;
            }
        };
        match refusal {
            Some(refusal) => self.say(stream, refusal, watch, peer).await,
            None => close(stream, watch).await,
        }
    }

    async fn answer<S, B>(
        self: Arc<Self>,
        request: Request<Incoming>,
        mut service: S,
        peer: Arc<Peer>,
        watch: Arc<Watch>,
    ) -> Result<Response<FrontBody<B>>, Infallible>
    where
        S: Service<Exchange, Response = Response<B>, Error = Refusal>,
        B: Body<Data = Bytes> + Unpin,
    {
        watch.begin_request(Instant::now());
        self.requests.fetch_add(1, Relaxed);
        let ids = Ids::random();
        let answered = match self.prepare(request, &ids, &peer, &watch) {
            Prepared::Ask(exchange) => {
                let mut work = pin!(service.call(exchange));
                std::future::poll_fn(|cx| {
                    if let Some(due) = watch.expired() {
                        return Poll::Ready(Err(self.late(due)));
                    }
                    work.as_mut().poll(cx)
                })
                .await
                .map(|answer| answer.map(|body| FrontBody::theirs(body, Arc::clone(&watch))))
            }
            Prepared::Done(answer) => {
                Ok(answer.map(|body| FrontBody::own(body, Arc::clone(&watch))))
            }
            Prepared::Refused(refusal) => Err(refusal),
        };
        watch.set_answered();
        let mut answer = answered.unwrap_or_else(|refusal| {
            self.note_refusal(&refusal, ids.cid.to_str().unwrap_or_default(), &peer);
            refusal.response(&ids.cid).map(|body| FrontBody::own(body, Arc::clone(&watch)))
        });
        if self.stopping.load(Relaxed) {
            answer.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        Ok(answer)
    }

    fn prepare(
        &self,
        request: Request<Incoming>,
        ids: &Ids,
        peer: &Arc<Peer>,
        watch: &Arc<Watch>,
    ) -> Prepared {
        let (mut head, body) = request.into_parts();
        let body = ClientBody::new(body, &self.limits, Arc::clone(watch));
        // HTTP/1.1 was counted while it was read.
        if head.version == Version::HTTP_2 && head.headers.len() > self.limits.max_header_count {
            return Prepared::Refused(too_many_headers(&self.limits));
        }
        if let Err(refusal) = headers::admit(&mut head, peer, ids) {
            return Prepared::Refused(refusal);
        }
        if body.size_hint().lower() > self.limits.max_body_bytes {
            return Prepared::Refused(Refusal::too_large(self.limits.max_body_bytes));
        }
        if head.method == Method::OPTIONS && head.uri.path() == "*" {
            return Prepared::Done(options_answer(&ids.cid));
        }
        Prepared::Ask(Exchange {
            head,
            body,
            cid: ids.cid.clone(),
            peer: Arc::clone(peer),
            watch: Arc::clone(watch),
        })
    }

    fn late(&self, due: Overdue) -> Refusal {
        if due == Overdue::Body {
            let limit = self.limits.body_timeout;
            let details = format!("the request's body did not go on within {limit:?}");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, details).closing()
        } else {
            let limit = self.limits.request_timeout;
            let details = format!("the integrator core did not answer within {limit:?}");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, details)
        }
    }
}

/// Closes a connection, reading what the client still sends if it is to get its last answer.
async fn close<T: AsyncRead + AsyncWrite + Unpin>(mut stream: T, watch: &Watch) {
    if stream.shutdown().await.is_ok() && watch.lingers() {
        // Closing with something unread would make the kernel throw away the answer.
        let mut unread = [0; 4096];
        let read = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
        tokio::time::timeout(LINGER, read).await.ok();
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call; a box would cost each request"
)]
enum Prepared {
    Ask(Exchange),
    Done(Response<Bytes>),
    Refused(Refusal),
}

fn too_many_headers(limits: &Limits) -> Refusal {
    let details = format!(
        "the request's headers are more than {} lines or {} bytes",
        limits.max_header_count, limits.max_header_bytes
    );
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, details)
}

/// What to tell a client whose request's head hyper does not take; nothing if there is nobody to tell.
fn refusal_for(err: &hyper::Error, limits: &Limits) -> Option<Refusal> {
    if err.is_parse_version_h2() {
        let details = "a connection that began with HTTP/1.1 goes on with it";
        return Some(Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, details));
    }
    if err.is_parse_too_large() {
        if err.to_string().contains("URI") {
            let details = "the request target is longer than 65534 bytes";
            return Some(Refusal::new(StatusCode::URI_TOO_LONG, details));
        }
        return Some(too_many_headers(limits));
    }
    if err.is_parse() {
        let details = format!("the request is not well-formed HTTP/1.1: {err}");
        return Some(Refusal::new(StatusCode::BAD_REQUEST, details));
    }
    None
}
