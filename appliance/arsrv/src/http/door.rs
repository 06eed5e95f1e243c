//! One request's way through the door: match, security, limits, call, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use arapi::names::{Cid, ObjectName};
use arapi::objects::{DataFormat, HttpMethod};
use arbase::Chain;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::body::{self, BodyError, Budget};
use super::builtin::{self, Builtin};
use super::cache::{self, Cache};
use super::checked;
use super::gzip::{self, Coding};
use super::listen::Peer;
use super::spool::{self, Spool, Spools};
use super::{cors, document};
use crate::audit::{self, Recorder};
use crate::call::{Call, Failure, Invoker, Outcome};
use crate::channel::table::{Channel, Found, Table};
use crate::channel::{Quality, path};
use crate::limits::{self, Exceeded, Ticket};
use crate::security::attempts::Attempts;
use crate::security::certificate::ClientCertificate;
use crate::security::credentials::Basic;
use crate::security::{Gate, Passed, Presented, Refusal, Shared};

/// Bodies up to this size are checked for JSON at once, larger ones on a thread of their own.
const JSON_AT_ONCE: usize = 256 * 1024;

/// Every method there is a channel for, as `Allow` has it.
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, POST, DELETE, PUT, PATCH, HEAD, OPTIONS");

/// The door of the data path.
pub struct Door {
    /// The channels; always the newest.
    pub tables: watch::Receiver<Arc<Table>>,
    /// Gets calls run.
    pub invoker: Arc<dyn Invoker>,
    /// Whether requests would be served now; why not, in one sentence.
    pub readiness: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Where deployments from editors go.
    pub admin: arapi::arwadm::Client,
    /// What large bodies may take.
    pub budget: Budget,
    /// Where bodies lie that are too large for memory.
    pub spools: Spools,
    /// Largest body of a request that is for no channel.
    pub max_body_bytes: u64,
    /// Failed attempts to deploy from an editor.
    pub ide_attempts: Attempts,
    /// Failed attempts to log in.
    pub log_in_attempts: Attempts,
    /// Whether callers see the arguments of exceptions.
    pub return_tracebacks: bool,
    /// What gates share.
    pub shared: Arc<Shared>,
    /// Answers that are kept.
    pub cache: Arc<Cache>,
    /// Takes what channels keep of requests and answers.
    pub recorder: Arc<Recorder>,
    /// Whether the header with a client's certificate is believed.
    pub client_certificates: bool,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// What a request leaves behind on its way.
struct Trail {
    ticket: Ticket,
    audited: Option<Audited>,
}

/// What is kept of a request where its channel keeps any of it.
struct Audited {
    started: (SystemTime, Instant),
    caller: Option<ObjectName>,
    body: Option<bytes::Bytes>,
}

impl Trail {
    fn begin(quality: Option<&Quality>) -> Self {
        let now = SystemTime::now();
        let audited = quality.and_then(|quality| quality.audit.as_ref()).map(|_| Audited {
            started: (now, Instant::now()),
            caller: None,
            body: None,
        });
        Self { ticket: Ticket::new(None, now), audited }
    }
}

impl Door {
    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let (parts, body) = request.into_parts();
        let cid = cid_of(&parts.headers);
        let started = log::log_enabled!(log::Level::Debug).then(Instant::now);
        let line = started.map(|_| (parts.method.clone(), parts.uri.path().to_owned()));
        let mut answer = self.answer_parts(&parts, body, &cid, peer).await;
        if let Ok(value) = HeaderValue::from_str(cid.as_str()) {
            answer.headers_mut().insert(answer::CID, value);
        }
        if let (Some(started), Some((method, path))) = (started, line) {
            let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
            log::debug!(
                cid:% = cid, method:% = method, path = path.as_str(),
                status = answer.status().as_u16(), elapsed_ms;
                "request answered"
            );
        }
        answer
    }

