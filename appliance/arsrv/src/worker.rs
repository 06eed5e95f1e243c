//! One Python worker process: its calls, its life and its end.
//!
//! Four tasks belong to a worker: one reads its frames, one writes them, one carries its output into the log, and
//! one tends it (liveness, memory, calls given up, its end).  Which worker runs which call is the pool's business,
//! reached by way of [`Host`].
//!
//! **Invariant:** every call sent ends in exactly one [`Ended`], whatever becomes of the process; a call that was not
//! answered is told apart by whether user code had begun to run for it (docs/worker-protocol.md).

pub mod frame;
pub(crate) mod outbox;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod slots;
mod stream;
mod tend;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arapi::arsrv::{FoundService, LoadFault};
use arapi::names::Cid;
use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{Notify, oneshot};

use self::frame::{CallMeta, Decoder, Frame, Kind, MetaBody, Payload, ResultMeta};
use self::outbox::Outbox;
use self::output::{LogFrame, Throttle};
use self::slots::SlotsFile;
use self::stream::{Piece, Streaming};
use crate::call::{Call, Failure, Outcome, Reply};
use crate::sandbox::Confined;
use crate::telemetry::trace::Trace;

/// Bodies up to this size are copied out of the buffer that they were read into, so that it can be used again.
const SMALL_BODY: usize = 8 * 1024;
/// What a worker prints before it is ready, kept for the verdict on modules that crash.
const LAST_LINES: usize = 40;

/// What a worker needs of the pool.
pub(crate) trait Host: Send + Sync + 'static {
    /// A service wants something; to be answered with [`Worker::reply`].
    fn request(&self, worker: &Arc<Worker>, id: u64, parts: MetaBody);
    /// The worker takes no more calls: it is to be replaced.
    fn doomed(&self, worker: &Arc<Worker>);
    /// It has answered as many calls as it should.
    fn worn_out(&self, worker: &Arc<Worker>);
    /// The process is gone, and every call of it has been told.
    fn ended(&self, worker: &Arc<Worker>, end: &End);
}

/// A place in a worker's flight, given back when dropped.
pub(crate) trait Seat: Send + 'static {}

/// For calls that are no service's and take nobody's place.
pub(crate) struct NoSeat;

impl Seat for NoSeat {}

/// How a worker ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// In words: `exit code 3`, `signal SIGSEGV`, `memory …`.
    pub(crate) how: String,
    /// The services held responsible.
    pub(crate) blamed: Vec<Arc<str>>,
    /// Whether it was to end, or had not begun to work.
    pub(crate) is_no_loss: bool,
}

/// What became of a call that was sent to a worker.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was answered, well or not.
    Answered(Outcome),
    /// The worker ended before user code ran for it.
    NeverBegun,
    /// It ended the worker; how.
    Responsible(String),
    /// It had begun when the worker ended for another reason; how.
    Interrupted(String),
}

/// The life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// Loading modules.
    Starting,
    /// Takes calls.
    Ready,
    /// Takes no more calls; ends when those it has are done.
    Draining,
    /// Gone.
    Dead,
}

impl State {
    /// The word for it in a status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Dead => "dead",
        }
    }
}

/// What a worker is started with.
pub(crate) struct Birth {
    /// For example `default-3`.
    pub(crate) name: String,
    /// The process.
    pub(crate) child: Child,
    /// Its process id.
    pub(crate) pid: u32,
    /// The core's end of the socket pair.
    pub(crate) socket: UnixStream,
    /// Its slots file.
    pub(crate) slots: SlotsFile,
    /// A folder of its own, removed with it.
    pub(crate) scratch: Scratch,
    /// The HELLO document.
    pub(crate) hello: Vec<u8>,
    /// What it is held to.
    pub(crate) rules: Rules,
    /// The pool.
    pub(crate) host: Arc<dyn Host>,
}

/// What a worker is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Longest time until READY.
    pub(crate) load_limit: Duration,
    /// Most resident memory.
    pub(crate) memory_bytes: u64,
    /// Calls after which it is replaced; 0: never.
    pub(crate) most_calls: u64,
    /// Where it does not say otherwise, how long a REQUEST outside of a call may take.
    pub(crate) timeout: Duration,
}

