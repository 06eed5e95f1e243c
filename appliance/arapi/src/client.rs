//! HTTP over a Unix socket: what every service's client here stands on.
//!
//! One connection per call: the sockets are local and calls are rare (the data path does not
//! go through here).  Streams are documents separated by line feeds.
//!
//! A caller shows that it is a service of this box with the text of the file [`PEER_TOKEN`] beside the
//! socket.  Workers cannot read that folder, so users' code cannot call, even where it runs as the same user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorBody, ErrorCode};

/// The file beside the sockets whose text a caller has to show, and the header it is shown in.
pub const PEER_TOKEN: &str = "peer.token";
/// The header that carries the text of [`PEER_TOKEN`].
pub const PEER_TOKEN_HEADER: &str = "X-ARINT-Peer";

/// Longest answer that is read whole, bytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why a call to another service failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach `{service}` at `{socket}`; is it running?")]
    Connect {
        /// The service.
        service: &'static str,
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("call to `{service}` broke off")]
    Broken {
        /// The service.
        service: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("`{service}` did not answer within {limit:?}")]
    Late {
        /// The service.
        service: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// It answered with an error.
    #[error("{}", body.message)]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: Box<ErrorBody>,
    },
    /// It answered with something else than was expected.
    #[error("`{service}` answered with an unexpected document")]
    Decode {
        /// The service.
        service: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// The code of the error the service answered with, if it answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Answer { body, .. } => Some(body.code),
            _ => None,
        }
    }
}

/// Calls one service over its Unix socket.  Cheap to clone.
#[derive(Debug, Clone)]
pub struct UnixClient {
    service: &'static str,
    socket: PathBuf,
    limit: Duration,
    cid: Option<String>,
    caller: Option<&'static str>,
    who: Option<String>,
}

/// The header in which a service says for whom it calls, for example `user:anna`; for logs and the black box, it
/// opens nothing.
pub const WHO_HEADER: &str = "X-ARINT-Who";
/// The header in which a service of the same box says who it is.
pub const SERVICE_HEADER: &str = "X-ARINT-Service";

impl UnixClient {
    /// A client of `service` at `socket`, with 30 s for each call.
    pub fn new(service: &'static str, socket: impl Into<PathBuf>) -> Self {
        Self {
            service,
            socket: socket.into(),
            limit: Duration::from_secs(30),
            cid: None,
            caller: None,
            who: None,
        }
    }

    /// The same with another time limit for each call.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same, sending `cid` as `X-Zato-CID` with each call.
    #[must_use]
    pub fn with_cid(mut self, cid: impl Into<String>) -> Self {
        self.cid = Some(cid.into());
        self
    }

    /// The same, saying with each call that the service `caller` makes it.
    #[must_use]
    pub fn with_service(mut self, caller: &'static str) -> Self {
        self.caller = Some(caller);
        self
    }

    /// The same, saying with each call for whom it is made.
    #[must_use]
    pub fn with_who(mut self, who: impl Into<String>) -> Self {
        self.who = Some(who.into());
        self
    }

    /// The socket it calls.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls and decodes the answer.
    pub async fn call<In: Serialize, Out: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&In>,
    ) -> Result<Out, ClientError> {
        let call = async {
            let answer = self.send(method, path, body).await?;
            let whole = Limited::new(answer, MAX_ANSWER)
                .collect()
                .await
                .map_err(|source| self.broken(source))?
                .to_bytes();
            let text: &[u8] = if whole.is_empty() { b"null" } else { &whole };
            serde_json::from_slice(text)
                .map_err(|source| ClientError::Decode { service: self.service, source })
        };
        tokio::time::timeout(self.limit, call)
            .await
            .unwrap_or(Err(ClientError::Late { service: self.service, limit: self.limit }))
    }

    /// `GET` of a text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let call = async {
            let body = self.send::<()>(Method::GET, path, None).await?;
            let whole = Limited::new(body, MAX_ANSWER).collect().await;
            let whole =
                whole.map_err(|source| ClientError::Broken { service: self.service, source })?;
            Ok(String::from_utf8_lossy(&whole.to_bytes()).into_owned())
        };
        tokio::time::timeout(self.limit, call)
            .await
            .unwrap_or(Err(ClientError::Late { service: self.service, limit: self.limit }))
    }

    /// `GET`, decoded.
    pub async fn get<Out: DeserializeOwned>(&self, path: &str) -> Result<Out, ClientError> {
        self.call::<(), Out>(Method::GET, path, None).await
    }

    /// `DELETE`, decoded.
    pub async fn delete<Out: DeserializeOwned>(&self, path: &str) -> Result<Out, ClientError> {
        self.call::<(), Out>(Method::DELETE, path, None).await
    }

    /// `POST`, decoded.
    pub async fn post<In: Serialize, Out: DeserializeOwned>(
        &self,
        path: &str,
        body: &In,
    ) -> Result<Out, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Opens a stream of documents, one a line.  The time limit covers only the opening.
    pub async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let open = self.send::<()>(Method::GET, path, None);
        let body = tokio::time::timeout(self.limit, open)
            .await
            .unwrap_or(Err(ClientError::Late { service: self.service, limit: self.limit }))?;
        let marker = std::marker::PhantomData;
        Ok(Lines { service: self.service, body, buffer: BytesMut::new(), marker })
    }

    /// One exchange whose bodies stream both ways, whatever the status of the answer.  `request` names method, path
    /// and headers; the time limit covers only the connecting, because an upload takes as long as it takes.
    pub async fn exchange<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connect = tokio::net::UnixStream::connect(&self.socket);
        let stream = tokio::time::timeout(self.limit, connect)
            .await
            .map_err(|_| ClientError::Late { service: self.service, limit: self.limit })?;
        let stream = stream.map_err(|source| ClientError::Connect {
            service: self.service,
            socket: self.socket.clone(),
            source,
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        // Ends when the answer has been read or dropped; an error shows on the answer as well.
        tokio::spawn(async move { connection.await.ok() });
        let headers = request.headers_mut();
        headers.insert(http::header::HOST, HeaderValue::from_static(self.service));
        let mut set = |name: &'static str, value: &str| {
            // What cannot be a header's value names nobody; the other side then says what it misses.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if let Some(cid) = &self.cid {
            set("x-zato-cid", cid);
        }
        // Read for each call: the file is new after a restart.  Without it the other side refuses, and says why.
        if let Ok(token) = std::fs::read_to_string(self.socket.with_file_name(PEER_TOKEN)) {
            set("x-arint-peer", token.trim());
        }
        if let Some(caller) = self.caller {
            set("x-arint-service", caller);
        }
        if let Some(who) = &self.who {
            set("x-arint-who", who);
        }
        sender.send_request(request).await.map_err(|source| self.broken(source))
    }

    /// The error that an answer of [`UnixClient::exchange`] stands for.
    pub async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
            Ok(text) => ClientError::Answer {
                status: status.as_u16(),
                body: Box::new(error_body(status, &text.to_bytes())),
            },
            Err(source) => self.broken(source),
        }
    }

    async fn send<In: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&In>,
    ) -> Result<Incoming, ClientError> {
        let bytes = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|source| ClientError::Decode { service: self.service, source })?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|source| self.broken(source))?;
        let answer = self.exchange(request).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(self.refusal(answer).await)
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Broken { service: self.service, source: source.into() }
    }
}

