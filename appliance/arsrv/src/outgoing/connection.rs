//! A REST connection: its client, its credentials, and a call on it from beginning to end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arapi::arsrv::OutgoingStatus;
use arapi::names::Cid;
use arapi::objects::{DataFormat, HttpMethod, OutgoingRest, SecretText};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::address::{self, AddressError};
use super::attempt::{self, Answered, Failed, Sent};
use super::breaker::{Breaker, Ended, Pass};
use super::health::Health;
use super::lane::Lane;
use super::ntlm::{Credentials, Lanes};
use super::oauth::{Made, NoToken, TokenSource};
use super::tls::{self, Identity, TlsError, Trust};
use super::way::Way;
use crate::call::{WorkerReply, WorkerRequest};
use crate::http::answer::CID;
use crate::telemetry::trace;

/// A REST connection, at one configuration.
#[derive(Debug)]
pub struct Rest {
    /// Its name.
    pub name: String,
    /// What it was made from; another basis means another connection.
    pub basis: Basis,
    /// What it has done; goes on when the connection is changed.
    pub counts: Arc<Counts>,
    pub(super) health: Mutex<Health>,
    client: Result<reqwest::Client, TlsError>,
    credentials: Option<(HeaderName, HeaderValue)>,
    breaker: Mutex<Breaker>,
    /// For requests that are passed on; made for the first of them.
    way: OnceLock<Result<Way, TlsError>>,
    /// Connections that NTLM has let in.
    lanes: Lanes<Lane>,
}

/// What a connection is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// What was configured.
    pub spec: OutgoingRest,
    /// The credentials it presents.
    pub presents: Presents,
    /// The certificate it presents beside them; Some(None): it is not known now, or switched off.
    pub identity: Option<Option<Identity>>,
}

/// The credentials a connection presents.
#[derive(Debug, Clone, PartialEq)]
pub enum Presents {
    /// None.
    Nothing,
    /// RFC 7617.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretText,
    },
    /// A key in a header.
    ApiKey {
        /// The header.
        header: String,
        /// The key.
        key: SecretText,
    },
    /// RFC 6750.
    Bearer {
        /// The token.
        token: SecretText,
    },
    /// A token that is made for it (RFC 6749).
    Oauth {
        /// Where it is made.
        source: Arc<TokenSource>,
    },
    /// NTLM.
    Ntlm(Credentials),
    /// The secret is not known now.
    Unknown,
    /// The security is of a type that only channels ask for.
    Foreign {
        /// Which.
        security: String,
    },
    /// The security is switched off, or gone.
    Inactive {
        /// Which.
        security: String,
    },
}

/// What a connection has done since the core's start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls.
    pub calls: AtomicU64,
    /// Attempts beyond the first.
    pub retries: AtomicU64,
    /// Calls that failed in the end.
    pub failures: AtomicU64,
}

/// A call to be made.
#[derive(Debug)]
pub struct RestCall {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// The headers, credentials included.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Longest time for one attempt.
    pub attempt: Duration,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// The request it belongs to.
    pub cid: Cid,
    /// The scopes its token is to have, where they are not those that are configured.
    pub scopes: Option<Vec<String>>,
}

/// What is behind an error, in the words of whoever found it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub String);

