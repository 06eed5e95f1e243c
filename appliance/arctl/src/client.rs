//! Calls to the admin API.

use std::sync::Arc;
use std::time::Duration;

use arapi::error::{ErrorBody, ErrorCode};
use bytes::Bytes;
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;
use crate::pin::{Pin, Seen, Trust};

/// Longest time for one call: a deployment may take its time.
const LIMIT: Duration = Duration::from_secs(400);
/// The head of an upload goes so much before its body: what is refused by its head alone is refused in words.
const HEAD_START: Duration = Duration::from_millis(500);
/// Bytes of a file that are read at one time.
const CHUNK: usize = 256 * 1024;
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// One box's admin API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    pin: Arc<Pin>,
}

/// Checks an address and brings it into one form: scheme, host and port, no slash at the end.
pub(crate) fn parse_server(text: &str) -> Result<String, Failure> {
    let bad = || Failure::BadServer { server: text.to_owned() };
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url: reqwest::Url = with_scheme.parse().map_err(|_| bad())?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty();
    let host = url.host_str().filter(|_| fits).ok_or_else(bad)?;
    // A port that is the scheme's own is left out by `Url`, and ours is not: 8183 unless one is written.
    let authority = with_scheme.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
    let written = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if written { url.port_or_known_default().unwrap_or(8183) } else { 8183 };
    Ok(format!("{}://{host}:{port}", url.scheme()))
}

impl Api {
    /// A client of `server`.
    pub(crate) fn new(
        server: String,
        token: Option<String>,
        trust: Trust,
    ) -> Result<Self, Failure> {
        let pin = Pin::new(trust);
        let broken = |source| Failure::Unreachable { server: server.clone(), source };
        let tls = pin.tls().map_err(|err| Failure::Failed(format!("cannot prepare TLS: {err}")))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("arctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(broken)?;
        Ok(Self { http, server, token, pin })
    }

    /// The box's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The certificate it has presented.
    pub(crate) fn fingerprint(&self) -> Option<Seen> {
        self.pin.seen()
    }

    /// `GET`, decoded.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call::<(), T>(Method::GET, path, None).await
    }

    /// `POST`, decoded.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `DELETE`, decoded.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call::<(), T>(Method::DELETE, path, None).await
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Failure> {
        let answer = self.send(method, path, body, Some(LIMIT)).await?;
        self.decode(answer).await
    }