/// A worker's own folder.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed at the next start of the core.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// One worker.
pub(crate) struct Worker {
    /// For example `default-3`.
    pub(crate) name: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// Since when.
    pub(crate) started_ms: u64,
    born: Instant,
    state: AtomicU8,
    link: Mutex<Link>,
    /// Told when the link has something to write.
    to_write: Notify,
    /// Told when the tender has to look.
    to_tend: Notify,
    /// Told when the process is gone and every call has been told.
    gone: tokio::sync::watch::Sender<bool>,
    served: AtomicU64,
    memory_bytes: AtomicU64,
    /// When it was last heard, milliseconds since `born`.
    heard_ms: AtomicU64,
    /// The id of the last PONG.
    ponged: AtomicU64,
    confined: Mutex<Confined>,
    last_lines: Mutex<Vec<String>>,
    loaded: Mutex<Option<oneshot::Sender<Result<Loaded, LoadFault>>>>,
    slots: SlotsFile,
    rules: Rules,
    logged: Throttle,
    host: Arc<dyn Host>,
}

/// The calls of a worker, and what is still to be written to it.
struct Link {
    outbox: Outbox,
    /// No more calls are taken.
    is_closed: bool,
    last_id: u64,
    last_ping: u64,
    calls: HashMap<u64, Pending, BuildHasherDefault<IdHasher>>,
    /// Why the core itself ends this worker, if it does.
    cause: Option<Cause>,
}

/// Why the core ends a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It is not needed any more.
    Unneeded,
    /// A call that was given up goes on running in it.
    Overrun,
    /// It has more memory than it may.
    Memory {
        /// So much.
        found_mib: u64,
        /// So much is allowed.
        allowed_mib: u64,
    },
    /// It gives no sign of life.
    Silent,
    /// It does not keep to the protocol.
    Protocol(String),
}

struct Pending {
    /// Nothing: its caller has been answered or went away.
    tell: Option<oneshot::Sender<Ended>>,
    service: Arc<str>,
    cid: Cid,
    deadline: Instant,
    depth: u16,
    trace: Option<Trace>,
    /// The PING sent behind its CANCEL, and from when on it runs too long: a caller that goes away early does not make
    /// a service slow.
    given_up: Option<(u64, Instant)>,
    /// Set once its answer has begun to come piece by piece.
    stream: Option<Streaming>,
    _seat: Box<dyn Seat>,
}

/// What a worker has loaded.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Loaded {
    /// The services.
    pub(crate) services: Vec<FoundService>,
}

/// What a worker tells of a service that it ran without the core.
#[derive(Deserialize)]
struct LocalStep {
    service: String,
    at_us: u64,
    took_us: u64,
    failed: bool,
}

/// A call about to be sent.
pub(crate) struct Sending<'a> {
    /// The call.
    pub(crate) call: &'a Call,
    /// Its service's name as a JSON string.
    pub(crate) service_json: &'a str,
    /// When its caller stops waiting.
    pub(crate) deadline: Instant,
    /// How many services are waiting for it in a row.
    pub(crate) depth: u16,
    /// The trace of what is done for it.
    pub(crate) trace: Option<Trace>,
    /// Its place.
    pub(crate) seat: Box<dyn Seat>,
}

/// Why a call was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// The worker takes no more calls.
    #[error("the worker takes no more calls")]
    Closed,
    /// Too long for a frame.
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

/// A call that was sent.  Dropping this gives it up.
pub(crate) struct Sent {
    worker: Arc<Worker>,
    id: u64,
    ended: oneshot::Receiver<Ended>,
    is_over: bool,
}

/// What a REQUEST belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The request it belongs to.
    pub(crate) cid: Option<Cid>,
    /// When that ends.
    pub(crate) deadline: Instant,
    /// How many services wait in a row.
    pub(crate) depth: u16,
    /// The trace of what is done for it.
    pub(crate) trace: Option<Trace>,
}

