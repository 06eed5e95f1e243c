//! One WebSocket from its opening to its end.
//!
//! A task reads what the client says and has it carried out, one message after another, as 3.2 does; meanwhile it
//! answers pings, sends its own, and passes on what services have for the client.  The session follows what is
//! configured: each message goes by the channel as it is then, and a session whose channel or credentials are gone ends.
//!
//! **Invariant:** nothing of a client waits here without a bound: [`WAITING`] messages, then no more is read; one message
//! for the client is sent at a time, and who does not take it within [`WRITE_LIMIT`] is cut off.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use arapi::names::{Cid, ObjectName};
use arapi::objects::HttpMethod;
use arbase::Chain;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, error::CapacityError};

use super::hub::{Hub, Place, Push};
use super::message::{self, Action, ClientMessage, Credentials};
use crate::call::{Call, Failure, Invoker, Outcome};
use crate::channel::path;
use crate::channel::table::{self, Channel, Found, Standing, Table};
use crate::http::answer::HIDDEN;
use crate::http::door::Door;
use crate::http::gzip::Coding;
use crate::http::listen::Peer;
use crate::http::steps::{self, Denied, Visit};
use crate::http::{document, value};
use crate::limits::{self, Ticket};
use crate::security::credentials::{Basic, Fingerprint};
use crate::security::{self, Passed, Presented, Refusal};

/// Messages of a client that wait for those before them.
const WAITING: usize = 16;
/// How long a client may take for one message.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long a message under way may take once the connection is to end.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// How long a client may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(3);
/// What is at hand within this has come already.
const AT_HAND: Duration = Duration::from_millis(20);
/// Longest time for a hook.
const HOOK_LIMIT: Duration = Duration::from_secs(30);
/// Answers of the client that services wait for.
const ASKED: usize = 256;
/// What is read and written at a time.
const BUFFER: usize = 8 * 1024;

/// What 3.2 has where a channel does not say otherwise, seconds.
const NEW_TOKEN_WAIT_TIME: u32 = 5;
const TOKEN_TTL: u32 = 3600;
const PING_INTERVAL: u32 = 30;
const PINGS_MISSED: u32 = 2;

/// What sessions share with the door.
pub(crate) struct Shared {
    pub(super) tables: watch::Receiver<Arc<Table>>,
    pub(super) invoker: Arc<dyn Invoker>,
    pub(super) gates: Arc<security::Shared>,
    pub(super) hub: Arc<Hub>,
    pub(super) return_tracebacks: bool,
}

/// What a session begins with.
pub(super) struct Setup {
    shared: Shared,
    place: Place,
    channel: Arc<Channel>,
    /// The request that it was opened by.
    parts: Parts,
    params: Vec<(String, String)>,
    path: Vec<u8>,
    peer: Peer,
    addr: Option<std::net::IpAddr>,
    remote: String,
    cid: Cid,
}

/// Who a client has shown to be.
struct LogIn {
    token: String,
    until: Instant,
    passed: Option<Passed>,
    /// The secret by which it passed, where it was compared with one.
    mark: Option<Fingerprint>,
    /// What services learn of the connection.
    http: Bytes,
    environ: Bytes,
}

/// Why a connection ends.
struct End {
    code: CloseCode,
    reason: &'static str,
    /// The client has said good-bye and waits for ours, which is on its way.
    is_mutual: bool,
}

/// A message being carried out: what is to be said about it.
type UnderWay = Pin<Box<dyn Future<Output = String> + Send>>;

struct Session {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    setup: Setup,
    pub_client_id: Arc<str>,
    opened_ms: u64,
    log_in: Option<LogIn>,
    waiting: VecDeque<ClientMessage>,
    under_way: Option<UnderWay>,
    /// Who waits for which answer of the client.
    asked: HashMap<String, oneshot::Sender<String>>,
    missed: u32,
    next_ping: Instant,
    log_in_until: Instant,
}

