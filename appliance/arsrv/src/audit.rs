//! What channels keep of requests and answers.
//!
//! A request's own part is to hand over what there is of it: everything else (masking, cutting, the disk) is done by a
//! task of its own, in batches.  Where that cannot keep up messages are left out, and the log says how many: no request
//! ever waits for it.
//!
//! **Invariant:** the values of credentials, and of the fields and headers that a channel names, never reach the disk.
//! A body in which they cannot be told apart is not kept.

mod keep;
pub mod mask;

pub use keep::SCHEMA;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arapi::messages::{Direction, MessagePage, MessageQuery};
use arapi::names::{Cid, ObjectName};
use arapi::objects::{Audit, ChannelSpec};
use arbase::{Chain, Stop};
use arstore::{Database, StoreError};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::security::Gate;
use crate::security::attempts::Attempts;

/// Messages that may wait for the disk.
const MOST_WAITING: usize = 2048;
/// Bytes of bodies that may wait for it.
const MOST_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Messages of one batch.
const BATCH: usize = 256;
/// How long a batch is waited for: one write to disk for all that comes meanwhile.
const GATHER: Duration = Duration::from_millis(200);
/// Larger bodies are not searched for fields.
const SEARCHED: usize = 256 * 1024;
/// Messages of a page where the query names no number, and most of one.
const PAGE: (u32, u32) = (50, 200);

/// What a channel keeps, ready for use.
#[derive(Debug)]
pub struct Rules {
    received: bool,
    sent: bool,
    most: u32,
    bytes: usize,
    fields: HashSet<String>,
    headers: HashSet<HeaderName>,
}

impl Rules {
    /// What a channel keeps, if it keeps anything.
    pub fn of(spec: &ChannelSpec, gate: &Gate) -> Option<Arc<Self>> {
        let audit: &Audit = spec.audit.as_ref()?;
        let named = audit.masked_headers.iter();
        let mut headers: HashSet<HeaderName> =
            named.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect();
        headers.extend(mask::CREDENTIALS.iter().map(|name| HeaderName::from_static(name)));
        headers.extend(gate.secret_headers().cloned());
        Some(Arc::new(Self {
            received: audit.is_received_active,
            sent: audit.is_sent_active,
            most: audit.max_len_messages,
            bytes: usize::try_from(audit.max_bytes_per_message).unwrap_or(usize::MAX),
            fields: audit.masked_fields.iter().map(|name| name.to_ascii_lowercase()).collect(),
            headers,
        }))
    }
}

/// A request with its answer, as the door has them.
#[derive(Debug)]
pub struct Exchange<'r> {
    /// The channel.
    pub channel: &'r ObjectName,
    /// The request's id.
    pub cid: &'r Cid,
    /// Its head.
    pub parts: &'r http::request::Parts,
    /// Where it came from.
    pub remote: &'r str,
    /// The security that let it in.
    pub caller: Option<&'r ObjectName>,
    /// Its body, as far as it was read.
    pub body: Option<Bytes>,
    /// When it came.
    pub started: (SystemTime, Instant),
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer.
    pub headers: &'r HeaderMap,
    /// The body of the answer; None: it is streamed.
    pub answer: Option<Bytes>,
}

/// One message on its way to the disk.
#[derive(Debug)]
struct Entry {
    rules: Arc<Rules>,
    channel: ObjectName,
    direction: Direction,
    time_ms: u64,
    cid: Cid,
    method: String,
    path: String,
    remote: String,
    caller: Option<ObjectName>,
    status: Option<u16>,
    elapsed_ms: Option<f64>,
    headers: HeaderMap,
    /// As much of it as is looked at.
    body: Bytes,
    bytes: usize,
    is_streamed: bool,
    _waiting: Waiting,
}

/// Counts the bytes that wait, for as long as they do.
#[derive(Debug)]
struct Waiting(Arc<AtomicUsize>, usize);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

enum Work {
    Entry(Box<Entry>),
    /// Messages of other channels go.
    Leave(HashSet<ObjectName>),
    /// Tell when everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// Takes messages and gives them back.
#[derive(Debug)]
pub struct Recorder {
    work: mpsc::Sender<Work>,
    waiting: Arc<AtomicUsize>,
    left_out: Attempts,
    store: Arc<Store>,
}

/// Where messages are kept; not made before there is one.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    most_bytes: u64,
    opened: OnceCell<Database>,
}

