//! One request's way through the door: match, security, limits, call, answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arapi::arsrv::FoundService;
use arapi::names::Cid;
use arapi::objects::{ChannelType, DataFormat, HttpMethod};
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::body::Budget;
use super::builtin::{self, Builtin};
use super::cache::{self, Cache};
use super::checked;
use super::listen::Peer;
use super::spool::{self, Spool, Spools};
use super::steps::{Denied, Trail, Visit};
use super::websocket::{self, Hub};
use super::{cors, document, gateway, gzip, jsonrpc, pass_through, soap, viewer};
use crate::audit::{self, Recorder};
use crate::call::{Call, Invoker, Outcome};
use crate::channel::table::{Channel, Table, Targets};
use crate::channel::{Quality, path};
use crate::openapi::Readers;
use crate::outgoing::Outgoing;
use crate::security::Shared;
use crate::security::attempts::Attempts;
use crate::telemetry::outside::OutsideFigures;
use crate::telemetry::trace::{self, Open, Trace, What};

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
    /// The connections that requests are passed on to.
    pub outgoing: Outgoing,
    /// What calls on them came to.
    pub figures: OutsideFigures,
    /// Whether requests would be served now; why not, in one sentence.
    pub readiness: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Who may read what channels there are.
    pub openapi: Readers,
    /// The services that load, with their documentation and schemas.
    pub services: Arc<dyn Fn() -> Vec<FoundService> + Send + Sync>,
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
    /// All WebSockets.
    pub hub: Arc<Hub>,
    /// Whether the header with a client's certificate is believed.
    pub client_certificates: bool,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        let upgrade = websocket::upgrade_of(&mut request);
        let (parts, body) = request.into_parts();
        let cid = cid_of(&parts.headers);
        let started = Instant::now();
        let line = log::log_enabled!(log::Level::Debug)
            .then(|| (parts.method.clone(), parts.uri.path().to_owned()));
        // The balancer's questions about health are no requests.
        let step = (parts.uri.path() != builtin::HEALTH).then(|| {
            let came = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
            let mut step = Trace::begin(&cid, came).open(What::Request, "");
            step.say("method", parts.method.as_str());
            step.say("path", parts.uri.path());
            step
        });
        let inside = step.as_ref().map(Open::inside);
        let answering = self.answer_parts(&parts, body, upgrade, &cid, peer, started);
        let (mut answer, name) = trace::scope(inside, answering).await;
        if let Some(mut step) = step {
            step.rename(&name);
            step.end(answer.status().as_u16(), answer.status().is_server_error());
        }
        if let Ok(value) = HeaderValue::from_str(cid.as_str()) {
            answer.headers_mut().insert(answer::CID, value);
        }
        if let Some((method, path)) = line {
            let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
            log::debug!(
                cid:% = cid, method:% = method, path = path.as_str(),
                status = answer.status().as_u16(), elapsed_ms;
                "request answered"
            );
        }
        answer
    }

    async fn answer_parts(
        &self,
        parts: &Parts,
        body: Incoming,
        upgrade: Option<OnUpgrade>,
        cid: &Cid,
        peer: &Peer,
        started: Instant,
    ) -> (Answer, String) {
        let without_channel = |answer| (answer, String::new());
        let Some(method) = method_of(&parts.method) else {
            let sentence = format!("Method not allowed (CID:{cid})");
            let mut answer = answer::text(StatusCode::METHOD_NOT_ALLOWED, sentence);
            answer.headers_mut().insert(ALLOW, ALLOWED);
            return without_channel(answer);
        };
        if let Some(builtin) = Builtin::of(parts.uri.path()) {
            let answering = builtin::answer(self, builtin, method, parts, body, cid, peer);
            return without_channel(Box::pin(answering).await);
        }
        let table = Arc::clone(&self.tables.borrow());
        let Ok(path) = path::decode(parts.uri.path()) else {
            let sentence = format!("the path is not UTF-8 once it is percent-decoded (CID:{cid})");
            return without_channel(answer::text(StatusCode::BAD_REQUEST, sentence));
        };
        if method == HttpMethod::Options
            && let Some(asked) = cors::asked_method(parts)
            && let Some(found) = table.find(&path, asked, &parts.headers)
            && let Some(rules) = found.channel.quality.as_ref().and_then(|has| has.cors.as_ref())
        {
            return without_channel(rules.preflight(parts, asked, cid));
        }
        let Some(found) = table.find(&path, method, &parts.headers) else {
            let page = viewer::answer(self, &table, method, parts, cid, peer);
            if let Some(page) = Box::pin(page).await {
                return without_channel(page);
            }
            let accept = header_text(&parts.headers, http::header::ACCEPT);
            log::warn!(
                cid:% = cid, method:% = parts.method, path:% = parts.uri.path().escape_debug(),
                accept:% = accept.escape_debug(), remote = document::remote(&parts.headers, peer);
                "no channel matches"
            );
            return without_channel(match soap::is_message(&parts.headers) {
                true => soap::not_found(&parts.headers, cid),
                false => answer::not_found(cid),
            });
        };
        let channel = found.channel;
        channel.counts.calls.fetch_add(1, Ordering::Relaxed);
        let mut trail = Trail::begin(channel.quality.as_deref());
        let visit = Visit { parts, cid, peer, found: &found, method, path: &path };
        let mut answer = match channel.spec.channel_type {
            ChannelType::Rest => match self.rest(&visit, body, &mut trail).await {
                Ok(answer) => answer,
                Err(denied) => denied.answer(channel.spec.data_format, cid),
            },
            ChannelType::JsonRpc => {
                // Boxed: it is larger than the others and has not to make them so.
                Box::pin(jsonrpc::answer(self, &visit, body, &mut trail)).await
            }
            ChannelType::Soap => Box::pin(soap::answer(self, &visit, body, &mut trail)).await,
            ChannelType::WebSocket => {
                let opened = websocket::answer(self, &visit, upgrade, &mut trail);
                opened.unwrap_or_else(|denied| denied.answer(DataFormat::Json, cid))
            }
        };
        if let Some(quality) = &channel.quality {
            let finishing = self.finish(channel, quality, method, parts, cid, peer, &trail, answer);
            answer = Box::pin(finishing).await;
        }
        if let Some(standing) = trail.ticket.tightest {
            standing.put(answer.headers_mut());
        }
        channel.counts.note(answer.status(), started.elapsed());
        (answer, channel.name.to_string())
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

    /// A request to a REST channel.
    async fn rest(
        &self,
        visit: &Visit<'_>,
        body: Incoming,
        trail: &mut Trail,
    ) -> Result<Answer, Denied> {
        let (channel, cid) = (visit.channel(), visit.cid);
        visit.enter(trail)?;
        let passed = visit.identify(self, trail, None).await?;
        let passed = passed.as_deref();
        let target = gateway::target(visit).ok_or_else(Denied::hidden)?;
        visit.authorize(target, passed, &mut trail.ticket)?;
        visit.serving()?;
        if let Targets::Onward(onward) = &channel.targets {
            let passing = pass_through::answer(self, visit, onward, passed, body, trail);
            return Box::pin(passing).await;
        }
        let coding = visit.coding()?;
        let quality = channel.quality.as_deref();
        let keeps = quality.and_then(|quality| quality.keeps.as_ref());
        // What is deployed may change while the service runs: then its answer is one of before.
        let mut slot = None;
        if let Some(keeping) = keeps {
            let has_body = !body.is_end_stream();
            let generation = self.invoker.generation();
            let (method, parts) = (visit.method, visit.parts);
            match self.cache.find(keeping, generation, method, parts, passed, has_body) {
                cache::Found::Answer(answer) => return Ok(*answer),
                cache::Found::Nothing(empty) => slot = Some(empty),
                cache::Found::NotForUs => {}
            }
        }
        let deadline = Instant::now() + target.timeout;
        // What has to be looked at whole is kept in memory.
        let is_seen =
            |quality: &Quality| quality.schemas.request.is_some() || quality.audit.is_some();
        let spools = (!quality.is_some_and(is_seen)).then_some(&self.spools);
        let (body, spool, _held) = visit.body(self, coding, body, spools).await?.into_parts();
        trail.note_body(&body);
        if channel.spec.data_format == DataFormat::Json
            && let Some(spool) = &spool
        {
            let spool = Arc::clone(spool);
            let checked = tokio::task::spawn_blocking(move || check_spooled_json(&spool)).await;
            // Fails only when the runtime is stopping.
            let check = checked.unwrap_or_else(|_| Err("the core is stopping".to_owned()));
            check.map_err(|sentence| Denied::because(StatusCode::BAD_REQUEST, sentence))?;
        }
        if channel.spec.data_format == DataFormat::Json && !body.is_empty() {
            check_json_aside(&body)
                .await
                .map_err(|sentence| Denied::because(StatusCode::BAD_REQUEST, sentence))?;
        }
        if let Some(schema) = quality.and_then(|quality| quality.schemas.request.as_ref())
            && let Err(violation) = checked::request(schema, visit.method, &body).await
        {
            let sentence = format!("the request breaks the channel's schema: {violation}");
            return Err(Denied::because(StatusCode::BAD_REQUEST, sentence));
        }
        let format = channel.spec.data_format.as_str();
        let call = Call { spool, ..visit.call(target, passed, format, body, deadline) };
        Ok(match self.invoker.call(call).await {
            Outcome::Done(reply) => {
                if let Some(schema) = quality.and_then(|quality| quality.schemas.response.as_ref())
                    && let Err(violation) = checked::reply(schema, &reply).await
                {
                    return Ok(checked::not_sent(channel, cid, &violation));
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
                visit.log_failure(&target.service, &failure);
                answer::of_failure(channel, cid, &failure, self.return_tracebacks)
            }
        })
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

/// Checks that a body is one JSON document, a large one on a thread of its own.
pub(super) async fn check_json_aside(body: &bytes::Bytes) -> Result<(), String> {
    if body.len() <= JSON_AT_ONCE {
        return check_json(body);
    }
    let body = body.clone();
    let checked = tokio::task::spawn_blocking(move || check_json(&body)).await;
    // Fails only when the runtime is stopping.
    checked.unwrap_or_else(|_| Err("the core is stopping".to_owned()))
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

/// Longest time for the body of a request for a path of our own.
pub(super) const BUILTIN_BODY_LIMIT: Duration = Duration::from_secs(30);