fn error_body(status: StatusCode, text: &[u8]) -> ErrorBody {
    serde_json::from_slice(text).unwrap_or_else(|_| ErrorBody {
        code: if status.is_client_error() { ErrorCode::Invalid } else { ErrorCode::Internal },
        message: format!("HTTP {status}: {}", String::from_utf8_lossy(text).trim()),
        request_id: String::new(),
        details: None,
    })
}

/// A stream of documents, one a line; empty lines keep it alive and are passed over.
#[derive(Debug)]
pub struct Lines<T> {
    service: &'static str,
    body: Incoming,
    buffer: BytesMut,
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next document; `None` when the other side has ended the stream.
    ///
    /// Safe to drop half-way: nothing read is lost.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                    return serde_json::from_slice(&line)
                        .map(Some)
                        .map_err(|source| ClientError::Decode { service: self.service, source });
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(ClientError::Broken {
                        service: self.service,
                        source: source.into(),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// One part of a path, percent-encoded.
pub fn path_part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;

    use super::*;

    /// A service that counts what is uploaded and answers with as many bytes, chunk by chunk.
    async fn echo_length(
        request: Request<Incoming>,
    ) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
        if request.uri().path() == "/refused" {
            let text = Full::new(Bytes::from_static(
                b"{\"code\":\"no_room\",\"message\":\"no room\",\"request_id\":\"x\"}",
            ));
            let mut answer = Response::new(text.boxed());
            *answer.status_mut() = StatusCode::INSUFFICIENT_STORAGE;
            return Ok(answer);
        }
        let who = request.headers().get(WHO_HEADER).cloned();
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
        }
        let chunks = (0..length / 65_536).map(|_| Ok(Frame::data(Bytes::from(vec![7; 65_536]))));
        let chunks = futures_util::stream::iter(chunks.collect::<Vec<_>>());
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(chunks)));
        if let Some(who) = who {
            answer.headers_mut().insert("x-seen", who);
        }
        Ok(answer)
    }

    fn service() -> (PathBuf, UnixClient) {
        let path = std::env::temp_dir().join(format!("arapi-{}", crate::Cid::random()));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(echo_length));
                tokio::spawn(async move { serving.await.ok() });
            }
        });
        let client = UnixClient::new("echo", &path).with_who("user:anna");
        (path, client)
    }

    #[tokio::test]
    async fn bodies_stream_up_and_down_and_the_other_side_learns_for_whom() {
        let (path, client) = service();
        let chunks =
            (0..64).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![1; 65_536]))));
        let body = StreamBody::new(futures_util::stream::iter(chunks.collect::<Vec<_>>()));
        let request = Request::put("/upload").body(body).unwrap();
        let mut answer = client.exchange(request).await.unwrap();
        assert_eq!(answer.headers()["x-seen"], "user:anna");
        let mut length = 0;
        while let Some(frame) = answer.body_mut().frame().await {
            length += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        assert_eq!(length, 64 * 65_536);
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_refusal_of_a_streamed_call_is_read_like_any_other() {
        let (path, client) = service();
        let request = Request::get("/refused").body(Full::new(Bytes::new())).unwrap();
        let answer = client.exchange(request).await.unwrap();
        let refusal = client.refusal(answer).await;
        assert_eq!(
            (refusal.code(), refusal.to_string().as_str()),
            (Some(ErrorCode::NoRoom), "no room")
        );
        std::fs::remove_file(path).unwrap();
    }
}