impl Setup {
    /// Of a request to a channel.
    pub(super) fn of(door: &Door, visit: &Visit<'_>, place: Place) -> Self {
        let remote = document::remote(&visit.parts.headers, visit.peer);
        let mut request = Request::new(());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::clone(&visit.parts.uri);
        *request.headers_mut() = HeaderMap::clone(&visit.parts.headers);
        let params = visit.found.params.iter();
        Self {
            shared: super::shared(door),
            place,
            channel: Arc::clone(visit.found.channel),
            parts: request.into_parts().0,
            params: params.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            path: visit.path.to_owned(),
            peer: visit.peer.clone(),
            addr: limits::address(remote),
            remote: remote.to_owned(),
            cid: visit.cid.clone(),
        }
    }
}

impl Setup {
    /// Whether credentials open the channel, those of the message or those that the connection was opened with.
    async fn pass(
        &self,
        channel: &Channel,
        username: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Option<Passed>, Refusal> {
        let headers = &self.parts.headers;
        let mut presented = Presented::of_headers(headers, self.addr, SystemTime::now());
        match (username, secret) {
            (Some(username), Some(secret)) => {
                presented.has_authorization = true;
                presented.basic = Some(Basic::new(username, secret));
                presented.bearer = None;
            }
            (None, Some(secret)) => {
                presented.has_authorization = true;
                presented.basic = None;
                presented.bearer = Some(secret);
            }
            (_, None) => {}
        }
        let passed = channel.gate.pass(&presented, &self.shared.gates.slowing).await;
        let passed = passed.map(|passed| passed.map(std::borrow::Cow::into_owned));
        if let Err(refusal) = &passed
            && let Some(left_out) = channel.counts.attempts.count(Instant::now())
        {
            let username: String = username.unwrap_or_default().chars().take(64).collect();
            log::warn!(
                cid:% = self.cid, channel:% = channel.name, remote = self.remote,
                username:% = username.escape_debug(), refusal:? = refusal, left_out;
                "request may not pass"
            );
        }
        passed
    }
}

/// A session, once the answer to the request has left.
pub(super) async fn run(setup: Setup, upgrade: OnUpgrade) {
    let upgraded = match tokio::time::timeout(GOOD_BYE, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(err)) => {
            log::debug!(cid:% = setup.cid, error:% = Chain(&err); "WebSocket was not opened");
            return;
        }
        Err(_) => return,
    };
    let largest = usize::try_from(setup.channel.max_body_bytes).unwrap_or(usize::MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let now = Instant::now();
    let spec = &setup.channel.spec;
    let seconds =
        |value: Option<u32>, default| Duration::from_secs(value.unwrap_or(default).into());
    let next_ping = now + seconds(spec.ping_interval, PING_INTERVAL);
    let log_in_until = now + seconds(spec.new_token_wait_time, NEW_TOKEN_WAIT_TIME);
    log::debug!(
        cid:% = setup.cid, channel:% = setup.channel.name, remote = setup.remote; "WebSocket opened"
    );
    let mut session = Session {
        socket,
        pub_client_id: format!("ws.{}", setup.cid).into(),
        setup,
        opened_ms: arbase::time::now_ms(),
        log_in: None,
        waiting: VecDeque::new(),
        under_way: None,
        asked: HashMap::new(),
        missed: 0,
        next_ping,
        log_in_until,
    };
    let end = session.talk().await;
    session.part(end).await;
}

impl End {
    fn new(code: impl Into<CloseCode>, reason: &'static str) -> Self {
        Self { code: code.into(), reason, is_mutual: false }
    }

    /// The client has gone, or cannot be spoken to.
    fn gone() -> Self {
        Self::new(CloseCode::Abnormal, "")
    }

    /// The client has said good-bye.
    fn mutual() -> Self {
        Self { is_mutual: true, ..Self::gone() }
    }

