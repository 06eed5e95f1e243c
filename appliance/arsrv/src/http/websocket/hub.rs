//! All WebSockets of the box: who is connected by which channel, and how to reach them.
//!
//! **Invariant:** nobody waits for a client here: what a client does not take in time costs that client its connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arapi::names::{Cid, ObjectName};
use arapi::objects::ChannelType;
use arbase::{Stop, Stopper};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::message;
use crate::call::{Answering, Outside, WorkerReply, WorkerRequest};
use crate::channel::Table;
use crate::channel::table::Counts;

/// Messages that may wait for a client to take them.
const WAITING: usize = 256;
/// Longest time that a service may wait for a client's answer.
const LONGEST: Duration = Duration::from_secs(60);

/// All WebSockets.
#[derive(Debug)]
pub struct Hub {
    sessions: Mutex<HashMap<ObjectName, BTreeMap<u64, Client>>>,
    next: AtomicU64,
    open: AtomicUsize,
    most: usize,
    stopper: Stopper,
    stop: Stop,
    /// Told whenever one has gone.
    gone: Notify,
}

/// How to reach one client.
#[derive(Debug, Clone)]
struct Client {
    /// Its id for services; None until it has a session.
    id: Option<Arc<str>>,
    outbox: mpsc::Sender<Push>,
    end: Arc<Ended>,
}

/// Why a client's connection is to end, told from outside.
#[derive(Debug, Default)]
pub(super) struct Ended {
    told: Notify,
    is_slow: std::sync::atomic::AtomicBool,
}

/// Something for a client that it has not asked for.
#[derive(Debug)]
pub(super) struct Push {
    /// The message.
    pub(super) text: Utf8Bytes,
    /// Its id, and where the client's answer is to go, if somebody waits for one.
    pub(super) answer: Option<(Cid, oneshot::Sender<String>)>,
}

/// The place of one connection; given back when this is dropped.
pub(super) struct Place {
    hub: Arc<Hub>,
    channel: ObjectName,
    counts: Arc<Counts>,
    number: u64,
    /// What others want to have sent.
    pub(super) inbox: mpsc::Receiver<Push>,
    end: Arc<Ended>,
}

impl Ended {
    /// Returns once the connection is to end; whether that is because its client takes nothing.
    pub(super) async fn wait(&self) -> bool {
        self.told.notified().await;
        self.is_slow.load(Ordering::Relaxed)
    }

    fn tell(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
        self.told.notify_one();
    }
}

impl Hub {
    /// For at most so many connections.
    pub fn of(most: usize) -> Arc<Self> {
        let (stopper, stop) = Stop::new();
        Arc::new(Self {
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            most,
            stopper,
            stop,
            gone: Notify::new(),
        })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<ObjectName, BTreeMap<u64, Client>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection, if the channel has `most` or fewer and the box has not too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        channel: &ObjectName,
        counts: &Arc<Counts>,
        most: u32,
    ) -> Option<Place> {
        if self.stop.is_stopped() {
            return None;
        }
        let mut sessions = self.locked();
        let of_channel = sessions.entry(channel.clone()).or_default();
        let is_full = u32::try_from(of_channel.len()).is_ok_and(|open| open >= most)
            || self.open.load(Ordering::Relaxed) >= self.most;
        if is_full {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (outbox, inbox) = mpsc::channel(WAITING);
        let end = Arc::new(Ended::default());
        of_channel.insert(number, Client { id: None, outbox, end: Arc::clone(&end) });
        drop(sessions);
        Some(Place {
            hub: Arc::clone(self),
            channel: channel.clone(),
            counts: Arc::clone(counts),
            number,
            inbox,
            end,
        })
    }

    /// When connections are to end.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Ends all connections in order, within a time.
    pub async fn close(&self, limit: Duration) {
        self.stopper.stop();
        let all_gone = async {
            loop {
                let gone = self.gone.notified();
                let mut gone = std::pin::pin!(gone);
                gone.as_mut().enable();
                if self.open.load(Ordering::Relaxed) == 0 {
                    return;
                }
                gone.await;
            }
        };
        if tokio::time::timeout(limit, all_gone).await.is_err() {
            let connections = self.open.load(Ordering::Relaxed);
            log::warn!(connections, waited_ms = limit.as_millis(); "WebSockets cut off by the stop");
        }
    }

    /// Sends something to all clients of a channel that have a session; how many there are.
    pub fn broadcast(&self, channel: &ObjectName, cid: &Cid, data: &[u8]) -> usize {
        let text = Utf8Bytes::from(message::request(cid, data, arbase::time::now_ms()));
        let sessions = self.locked();
        let clients = sessions.get(channel).into_iter().flat_map(BTreeMap::values);
        let clients = clients.filter(|client| client.id.is_some());
        clients.map(|client| client.push(Push { text: text.clone(), answer: None })).count()
    }

    fn client(&self, channel: &ObjectName, id: &str) -> Option<Client> {
        let sessions = self.locked();
        let mut clients = sessions.get(channel)?.values();
        clients.find(|client| client.id.as_deref() == Some(id)).cloned()
    }
}

impl Client {
    fn push(&self, push: Push) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outbox.try_send(push) {
            self.end.tell(true);
        }
    }
}