/// Why a call did not come to an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is none of this name.
    #[error("there is no outgoing connection `{name}`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// There is one, of another type.
    #[error("outgoing connection `{name}` is {is}, not {wanted}")]
    WrongType {
        /// The connection.
        name: String,
        /// What it is.
        is: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The worker asked for something unknown.
    #[error("operation `{op}` is unknown")]
    UnknownOp {
        /// What it asked for.
        op: String,
    },
    /// It was switched off.
    #[error("outgoing connection `{name}` is inactive")]
    Inactive {
        /// The connection.
        name: String,
    },
    /// Its security was switched off.
    #[error("outgoing connection `{name}`: its security `{security}` is inactive")]
    SecurityInactive {
        /// The connection.
        name: String,
        /// The security.
        security: String,
    },
    /// Its secret could not be read so far.
    #[error("outgoing connection `{name}`: its secret is not known now; try again")]
    SecretUnknown {
        /// The connection.
        name: String,
    },
    /// There is no token for it.
    #[error("outgoing connection `{name}` has no token")]
    Token {
        /// The connection.
        name: String,
        /// Why.
        source: NoToken,
    },
    /// There is no security of this name that tokens come from.
    #[error("there is no security `{name}` of type `oauth` or `bearer`")]
    NoSecurity {
        /// The name.
        name: String,
    },
    /// No token can be made.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// The service asked for something that cannot be sent.
    #[error("outgoing connection `{name}`: {fault}")]
    BadRequest {
        /// The connection.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// The address cannot be built.
    #[error("outgoing connection `{name}`")]
    Address {
        /// The connection.
        name: String,
        /// Why.
        source: AddressError,
    },
    /// TLS cannot be set up.
    #[error("outgoing connection `{name}`: {fault}")]
    Tls {
        /// The connection.
        name: String,
        /// Why.
        fault: String,
    },
    /// The other side has failed too often.
    #[error(
        "outgoing connection `{name}`: circuit is open after {failures} failures in a row, {}",
        next_attempt(*again_in)
    )]
    CircuitOpen {
        /// The connection.
        name: String,
        /// How many.
        failures: u32,
        /// When it will be tried again; zero: just now.
        again_in: Duration,
    },
    /// Nobody answered in time.
    #[error("outgoing connection `{name}`: `{address}` did not answer within {limit:?}{}", tries(*.attempts))]
    Timeout {
        /// The connection.
        name: String,
        /// Where it leads.
        address: String,
        /// How long was waited.
        limit: Duration,
        /// How often it was tried.
        attempts: u32,
    },
    /// Nobody is there.
    #[error("outgoing connection `{name}`: cannot reach `{address}`{}", tries(*.attempts))]
    Unreachable {
        /// The connection.
        name: String,
        /// Where it leads.
        address: String,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        source: Cause,
    },
    /// The other side broke off, or answered with what is no HTTP.
    #[error("outgoing connection `{name}`: call of `{address}` broke off{}", tries(*.attempts))]
    Broken {
        /// The connection.
        name: String,
        /// Where it leads.
        address: String,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        source: Cause,
    },
    /// A folder says no.
    #[error("outgoing connection `{name}`")]
    File {
        /// The connection.
        name: String,
        /// Why.
        source: super::files::FileFault,
    },
    /// The answer is too large.
    #[error(
        "outgoing connection `{name}`: the answer of `{address}` is larger than the {limit} bytes allowed"
    )]
    TooLarge {
        /// The connection.
        name: String,
        /// Where it leads.
        address: String,
        /// How much is.
        limit: u64,
    },
}

fn next_attempt(again_in: Duration) -> String {
    match again_in {
        Duration::ZERO => "an attempt is being made just now".to_owned(),
        later => format!("next attempt in {later:?}"),
    }
}

/// Whole milliseconds read better.
fn whole_ms(time: Duration) -> Duration {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(ms + u64::from(!time.subsec_nanos().is_multiple_of(1_000_000)))
}

fn tries(attempts: u32) -> String {
    if attempts > 1 { format!(" in {attempts} attempts") } else { String::new() }
}

impl CallError {
    /// The word for workers (docs/worker-protocol.md).
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::WrongType { .. } | Self::NoSecurity { .. } => "not-found",
            Self::Inactive { .. } | Self::SecurityInactive { .. } => "inactive",
            Self::UnknownOp { .. } | Self::BadRequest { .. } | Self::Address { .. } => {
                "bad-request"
            }
            Self::SecretUnknown { .. }
            | Self::Tls { .. }
            | Self::Token { .. }
            | Self::NoToken(_) => "refused",
            Self::CircuitOpen { .. } => "circuit-open",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } | Self::Broken { .. } => "connection",
            Self::TooLarge { .. } => "too-large",
            Self::File { source, .. } => source.type_name(),
        }
    }
}