    fn away(reason: &'static str) -> Self {
        Self::new(CloseCode::Away, reason)
    }
}

/// What woke a session.
enum Woken {
    Stop,
    Ended(bool),
    Configured,
    Done(String),
    Push(Option<Push>),
    Heard(Option<Result<Message, Error>>),
    Time,
}

impl Session {
    /// Until there is a reason to end.
    async fn talk(&mut self) -> End {
        let stop = self.setup.shared.hub.stop();
        let ended = self.setup.place.end();
        loop {
            if self.under_way.is_none()
                && let Some(message) = self.waiting.pop_front()
            {
                self.begin(message);
            }
            let wake_at = match &self.log_in {
                None => self.log_in_until.min(self.next_ping),
                Some(log_in) => log_in.until.min(self.next_ping),
            };
            let may_read = self.waiting.len() < WAITING;
            let woken = tokio::select! {
                () = stop.wait() => Woken::Stop,
                is_slow = ended.wait() => Woken::Ended(is_slow),
                changed = self.setup.shared.tables.changed() => match changed {
                    Ok(()) => Woken::Configured,
                    Err(_) => Woken::Stop,
                },
                said = under_way(&mut self.under_way) => Woken::Done(said),
                push = self.setup.place.inbox.recv() => Woken::Push(push),
                heard = self.socket.next(), if may_read => Woken::Heard(heard),
                () = tokio::time::sleep_until(wake_at.into()) => Woken::Time,
            };
            let went_on = match woken {
                Woken::Stop => Err(End::away("the box is restarting")),
                Woken::Ended(true) => Err(End::new(
                    CloseCode::Policy,
                    "the client takes too little of what it is sent",
                )),
                Woken::Ended(false) => Err(End::new(CloseCode::Normal, "a service ended it")),
                Woken::Configured => self.look_at_channel(),
                Woken::Done(said) => {
                    self.under_way = None;
                    self.say(said).await
                }
                Woken::Push(Some(push)) => self.pass_on(push).await,
                Woken::Push(None) => Err(End::gone()),
                Woken::Heard(Some(Ok(heard))) => self.hear(heard).await,
                Woken::Heard(Some(Err(err))) => Err(self.of_error(&err)),
                Woken::Heard(None) => Err(End::gone()),
                Woken::Time => self.tick().await,
            };
            if let Err(end) = went_on {
                return end;
            }
        }
    }

    /// The channel as it is now; None where it is not any more.
    fn channel(&self) -> Option<Arc<Channel>> {
        let table = Arc::clone(&self.setup.shared.tables.borrow());
        let channel = table.channel(self.setup.place.channel())?;
        let is_there = channel.spec.channel_type == self.setup.channel.spec.channel_type
            && channel.spec.url_path == self.setup.channel.spec.url_path
            && !matches!(
                channel.standing,
                Standing::Inactive | Standing::HiddenBy(_) | Standing::BadPath
            );
        is_there.then(|| Arc::clone(channel))
    }

    /// What is configured has changed: whether the session may go on.
    fn look_at_channel(&mut self) -> Result<(), End> {
        let Some(channel) = self.channel() else {
            return Err(End::away("the channel has gone"));
        };
        if let Some(log_in) = &self.log_in {
            let is_in = match &log_in.passed {
                None => channel.gate.is_open(),
                Some(passed) if channel.gate.knows(&passed.name) => {
                    match (log_in.mark, channel.gate.mark(&passed.name)) {
                        (Some(before), Some(now)) => before.is(&now),
                        _ => true,
                    }
                }
                Some(_) => channel.gate.is_open(),
            };
            if !is_in {
                return Err(End::new(
                    CloseCode::Policy,
                    "the credentials open nothing here any more",
                ));
            }
        }
        self.setup.channel = channel;
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        match &self.log_in {
            None if now >= self.log_in_until => {
                return Err(self.forbid("did not create a session in time").await);
            }
            Some(log_in) if now >= log_in.until => {
                return Err(self.forbid("let its session end").await);
            }
            None | Some(_) => {}
        }
        if now < self.next_ping {
            return Ok(());
        }
        let spec = &self.setup.channel.spec;
        let interval = spec.ping_interval.unwrap_or(PING_INTERVAL);
        let most = spec.pings_missed_threshold.unwrap_or(PINGS_MISSED);
        self.next_ping = now + Duration::from_secs(interval.into());
        // What nobody reads cannot be missed.
        if self.waiting.len() < WAITING {
            if self.missed >= most {
                return Err(End::new(4002, "Pings missed"));
            }
            self.missed += 1;
        }
        self.send(Message::Ping(Bytes::from_static(b"arint"))).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let ended = self.setup.place.end();
        let sent = tokio::select! {
            sent = tokio::time::timeout(WRITE_LIMIT, self.socket.send(message)) => sent,
            is_slow = ended.wait() => {
                if is_slow {
                    self.log_slow();
                }
                return Err(End::gone());
            }
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => {
                log::debug!(cid:% = self.setup.cid, error:% = err; "WebSocket cannot be written to");
                Err(End::gone())
            }
            Err(_) => {
                self.log_slow();
                Err(End::gone())
            }
        }
    }

