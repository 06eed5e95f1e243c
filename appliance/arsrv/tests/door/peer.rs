//! Another system: a TCP server that answers with bytes as a test says, and remembers what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the peer does about one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with these bytes and keeps the connection.
    Say(String),
    /// Answers after a while.
    SayAfter(Duration, String),
    /// Answers with these bytes and closes.
    SayAndClose(String),
    /// Closes without a word.
    Close,
    /// Never answers.
    Hang,
}

/// A response with a body.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// The server.
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Starts one; `act` says what to do about the n-th request (from 0) with its text.
    pub(crate) async fn start(act: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (act, all) = (Arc::new(act), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&act), Arc::clone(&all)));
            }
        });
        Self { addr, seen }
    }

    /// One that always answers with this.
    pub(crate) async fn saying(answer: String) -> Self {
        Self::start(move |_, _| Act::Say(answer.clone())).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests so far, head and body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve<F: Fn(usize, &str) -> Act>(
    mut stream: TcpStream,
    act: Arc<F>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        let count = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let (bytes, close) = match act(count, &request) {
            Act::Say(bytes) => (bytes, false),
            Act::SayAfter(wait, bytes) => {
                tokio::time::sleep(wait).await;
                (bytes, false)
            }
            Act::SayAndClose(bytes) => (bytes, true),
            Act::Close => return,
            Act::Hang => std::future::pending().await,
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")
                        .map(|n| n.trim().to_owned())
                })
                .next()
                .map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&chunk[..count]),
        }
    }
}
