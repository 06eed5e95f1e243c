//! A client that writes exactly the bytes it is told to, and reads one answer at a time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for anything; far above what is needed.
const LIMIT: Duration = Duration::from_secs(20);

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The sentence of an error, after checking that the whole has the form it must have.
    #[track_caller]
    pub fn details(&self) -> String {
        let cid = self.header("x-zato-cid").unwrap();
        assert_eq!(cid.len(), 24, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let text = self.text();
        let rest =
            text.strip_prefix(&format!("{{\"result\":\"Error\",\"cid\":\"{cid}\",\"details\":\""));
        let details =
            rest.and_then(|rest| rest.strip_suffix("\"}")).unwrap_or_else(|| panic!("{text}"));
        details.replace("\\\"", "\"")
    }

    #[track_caller]
    pub fn is_error(&self, status: u16, details: &str) {
        assert_eq!((self.status, self.details().as_str()), (status, details));
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::on(TcpStream::connect(addr).await.unwrap())
    }

    pub fn on(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut buffer)).await;
        let read = read.expect("something arrives in time").unwrap();
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// One line or head up to `end`, without it; None if the connection ended.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let line = self.unread.drain(..at).collect();
                self.unread.drain(..end.len());
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.more().await, "the answer broke off");
        }
        self.unread.drain(..length).collect()
    }

    /// The head of an answer alone; None if the connection ended.
    pub async fn head(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: Vec::new() })
    }

    /// The next answer; None if the connection ended first.
    pub async fn try_answer(&mut self, to_head: bool) -> Option<Answer> {
        let mut answer = self.head().await?;
        if to_head || answer.status < 200 || answer.status == 204 || answer.status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await.unwrap()).unwrap();
                let length = usize::from_str_radix(&line, 16).unwrap();
                answer.body.extend(self.exactly(length).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
                if length == 0 {
                    break;
                }
            }
        } else {
            while self.more().await {}
            answer.body = std::mem::take(&mut self.unread);
        }
        Some(answer)
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer(false).await.expect("an answer")
    }

    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await
    }

    /// Waits for the other end to close; what came before it is an error.
    pub async fn closes(&mut self) {
        let more = self.more().await;
        assert!(!more, "{:?}", String::from_utf8_lossy(&self.unread));
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask([head.as_bytes(), body].concat()).await
    }
}