impl RestCall {
    /// Reads what a worker wants to be called.
    pub fn parse(rest: &Rest, request: &WorkerRequest) -> Result<Self, CallError> {
        let bad = |fault: String| CallError::BadRequest { name: rest.name.clone(), fault };
        let meta = &request.meta;
        let method = meta.get("method").and_then(Value::as_str).unwrap_or("GET");
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| bad(format!("`{}` is not an HTTP method", method.escape_debug())))?;
        let none = Map::new();
        let params = meta.get("path_params").and_then(Value::as_object).unwrap_or(&none);
        let mut query = Vec::new();
        for pair in meta.get("query").and_then(Value::as_array).into_iter().flatten() {
            match pair.as_array().map(Vec::as_slice) {
                Some([key, value]) => query.push((plain(key), plain(value))),
                _ => return Err(bad(format!("`{pair}` is not a key and a value of a query"))),
            }
        }
        let spec = &rest.basis.spec;
        let url = address::build(&spec.host, &spec.url_path, params, &query)
            .map_err(|source| CallError::Address { name: rest.name.clone(), source })?;
        let mut headers = HeaderMap::new();
        let given = meta.get("headers").and_then(Value::as_object).unwrap_or(&none);
        for (name, value) in given {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                bad(format!("`{}` is not the name of a header", name.escape_debug()))
            })?;
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                let value = HeaderValue::from_bytes(plain(value).as_bytes()).map_err(|_| {
                    bad(format!("the value of header `{parsed}` has a control character"))
                })?;
                headers.append(parsed.clone(), value);
            }
        }
        // The connection's own.
        for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        if !headers.contains_key(CONTENT_TYPE)
            && let Some(content_type) = rest.content_type(!request.body.is_empty())
            && let Ok(value) = HeaderValue::from_str(content_type)
        {
            headers.insert(CONTENT_TYPE, value);
        }
        // A service may have one of its own, from another system.
        if !headers.contains_key("traceparent")
            && let Some(trace) = trace::current()
            && let Ok(value) = HeaderValue::from_str(&trace.traceparent())
        {
            headers.insert("traceparent", value);
        }
        let attempt = meta.get("timeout_ms").and_then(Value::as_u64).unwrap_or(spec.timeout_ms);
        Ok(Self {
            method,
            url,
            headers,
            body: request.body.clone(),
            attempt: Duration::from_millis(attempt),
            deadline: request.deadline,
            cid: request.cid.clone(),
            scopes: scopes(meta),
        })
    }
}

impl RestCall {
    /// A `POST` of the core's own to what lies behind the connection's path.
    pub fn own(
        rest: &Rest,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Self, CallError> {
        let spec = &rest.basis.spec;
        let path = format!("{}/{path}", spec.url_path.trim_end_matches('/'));
        let url = address::build(&spec.host, &path, &Map::new(), &[])
            .map_err(|source| CallError::Address { name: rest.name.clone(), source })?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(Self {
            method: Method::POST,
            url,
            headers,
            body,
            attempt: limit,
            deadline: Instant::now() + limit,
            cid: Cid::random(),
            scopes: None,
        })
    }
}

/// The scopes in a worker's request.
pub(super) fn scopes(meta: &Value) -> Option<Vec<String>> {
    match meta.get("scopes")? {
        Value::String(text) => Some(text.split_whitespace().map(ToOwned::to_owned).collect()),
        Value::Array(scopes) => Some(scopes.iter().map(plain).collect()),
        _ => None,
    }
}

/// A JSON value as the text it stands for.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Rest {
    /// Makes a connection; opens nothing yet.
    pub fn new(name: String, basis: Basis, counts: Arc<Counts>) -> Self {
        let spec = &basis.spec;
        let client = client(spec, basis.identity.as_ref().and_then(Option::as_ref));
        if let Err(err) = &client {
            log::error!(connection = name, error:% = arbase::Chain(err); "outgoing connection cannot be set up");
        }
        let open_for = Duration::from_millis(spec.circuit_breaker.open_ms);
        Self {
            name,
            counts,
            health: Mutex::default(),
            client,
            credentials: credentials(&basis.presents),
            breaker: Mutex::new(Breaker::new(spec.circuit_breaker.failures, open_for)),
            way: OnceLock::new(),
            lanes: Lanes::new(usize::try_from(spec.pool_size).unwrap_or(usize::MAX)),
            basis,
        }
    }

