//! Accepts connections and serves requests on them until told to stop.
//!
//! The stop is in two steps: no new connection and no new request, then up to a limit for the requests under
//! way.  A client that goes away drops its request's future, which gives its call up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arbase::{Chain, Stop};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::door::Door;

/// How long to wait when no connection can be accepted, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long after the stop a connection without a request under way may stay: enough for the rest of an answer
/// to leave, and the end of one who began a request and never finished it.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer(pub Arc<str>);

/// Where connections come from.
pub trait Listen: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept(&mut self) -> impl Future<Output = std::io::Result<(Self::Io, Peer)>> + Send;
}

impl Listen for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&mut self) -> std::io::Result<(Self::Io, Peer)> {
        let (io, _) = Self::accept(self).await?;
        Ok((io, Peer("".into())))
    }
}

impl Listen for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&mut self) -> std::io::Result<(Self::Io, Peer)> {
        let (io, addr) = Self::accept(self).await?;
        io.set_nodelay(true)?;
        Ok((io, Peer(addr.to_string().into())))
    }
}

/// Serves until told to stop, then lets requests under way end for up to `drain`.
pub async fn serve(mut listener: impl Listen, door: Arc<Door>, drain: Duration, stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((io, peer)) => {
                    connections.spawn(connection(io, peer, Arc::clone(&door), stop.clone()));
                }
                Err(err) => {
                    log::warn!(error:% = Chain(&err); "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all_done).await.is_err() {
        log::warn!(connections = connections.len(), waited_ms = drain.as_millis(); "requests cut off by the stop");
    }
}

async fn connection<Io>(io: Io, peer: Peer, door: Arc<Door>, stop: Stop)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let under_way = AtomicBool::new(false);
    let service = service_fn(|request| {
        let (door, peer, under_way) = (&door, &peer, &under_way);
        async move {
            under_way.store(true, Ordering::Relaxed);
            let answer = door.answer(request, peer).await;
            under_way.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    // Not with `pipeline_flush`: what was answered before a malformed request, and the 400 for that one, would
    // then never leave hyper's buffer.
    let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.wait() => {
            serving.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(LAST_WORDS, &mut serving).await {
                    Ok(ended) => break ended,
                    Err(_) if under_way.load(Ordering::Relaxed) => {}
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    if let Err(err) = ended {
        // A client that goes away in the middle is no fault of ours.
        log::debug!(peer:% = peer.0, error:% = Chain(&err); "connection ended with an error");
    }
}