    fn log_slow(&self) {
        log::info!(
            cid:% = self.setup.cid, channel:% = self.setup.channel.name, remote = self.setup.remote;
            "WebSocket cut off: its client takes too little of what it is sent"
        );
    }

    async fn say(&mut self, text: String) -> Result<(), End> {
        self.send(Message::text(text)).await
    }

    async fn pass_on(&mut self, push: Push) -> Result<(), End> {
        if let Some((cid, answer)) = push.answer {
            // Those that nobody waits for any more.
            self.asked.retain(|_, answer| !answer.is_closed());
            if self.asked.len() >= ASKED {
                return Err(End::new(
                    CloseCode::Policy,
                    "the client answers too little of what it is asked",
                ));
            }
            self.asked.insert(cid.to_string(), answer);
        }
        self.send(Message::Text(push.text)).await
    }

    fn of_error(&self, err: &Error) -> End {
        log::debug!(
            cid:% = self.setup.cid, channel:% = self.setup.channel.name, error:% = err;
            "WebSocket ended with an error"
        );
        match err {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                End::new(CloseCode::Size, "the message is larger than this channel takes")
            }
            Error::Capacity(_) => End::new(CloseCode::Size, "too large"),
            Error::Utf8(_) => End::new(CloseCode::Invalid, "a text is not UTF-8"),
            Error::Protocol(_) => End::new(CloseCode::Protocol, "this is not the protocol"),
            _ => End::gone(),
        }
    }

    async fn hear(&mut self, heard: Message) -> Result<(), End> {
        // Whatever comes shows that the client is there.
        self.missed = 0;
        match heard {
            Message::Text(text) => self.hear_text(&text).await,
            Message::Binary(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.hear_text(text).await,
                Err(_) => Err(End::new(4001, "Invalid UTF-8 bytes")),
            },
            Message::Pong(_) => {
                self.extend();
                Ok(())
            }
            // It is answered by itself, with the next thing that is sent or read.
            Message::Ping(_) | Message::Frame(_) => Ok(()),
            Message::Close(_) => Err(End::mutual()),
        }
    }

    /// A sign of life lets a session live on.
    fn extend(&mut self) {
        let ttl = self.setup.channel.spec.token_ttl.unwrap_or(TOKEN_TTL);
        if let Some(log_in) = &mut self.log_in {
            log_in.until = Instant::now() + Duration::from_secs(ttl.into());
        }
    }

    async fn hear_text(&mut self, text: &str) -> Result<(), End> {
        let message = match message::parse(text) {
            Ok(message) => message,
            Err(_) if self.log_in.is_none() => {
                return Err(self.forbid("sent what is no message").await);
            }
            Err(sentence) => {
                return self
                    .say(message::error(&Cid::random(), None, 400, &sentence, now_ms()))
                    .await;
            }
        };
        let Some(log_in) = &self.log_in else {
            return match message.action {
                Action::CreateSession(credentials) => {
                    self.create_session(credentials, message.id.as_deref()).await
                }
                Action::Invoke | Action::Respond(_) => {
                    Err(self.forbid("has not created a session").await)
                }
            };
        };
        let is_own = message.token.as_deref().is_some_and(|token| {
            Fingerprint::of(token.as_bytes()).is(&Fingerprint::of(log_in.token.as_bytes()))
        });
        if !is_own {
            return Err(self.forbid("sent no token, or a wrong one").await);
        }
        self.extend();
        match message.action {
            Action::CreateSession(credentials) => {
                self.create_session(credentials, message.id.as_deref()).await
            }
            Action::Respond(answered) => {
                if let Some(answer) = self.asked.remove(&answered) {
                    let data = message.data.map_or("null".to_owned(), |data| data.get().to_owned());
                    answer.send(data).ok();
                }
                Ok(())
            }
            Action::Invoke => {
                self.waiting.push_back(message);
                Ok(())
            }
        }
    }