    fn content_type(&self, has_body: bool) -> Option<&str> {
        let spec = &self.basis.spec;
        let of_format = match spec.data_format {
            DataFormat::Json => Some("application/json"),
            DataFormat::Form => Some("application/x-www-form-urlencoded"),
            DataFormat::Xml => Some("application/xml"),
            DataFormat::Csv => Some("text/csv"),
            DataFormat::Hl7 | DataFormat::None => None,
        };
        spec.content_type.as_deref().or(of_format.filter(|_| has_body))
    }

    /// Where it leads, as it may be shown.
    pub fn address(&self) -> String {
        let path = self.basis.spec.url_path.split('?').next().unwrap_or_default();
        format!("{}{path}", self.basis.spec.host.trim_end_matches('/'))
    }

    /// What `rest_info` answers.
    pub fn info(&self) -> Value {
        let spec = &self.basis.spec;
        json!({
            "data_format": spec.data_format.as_str(),
            "content_type": spec.content_type,
            "address": self.address(),
            "url_path": spec.url_path,
            "is_active": spec.is_active,
            "method": null,
        })
    }

    /// The way through it for requests that are passed on.
    pub(super) fn way(&self) -> Result<&Way, CallError> {
        let made = self.way.get_or_init(|| {
            let identity = self.basis.identity.as_ref().and_then(Option::as_ref);
            Way::of(&self.basis.spec, tls::config_with(trust(&self.basis.spec), identity)?)
        });
        let fault =
            |err: &TlsError| CallError::Tls { name: self.name.clone(), fault: err.to_string() };
        made.as_ref().map_err(fault)
    }

    /// The client, if calls may be made at all.
    pub(super) fn usable(&self) -> Result<&reqwest::Client, CallError> {
        let name = || self.name.clone();
        if !self.basis.spec.is_active {
            return Err(CallError::Inactive { name: name() });
        }
        match &self.basis.presents {
            Presents::Unknown => return Err(CallError::SecretUnknown { name: name() }),
            Presents::Foreign { security } => {
                let fault =
                    format!("its security `{security}` is of a type that only channels ask for");
                return Err(CallError::Tls { name: name(), fault });
            }
            Presents::Inactive { security } => {
                let security = security.clone();
                return Err(CallError::SecurityInactive { name: name(), security });
            }
            Presents::Nothing
            | Presents::Basic { .. }
            | Presents::ApiKey { .. }
            | Presents::Bearer { .. }
            | Presents::Oauth { .. }
            | Presents::Ntlm(_) => {}
        }
        if self.basis.identity.as_ref().is_some_and(Option::is_none) {
            return Err(CallError::SecretUnknown { name: name() });
        }
        match &self.client {
            Ok(client) => Ok(client),
            Err(err) => Err(CallError::Tls { name: name(), fault: err.to_string() }),
        }
    }

