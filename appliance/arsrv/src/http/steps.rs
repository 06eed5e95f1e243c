//! What a request has to pass before its call, whatever its protocol: limits, gate, grant, body.
//!
//! Each step says in a [`Denied`] why a request goes no further; how that looks to the client is its protocol's part
//! (REST here, the others in modules of their own).
//!
//! **Invariant:** nobody learns from a denial whether a service exists that he may not invoke.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use arapi::names::{Cid, ObjectName};
use arapi::objects::{ChannelType, DataFormat, HttpMethod};
use arbase::Chain;
use bytes::Bytes;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde_json::Value;

use super::answer::{self, Answer};
use super::body::{self, BodyError, Whole};
use super::document;
use super::door::Door;
use super::gzip::Coding;
use super::listen::Peer;
use super::spool::Spools;
use crate::call::{Call, Failure};
use crate::channel::table::{self, Channel, Found, Target, Targets};
use crate::channel::{Quality, path};
use crate::limits::{self, Exceeded, Ticket};
use crate::security::certificate::ClientCertificate;
use crate::security::credentials::Basic;
use crate::security::wss::UsernameToken;
use crate::security::{Gate, Passed, Presented, Refusal};
use crate::telemetry::trace::{self, What};

/// A request that found its channel.
pub struct Visit<'v> {
    /// Its head.
    pub parts: &'v Parts,
    /// Its id.
    pub cid: &'v Cid,
    /// Who is at the other end.
    pub peer: &'v Peer,
    /// Its channel, and the parts of the path.
    pub found: &'v Found<'v>,
    /// Its method.
    pub method: HttpMethod,
    /// Its path, decoded.
    pub path: &'v [u8],
}

/// What a request leaves behind on its way.
pub struct Trail {
    /// What it has taken from limits.
    pub ticket: Ticket,
    /// What is kept of it, where its channel keeps any of it.
    pub audited: Option<Audited>,
}

/// What is kept of a request.
pub struct Audited {
    /// When it began.
    pub started: (SystemTime, Instant),
    /// Who has sent it.
    pub caller: Option<ObjectName>,
    /// What it held.
    pub body: Option<Bytes>,
}

impl Trail {
    /// Of a request that begins now.
    pub fn begin(quality: Option<&Quality>) -> Self {
        let now = SystemTime::now();
        let audited = quality.and_then(|quality| quality.audit.as_ref()).map(|_| Audited {
            started: (now, Instant::now()),
            caller: None,
            body: None,
        });
        Self { ticket: Ticket::new(None, now), audited }
    }

    fn note_caller(&mut self, passed: Option<&Passed>) {
        if let Some(audited) = &mut self.audited {
            audited.caller = passed.map(|passed| passed.name.clone());
        }
    }

    /// Keeps the body, if any of it is to be kept.
    pub fn note_body(&mut self, body: &Bytes) {
        if let Some(audited) = &mut self.audited {
            audited.body = Some(body.clone());
        }
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub struct Denied {
    /// The status of HTTP that goes with it.
    pub status: StatusCode,
    /// One sentence for the client; None: it is not to learn more than that there is nothing.
    pub sentence: Option<String>,
    /// Headers that go with it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Denied {
    /// There is nothing for this request.
    pub fn hidden() -> Self {
        Self { status: StatusCode::NOT_FOUND, sentence: None, headers: Vec::new() }
    }

    /// With a reason.
    pub fn because(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: Some(sentence.into()), headers: Vec::new() }
    }

    /// With the time after which the same may be tried again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// As REST has it.
    pub fn answer(self, format: DataFormat, cid: &Cid) -> Answer {
        let Some(sentence) = self.sentence else { return answer::not_found(cid) };
        let mut answer = answer::error(format, self.status, cid, &Value::from(sentence));
        answer.headers_mut().extend(self.headers);
        answer
    }

    /// Of a request that may not pass a gate.
    pub fn of_refusal(gate: &Gate, refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized => {
                let sentence = "credentials are missing or wrong";
                let mut denied = Self::because(StatusCode::UNAUTHORIZED, sentence);
                for challenge in gate.challenges() {
                    denied.headers.push((WWW_AUTHENTICATE, challenge.clone()));
                }
                // RFC 9110, section 15.5.2: there has to be one, also where nothing can open.
                if gate.challenges().is_empty() {
                    let none = HeaderValue::from_static("Basic realm=\"ARINT\", charset=\"UTF-8\"");
                    denied.headers.push((WWW_AUTHENTICATE, none));
                }
                denied
            }
            Refusal::Forbidden => {
                Self::because(StatusCode::FORBIDDEN, "these credentials open nothing here")
            }
            Refusal::Both => Self::because(
                StatusCode::BAD_REQUEST,
                "Basic Auth and an API key cannot be sent together; send one of them",
            ),
            Refusal::Unknown(_) => Self::because(
                StatusCode::SERVICE_UNAVAILABLE,
                "credentials cannot be checked now; try again",
            )
            .retry_after(1),
            Refusal::Slowed(wait) => {
                let seconds = seconds(*wait);
                let sentence =
                    format!("too many failed attempts from this address; try again in {seconds} s");
                Self::because(StatusCode::TOO_MANY_REQUESTS, sentence).retry_after(seconds)
            }
        }
    }

