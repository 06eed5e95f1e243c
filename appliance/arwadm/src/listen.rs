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

/// Longest time for the TLS handshake, and for the head of a request, also between two requests.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an open answer may go on after the stop.
const GRACE: Duration = Duration::from_secs(2);
/// Wait after an accept that failed, for example for want of file descriptors.
const AFTER_FAULT: Duration = Duration::from_millis(100);
/// Connections on the socket at one time.
const LOCAL_CONNECTIONS: usize = 256;

/// Serves the network until told to stop.
pub(crate) async fn serve_network(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    connections: usize,
    stop: Stop,
) {
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
            network_connection(stream, addr, tls, router, stop).await;
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
    stop: Stop,
) {
    // Answers are small and written whole; a failure only costs latency.
    stream.set_nodelay(true).ok();
    let peer = Peer::Network(addr);
    let Some(tls) = tls else {
        return connection(stream, peer, router, stop).await;
    };
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, peer, router, stop).await,
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
            connection(stream, Peer::Local { uid }, router, stop).await;
            drop(permit);
        });
    }
    while open.join_next().await.is_some() {}
}

async fn connection<S>(stream: S, peer: Peer, router: Router, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_headers(64);
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
