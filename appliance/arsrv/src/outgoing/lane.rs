//! Lanes: connections of their own for NTLM, one request at a time on each.
//!
//! A lane that was let in stays so; its next requests go without a handshake.  One that the other side has closed is
//! replaced.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::attempt::{Answered, Failed};
use super::connection::RestCall;
use super::ntlm::{self, Challenge, Credentials, Lanes};
use super::tls::TlsError;

/// One connection.
#[derive(Debug)]
pub struct Lane {
    sender: SendRequest<Full<Bytes>>,
    is_in: bool,
}

fn broken(err: impl std::error::Error) -> Failed {
    Failed::Broken { cause: arbase::Chain(&err).to_string() }
}

fn not_sent(cause: impl ToString) -> Failed {
    Failed::NotSent { cause: cause.to_string() }
}

/// Sends a request over a lane and reads the answer whole; redirects are answers.
pub async fn once(
    lanes: &Lanes<Lane>,
    credentials: &Credentials,
    call: &RestCall,
    max_bytes: u64,
    patience: Duration,
    tls: impl Fn() -> Result<ClientConfig, TlsError>,
) -> Result<Answered, Failed> {
    let mut lane = loop {
        match lanes.take() {
            // The other side may have closed it meanwhile.
            Some(mut lane) => {
                if lane.sender.ready().await.is_ok() {
                    break lane;
                }
            }
            None => break Lane::open(&call.url, patience, &tls).await?,
        }
    };
    let response = lane.ask(credentials, call).await?;
    let answered = read(response, &call.url, max_bytes).await?;
    if lane.is_in {
        lanes.give_back(lane);
    }
    Ok(answered)
}

impl Lane {
    async fn open(
        url: &Url,
        patience: Duration,
        tls: &impl Fn() -> Result<ClientConfig, TlsError>,
    ) -> Result<Self, Failed> {
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(80);
        let connecting = async {
            let stream = TcpStream::connect((bare, port)).await.map_err(not_sent)?;
            stream.set_nodelay(true).map_err(not_sent)?;
            if url.scheme() != "https" {
                return Self::over(stream).await;
            }
            let connector = TlsConnector::from(Arc::new(tls().map_err(not_sent)?));
            let name = ServerName::try_from(bare.to_owned()).map_err(not_sent)?;
            let stream = connector.connect(name, stream).await.map_err(|err| {
                let is_certificate = err
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                    .is_some_and(|err| matches!(err, rustls::Error::InvalidCertificate(_)));
                match is_certificate {
                    true => Failed::Certificate { cause: err.to_string() },
                    false => not_sent(err),
                }
            })?;
            Self::over(stream).await
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(opened) => opened,
            Err(_) => Err(not_sent("no connection in time")),
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, Failed> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(not_sent)?;
        // Ends with the lane, or when the other side closes it; whoever sends next is told.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { sender, is_in: false })
    }

    /// The answer to a request, after as much of a handshake as the other side wants.
    async fn ask(
        &mut self,
        credentials: &Credentials,
        call: &RestCall,
    ) -> Result<Response<Incoming>, Failed> {
        if self.is_in {
            let response = self.send(call, None, call.body.clone()).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            self.is_in = false;
            drain(response).await?;
        }
        let negotiated = ntlm::negotiate();
        let first = self.send(call, Some(&negotiated), Bytes::new()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            // It asks for nothing.
            if call.body.is_empty() {
                return Ok(first);
            }
            drain(first).await?;
            return self.send(call, None, call.body.clone()).await;
        }
        let offered = first.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = offered.filter_map(|value| Challenge::of_header(value.as_bytes())).next();
        let challenge = match challenge {
            Some(challenge) => challenge.map_err(broken)?,
            // It does not speak NTLM: the service sees its refusal.
            None => return Ok(first),
        };
        drain(first).await?;
        let message = challenge.answer(credentials, rand::random(), SystemTime::now(), &negotiated);
        let response = self.send(call, Some(&message), call.body.clone()).await?;
        self.is_in = response.status() != StatusCode::UNAUTHORIZED;
        Ok(response)
    }

    async fn send(
        &mut self,
        call: &RestCall,
        message: Option<&[u8]>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failed> {
        let target = match call.url.query() {
            Some(query) => format!("{}?{query}", call.url.path()),
            None => call.url.path().to_owned(),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = target.parse().map_err(not_sent)?;
        let mut headers: HeaderMap = call.headers.clone();
        let host = match (call.url.host_str(), call.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, None) => host.unwrap_or_default().to_owned(),
            (None, Some(_)) => String::new(),
        };
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(not_sent)?);
        if let Some(message) = message {
            let text = format!("NTLM {}", BASE64_STANDARD.encode(message));
            let mut value = HeaderValue::from_str(&text).map_err(not_sent)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        *request.headers_mut() = headers;
        self.sender.ready().await.map_err(not_sent)?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

/// Reads what nobody looks at, so that the connection can go on.
async fn drain(response: Response<Incoming>) -> Result<(), Failed> {
    collect(response.into_body(), 1024 * 1024).await.map(|_| ())
}

async fn collect(mut body: Incoming, max_bytes: u64) -> Result<Bytes, Failed> {
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            all.extend_from_slice(&data);
        }
        if all.len() > most {
            return Err(Failed::TooLarge { limit: max_bytes });
        }
    }
    Ok(all.freeze())
}

async fn read(response: Response<Incoming>, url: &Url, max_bytes: u64) -> Result<Answered, Failed> {
    let (parts, body) = response.into_parts();
    let body = collect(body, max_bytes).await?;
    Ok(Answered { status: parts.status, headers: parts.headers, body, url: url.clone() })
}