/// Call ids count up from 1: spread well enough as they are.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, id: u64) {
        // The table takes its place from the low bits and its tag from the high ones.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Worker {
    /// Starts the tasks of a new process and says HELLO.  The second value tells what it has loaded.
    pub(crate) fn start(
        birth: Birth,
        stdout: tokio::process::ChildStdout,
        stderr: tokio::process::ChildStderr,
    ) -> (Arc<Self>, oneshot::Receiver<Result<Loaded, LoadFault>>) {
        let Birth { name, child, pid, socket, slots, scratch, hello, rules, host } = birth;
        let (loaded, outcome) = oneshot::channel();
        let mut outbox = Outbox::default();
        // A HELLO above 256 MiB cannot come about: modules are not in it.
        frame::put_plain(outbox.tail(), Kind::Hello, 0, &hello).ok();
        let worker = Arc::new(Self {
            name,
            pid,
            started_ms: arbase::time::now_ms(),
            born: Instant::now(),
            state: AtomicU8::new(State::Starting as u8),
            link: Mutex::new(Link {
                outbox,
                is_closed: false,
                last_id: 0,
                last_ping: 0,
                calls: HashMap::default(),
                cause: None,
            }),
            to_write: Notify::new(),
            to_tend: Notify::new(),
            gone: tokio::sync::watch::Sender::new(false),
            served: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            ponged: AtomicU64::new(0),
            confined: Mutex::default(),
            last_lines: Mutex::default(),
            loaded: Mutex::new(Some(loaded)),
            slots,
            rules,
            logged: Throttle::logged(),
            host,
        });
        worker.to_write.notify_one();
        let (from, to) = socket.into_split();
        let reading = tokio::spawn(Arc::clone(&worker).read(from));
        let writing = tokio::spawn(Arc::clone(&worker).write(to));
        let printing = tokio::spawn(Arc::clone(&worker).print(stdout, stderr));
        let tasks = tend::Tasks { reading, writing, printing };
        tokio::spawn(tend::tend(Arc::clone(&worker), child, tasks, scratch));
        (worker, outcome)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is in its life.
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Dead,
        }
    }

    /// Moves on in its life, never back.
    fn set_state(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// Calls it has answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Its resident memory when it was last looked at.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Calls it has now, those given up but still running included.
    pub(crate) fn in_flight(&self) -> usize {
        self.link().calls.len()
    }

    /// How it is confined.
    pub(crate) fn confined(&self) -> Confined {
        self.confined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when the process is gone and every call of it has been told.
    pub(crate) async fn gone(&self) {
        // Cannot fail: self holds the sender.
        self.gone.subscribe().wait_for(|gone| *gone).await.ok();
    }

    /// Sends a call.
    pub(crate) fn send(self: &Arc<Self>, sending: Sending<'_>) -> Result<Sent, Unsent> {
        let Sending { call, service_json, deadline, depth, trace, seat } = sending;
        let (tell, ended) = oneshot::channel();
        let left = deadline.saturating_duration_since(Instant::now());
        let meta = CallMeta {
            service_json,
            cid: call.cid.as_str(),
            channel: call.channel,
            data_format: call.data_format,
            method: call.method,
            timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            environ: &call.environ,
        };
        let (id, was_empty) = {
            let mut link = self.link();
            if link.is_closed {
                return Err(Unsent::Closed);
            }
            let id = link.last_id + 1;
            let was_empty = link.outbox.is_empty();
            let length = call.spool.as_ref().map_or(call.body.len(), |spool| spool.len());
            frame::put_call(link.outbox.tail(), id, meta, &call.http, length)?;
            match &call.spool {
                Some(spool) => link.outbox.push_spool(spool),
                None => link.outbox.push_body(&call.body),
            }
            link.last_id = id;
            let pending = Pending {
                tell: Some(tell),
                service: Arc::clone(&call.service),
                cid: call.cid.clone(),
                deadline,
                depth,
                trace,
                given_up: None,
                stream: None,
                _seat: seat,
            };
            link.calls.insert(id, pending);
            (id, was_empty)
        };
        if was_empty {
            self.to_write.notify_one();
        }
        Ok(Sent { worker: Arc::clone(self), id, ended, is_over: false })
    }

    /// Answers a REQUEST.
    pub(crate) fn reply(&self, id: u64, meta: &[u8], body: &Bytes) {
        let mut link = self.link();
        let put = frame::put_meta_body(link.outbox.tail(), Kind::Reply, id, meta, body.len());
        match put {
            Ok(()) => link.outbox.push_body(body),
            Err(err) => {
                let meta =
                    serde_json::json!({"error": {"type": "too-large", "message": err.to_string()}});
                let meta = meta.to_string();
                // Short enough: one sentence.
                frame::put_meta_body(link.outbox.tail(), Kind::Reply, id, meta.as_bytes(), 0).ok();
            }
        }
        drop(link);
        self.to_write.notify_one();
    }

    /// Sends a CONFIG.
    pub(crate) fn configure(&self, document: &[u8]) {
        self.put(Kind::Config, 0, document);
    }

    fn put(&self, kind: Kind, id: u64, payload: &[u8]) {
        // What is put here is short.
        frame::put_plain(self.link().outbox.tail(), kind, id, payload).ok();
        self.to_write.notify_one();
    }

    /// Takes no more calls; it ends when those it has are done.
    pub(crate) fn drain(&self, cause: Cause) {
        {
            let mut link = self.link();
            link.cause.get_or_insert(cause);
            if !link.is_closed {
                link.is_closed = true;
                // An empty frame fits.
                frame::put_plain(link.outbox.tail(), Kind::Drain, 0, b"").ok();
            }
        }
        self.set_state(State::Draining);
        self.to_write.notify_one();
        self.to_tend.notify_one();
    }

    /// The call that a REQUEST belongs to; for one outside of any call, the core's own limit counts.
    pub(crate) fn origin(&self, call: u64) -> Origin {
        match self.link().calls.get(&call) {
            Some(pending) => Origin {
                cid: Some(pending.cid.clone()),
                deadline: match pending.stream {
                    // The call's own limit was for the beginning of its answer.
                    Some(_) => pending.deadline.max(Instant::now() + self.rules.timeout),
                    None => pending.deadline,
                },
                depth: pending.depth,
                trace: pending.trace.clone(),
            },
            None => Origin {
                cid: None,
                deadline: Instant::now() + self.rules.timeout,
                depth: 0,
                trace: None,
            },
        }
    }

    async fn write(self: Arc<Self>, mut socket: OwnedWriteHalf) {
        let mut batch = Outbox::default();
        loop {
            self.to_write.notified().await;
            loop {
                // The emptied batch goes back and keeps its memory.
                std::mem::swap(&mut batch, &mut self.link().outbox);
                if batch.is_empty() {
                    break;
                }
                if batch.write_to(&mut socket).await.is_err() {
                    // The reader sees the end of the stream, and the tender that of the process.
                    return;
                }
            }
        }
    }

    /// Reads frames until the stream ends or is no stream of frames.
    async fn read(self: Arc<Self>, mut socket: OwnedReadHalf) {
        let mut decoder = Decoder::default();
        loop {
            match socket.read_buf(decoder.room()).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            self.heard_ms.store(self.age_ms(), Ordering::Relaxed);
            loop {
                match decoder.take() {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => break,
                    Err(err) => {
                        log::error!(worker = self.name.as_str(), error:% = err; "worker does not keep to the protocol");
                        self.drain(Cause::Protocol(err.to_string()));
                        return;
                    }
                }
            }
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn print(
        self: Arc<Self>,
        stdout: tokio::process::ChildStdout,
        stderr: tokio::process::ChildStderr,
    ) {
        let keep = |line: &str| {
            if self.state() == State::Starting {
                let mut lines = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LAST_LINES {
                    lines.remove(0);
                }
                lines.push(line.to_owned());
            }
        };
        tokio::join!(
            output::follow(stdout, self.name.clone(), log::Level::Info, keep),
            output::follow(stderr, self.name.clone(), log::Level::Warn, keep),
        );
    }

    fn take(self: &Arc<Self>, frame: Frame) {
        let Frame { kind, id, payload } = frame;
        let payload = match payload {
            Payload::Whole(payload) => payload,
            Payload::TooLong(length) => return self.take_too_long(kind, id, length),
        };
        match kind {
            Kind::Result => self.take_result(id, payload),
            Kind::Chunk => self.take_chunk(id, payload),
            Kind::End => self.take_end(id, &payload),
            Kind::Request => match MetaBody::split(kind, payload) {
                Ok(parts) => self.host.request(self, id, parts),
                Err(err) => self.refuse_request(id, &err.to_string()),
            },
            Kind::Log => match LogFrame::parse(&payload) {
                Ok(line) => line.log(&self.name, &self.logged),
                Err(err) => {
                    log::warn!(worker = self.name.as_str(), error:% = err; "a log frame cannot be read")
                }
            },
            Kind::Step => self.take_step(id, &payload),
            Kind::Pong => {
                self.ponged.fetch_max(id, Ordering::AcqRel);
                self.to_tend.notify_one();
            }
            Kind::Ready => match serde_json::from_slice::<Loaded>(&payload) {
                Ok(loaded) => self.settle(Ok(loaded)),
                Err(err) => {
                    self.settle(Err(fault(format!("the worker's READY cannot be read: {err}"))))
                }
            },
            Kind::Failed => {
                let found = serde_json::from_slice::<LoadFault>(&payload);
                let mut found = found.unwrap_or_else(|err| {
                    fault(format!("the worker's FAILED cannot be read: {err}"))
                });
                found.exit_code.get_or_insert(3);
                self.settle(Err(found));
            }
            Kind::Confined => {
                let confined = serde_json::from_slice(&payload).unwrap_or_default();
                *self.confined.lock().unwrap_or_else(PoisonError::into_inner) = confined;
            }
            Kind::Hello
            | Kind::Call
            | Kind::Reply
            | Kind::Cancel
            | Kind::Drain
            | Kind::Ping
            | Kind::Credit
            | Kind::Config => {
                self.drain(Cause::Protocol(format!("a worker does not send a {kind:?} frame")));
            }
        }
    }

    /// Tells what came of loading, once.
    fn settle(&self, outcome: Result<Loaded, LoadFault>) {
        if outcome.is_ok() {
            self.set_state(State::Ready);
            // What it takes with nothing but its modules.
            self.to_tend.notify_one();
        }
        let waiting = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            // Whoever waited may have gone.
            waiting.send(outcome).ok();
        }
    }

    fn take_result(self: &Arc<Self>, id: u64, payload: Bytes) {
        let outcome = match MetaBody::split(Kind::Result, payload)
            .and_then(|parts| outcome_of(&parts))
        {
            Ok((Outcome::Done(reply), true)) => return self.begin_stream(id, reply),
            Ok((outcome, _)) => outcome,
            Err(err) => {
                log::error!(worker = self.name.as_str(), error:% = err; "a result cannot be read");
                Outcome::Failed(Failure {
                    status: 500,
                    headers: Vec::new(),
                    details: serde_json::Value::Null,
                    kind: "internal".to_owned(),
                    message: err.to_string(),
                    retry_after: None,
                })
            }
        };
        self.answer(id, outcome);
    }

    fn answer(&self, id: u64, outcome: Outcome) {
        let pending = self.link().calls.remove(&id);
        let Some(pending) = pending else {
            // Given up, and found to be over already.
            return;
        };
        if let Some(tell) = pending.tell {
            // Its caller may have gone a moment ago.
            tell.send(Ended::Answered(outcome)).ok();
        }
        self.note_served();
    }

    fn note_served(&self) {
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if served == self.rules.most_calls || self.state() == State::Draining {
            self.to_tend.notify_one();
        }
    }

    /// The first piece of a streamed answer: the call goes on until its END.
    fn begin_stream(self: &Arc<Self>, id: u64, reply: Reply) {
        let (streaming, rest) = stream::open(self, id);
        let tell = match self.link().calls.get_mut(&id) {
            Some(pending) if pending.tell.is_some() => {
                pending.stream = Some(streaming);
                pending.tell.take()
            }
            // Given up, and told so already.
            Some(_) | None => return rest.forget(),
        };
        if let Some(tell) = tell {
            let pieces = rest.into_pieces(reply.content_type.as_deref());
            // If its caller has just gone, dropping the pieces says so to the worker.
            tell.send(Ended::Answered(Outcome::Streamed(reply, pieces))).ok();
        }
    }

    fn take_chunk(self: &Arc<Self>, id: u64, payload: Bytes) {
        let overflow = match self.link().calls.get_mut(&id) {
            Some(Pending { stream: Some(stream), given_up: None, .. }) => stream.take(payload),
            Some(_) | None => return,
        };
        if overflow {
            let fault = format!(
                "more than {} bytes of an answer that nobody has taken yet",
                frame::STREAM_WINDOW
            );
            log::error!(worker = self.name.as_str(), error = fault.as_str(); "worker does not keep to the protocol");
            self.drain(Cause::Protocol(fault));
        }
    }

    /// A service that another one invoked within the worker.
    fn take_step(&self, id: u64, payload: &[u8]) {
        let trace = self.link().calls.get(&id).and_then(|pending| pending.trace.clone());
        let Some(trace) = trace else { return };
        match serde_json::from_slice::<LocalStep>(payload) {
            Ok(step) => {
                let took = Duration::from_micros(step.took_us);
                trace.add_service(&step.service, step.at_us, took, step.failed, &self.name);
            }
            Err(err) => {
                log::warn!(worker = self.name.as_str(), error:% = err; "a step frame cannot be read");
            }
        }
    }

    fn take_end(&self, id: u64, payload: &[u8]) {
        let end = serde_json::from_slice(payload).unwrap_or_else(|err| frame::StreamEnd {
            error: Some(format!("the worker's END cannot be read: {err}")),
        });
        let pending = self.link().calls.remove(&id);
        let Some(pending) = pending else {
            return;
        };
        if let Some(stream) = &pending.stream {
            stream.send(end.error.map_or(Piece::End, Piece::BrokenOff));
        }
        self.note_served();
    }

    fn take_too_long(self: &Arc<Self>, kind: Kind, id: u64, length: usize) {
        let message = format!("{length} bytes are above the {} allowed", frame::MAX_LENGTH);
        match kind {
            Kind::Result => self.answer(
                id,
                Outcome::Failed(Failure {
                    status: 500,
                    headers: Vec::new(),
                    details: serde_json::Value::String(format!("answer is too large: {message}")),
                    kind: "too-large".to_owned(),
                    message: format!("answer is too large: {message}"),
                    retry_after: None,
                }),
            ),
            Kind::Request => self.refuse_request(id, &message),
            _ => self.drain(Cause::Protocol(format!("a {kind:?} frame of {message}"))),
        }
    }

    fn refuse_request(&self, id: u64, message: &str) {
        let meta = serde_json::json!({"error": {"type": "bad-request", "message": message}});
        self.reply(id, meta.to_string().as_bytes(), &Bytes::new());
    }
}

fn fault(reason: String) -> LoadFault {
    LoadFault { reason, file: String::new(), line: 0, traceback: String::new(), exit_code: None }
}

/// What a RESULT says, and whether it is only the beginning.
fn outcome_of(parts: &MetaBody) -> Result<(Outcome, bool), frame::FrameError> {
    let meta = ResultMeta::parse(&parts.meta)?;
    let headers = meta.headers.0;
    let outcome = match meta.error {
        None => {
            let body = if parts.body.len() <= SMALL_BODY {
                Bytes::copy_from_slice(&parts.body)
            } else {
                parts.body.clone()
            };
            let content_type = meta.content_type.map(std::borrow::Cow::into_owned);
            Outcome::Done(Reply { status: meta.status, content_type, headers, body })
        }
        Some(error) => Outcome::Failed(Failure {
            status: meta.status,
            headers,
            details: error.details,
            kind: error.kind,
            message: error.message,
            retry_after: None,
        }),
    };
    Ok((outcome, meta.stream))
}

impl Sent {
    /// Waits until the call has ended, at the latest until the deadline: then it is given up and there is nothing.
    pub(crate) async fn wait(mut self, deadline: Instant) -> Option<Ended> {
        match tokio::time::timeout_at(deadline.into(), &mut self.ended).await {
            Ok(ended) => {
                self.is_over = true;
                // The worker tells every call; without its tasks (the runtime ends) nothing has been begun.
                Some(ended.unwrap_or(Ended::NeverBegun))
            }
            Err(_) => None,
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.worker.give_up(self.id, Instant::now());
    }
}

impl Worker {
    /// Tells the worker that nobody waits for a call any more; until `grace`, or the call's own deadline, it may
    /// go on without being called too slow.
    fn give_up(&self, id: u64, grace: Instant) {
        self.link().give_up(id, grace);
        self.to_write.notify_one();
        self.to_tend.notify_one();
    }
}

impl Link {
    fn give_up(&mut self, id: u64, grace: Instant) {
        let Some(pending) = self.calls.get_mut(&id) else {
            return;
        };
        pending.tell = None;
        if pending.given_up.is_some() {
            return;
        }
        self.last_ping += 1;
        pending.given_up = Some((self.last_ping, pending.deadline.max(grace)));
        // Both are empty.  The PONG shows that the worker has read everything up to here.
        frame::put_plain(self.outbox.tail(), Kind::Cancel, id, b"").ok();
        frame::put_plain(self.outbox.tail(), Kind::Ping, self.last_ping, b"").ok();
    }
}