    /// Makes a call: attempts, waits, and what the circuit breaker says.
    pub async fn call(&self, mut call: RestCall) -> Result<WorkerReply, CallError> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let ended = match self.usable() {
            Ok(client) => self.with_credentials(client, &mut call).await,
            Err(err) => Err(err),
        };
        let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
        match &ended {
            Ok(answered) => {
                if self.is_failure(answered.status) {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                }
                log::debug!(
                    cid:% = call.cid, connection = self.name, status = answered.status.as_u16(),
                    elapsed_ms;
                    "outgoing call answered"
                );
            }
            Err(err) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    cid:% = call.cid, connection = self.name, error:% = arbase::Chain(err),
                    elapsed_ms;
                    "outgoing call failed"
                );
            }
        }
        ended.map(|answered| reply(answered, elapsed_ms))
    }

    /// Makes the call with what the connection presents.  A token that is refused is asked for anew, once.
    pub(super) async fn with_credentials(
        &self,
        client: &reqwest::Client,
        call: &mut RestCall,
    ) -> Result<Answered, CallError> {
        let Some(made) =
            self.present(&mut call.headers, call.deadline, call.scopes.as_deref()).await?
        else {
            return self.attempts(client, call).await;
        };
        let answered = self.attempts(client, call).await?;
        let Presents::Oauth { source } = &self.basis.presents else { return Ok(answered) };
        if answered.status != http::StatusCode::UNAUTHORIZED {
            return Ok(answered);
        }
        source.spoil(&made);
        // Without another token the service sees the refusal.
        match self.present(&mut call.headers, call.deadline, call.scopes.as_deref()).await {
            Ok(Some(again)) if again.token != made.token => self.attempts(client, call).await,
            Ok(_) | Err(_) => Ok(answered),
        }
    }

    /// One attempt, with the connection's way of showing who it is.
    async fn once(&self, client: &reqwest::Client, call: &RestCall) -> Result<Answered, Failed> {
        let most = self.basis.spec.max_response_bytes;
        match &self.basis.presents {
            Presents::Ntlm(credentials) => {
                let patience = Duration::from_millis(self.basis.spec.connect_timeout_ms);
                let tls = || {
                    let identity = self.basis.identity.as_ref().and_then(Option::as_ref);
                    tls::config_with(trust(&self.basis.spec), identity)
                };
                super::lane::once(&self.lanes, credentials, call, most, patience, tls).await
            }
            _ => attempt::once(client, call, most).await,
        }
    }

    async fn attempts(
        &self,
        client: &reqwest::Client,
        call: &RestCall,
    ) -> Result<Answered, CallError> {
        let spec = &self.basis.spec;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let pass = self.admit()?;
            let left = call.deadline.saturating_duration_since(Instant::now());
            let limit = call.attempt.min(left);
            let once = Box::pin(self.once(client, call));
            let ended = match tokio::time::timeout(limit, once).await {
                Ok(ended) => ended,
                Err(_) => Err(Failed::Late { limit }),
            };
            let now = Instant::now();
            let failed = match ended {
                Ok(answered) => {
                    let bad = self.is_failure(answered.status);
                    pass.report(if bad { Ended::Badly } else { Ended::Well });
                    if !bad {
                        self.found_well(None);
                        return Ok(answered);
                    }
                    self.found_badly(&format!("it answered with status {}", answered.status));
                    Sent::Answered(answered)
                }
                Err(failed) => {
                    pass.report(if failed.is_theirs() { Ended::Badly } else { Ended::Well });
                    Sent::Failed(failed)
                }
            };
            let left = call.deadline.saturating_duration_since(now);
            let wait = attempt::wait_before_next(
                &spec.retry,
                attempts,
                &call.method,
                &failed,
                left,
                rand::random(),
            );
            match (wait, failed) {
                (Some(wait), failed) => {
                    log::debug!(
                        cid:% = call.cid, connection = self.name, attempt = attempts,
                        wait_ms = wait.as_millis(), error:% = failed;
                        "outgoing call will be tried again"
                    );
                    self.counts.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                }
                // The service sees what the other side said.
                (None, Sent::Answered(answered)) => return Ok(answered),
                (None, Sent::Failed(failed)) => {
                    let err = self.error(failed, address::shown(&call.url), attempts);
                    self.found_badly(&arbase::Chain(&err).to_string());
                    return Err(err);
                }
            }
        }
    }

    pub(super) fn is_failure(&self, status: http::StatusCode) -> bool {
        self.basis.spec.retry.on_status.contains(&status.as_u16())
    }

    /// One call of the health check, beside breaker and retries.
    pub async fn ping(
        &self,
        deadline: Instant,
        cid: Option<&Cid>,
    ) -> Result<WorkerReply, CallError> {
        let started = Instant::now();
        let answered = self.ping_once(deadline, cid).await?;
        Ok(reply(answered, started.elapsed().as_secs_f64() * 1000.0))
    }

    pub(super) async fn ping_once(
        &self,
        deadline: Instant,
        cid: Option<&Cid>,
    ) -> Result<Answered, CallError> {
        let client = self.usable()?;
        let spec = &self.basis.spec;
        let own = spec.url_path.as_str();
        let path = match &spec.ping_path {
            Some(path) => path,
            None if own.contains('{') => "/",
            None => own,
        };
        let url = address::build(&spec.host, path, &Map::new(), &[])
            .map_err(|source| CallError::Address { name: self.name.clone(), source })?;
        let mut headers = HeaderMap::new();
        let cid = cid.cloned().unwrap_or_else(Cid::random);
        if let Ok(value) = HeaderValue::from_str(cid.as_str()) {
            headers.insert(CID, value);
        }
        let mut call = RestCall {
            method: method(spec.ping_method),
            url,
            headers,
            body: Bytes::new(),
            attempt: Duration::from_millis(spec.timeout_ms),
            deadline,
            cid,
            scopes: None,
        };
        self.present(&mut call.headers, deadline, None).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = call.attempt.min(left);
        let once = Box::pin(self.once(client, &call));
        let ended = match tokio::time::timeout(limit, once).await {
            Ok(ended) => ended,
            Err(_) => Err(Failed::Late { limit }),
        };
        ended.map_err(|failed| self.error(failed, address::shown(&call.url), 1))
    }

    /// Puts the credentials in, in place of what the service may have set there.  Gives the token, if it is one that
    /// was made.
    pub(super) async fn present(
        &self,
        headers: &mut HeaderMap,
        deadline: Instant,
        scopes: Option<&[String]>,
    ) -> Result<Option<Arc<Made>>, CallError> {
        if let Some((name, value)) = &self.credentials {
            headers.insert(name, value.clone());
        }
        let source = match &self.basis.presents {
            Presents::Oauth { source } => source,
            Presents::Ntlm(_) => {
                headers.remove(AUTHORIZATION);
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let made = match tokio::time::timeout(left, source.token(scopes)).await {
            Ok(made) => {
                made.map_err(|source| CallError::Token { name: self.name.clone(), source })?
            }
            Err(_) => {
                let address = self.address();
                let name = self.name.clone();
                return Err(CallError::Timeout {
                    name,
                    address,
                    limit: whole_ms(left),
                    attempts: 1,
                });
            }
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", made.token))
            .map_err(|_| CallError::SecretUnknown { name: self.name.clone() })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(Some(made))
    }

    pub(super) fn error(&self, failed: Failed, address: String, attempts: u32) -> CallError {
        let name = self.name.clone();
        match failed {
            Failed::Late { limit } => {
                CallError::Timeout { name, address, limit: whole_ms(limit), attempts }
            }
            Failed::NotSent { cause } | Failed::Certificate { cause } => {
                CallError::Unreachable { name, address, attempts, source: Cause(cause) }
            }
            Failed::Broken { cause } => {
                CallError::Broken { name, address, attempts, source: Cause(cause) }
            }
            Failed::TooLarge { limit } => CallError::TooLarge { name, address, limit },
        }
    }

    pub(super) fn admit(&self) -> Result<Admitted<'_>, CallError> {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match breaker.admit(Instant::now()) {
            Ok(pass) => Ok(Admitted { rest: self, pass, ended: Ended::GivenUp }),
            Err(refused) => Err(CallError::CircuitOpen {
                name: self.name.clone(),
                failures: breaker.limit(),
                again_in: whole_ms(refused.again_in),
            }),
        }
    }

    pub(super) fn found_well(&self, ping_ms: Option<f64>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.well(&self.name, ping_ms);
    }

    pub(super) fn found_badly(&self, error: &str) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.badly(&self.name, error, None);
    }

    /// How it is.
    pub fn status(&self) -> OutgoingStatus {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let unusable = self.usable().err().map(|err| err.to_string());
        OutgoingStatus {
            name: self.name.clone(),
            address: self.address(),
            health: if self.basis.spec.is_active { health.word() } else { "inactive" }.to_owned(),
            last_error: unusable
                .filter(|_| self.basis.spec.is_active)
                .or_else(|| health.last_error.clone()),
            checked_ms: health.checked_ms,
            ping_ms: health.ping_ms,
            circuit: breaker.state(Instant::now()).to_owned(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            retries: self.counts.retries.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            pool: None,
        }
    }
}