    /// Tells the client that it may not go on.
    async fn forbid(&mut self, why: &'static str) -> End {
        let channel = &self.setup.channel;
        if let Some(left_out) = channel.counts.attempts.count(Instant::now()) {
            log::warn!(
                cid:% = self.setup.cid, channel:% = channel.name, remote = self.setup.remote,
                reason = why, left_out; "WebSocket may not go on"
            );
        }
        match self.say(message::forbidden(&Cid::random(), now_ms())).await {
            Ok(()) => End::new(CloseCode::Policy, "forbidden"),
            Err(end) => end,
        }
    }

    async fn create_session(
        &mut self,
        credentials: Credentials,
        id: Option<&RawValue>,
    ) -> Result<(), End> {
        let channel = Arc::clone(&self.setup.channel);
        let Credentials { username, secret, client_id, client_name } = credentials;
        let passed = match self.setup.pass(&channel, username.as_deref(), secret.as_deref()).await {
            Ok(passed) => passed,
            Err(Refusal::Slowed(_) | Refusal::Unknown(_)) => {
                let sentence = "credentials cannot be checked now; try again";
                let said = message::error(&Cid::random(), id, 503, sentence, now_ms());
                self.say(said).await?;
                return Err(End::new(CloseCode::Again, "try again"));
            }
            Err(_) => return Err(self.forbid("sent credentials that open nothing here").await),
        };
        let token = format!("zwsxt.{}", Cid::random());
        let ttl = channel.spec.token_ttl.unwrap_or(TOKEN_TTL);
        let is_first = self.log_in.is_none();
        self.log_in = Some(LogIn {
            until: Instant::now() + Duration::from_secs(ttl.into()),
            mark: passed.as_ref().and_then(|passed| channel.gate.mark(&passed.name)),
            http: self.document(&channel, passed.as_ref()),
            environ: self.environ(client_id.as_deref(), client_name.as_deref()),
            passed,
            token: token.clone(),
        });
        self.setup.place.named(&self.pub_client_id);
        if is_first {
            log::info!(
                cid:% = self.setup.cid, channel:% = channel.name, remote = self.setup.remote;
                "WebSocket session created"
            );
        }
        let said = message::session(&Cid::random(), id, &token, now_ms());
        match (self.hook("wsx_on_connected"), is_first) {
            // The client hears of its session once the hook knows of it.
            (Some(hook), true) if self.under_way.is_none() => {
                self.under_way = Some(Box::pin(async move {
                    hook.await;
                    said
                }));
                Ok(())
            }
            _ => self.say(said).await,
        }
    }

    /// What services learn of the connection.
    fn document(&self, channel: &Arc<Channel>, passed: Option<&Passed>) -> Bytes {
        let params = self.setup.params.iter();
        let params = params.map(|(name, value)| (name.as_str(), value.clone())).collect();
        let found = Found::of(channel, params);
        let path = path::to_text(&self.setup.path);
        let parts = &self.setup.parts;
        document::write(parts, &path, &found, passed, &self.setup.peer, Coding::Identity)
    }

    fn environ(&self, client_id: Option<&str>, client_name: Option<&str>) -> Bytes {
        let environ = json!({
            "pub_client_id": &*self.pub_client_id,
            "ext_client_id": client_id,
            "ext_client_name": client_name,
            "peer_address": self.setup.remote,
            "forwarded_for": self.setup.remote,
            "connection_time": arbase::time::rfc3339(self.opened_ms).trim_end_matches('Z'),
            "channel_name": self.setup.channel.name,
        });
        environ.to_string().into()
    }

    /// The call of the hook that is told of clients that come and go.
    fn hook(&self, hook_type: &'static str) -> Option<impl Future<Output = ()> + Send + use<>> {
        let service = self.setup.channel.spec.hook_service.clone()?;
        let log_in = self.log_in.as_ref()?;
        let mut context: Value = serde_json::from_slice(&log_in.environ).unwrap_or_default();
        if let Some(fields) = context.as_object_mut() {
            fields.insert("hook_type".to_owned(), hook_type.into());
        }
        let call = self.call_of(
            log_in,
            &service,
            Cid::random(),
            json!({"ctx": context}).to_string().into(),
            HOOK_LIMIT,
        );
        let invoker = Arc::clone(&self.setup.shared.invoker);
        let channel = self.setup.channel.name.clone();
        Some(run_hook(invoker, call, channel))
    }

