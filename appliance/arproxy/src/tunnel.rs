//! Connections that stop being HTTP: a client's becomes a WebSocket with a backend at its other end.
//!
//! The backend is asked on a connection of its own.  Where it agrees, bytes go both ways as they come, and nobody here
//! looks into them: pings, limits of size and good-byes are between the two ends.
//!
//! **Invariant:** a tunnel holds two small buffers and nothing else, whatever passes through it; who takes nothing is
//! cut off, and so is a pair of which neither says anything.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::backend::{Address, Backend};
use crate::body::Outgoing;

/// Largest answer of a backend that does not agree.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long nobody may say anything.  The core's pings are at most four minutes apart.
const SILENCE: Duration = Duration::from_secs(300);
/// How long the second side may go on once the first has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What is under way in one direction.
const BUFFER: usize = 8 * 1024;

/// The backend's end of a connection that has become a WebSocket.
#[derive(Debug)]
pub(crate) struct Tunnel(Upgraded);

/// What came of asking.
pub(crate) enum Asked {
    /// The backend agrees.
    Tunnel(Box<Tunnel>),
    /// It does not; the body of what it says instead.
    Refused(Bytes),
}

/// Asks a backend on a connection of its own.  Fails with what went wrong, for the log.
pub(crate) async fn ask(
    backend: &Backend,
    limit: Duration,
    request: Request<Outgoing>,
) -> Result<(Parts, Asked), String> {
    match backend.address() {
        Address::Unix(path) => {
            let stream = within(limit, UnixStream::connect(path)).await?;
            ask_on(stream, request).await
        }
        Address::Tcp(addr) => {
            let stream = within(limit, TcpStream::connect(addr)).await?;
            stream.set_nodelay(true).ok();
            ask_on(stream, request).await
        }
    }
}

async fn within<T>(
    limit: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, connecting).await {
        Ok(connected) => connected.map_err(|err| format!("cannot connect: {err}")),
        Err(_) => Err(format!("cannot connect within {limit:?}")),
    }
}

async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Outgoing>,
) -> Result<(Parts, Asked), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|err| err.to_string())?;
    // It ends with the answer: what becomes of the connection then is not its business.
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(request).await.map_err(|err| err.to_string())?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|err| err.to_string())?;
        return Ok((answer.into_parts().0, Asked::Tunnel(Box::new(Tunnel(upgraded)))));
    }
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|err| err.to_string())?;
    Ok((head, Asked::Refused(body.to_bytes())))
}

/// When something last passed.
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn note(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Relaxed);
    }

    /// Returns once nothing has passed for so long.
    async fn silence(&self) {
        loop {
            let end = self.start + Duration::from_millis(self.last_ms.load(Relaxed)) + SILENCE;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }
}

impl Tunnel {
    /// Passes bytes both ways until one side has ended, or takes nothing for `write_timeout`.  `first` has come from the
    /// client already.
    pub(crate) async fn run(
        self: Box<Self>,
        client: impl AsyncRead + AsyncWrite + Unpin,
        first: Bytes,
        write_timeout: Duration,
    ) {
        let activity = Activity { start: Instant::now(), last_ms: AtomicU64::new(0) };
        let (client_read, client_write) = tokio::io::split(client);
        let (backend_read, mut backend_write) = tokio::io::split(TokioIo::new(self.0));
        if !first.is_empty() && backend_write.write_all(&first).await.is_err() {
            return;
        }
        let up = pass(client_read, backend_write, &activity, write_timeout);
        let down = pass(backend_read, client_write, &activity, write_timeout);
        tokio::pin!(up, down);
        tokio::select! {
            is_over = &mut up => if !is_over {
                tokio::time::timeout(LAST_WORDS, down).await.ok();
            },
            is_over = &mut down => if !is_over {
                tokio::time::timeout(LAST_WORDS, up).await.ok();
            },
            () = activity.silence() => {}
        }
    }
}

/// Passes bytes one way.  Whether the other way is over too: it is unless this one came to its end in order.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut into: impl AsyncWrite + Unpin,
    activity: &Activity,
    write_timeout: Duration,
) -> bool {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return into.shutdown().await.is_err(),
            Ok(length) => length,
            Err(_) => return true,
        };
        activity.note();
        let piece = buffer.get(..length).unwrap_or_default();
        match tokio::time::timeout(write_timeout, into.write_all(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return true,
        }
        if into.flush().await.is_err() {
            return true;
        }
    }
}