impl Place {
    /// The client has a session now, under this id.
    pub(super) fn named(&self, id: &Arc<str>) {
        let mut sessions = self.hub.locked();
        let of_channel = sessions.get_mut(&self.channel);
        if let Some(client) = of_channel.and_then(|clients| clients.get_mut(&self.number)) {
            client.id = Some(Arc::clone(id));
        }
    }

    /// The channel.
    pub(super) fn channel(&self) -> &ObjectName {
        &self.channel
    }

    /// Tells when somebody else ends the connection.
    pub(super) fn end(&self) -> Arc<Ended> {
        Arc::clone(&self.end)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.hub.locked();
        if let Some(clients) = sessions.get_mut(&self.channel) {
            clients.remove(&self.number);
            if clients.is_empty() {
                sessions.remove(&self.channel);
            }
        }
        drop(sessions);
        self.counts.connections.fetch_sub(1, Ordering::Relaxed);
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
        self.hub.gone.notify_waiters();
    }
}

/// Answers `wsx`, what services ask of WebSockets, and passes everything else on.
pub struct Sockets {
    hub: Arc<Hub>,
    tables: watch::Receiver<Arc<Table>>,
    others: Arc<dyn Outside>,
}

/// Why a service's request was not carried out: a word of docs/worker-protocol.md, and a sentence.
type Refused = (&'static str, String);

impl Sockets {
    /// In front of what answers the other requests.
    pub fn before(
        others: Arc<dyn Outside>,
        hub: Arc<Hub>,
        tables: watch::Receiver<Arc<Table>>,
    ) -> Self {
        Self { hub, tables, others }
    }

    async fn carry_out(&self, request: &WorkerRequest) -> Result<(Value, Bytes), Refused> {
        let text = |key: &str| request.meta.get(key).and_then(Value::as_str).unwrap_or_default();
        let channel = self.channel(text("channel"))?;
        let client = || {
            let id = text("client");
            let found = self.hub.client(&channel, id);
            found.ok_or_else(|| {
                let sentence = format!("channel `{channel}` has no client `{}`", id.escape_debug());
                ("not-found", sentence)
            })
        };
        match text("action") {
            "broadcast" => {
                let clients = self.hub.broadcast(&channel, &Cid::random(), &request.body);
                Ok((json!({"clients": clients}), Bytes::new()))
            }
            "disconnect" => {
                client()?.end.tell(false);
                Ok((json!({}), Bytes::new()))
            }
            "invoke" => {
                let client = client()?;
                let timeout = request.meta.get("timeout_ms").and_then(Value::as_u64);
                let limit = timeout.map_or(LONGEST, Duration::from_millis).min(LONGEST);
                let until = (std::time::Instant::now() + limit).min(request.deadline);
                let (answer, answered) = oneshot::channel();
                let cid = Cid::random();
                let text = message::request(&cid, &request.body, arbase::time::now_ms());
                client.push(Push { text: text.into(), answer: Some((cid, answer)) });
                match tokio::time::timeout_at(until.into(), answered).await {
                    Ok(Ok(data)) => Ok((json!({}), data.into())),
                    Ok(Err(_)) => Err(("connection", "the client has gone".to_owned())),
                    Err(_) => Err(("timeout", "the client did not answer in time".to_owned())),
                }
            }
            other => Err((
                "bad-request",
                format!("`wsx` knows `broadcast`, `invoke` and `disconnect`, not `{other}`"),
            )),
        }
    }

    fn channel(&self, name: &str) -> Result<ObjectName, Refused> {
        let table = Arc::clone(&self.tables.borrow());
        let parsed = ObjectName::parse(name).ok();
        let found = parsed.as_ref().and_then(|name| table.channel(name));
        match found {
            Some(channel) if channel.spec.channel_type == ChannelType::WebSocket => {
                Ok(channel.name.clone())
            }
            Some(_) => Err(("not-found", format!("channel `{name}` is no WebSocket"))),
            None => Err(("not-found", format!("there is no channel `{}`", name.escape_debug()))),
        }
    }
}

impl Outside for Sockets {
    fn indexes(&self) -> Vec<Arc<crate::outgoing::index::Index>> {
        self.others.indexes()
    }

    fn answer(&self, request: WorkerRequest) -> Answering<'_> {
        if request.meta.get("op").and_then(Value::as_str) != Some("wsx") {
            return self.others.answer(request);
        }
        Box::pin(async move {
            match self.carry_out(&request).await {
                Ok((meta, body)) => WorkerReply { meta, body },
                Err((kind, message)) => WorkerReply {
                    meta: json!({"error": {"type": kind, "message": message}}),
                    body: Bytes::new(),
                },
            }
        })
    }
}