    /// Of a body that was not read.
    pub(super) fn of_body(err: &BodyError) -> Self {
        let status = match err {
            BodyError::TooLarge { .. } | BodyError::TooLargeUnpacked { .. } | BodyError::Swells => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            BodyError::Full | BodyError::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Late { .. } => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) | BodyError::NotGzip => StatusCode::BAD_REQUEST,
        };
        let denied = Self::because(status, format!("the {err}"));
        if status == StatusCode::SERVICE_UNAVAILABLE { denied.retry_after(1) } else { denied }
    }

    /// Of a request that is above a limit.
    fn of_limit(channel: &Channel, exceeded: &Exceeded) -> Self {
        channel.counts.limited.fetch_add(1, Ordering::Relaxed);
        let Some(standing) = exceeded.standing else {
            let sentence = "requests from this address are not taken here";
            return Self::because(StatusCode::FORBIDDEN, sentence);
        };
        let seconds = standing.seconds();
        let sentence = format!("too many requests; try again in {seconds} s");
        Self::because(StatusCode::TOO_MANY_REQUESTS, sentence).retry_after(seconds)
    }
}

/// Whole seconds, never too few.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl Visit<'_> {
    /// Its channel.
    pub fn channel(&self) -> &Channel {
        self.found.channel
    }

    /// The client's address, where anything depends on it.
    pub fn addr(&self) -> Option<IpAddr> {
        let channel = self.channel();
        let is_asked = !channel.gate.is_open() || channel.may_be_limited();
        is_asked
            .then(|| limits::address(document::remote(&self.parts.headers, self.peer)))
            .flatten()
    }

    /// Counts it on the limit of its channel.
    pub fn enter(&self, trail: &mut Trail) -> Result<(), Denied> {
        let ticket = &mut trail.ticket;
        ticket.addr = self.addr();
        let channel = self.channel();
        ticket.take(channel.limit.as_ref()).map_err(|exceeded| Denied::of_limit(channel, &exceeded))
    }

    /// Finds out who the caller is; None on an open channel.  `token` is one that stands in the message itself.
    pub async fn identify(
        &self,
        door: &Door,
        trail: &mut Trail,
        token: Option<&UsernameToken>,
    ) -> Result<Option<Cow<'_, Passed>>, Denied> {
        let channel = self.found.channel;
        let headers = &self.parts.headers;
        let certificate = (door.client_certificates && channel.gate.asks_certificate())
            .then(|| ClientCertificate::of_headers(headers))
            .flatten();
        let mut presented = Presented::of_headers(headers, trail.ticket.addr, trail.ticket.now);
        presented.certificate = certificate.as_ref();
        presented.username_token = token;
        let step = (!channel.gate.is_open())
            .then(trace::current)
            .flatten()
            .map(|trace| trace.open(What::Gate, ""));
        let passed = channel.gate.pass(&presented, &door.shared.slowing).await;
        if let Some(mut step) = step {
            if let Ok(Some(passed)) = &passed {
                step.rename(passed.name.as_str());
            }
            step.end(0, passed.is_err());
        }
        let passed = passed.map_err(|refusal| {
            let username = match token {
                Some(token) => token.username.clone(),
                None => Basic::of(headers).map(|basic| basic.username).unwrap_or_default(),
            };
            self.log_refusal(&username, &refusal);
            Denied::of_refusal(&channel.gate, &refusal)
        })?;
        trail.note_caller(passed.as_deref());
        Ok(passed)
    }

    /// Notes that somebody may not pass.
    pub fn log_refusal(&self, username: &str, refusal: &Refusal) {
        let channel = self.channel();
        if let Some(left_out) = channel.counts.attempts.count(Instant::now()) {
            let username: String = username.chars().take(64).collect();
            let remote = document::remote(&self.parts.headers, self.peer);
            log::warn!(
                cid:% = self.cid, channel:% = channel.name, remote,
                username:% = username.escape_debug(), refusal:? = refusal, left_out;
                "request may not pass"
            );
        }
    }

    /// Whether the caller may invoke a service: its grant, its own limit, the service's.
    pub fn authorize(
        &self,
        target: &Target,
        passed: Option<&Passed>,
        ticket: &mut Ticket,
    ) -> Result<(), Denied> {
        authorize(self.channel(), self.cid, target, passed, self.method, ticket)
    }

    /// Whether the channel answers at all.
    pub fn serving(&self) -> Result<(), Denied> {
        let channel = self.channel();
        if channel.is_serving() {
            return Ok(());
        }
        log::warn!(
            cid:% = self.cid, channel:% = channel.name, service:% = channel.service,
            standing:? = channel.standing; "channel cannot serve"
        );
        Err(Denied::hidden())
    }

    /// How its body is packed.
    pub fn coding(&self) -> Result<Coding, Denied> {
        Coding::of(&self.parts.headers).map_err(|foreign| {
            let sentence = format!(
                "the request body is encoded as `{}`; send it with gzip or without Content-Encoding",
                foreign.escape_debug()
            );
            Denied::because(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence)
        })
    }

    /// Its body; where there are `spools`, a large one ends up there.
    pub async fn body(
        &self,
        door: &Door,
        coding: Coding,
        body: Incoming,
        spools: Option<&Spools>,
    ) -> Result<Whole, Denied> {
        let channel = self.channel();
        let limit = usize::try_from(channel.max_body_bytes).unwrap_or(usize::MAX);
        // A body that came with its head takes no time that is worth a line.
        let step = (!body.is_end_stream())
            .then(trace::current)
            .flatten()
            .map(|trace| trace.open(What::Body, ""));
        let read = body::read(body, coding, limit, channel.timeout, &door.budget, spools).await;
        if let Some(step) = step {
            step.end(0, read.is_err());
        }
        read.map_err(|err| {
            match &err {
                BodyError::Disk(_) => {
                    log::error!(cid:% = self.cid, error:% = Chain(&err); "request body refused");
                }
                _ => log::debug!(cid:% = self.cid, error:% = Chain(&err); "request body refused"),
            }
            Denied::of_body(&err)
        })
    }

    /// The call of a service.
    pub fn call(
        &self,
        target: &Target,
        passed: Option<&Passed>,
        data_format: &'static str,
        body: Bytes,
        deadline: Instant,
    ) -> Call {
        let is_http = self.channel().spec.channel_type.is_http();
        Call {
            service: Arc::clone(&target.service),
            cid: self.cid.clone(),
            channel: match self.channel().spec.channel_type {
                ChannelType::Soap => "soap",
                other => table::word(other),
            },
            data_format,
            method: is_http.then_some(self.method.as_str()),
            http: self.document(passed),
            environ: Bytes::new(),
            body,
            spool: None,
            deadline,
            priority: self.channel().spec.priority,
            is_idempotent: is_http && is_idempotent(self.method),
        }
    }

    /// What a service learns of the request beside its body.
    pub fn document(&self, passed: Option<&Passed>) -> Bytes {
        let coding = Coding::of(&self.parts.headers).unwrap_or(Coding::Identity);
        document::write(
            self.parts,
            &path::to_text(self.path),
            self.found,
            passed,
            self.peer,
            coding,
        )
    }

    /// Notes a call that failed.
    pub fn log_failure(&self, service: &str, failure: &Failure) {
        log_failure(self.channel(), self.cid, service, failure);
    }
}

