//! Connections: over TLS, plain on loopback, and on the socket of this box; limited in number and patience.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbase::{Chain, Stop};
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::remote::Peer;

/// See [`Limits::patience`].
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an open answer may go on after the stop.
const GRACE: Duration = Duration::from_secs(2);
/// Wait after an accept that failed, for example for want of file descriptors.
const AFTER_FAULT: Duration = Duration::from_millis(100);
/// Connections on the socket at one time.
const LOCAL_CONNECTIONS: usize = 256;

/// What connections over the network are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most at one time.
    pub(crate) connections: usize,
    /// Longest time for the TLS handshake, and for the head of a request, also between two requests.
    pub(crate) patience: Duration,
}

impl Limits {
    /// The usual patience.
    pub(crate) fn with_connections(connections: usize) -> Self {
        Self { connections, patience: PATIENCE }
    }
}

/// Serves the network until told to stop.
pub(crate) async fn serve_network(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: Stop,
) {
    let Limits { connections, patience } = limits;
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            () = stop.wait() => break,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                log::warn!(error:% = Chain(&err); "cannot accept a connection");
                tokio::time::sleep(AFTER_FAULT).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            log::warn!(addr:% = addr, connections; "too many connections; one more is turned away");
            continue;
        };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        open.spawn(async move {
            network_connection(stream, addr, tls, router, patience, stop).await;
            drop(permit);
        });
    }
    while open.join_next().await.is_some() {}
}

async fn network_connection(
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    patience: Duration,
    stop: Stop,
) {
    // Answers are small and written whole; a failure only costs latency.
    stream.set_nodelay(true).ok();
    let peer = Peer::Network(addr);
    let Some(tls) = tls else {
        return connection(stream, peer, router, patience, stop).await;
    };
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, peer, router, patience, stop).await,
        Ok(Err(err)) => log::debug!(addr:% = addr, error:% = Chain(&err); "TLS handshake failed"),
        Err(_) => log::debug!(addr:% = addr; "TLS handshake not done in time"),
    }
}

/// Serves the socket of this box until told to stop.
pub(crate) async fn serve_local(listener: UnixListener, router: Router, stop: Stop) {
    let room = Arc::new(Semaphore::new(LOCAL_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            () = stop.wait() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(err) => {
                log::warn!(error:% = Chain(&err); "cannot accept a connection on the socket");
                tokio::time::sleep(AFTER_FAULT).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        // Who cannot be recognized is nobody's user.
        let uid = stream.peer_cred().map_or(u32::MAX, |cred| cred.uid());
        let (router, stop) = (router.clone(), stop.clone());
        open.spawn(async move {
            connection(stream, Peer::Local { uid }, router, PATIENCE, stop).await;
            drop(permit);
        });
    }
    while open.join_next().await.is_some() {}
}

async fn connection<S>(stream: S, peer: Peer, router: Router, patience: Duration, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_headers(64);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.wait() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(err) = ended {
        log::debug!(peer = peer.shown(), error:% = Chain(&err); "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arbase::Stopper;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server with one answer at `/` and one without an end at `/endless`.
    struct Fixture {
        addr: SocketAddr,
        stopper: Stopper,
        serving: JoinHandle<()>,
    }

    impl Fixture {
        async fn start(limits: Limits) -> Self {
            let endless = async || {
                Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>())
            };
            let router =
                Router::new().route("/", get(async || "hello")).route("/endless", get(endless));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let (stopper, stop) = Stop::new();
            let serving = tokio::spawn(serve_network(listener, None, router, limits, stop));
            Self { addr, stopper, serving }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.addr).await.unwrap()
        }
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A connection that is cut off may end with a reset.
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut text)).await.unwrap().ok();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_or_half_a_head_is_let_go() {
        let limits = Limits { connections: 4, patience: Duration::from_millis(200) };
        let fx = Fixture::start(limits).await;
        let (mut silent, mut half) = (fx.connect().await, fx.connect().await);
        half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        rest(&mut silent).await;
        rest(&mut half).await;
    }

    #[tokio::test]
    async fn one_connection_too_many_is_turned_away_and_the_others_go_on() {
        let fx = Fixture::start(Limits::with_connections(1)).await;
        let mut first = fx.connect().await;
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        assert_eq!(rest(&mut fx.connect().await).await, "");
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut first).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_at_once_and_endless_answers_soon() {
        let fx = Fixture::start(Limits::with_connections(4)).await;
        let (mut idle, mut endless) = (fx.connect().await, fx.connect().await);
        endless.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        endless.read_exact(&mut answer).await.unwrap();
        let stopped = Instant::now();
        fx.stopper.stop();
        rest(&mut idle).await;
        tokio::time::timeout(LIMIT, fx.serving).await.unwrap().unwrap();
        assert!(stopped.elapsed() < GRACE + Duration::from_secs(2));
    }
}