/// An attempt the breaker let through; given up if it is dropped without a report.
pub(super) struct Admitted<'r> {
    rest: &'r Rest,
    pass: Pass,
    ended: Ended,
}

impl Admitted<'_> {
    pub(super) fn report(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut breaker = self.rest.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match breaker.report(self.pass, self.ended, Instant::now()) {
            Some(true) => log::warn!(connection = self.rest.name; "circuit opened"),
            Some(false) => log::info!(connection = self.rest.name; "circuit closed"),
            None => {}
        }
    }
}

fn trust(spec: &OutgoingRest) -> Trust<'_> {
    let is_tls = spec.host.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    // Without TLS no authority has to be read.
    if spec.validate_tls && is_tls {
        Trust::Authorities(spec.tls_ca_pem.as_deref())
    } else {
        Trust::Anyone
    }
}

fn client(spec: &OutgoingRest, own: Option<&Identity>) -> Result<reqwest::Client, TlsError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config_with(trust(spec), own)?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(usize::try_from(spec.pool_size).unwrap_or(usize::MAX))
        .pool_idle_timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_millis(spec.connect_timeout_ms))
        .tcp_nodelay(true)
        .user_agent(concat!("ARINT/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|err| TlsError::Setup(err.to_string()))
}

fn credentials(presents: &Presents) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match presents {
        Presents::Basic { username, password } => {
            let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.0));
            (AUTHORIZATION, format!("Basic {pair}"))
        }
        Presents::ApiKey { header, key } => {
            (HeaderName::from_bytes(header.as_bytes()).ok()?, key.0.clone())
        }
        Presents::Bearer { token } => (AUTHORIZATION, format!("Bearer {}", token.0)),
        Presents::Nothing
        | Presents::Oauth { .. }
        | Presents::Ntlm(_)
        | Presents::Unknown
        | Presents::Foreign { .. }
        | Presents::Inactive { .. } => return None,
    };
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Options => Method::OPTIONS,
    }
}

fn reply(answered: Answered, elapsed_ms: f64) -> WorkerReply {
    let headers: Vec<[String; 2]> = answered
        .headers
        .iter()
        .map(|(name, value)| {
            let value = match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => text.to_owned(),
                Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
            };
            [name.to_string(), value]
        })
        .collect();
    WorkerReply {
        meta: json!({
            "status": answered.status.as_u16(),
            "reason": answered.status.canonical_reason().unwrap_or_default(),
            "url": answered.url.as_str(),
            "headers": headers,
            "elapsed_ms": elapsed_ms,
        }),
        body: answered.body,
    }
}
