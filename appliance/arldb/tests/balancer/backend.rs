//! A core for the tests: HTTP/1.1 on a Unix socket, with paths that misbehave on purpose.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::watch;

/// What it saw and how it says it is.
pub struct Seen {
    pub requests: Mutex<HashMap<String, usize>>,
    /// Connections that carried more than a health check.
    pub connections: AtomicUsize,
    /// Requests whose client went away before the answer.
    pub cancelled: AtomicUsize,
    /// Bytes of bodies read.
    pub body_bytes: AtomicUsize,
    pub health: AtomicU16,
}

impl Seen {
    pub fn count(&self, path: &str) -> usize {
        self.requests.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

pub struct Backend {
    pub seen: Arc<Seen>,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub fn start(socket: &Path) -> Self {
        let seen = Arc::new(Seen {
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            body_bytes: AtomicUsize::new(0),
            health: AtomicU16::new(200),
        });
        Self::start_with(socket, seen)
    }

    pub fn start_with(socket: &Path, seen: Arc<Seen>) -> Self {
        let listener = arbase::http::listen_unix(socket, 0o600).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&seen), stopped));
        Self { seen, socket: socket.to_owned(), stop, task }
    }

    /// Ends as a core does when it is asked to: no new connections, what is in flight is finished.
    pub async fn stop_gracefully(self) -> Arc<Seen> {
        std::fs::remove_file(&self.socket).unwrap();
        self.stop.send_replace(true);
        self.task.await.unwrap();
        self.seen
    }
}

async fn serve(listener: UnixListener, seen: Arc<Seen>, stopped: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut stop = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stopped| *stopped) => break,
        };
        connections.spawn(connection(accepted.unwrap().0, Arc::clone(&seen), stopped.clone()));
    }
    // Whoever is in the queue of the socket was told that he is connected.
    while let Ok(Ok((stream, _))) =
        tokio::time::timeout(Duration::from_millis(1), listener.accept()).await
    {
        connections.spawn(connection(stream, Arc::clone(&seen), stopped.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: tokio::net::UnixStream,
    seen: Arc<Seen>,
    mut stopped: watch::Receiver<bool>,
) {
    let counted = Arc::new(AtomicUsize::new(0));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        if request.uri().path() != "/arint/health" && counted.fetch_add(1, SeqCst) == 0 {
            seen.connections.fetch_add(1, SeqCst);
        }
        answer(request, seen)
    });
    let http = hyper::server::conn::http1::Builder::new();
    let mut http = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut http => return,
        _ = stopped.wait_for(|stopped| *stopped) => http.as_mut().graceful_shutdown(),
    }
    http.await.ok();
}

type Body = BoxBody<Bytes, std::io::Error>;

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// Counts a request that is dropped before its answer.
struct Unanswered<'a>(&'a Seen, bool);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.fetch_add(1, SeqCst);
        }
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> std::io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/arint/health" {
        let status = seen.health.load(SeqCst);
        return Ok(Response::builder().status(status).body(whole("")).unwrap());
    }
    *seen.requests.lock().unwrap().entry(path.clone()).or_default() += 1;
    let mut unanswered = Unanswered(&seen, false);
    let number = head.uri.query().and_then(|query| query.parse::<u64>().ok()).unwrap_or(0);
    let mut headers: Vec<(&str, &str)> = vec![("content-type", "text/plain")];
    let body = match path.as_str() {
        // Says what came, and gives the body back behind an empty line.
        "/echo" => {
            let mut text = format!("{} {}\n", head.method, head.uri).into_bytes();
            for (name, value) in &head.headers {
                text.extend_from_slice(format!("{name}: ").as_bytes());
                text.extend_from_slice(value.as_bytes());
                text.push(b'\n');
            }
            text.push(b'\n');
            text.extend_from_slice(&read(body, &seen).await?);
            headers.push(("connection", "x-hop"));
            headers.push(("x-hop", "1"));
            headers.push(("x-zato-cid", "the-cores-own"));
            whole(text)
        }
        "/count" => {
            let bytes = read(body, &seen).await?;
            whole(bytes.len().to_string())
        }
        "/wait" => {
            read(body, &seen).await?;
            tokio::time::sleep(Duration::from_millis(number)).await;
            whole("done")
        }
        // Answers without looking at the body.
        "/refuse" => {
            let answer = Response::builder().status(401).body(whole("no")).unwrap();
            unanswered.1 = true;
            return Ok(answer);
        }
        "/big" => whole(vec![b'x'; usize::try_from(number).unwrap()]),
        "/chunks" => {
            let pieces =
                (0..number).map(|at| Ok(Frame::data(Bytes::from(format!("piece {at}\n")))));
            let stream = http_body_util::StreamBody::new(Pieces(pieces.collect(), false));
            BoxBody::new(stream)
        }
        // Begins an answer and does not go on.
        "/stall" => BoxBody::new(http_body_util::StreamBody::new(Pieces::then_nothing())),
        // Reads the request and dies over it.
        "/die" => {
            read(body, &seen).await?;
            return Err(std::io::Error::other("died"));
        }
        // Dies over it the first time only.
        "/die-once" => {
            read(body, &seen).await?;
            if seen.count("/die-once") == 1 {
                return Err(std::io::Error::other("died"));
            }
            whole("second")
        }
        _ => whole("ok"),
    };
    unanswered.1 = true;
    let mut response = Response::new(body);
    for (name, value) in headers {
        response
            .headers_mut()
            .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    Ok(response)
}

async fn read(mut body: Incoming, seen: &Seen) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(std::io::Error::other)?.into_data() else {
            panic!("trailers are not passed on");
        };
        seen.body_bytes.fetch_add(data.len(), SeqCst);
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A body in pieces, which may have no end.
struct Pieces(std::collections::VecDeque<std::io::Result<Frame<Bytes>>>, bool);

impl Pieces {
    fn then_nothing() -> Self {
        Self([Ok(Frame::data(Bytes::from_static(b"begun")))].into(), true)
    }
}

impl futures_util::Stream for Pieces {
    type Item = std::io::Result<Frame<Bytes>>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.0.pop_front() {
            None if self.1 => std::task::Poll::Pending,
            piece => std::task::Poll::Ready(piece),
        }
    }
}