    async fn decode<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Failure> {
        let status = answer.status().as_u16();
        let text = answer.bytes().await.map_err(|source| self.broken(source))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|_| Failure::Foreign { server: self.server.clone(), status })?;
        serde_json::from_value(value)
            .map_err(|source| Failure::Document { server: self.server.clone(), source })
    }

    /// Uploads a file, telling how much has gone; an upload takes as long as it takes.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        file: tokio::fs::File,
        length: u64,
        told: impl Fn(u64) + Send + 'static,
    ) -> Result<T, Failure> {
        let chunks = futures_util::stream::try_unfold((file, 0u64), move |(mut file, before)| {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
            told(before);
            async move {
                if before == 0 {
                    tokio::time::sleep(HEAD_START).await;
                }
                let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await?;
                let after = before.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
                Ok::<_, std::io::Error>((read > 0).then(|| (chunk.freeze(), (file, after))))
            }
        });
        let request = self
            .http
            .put(format!("{}{path}", self.server))
            .header("content-type", "application/octet-stream")
            .header("content-length", length)
            .body(reqwest::Body::wrap_stream(chunks));
        let answer = self.carry_out(request, path).await?;
        self.decode(answer).await
    }

    /// An answer that is a file, chunk by chunk.
    pub(crate) async fn download(&self, path: &str) -> Result<Download, Failure> {
        let answer = self.send::<()>(Method::GET, path, None, None).await?;
        Ok(Download { answer, server: self.server.clone() })
    }

    /// The same box over connections of their own, so that an old one that still stands proves nothing.
    pub(crate) fn anew(&self) -> Result<Self, Failure> {
        Self::new(self.server.clone(), self.token.clone(), self.pin.trust().clone())
    }

    /// Opens an answer that goes on.
    pub(crate) async fn stream(&self, path: &str) -> Result<Stream, Failure> {
        let answer = self.send::<()>(Method::GET, path, None, None).await?;
        Ok(Stream { answer, server: self.server.clone(), buffer: Vec::new() })
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Option<Duration>,
    ) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("{}{path}", self.server));
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        if let Some(body) = body {
            let text = serde_json::to_vec(body)
                .map_err(|source| Failure::Document { server: self.server.clone(), source })?;
            request = request.header("content-type", "application/json").body(text);
        }
        self.carry_out(request, path).await
    }

    async fn carry_out(
        &self,
        mut request: reqwest::RequestBuilder,
        path: &str,
    ) -> Result<Response, Failure> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|source| self.unreachable(source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.bytes().await.map_err(|source| self.broken(source))?;
        let body: ErrorBody = serde_json::from_slice(&text).map_err(|_| Failure::Foreign {
            server: self.server.clone(),
            status: status.as_u16(),
        })?;
        if body.code == ErrorCode::Unauthorized && self.token.is_none() && path != "/v1/login" {
            return Err(Failure::NotLoggedIn { server: self.server.clone() });
        }
        Err(Failure::Refused { status: status.as_u16(), body: Box::new(body) })
    }

    fn broken(&self, source: reqwest::Error) -> Failure {
        if source.is_timeout() {
            return Failure::Late { server: self.server.clone() };
        }
        Failure::Broken { server: self.server.clone(), source: source.without_url() }
    }

    fn unreachable(&self, source: reqwest::Error) -> Failure {
        let server = self.server.clone();
        match (self.pin.trust(), self.pin.seen()) {
            (Trust::Nothing, Some(_)) => Failure::UnknownCertificate { server },
            (Trust::Pinned(pinned), Some(seen)) if !pinned.accepts(&seen) => {
                let pinned = pinned.fingerprint.clone();
                Failure::OtherCertificate { server, seen: seen.fingerprint, pinned }
            }
            _ if source.is_timeout() && !source.is_connect() => Failure::Late { server },
            _ => Failure::Unreachable { server, source: source.without_url() },
        }
    }
}

/// An answer that is a file.
#[derive(Debug)]
pub(crate) struct Download {
    answer: Response,
    server: String,
}

impl Download {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.answer.chunk().await.map_err(|source| Failure::Broken {
            server: self.server.clone(),
            source: source.without_url(),
        })
    }
}

/// An answer of documents, one a line.
#[derive(Debug)]
pub(crate) struct Stream {
    answer: Response,
    server: String,
    buffer: Vec<u8>,
}

impl Stream {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                    return Ok(Some(line));
                }
                continue;
            }
            let chunk: Option<Bytes> = self.answer.chunk().await.map_err(|source| {
                Failure::Broken { server: self.server.clone(), source: source.without_url() }
            })?;
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_brought_into_one_form() {
        let check = |text: &str, expected: &str| assert_eq!(parse_server(text).unwrap(), expected);
        check("https://box:8183", "https://box:8183");
        check("https://box:8183/", "https://box:8183");
        check("192.168.1.7", "https://192.168.1.7:8183");
        check("box:443", "https://box:443");
        check("http://127.0.0.1:9000", "http://127.0.0.1:9000");
        check("https://[fe80::1]", "https://[fe80::1]:8183");
        check("https://[fe80::1]:8443", "https://[fe80::1]:8443");
        assert_eq!(
            parse_server("ftp://x").unwrap_err().to_string(),
            "`ftp://x` is no address; something like `https://192.168.1.7:8183` was expected"
        );
        assert!(parse_server("https://x/console").is_err());
        assert!(parse_server("https://u:p@x").is_err());
    }
}