    fn call_of(
        &self,
        log_in: &LogIn,
        service: &ObjectName,
        cid: Cid,
        body: Bytes,
        limit: Duration,
    ) -> Call {
        Call {
            service: service.as_str().into(),
            cid,
            channel: table::word(self.setup.channel.spec.channel_type),
            data_format: "dict",
            method: None,
            http: log_in.http.clone(),
            environ: log_in.environ.clone(),
            body,
            spool: None,
            deadline: Instant::now() + limit,
            priority: self.setup.channel.spec.priority,
            is_idempotent: false,
        }
    }

    /// Has a message carried out.
    fn begin(&mut self, message: ClientMessage) {
        let Some(log_in) = &self.log_in else { return };
        let cid = Cid::random();
        let channel = Arc::clone(&self.setup.channel);
        channel.counts.calls.fetch_add(1, Ordering::Relaxed);
        let id = message.id;
        let planned = self.plan(&channel, log_in, &cid, message.data);
        let invoker = Arc::clone(&self.setup.shared.invoker);
        let return_tracebacks = self.setup.shared.return_tracebacks;
        self.under_way = Some(Box::pin(async move {
            let call = match planned {
                Ok(call) => call,
                Err(denied) => {
                    // Of what is hidden no more is said than that it is not here.
                    let sentence =
                        denied.sentence.as_deref().unwrap_or("there is nothing for this message");
                    let status = denied.status.as_u16();
                    return message::error(&cid, id.as_deref(), status, sentence, now_ms());
                }
            };
            carry_out(&*invoker, call, &channel, &cid, id.as_deref(), return_tracebacks).await
        }));
    }

    /// The call that a message is for.
    fn plan(
        &self,
        channel: &Channel,
        log_in: &LogIn,
        cid: &Cid,
        data: Option<Box<RawValue>>,
    ) -> Result<Call, Denied> {
        let mut ticket = Ticket::new(self.setup.addr, SystemTime::now());
        steps::enter_again(channel, &mut ticket)?;
        let (target, data) = match channel.targets.one() {
            Some(target) => (target, data),
            None => {
                let (service, request) = message::named(data.as_deref()).ok_or_else(|| {
                    let sentence = "`data` is not `{\"service\": …, \"request\": …}`, by which this channel knows what to invoke";
                    Denied::because(http::StatusCode::BAD_REQUEST, sentence)
                })?;
                let target = channel.targets.find(&service).ok_or_else(|| {
                    log::warn!(
                        cid:% = cid, channel:% = channel.name, service:% = service.escape_debug();
                        "request names a service that this channel does not lead to"
                    );
                    Denied::hidden()
                })?;
                (target, request)
            }
        };
        let passed = log_in.passed.as_ref();
        steps::authorize(channel, cid, target, passed, HttpMethod::Get, &mut ticket)?;
        if !channel.is_serving() {
            return Err(Denied::hidden());
        }
        let body = match data {
            Some(data) => value::body_of(Some(&data)),
            // As in 3.2 a message without data has an empty object.
            None => Bytes::from_static(b"{}"),
        };
        Ok(Call {
            service: Arc::clone(&target.service),
            cid: cid.clone(),
            channel: table::word(channel.spec.channel_type),
            data_format: "dict",
            method: None,
            http: log_in.http.clone(),
            environ: log_in.environ.clone(),
            body,
            spool: None,
            deadline: Instant::now() + target.timeout,
            priority: channel.spec.priority,
            is_idempotent: false,
        })
    }