    async fn answer_parts(&self, parts: &Parts, body: Incoming, cid: &Cid, peer: &Peer) -> Answer {
        let Some(method) = method_of(&parts.method) else {
            let sentence = format!("Method not allowed (CID:{cid})");
            let mut answer = answer::text(StatusCode::METHOD_NOT_ALLOWED, sentence);
            answer.headers_mut().insert(ALLOW, ALLOWED);
            return answer;
        };
        if let Some(builtin) = Builtin::of(parts.uri.path()) {
            return Box::pin(builtin::answer(self, builtin, method, parts, body, cid, peer)).await;
        }
        let table = Arc::clone(&self.tables.borrow());
        let Ok(path) = path::decode(parts.uri.path()) else {
            let sentence = format!("the path is not UTF-8 once it is percent-decoded (CID:{cid})");
            return answer::text(StatusCode::BAD_REQUEST, sentence);
        };
        if method == HttpMethod::Options
            && let Some(asked) = cors::asked_method(parts)
            && let Some(found) = table.find(&path, asked, &parts.headers)
            && let Some(rules) = found.channel.quality.as_ref().and_then(|has| has.cors.as_ref())
        {
            return rules.preflight(parts, asked, cid);
        }
        let Some(found) = table.find(&path, method, &parts.headers) else {
            let accept = header_text(&parts.headers, http::header::ACCEPT);
            log::warn!(
                cid:% = cid, method:% = parts.method, path:% = parts.uri.path().escape_debug(),
                accept:% = accept.escape_debug(), remote = document::remote(&parts.headers, peer);
                "no channel matches"
            );
            return answer::not_found(cid);
        };
        let channel = found.channel;
        channel.counts.calls.fetch_add(1, Ordering::Relaxed);
        let mut trail = Trail::begin(channel.quality.as_deref());
        let going = self.of_channel(parts, body, cid, peer, &found, method, &path, &mut trail);
        let mut answer = going.await;
        if let Some(quality) = &channel.quality {
            let finishing = self.finish(channel, quality, method, parts, cid, peer, &trail, answer);
            answer = Box::pin(finishing).await;
        }
        if let Some(standing) = trail.ticket.tightest {
            standing.put(answer.headers_mut());
        }
        if answer.status().is_server_error() {
            channel.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// What is done to every answer of a channel that does more than invoke its service.
    async fn finish(
        &self,
        channel: &Channel,
        quality: &Quality,
        method: HttpMethod,
        parts: &Parts,
        cid: &Cid,
        peer: &Peer,
        trail: &Trail,
        mut answer: Answer,
    ) -> Answer {
        if quality.keeps.is_some() {
            answer = cache::unless_known(method, &parts.headers, answer);
        }
        if let Some(rules) = &quality.cors {
            rules.put(&parts.headers, answer.headers_mut());
        }
        if let (Some(rules), Some(audited)) = (&quality.audit, &trail.audited) {
            let exchange = audit::Exchange {
                channel: &channel.name,
                cid,
                parts,
                remote: document::remote(&parts.headers, peer),
                caller: audited.caller.as_ref(),
                body: audited.body.clone(),
                started: audited.started,
                status: answer.status().as_u16(),
                headers: answer.headers(),
                answer: answer.body().whole(),
            };
            self.recorder.note(rules, exchange);
        }
        if quality.packs {
            answer = gzip::pack(answer, gzip::is_wanted(&parts.headers), cid).await;
        }
        answer
    }

    async fn of_channel(
        &self,
        parts: &Parts,
        body: Incoming,
        cid: &Cid,
        peer: &Peer,
        found: &Found<'_>,
        method: HttpMethod,
        path: &[u8],
        trail: &mut Trail,
    ) -> Answer {
        let channel = found.channel;
        let ticket = &mut trail.ticket;
        let format = channel.spec.data_format;
        if !channel.gate.is_open() || channel.may_be_limited() {
            ticket.addr = limits::address(document::remote(&parts.headers, peer));
        }
        if let Err(exceeded) = ticket.take(channel.limit.as_ref()) {
            return limited(channel, cid, &exceeded);
        }
        let certificate = (self.client_certificates && channel.gate.asks_certificate())
            .then(|| ClientCertificate::of_headers(&parts.headers))
            .flatten();
        let mut presented = Presented::of_headers(&parts.headers, ticket.addr, ticket.now);
        presented.certificate = certificate.as_ref();
        let passed = match channel.gate.pass(&presented, &self.shared.slowing).await {
            Ok(passed) => passed,
            Err(refusal) => return refused(channel, cid, peer, &parts.headers, &refusal),
        };
        let passed = passed.as_deref();
        if let Some(audited) = &mut trail.audited {
            audited.caller = passed.map(|passed| passed.name.clone());
        }
        if let Some(granted) = &channel.granted {
            let caller = passed.map(|passed| &passed.name);
            if caller.and_then(|caller| granted.find(caller, method)).is_none() {
                return not_granted(channel, cid, caller);
            }
        }
        let taken = match passed {
            Some(passed) if channel.checks_caller() => ticket.take(passed.limit.as_ref()),
            Some(_) | None => Ok(()),
        };
        if let Err(exceeded) = taken.and_then(|()| ticket.take(channel.service_limit.as_ref())) {
            return limited(channel, cid, &exceeded);
        }
        if !channel.is_serving() {
            log::warn!(
                cid:% = cid, channel:% = channel.name, service:% = channel.service,
                standing:? = channel.standing; "channel cannot serve"
            );
            return answer::not_found(cid);
        }
        let coding = match Coding::of(&parts.headers) {
            Ok(coding) => coding,
            Err(foreign) => {
                let sentence = format!(
                    "the request body is encoded as `{}`; send it with gzip or without Content-Encoding",
                    foreign.escape_debug()
                );
                let details = Value::from(sentence);
                return answer::error(format, StatusCode::UNSUPPORTED_MEDIA_TYPE, cid, &details);
            }
        };
        let quality = channel.quality.as_deref();
        let keeps = quality.and_then(|quality| quality.keeps.as_ref());
        // What is deployed may change while the service runs: then its answer is one of before.
        let mut slot = None;
        if let Some(keeping) = keeps {
            let has_body = !body.is_end_stream();
            let generation = self.invoker.generation();
            match self.cache.find(keeping, generation, method, parts, passed, has_body) {
                cache::Found::Answer(answer) => return *answer,
                cache::Found::Nothing(empty) => slot = Some(empty),
                cache::Found::NotForUs => {}
            }
        }
        let limit = usize::try_from(channel.max_body_bytes).unwrap_or(usize::MAX);
        let deadline = Instant::now() + channel.timeout;
        // What has to be looked at whole is kept in memory.
        let is_seen =
            |quality: &Quality| quality.schemas.request.is_some() || quality.audit.is_some();
        let spools = (!quality.is_some_and(is_seen)).then_some(&self.spools);
        let reading = body::read(body, coding, limit, channel.timeout, &self.budget, spools);
        let (body, spool, _held) = match reading.await {
            Ok(whole) => whole.into_parts(),
            Err(err) => return body_refused(format, cid, &err),
        };
        if let Some(audited) = &mut trail.audited {
            audited.body = Some(body.clone());
        }
        if format == DataFormat::Json
            && let Some(spool) = &spool
        {
            let spool = Arc::clone(spool);
            let checked = tokio::task::spawn_blocking(move || check_spooled_json(&spool)).await;
            // Fails only when the runtime is stopping.
            let check = checked.unwrap_or_else(|_| Err("the core is stopping".to_owned()));
            if let Err(sentence) = check {
                let details = Value::from(sentence);
                return answer::error(format, StatusCode::BAD_REQUEST, cid, &details);
            }
        }
        if format == DataFormat::Json && !body.is_empty() {
            let check = if body.len() <= JSON_AT_ONCE {
                check_json(&body)
            } else {
                let body = body.clone();
                let checked = tokio::task::spawn_blocking(move || check_json(&body)).await;
                // Fails only when the runtime is stopping.
                checked.unwrap_or_else(|_| Err("the core is stopping".to_owned()))
            };
            if let Err(sentence) = check {
                let details = Value::from(sentence);
                return answer::error(format, StatusCode::BAD_REQUEST, cid, &details);
            }
        }
        if let Some(schema) = quality.and_then(|quality| quality.schemas.request.as_ref())
            && let Err(violation) = checked::request(schema, method, &body).await
        {
            let details =
                Value::from(format!("the request breaks the channel's schema: {violation}"));
            return answer::error(format, StatusCode::BAD_REQUEST, cid, &details);
        }
        let call =
            call_of(parts, cid, peer, found, passed, method, path, coding, body, spool, deadline);
        match self.invoker.call(call).await {
            Outcome::Done(reply) => {
                if let Some(schema) = quality.and_then(|quality| quality.schemas.response.as_ref())
                    && let Err(violation) = checked::reply(schema, &reply).await
                {
                    return checked::not_sent(channel, cid, &violation);
                }
                let mut answer = answer::of_reply(channel, cid, reply);
                if let (Some(keeping), Some(slot)) = (keeps, &slot) {
                    self.cache.keep(keeping, slot, &mut answer);
                }
                answer
            }
            Outcome::Streamed(..) if quality.is_some_and(|has| has.schemas.response.is_some()) => {
                checked::not_sent(
                    channel,
                    cid,
                    &"it is streamed, and what is sent before its end cannot be checked",
                )
            }
            Outcome::Streamed(reply, rest) => answer::of_streamed(channel, cid, reply, rest),
            Outcome::Failed(failure) => {
                log_failure(cid, channel, &failure);
                answer::of_failure(channel, cid, &failure, self.return_tracebacks)
            }
        }
    }
}

fn call_of(
    parts: &Parts,
    cid: &Cid,
    peer: &Peer,
    found: &Found<'_>,
    passed: Option<&Passed>,
    method: HttpMethod,
    path: &[u8],
    coding: Coding,
    body: bytes::Bytes,
    spool: Option<Arc<Spool>>,
    deadline: Instant,
) -> Call {
    let channel = found.channel;
    Call {
        service: Arc::clone(&channel.service),
        cid: cid.clone(),
        channel: "http-soap",
        data_format: channel.spec.data_format.as_str(),
        method: Some(method.as_str()),
        http: document::write(parts, &path::to_text(path), found, passed, peer, coding),
        environ: bytes::Bytes::new(),
        body,
        spool,
        deadline,
        priority: channel.spec.priority,
        is_idempotent: is_idempotent(method),
    }
}

fn is_idempotent(method: HttpMethod) -> bool {
    match method {
        HttpMethod::Get
        | HttpMethod::Head
        | HttpMethod::Options
        | HttpMethod::Put
        | HttpMethod::Delete => true,
        HttpMethod::Post | HttpMethod::Patch => false,
    }
}

/// The request's id, which the balancer has made or taken; a new one where it has none.
fn cid_of(headers: &HeaderMap) -> Cid {
    headers
        .get(answer::CID)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Cid::parse(text).ok())
        .unwrap_or_else(Cid::random)
}

fn method_of(method: &Method) -> Option<HttpMethod> {
    Some(match *method {
        Method::GET => HttpMethod::Get,
        Method::POST => HttpMethod::Post,
        Method::DELETE => HttpMethod::Delete,
        Method::PUT => HttpMethod::Put,
        Method::PATCH => HttpMethod::Patch,
        Method::HEAD => HttpMethod::Head,
        Method::OPTIONS => HttpMethod::Options,
        _ => return None,
    })
}

fn header_text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Checks that a body is one JSON document; the sentence says where it is not.
pub fn check_json(body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|err| {
        format!("the request body is not UTF-8 at byte {}, and JSON has to be", err.valid_up_to())
    })?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|err| format!("the request body is not JSON: {err}"))
}