/// Whether a caller may invoke a service by a channel.
pub fn authorize(
    channel: &Channel,
    cid: &Cid,
    target: &Target,
    passed: Option<&Passed>,
    method: HttpMethod,
    ticket: &mut Ticket,
) -> Result<(), Denied> {
    if let Some(granted) = &target.granted {
        let caller = passed.map(|passed| &passed.name);
        if caller.and_then(|caller| granted.find(caller, method)).is_none() {
            return Err(not_granted(channel, cid, &target.service, caller));
        }
    }
    let taken = match passed {
        Some(passed) if channel.checks_caller() => ticket.take(passed.limit.as_ref()),
        Some(_) | None => Ok(()),
    };
    taken
        .and_then(|()| ticket.take(target.limit.as_ref()))
        .map_err(|exceeded| Denied::of_limit(channel, &exceeded))
}

/// Counts one more call that came with a request on the limit of its channel.
pub fn enter_again(channel: &Channel, ticket: &mut Ticket) -> Result<(), Denied> {
    ticket.take(channel.limit.as_ref()).map_err(|exceeded| Denied::of_limit(channel, &exceeded))
}

fn not_granted(channel: &Channel, cid: &Cid, service: &str, caller: Option<&ObjectName>) -> Denied {
    if let Some(left_out) = channel.counts.attempts.count(Instant::now()) {
        log::warn!(
            cid:% = cid, channel:% = channel.name, service, user:? = caller, left_out;
            "caller has no grant"
        );
    }
    match channel.targets {
        Targets::Onward(_) => {
            Denied::because(StatusCode::FORBIDDEN, "this caller may not use this channel")
        }
        Targets::One(_) => {
            Denied::because(StatusCode::FORBIDDEN, "this caller may not invoke this service")
        }
        // Whoever may name services must not find out which there are.
        Targets::Named(_) => Denied::hidden(),
    }
}

/// Notes a call that failed.
pub fn log_failure(channel: &Channel, cid: &Cid, service: &str, failure: &Failure) {
    if failure.status >= 500 {
        log::warn!(
            cid:% = cid, channel:% = channel.name, service,
            status = failure.status, kind = failure.kind, error = failure.message;
            "service failed"
        );
    } else {
        log::debug!(
            cid:% = cid, channel:% = channel.name, service,
            status = failure.status, kind = failure.kind, error = failure.message;
            "service refused the request"
        );
    }
}

/// Whether a method may be carried out twice (RFC 9110, section 9.2.2).
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