    /// Reads what has come meanwhile: who sent it is to learn that it was not begun.
    async fn read_rest(&mut self) {
        while self.log_in.is_some() && self.waiting.len() < WAITING {
            match tokio::time::timeout(AT_HAND, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    if let Ok(message) = message::parse(&text)
                        && message.action == Action::Invoke
                    {
                        self.waiting.push_back(message);
                    }
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) | Err(_) => return,
            }
        }
    }

    /// Ends the connection in order, as far as the client lets it.
    async fn part(mut self, end: End) {
        let is_gone = end.code == CloseCode::Abnormal;
        if !is_gone {
            // What has begun is finished, what has not is not begun any more.
            if let Some(under_way) = self.under_way.take()
                && let Ok(said) = tokio::time::timeout(LAST_WORDS, under_way).await
            {
                self.say(said).await.ok();
            }
            self.read_rest().await;
            for message in std::mem::take(&mut self.waiting) {
                let said = message::error(
                    &Cid::random(),
                    message.id.as_deref(),
                    503,
                    "the connection ends before this message was begun; try again",
                    now_ms(),
                );
                if self.say(said).await.is_err() {
                    break;
                }
            }
            let frame = CloseFrame { code: end.code, reason: end.reason.into() };
            let good_bye = async {
                self.socket.close(Some(frame)).await?;
                while self.socket.next().await.transpose()?.is_some() {}
                Ok::<_, Error>(())
            };
            tokio::time::timeout(GOOD_BYE, good_bye).await.ok();
        } else if end.is_mutual {
            let good_bye = async { while let Some(Ok(_)) = self.socket.next().await {} };
            tokio::time::timeout(GOOD_BYE, good_bye).await.ok();
        }
        log::debug!(
            cid:% = self.setup.cid, channel:% = self.setup.channel.name,
            reason = if is_gone { "the client has gone" } else { end.reason }; "WebSocket ended"
        );
        if let Some(hook) = self.hook("wsx_on_disconnected") {
            // The place is free for others; nobody waits for this.
            drop(self);
            hook.await;
        }
    }
}

/// What is said about the message under way; never, if none is.
async fn under_way(under_way: &mut Option<UnderWay>) -> String {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    arbase::time::now_ms()
}

async fn run_hook(invoker: Arc<dyn Invoker>, call: Call, channel: ObjectName) {
    let (service, cid) = (Arc::clone(&call.service), call.cid.clone());
    if let Outcome::Failed(failure) = invoker.call(call).await {
        log::warn!(
            cid:% = cid, channel:% = channel, service:% = service, error = failure.message;
            "hook of a WebSocket channel failed"
        );
    }
}

/// Carries a message out; what is to be said about it.
async fn carry_out(
    invoker: &dyn Invoker,
    call: Call,
    channel: &Channel,
    cid: &Cid,
    id: Option<&RawValue>,
    return_tracebacks: bool,
) -> String {
    let service = Arc::clone(&call.service);
    let said = |status: u16, sentence: &str| {
        if status >= 500 {
            channel.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        message::error(cid, id, status, sentence, now_ms())
    };
    match invoker.call(call).await {
        Outcome::Done(reply) => match value::of_reply(reply) {
            Ok(data) => message::response(cid, id, &data, now_ms()),
            Err(sentence) => {
                log::warn!(cid:% = cid, service:% = service, error = sentence; "answer cannot be sent");
                said(500, &sentence)
            }
        },
        // The SDK streams nothing but answers to REST channels.
        Outcome::Streamed(..) => {
            said(500, "the service streams its answer, which a WebSocket cannot carry")
        }
        Outcome::Failed(failure) => {
            steps::log_failure(channel, cid, &service, &failure);
            said(failure.status, &sentence_of(&failure, return_tracebacks))
        }
    }
}

/// What a client is told of a failure.
fn sentence_of(failure: &Failure, return_tracebacks: bool) -> String {
    if matches!(failure.kind.as_str(), "not-found" | "inactive") {
        return "there is nothing for this message".to_owned();
    }
    if failure.status == 500 && !return_tracebacks {
        return HIDDEN.to_owned();
    }
    match (&failure.details, failure.status) {
        (Value::String(text), _) if !text.is_empty() => text.clone(),
        (_, 504) => "the service did not answer in time".to_owned(),
        (_, 503) => "the service cannot be run now; try again".to_owned(),
        (Value::Null, 400..500) => "the service refused the message".to_owned(),
        (Value::Null, _) => HIDDEN.to_owned(),
        (details, _) => details.to_string(),
    }
}