/// Why there are no messages to show.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They cannot be opened.
    #[error("cannot open what channels have kept")]
    Open(#[from] arstore::OpenError),
    /// They cannot be read.
    #[error("cannot read what channels have kept")]
    Read(#[from] StoreError),
    /// The core is stopping.
    #[error("the core is stopping")]
    Stopping,
}

impl Recorder {
    /// A recorder that keeps at most so many bytes in a file, and the task that does its work until told to stop.
    pub fn start(
        path: PathBuf,
        most_bytes: u64,
        stop: Stop,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (work, received) = mpsc::channel(MOST_WAITING);
        let store = Arc::new(Store { path, most_bytes, opened: OnceCell::new() });
        let task = run(received, Arc::clone(&store), stop);
        (Self { work, waiting: Arc::default(), left_out: Attempts::default(), store }, task)
    }

    /// Hands over a request and its answer.  Never waits.
    pub fn note(&self, rules: &Arc<Rules>, exchange: Exchange<'_>) {
        let Exchange {
            channel,
            cid,
            parts,
            remote,
            caller,
            body,
            started,
            status,
            headers,
            answer,
        } = exchange;
        let millis = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        let elapsed = started.1.elapsed();
        let entry = |direction, body: Option<Bytes>| {
            let whole = body.unwrap_or_default();
            let bytes = whole.len();
            let body = if bytes <= SEARCHED {
                whole
            } else {
                // A copy: the rest is not to be held.
                Bytes::copy_from_slice(whole.get(..rules.bytes).unwrap_or(&whole))
            };
            let is_request = direction == Direction::Received;
            let time = if is_request { started.0 } else { started.0 + elapsed };
            self.waiting.fetch_add(body.len(), Ordering::AcqRel);
            Box::new(Entry {
                rules: Arc::clone(rules),
                channel: channel.clone(),
                direction,
                time_ms: millis(time),
                cid: cid.clone(),
                method: parts.method.to_string(),
                path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                remote: remote.to_owned(),
                caller: caller.cloned(),
                status: (!is_request).then_some(status),
                elapsed_ms: (!is_request).then_some(elapsed.as_secs_f64() * 1000.0),
                headers: if is_request { parts.headers.clone() } else { headers.clone() },
                _waiting: Waiting(Arc::clone(&self.waiting), body.len()),
                body,
                bytes,
                is_streamed: false,
            })
        };
        if rules.received {
            self.put(entry(Direction::Received, body));
        }
        if rules.sent {
            let is_streamed = answer.is_none();
            let mut entry = entry(Direction::Sent, answer);
            entry.is_streamed = is_streamed;
            self.put(entry);
        }
    }

    fn put(&self, entry: Box<Entry>) {
        let is_full = self.waiting.load(Ordering::Acquire) > MOST_WAITING_BYTES;
        if (is_full || self.work.try_send(Work::Entry(entry)).is_err())
            && let Some(before) = self.left_out.count(Instant::now())
        {
            log::warn!(left_out = before + 1; "messages of channels are left out: the disk does not keep up");
        }
    }

    /// Lets go of the messages of all other channels.
    pub async fn leave(&self, channels: HashSet<ObjectName>) {
        // Fails only when the core is stopping.
        self.work.send(Work::Leave(channels)).await.ok();
    }

    /// Messages of a channel, newest first; every one handed over before is among them.
    pub async fn page(&self, channel: &str, query: MessageQuery) -> Result<MessagePage, ReadError> {
        let (flushed, done) = oneshot::channel();
        self.work.send(Work::Flush(flushed)).await.map_err(|_| ReadError::Stopping)?;
        done.await.map_err(|_| ReadError::Stopping)?;
        if !self.store.exists() {
            return Ok(MessagePage::default());
        }
        let most = query.most.unwrap_or(PAGE.0).clamp(1, PAGE.1);
        let database = self.store.database().await?.clone();
        Ok(keep::page(&database, channel.to_owned(), query, most).await?)
    }
}

impl Store {
    fn exists(&self) -> bool {
        self.opened.initialized() || self.path.try_exists().unwrap_or(true)
    }

    async fn database(&self) -> Result<&Database, arstore::OpenError> {
        let open = || async {
            let (path, most) = (self.path.clone(), self.most_bytes);
            let opening = tokio::task::spawn_blocking(move || keep::open(&path, most));
            opening.await.unwrap_or_else(|err| {
                let path = self.path.clone();
                Err(arstore::OpenError::File { path, source: std::io::Error::other(err) })
            })
        };
        self.opened.get_or_try_init(open).await
    }
}

async fn run(mut received: mpsc::Receiver<Work>, store: Arc<Store>, stop: Stop) {
    let failures = Attempts::default();
    let mut is_stopping = false;
    while !is_stopping {
        let mut batch = Vec::new();
        tokio::select! {
            got = received.recv_many(&mut batch, BATCH) => if got == 0 { return },
            () = stop.wait() => is_stopping = true,
        }
        let hurries = |batch: &[Work]| batch.iter().any(|work| !matches!(work, Work::Entry(_)));
        if !is_stopping && batch.len() < BATCH && !hurries(&batch) {
            let until = tokio::time::Instant::now() + GATHER;
            while batch.len() < BATCH && !hurries(&batch) {
                let room = BATCH - batch.len();
                let more = received.recv_many(&mut batch, room);
                match tokio::time::timeout_at(until, more).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
        if is_stopping {
            // What is here is kept; nothing more can come.
            received.close();
            while let Some(work) = received.recv().await {
                batch.push(work);
            }
        }
        let (mut entries, mut flushed, mut leaving) = (Vec::new(), Vec::new(), None);
        for work in batch {
            match work {
                Work::Entry(entry) => entries.push(*entry),
                Work::Leave(channels) => leaving = Some(channels),
                Work::Flush(done) => flushed.push(done),
            }
        }
        if let Err(err) = carry_out(&store, entries, leaving).await
            && let Some(before) = failures.count(Instant::now())
        {
            log::error!(error:% = Chain(&err), left_out = before; "messages of channels cannot be kept");
        }
        for done in flushed {
            done.send(()).ok();
        }
    }
}

async fn carry_out(
    store: &Store,
    entries: Vec<Entry>,
    leaving: Option<HashSet<ObjectName>>,
) -> Result<(), ReadError> {
    if entries.is_empty() && (leaving.is_none() || !store.exists()) {
        return Ok(());
    }
    let database = store.database().await?;
    if !entries.is_empty() {
        let ready = tokio::task::spawn_blocking(move || {
            entries.iter().map(mask::ready).collect::<Vec<_>>()
        });
        let ready = ready.await.map_err(|_| ReadError::Stopping)?;
        keep::append(database, ready, store.most_bytes).await?;
    }
    if let Some(channels) = leaving {
        keep::leave(database, channels).await?;
    }
    Ok(())
}