/// The same for one that is not in memory.  Blocks.
fn check_spooled_json(body: &Spool) -> Result<(), String> {
    let unread = |err: std::io::Error| {
        log::error!(error:% = err; "a spooled request body cannot be read");
        "the request body cannot be read now; try again".to_owned()
    };
    if let Some(at) = spool::not_utf8_at(body).map_err(unread)? {
        return Err(format!("the request body is not UTF-8 at byte {at}, and JSON has to be"));
    }
    serde_json::from_reader::<_, serde::de::IgnoredAny>(body.reader())
        .map(|_| ())
        .map_err(|err| format!("the request body is not JSON: {err}"))
}

fn body_refused(format: DataFormat, cid: &Cid, err: &BodyError) -> Answer {
    let status = match err {
        BodyError::TooLarge { .. } | BodyError::TooLargeUnpacked { .. } | BodyError::Swells => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        BodyError::Full | BodyError::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
        BodyError::Late { .. } => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken(_) | BodyError::NotGzip => StatusCode::BAD_REQUEST,
    };
    match err {
        BodyError::Disk(_) => {
            log::error!(cid:% = cid, error:% = Chain(err); "request body refused")
        }
        _ => log::debug!(cid:% = cid, error:% = Chain(err); "request body refused"),
    }
    let mut answer = answer::error(format, status, cid, &Value::from(format!("the {err}")));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn log_failure(cid: &Cid, channel: &Channel, failure: &Failure) {
    if failure.status >= 500 {
        log::warn!(
            cid:% = cid, channel:% = channel.name, service:% = channel.service,
            status = failure.status, kind = failure.kind, error = failure.message;
            "service failed"
        );
    } else {
        log::debug!(
            cid:% = cid, channel:% = channel.name, service:% = channel.service,
            status = failure.status, kind = failure.kind, error = failure.message;
            "service refused the request"
        );
    }
}

/// The answer to a caller that nothing was granted to here.
fn not_granted(channel: &Channel, cid: &Cid, caller: Option<&ObjectName>) -> Answer {
    if let Some(left_out) = channel.counts.attempts.count(Instant::now()) {
        log::warn!(
            cid:% = cid, channel:% = channel.name, service:% = channel.service,
            user:? = caller, left_out;
            "caller has no grant"
        );
    }
    let sentence = Value::from("this caller may not invoke this service");
    answer::error(channel.spec.data_format, StatusCode::FORBIDDEN, cid, &sentence)
}

/// The answer to a request that is above a limit.
fn limited(channel: &Channel, cid: &Cid, exceeded: &Exceeded) -> Answer {
    channel.counts.limited.fetch_add(1, Ordering::Relaxed);
    let format = channel.spec.data_format;
    let Some(standing) = exceeded.standing else {
        let sentence = Value::from("requests from this address are not taken here");
        return answer::error(format, StatusCode::FORBIDDEN, cid, &sentence);
    };
    let seconds = standing.seconds();
    let sentence = format!("too many requests; try again in {seconds} s");
    let mut answer =
        answer::error(format, StatusCode::TOO_MANY_REQUESTS, cid, &Value::from(sentence));
    answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    standing.put(answer.headers_mut());
    answer
}

fn refused(
    channel: &Channel,
    cid: &Cid,
    peer: &Peer,
    headers: &HeaderMap,
    refusal: &Refusal,
) -> Answer {
    if let Some(left_out) = channel.counts.attempts.count(Instant::now()) {
        let username = Basic::of(headers).map(|basic| basic.username).unwrap_or_default();
        let username: String = username.chars().take(64).collect();
        log::warn!(
            cid:% = cid, channel:% = channel.name, remote = document::remote(headers, peer),
            username:% = username.escape_debug(), refusal:? = refusal, left_out;
            "request may not pass"
        );
    }
    of_refusal(&channel.gate, channel.spec.data_format, cid, refusal)
}

/// The answer to a request that may not pass.
pub(super) fn of_refusal(gate: &Gate, format: DataFormat, cid: &Cid, refusal: &Refusal) -> Answer {
    let (status, sentence) = match refusal {
        Refusal::Unauthorized => {
            (StatusCode::UNAUTHORIZED, "credentials are missing or wrong".to_owned())
        }
        Refusal::Forbidden => {
            (StatusCode::FORBIDDEN, "these credentials open nothing here".to_owned())
        }
        Refusal::Both => (
            StatusCode::BAD_REQUEST,
            "Basic Auth and an API key cannot be sent together; send one of them".to_owned(),
        ),
        Refusal::Unknown(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "credentials cannot be checked now; try again".to_owned(),
        ),
        Refusal::Slowed(wait) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "too many failed attempts from this address; try again in {} s",
                seconds(*wait)
            ),
        ),
    };
    let mut answer = answer::error(format, status, cid, &Value::from(sentence));
    match refusal {
        Refusal::Unauthorized => {
            for challenge in gate.challenges() {
                answer.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
            }
            // RFC 9110, section 15.5.2: there has to be one, also where nothing can open.
            if gate.challenges().is_empty() {
                let none = HeaderValue::from_static("Basic realm=\"ARINT\", charset=\"UTF-8\"");
                answer.headers_mut().insert(WWW_AUTHENTICATE, none);
            }
        }
        Refusal::Unknown(_) => {
            answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Refusal::Slowed(wait) => {
            let wait = HeaderValue::from(seconds(*wait));
            answer.headers_mut().insert(http::header::RETRY_AFTER, wait);
        }
        Refusal::Forbidden | Refusal::Both => {}
    }
    answer
}

/// Whole seconds, never too few.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Longest time for the body of a request for a path of our own.
pub(super) const BUILTIN_BODY_LIMIT: Duration = Duration::from_secs(30);
