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
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
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
}

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

    /// `GET`, decoded.
    pub async fn get<Out: DeserializeOwned>(&self, path: &str) -> Result<Out, ClientError> {
        self.call::<(), Out>(Method::GET, path, None).await
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

    async fn send<In: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&In>,
    ) -> Result<Incoming, ClientError> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(|source| {
            ClientError::Connect { service: self.service, socket: self.socket.clone(), source }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        // Ends when the answer has been read or dropped; an error shows on the answer as well.
        tokio::spawn(async move { connection.await.ok() });
        let bytes = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|source| ClientError::Decode { service: self.service, source })?,
            None => Vec::new(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.service)
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(cid) = &self.cid {
            request = request.header("X-Zato-CID", cid);
        }
        // Read for each call: the file is new after a restart.  Without it the other side refuses, and says why.
        if let Ok(token) = std::fs::read_to_string(self.socket.with_file_name(PEER_TOKEN)) {
            request = request.header(PEER_TOKEN_HEADER, token.trim());
        }
        if let Some(caller) = self.caller {
            request = request.header(SERVICE_HEADER, caller);
        }
        let request =
            request.body(Full::new(Bytes::from(bytes))).map_err(|source| self.broken(source))?;
        let answer = sender.send_request(request).await.map_err(|source| self.broken(source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let text = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|source| self.broken(source))?
            .to_bytes();
        Err(ClientError::Answer {
            status: status.as_u16(),
            body: Box::new(error_body(status, &text)),
        })
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
