//! What happens to a request, step by step: kept in a bounded ring that the admin API reads by correlation id, and handed
//! to the exporter where a collector is configured.
//!
//! A request's [`Trace`] goes along with the task that works for it ([`scope`], [`current`]), so that whoever takes a
//! step can say so without being told of it; where a worker asks for something, the trace of its call is taken up.
//!
//! It decides nothing about a request, and what is kept here outlives no restart.
//!
//! **Invariant:** at most [`KEPT`] requests are kept, and [`NOTABLE`] more that failed or were slow, with at most
//! [`STEPS`] steps each; noting a step takes no lock that another request holds for long.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arapi::names::Cid;
use arapi::trace::{TraceQuery, TraceStep, TraceSummary, TraceView};
use tokio::sync::mpsc;

/// Requests that are kept.
const KEPT: usize = 2048;
/// Requests that failed or were slow, kept beyond the others.
const NOTABLE: usize = 512;
/// Steps of one request.
const STEPS: usize = 200;
/// A request that took this long is kept like one that failed.
const SLOW: Duration = Duration::from_secs(1);
/// Requests listed where the query names no number.
const LISTED: usize = 50;

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace of the request this task works for; none outside of one.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Does `work` as part of a request.
pub async fn scope<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    match trace {
        Some(trace) => CURRENT.scope(trace, work).await,
        None => work.await,
    }
}

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A request of a channel, or an invocation by hand: the first step.
    Request,
    /// Security and limits.
    Gate,
    /// Reading the request's body.
    Body,
    /// Waiting for a worker.
    Queue,
    /// A service in a worker.
    Service,
    /// A call out.
    Outgoing,
    /// Something started that the service does not wait for.
    Later,
}

impl What {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Gate => "gate",
            Self::Body => "body",
            Self::Queue => "queue",
            Self::Service => "service",
            Self::Outgoing => "outgoing",
            Self::Later => "later",
        }
    }
}

/// A step that has ended.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it was.
    pub what: What,
    /// Of whom.
    pub name: Box<str>,
    /// Its id.
    pub id: u64,
    /// The step it is part of; 0: of none.
    pub parent: u64,
    /// When it began, Unix microseconds.
    pub at_us: u64,
    /// How long it took.
    pub took: Duration,
    /// The status it ended with; 0: it has none.
    pub status: u16,
    /// Whether it failed.
    pub failed: bool,
    /// What else there is to say.
    pub notes: Vec<(&'static str, Box<str>)>,
}

/// A step on its way to a collector.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The trace it belongs to.
    pub trace_id: u128,
    /// The request.
    pub cid: Cid,
    /// The step.
    pub step: Step,
}

/// A request and its steps.
#[derive(Debug)]
struct Request {
    cid: Cid,
    trace_id: u128,
    /// The caller's span; 0: it sent none.
    from: u64,
    /// Whether its steps go to the collector.
    sampled: bool,
    /// What other systems are told: the caller's own wish where this box sends nothing.
    flag: bool,
    began: Instant,
    began_us: u64,
    steps: Mutex<Vec<Step>>,
    left_out: AtomicU64,
    is_notable: AtomicBool,
}

/// A request, and the step that further ones are part of.  Clones are of the same request.
#[derive(Debug, Clone)]
pub struct Trace {
    request: Arc<Request>,
    parent: u64,
}

/// A step under way.  One that is dropped was given up and is noted as failed.
#[derive(Debug)]
pub struct Open {
    trace: Trace,
    what: What,
    name: Box<str>,
    id: u64,
    started: Instant,
    notes: Vec<(&'static str, Box<str>)>,
    is_over: bool,
}

/// What came with a request (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span: u64,
    is_sampled: bool,
}

impl Parent {
    /// Reads `traceparent`.  What is none, or of a version to come with another form, is as if there were none.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_hex(version, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        if !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span, is_sampled })
    }
}

impl Trace {
    /// Begins the trace of a request that has come in, and keeps it.
    pub fn begin(cid: &Cid, traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(Parent::parse);
        // The balancer's own begins with the correlation id; there is no such span for a collector.
        let own =
            parent.is_some_and(|it| format!("{:032x}", it.trace_id).starts_with(cid.as_str()));
        Self::begin_from(cid, parent, own)
    }

    fn begin_from(cid: &Cid, parent: Option<Parent>, own: bool) -> Self {
        let timeline = timeline();
        let trace_id = match parent {
            Some(parent) => parent.trace_id,
            None => trace_id_of(cid),
        };
        let sampled = timeline.is_exporting.load(Ordering::Relaxed)
            && match parent {
                Some(parent) if !own => parent.is_sampled,
                _ => timeline.wants(trace_id),
            };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let request = Arc::new(Request {
            cid: cid.clone(),
            trace_id,
            from: parent.filter(|_| !own).map_or(0, |parent| parent.span),
            sampled,
            flag: sampled || parent.is_some_and(|parent| !own && parent.is_sampled),
            began: Instant::now(),
            began_us: micros(since),
            steps: Mutex::new(Vec::with_capacity(5)),
            left_out: AtomicU64::new(0),
            is_notable: AtomicBool::new(false),
        });
        timeline.keep(Arc::clone(&request));
        let parent = request.from;
        Self { request, parent }
    }

    /// Begins a step.
    pub fn open(&self, what: What, name: &str) -> Open {
        Open {
            trace: self.clone(),
            what,
            name: name.into(),
            id: rand::random::<u64>().max(1),
            started: Instant::now(),
            notes: Vec::new(),
            is_over: false,
        }
    }

    /// Adds a service that a worker ran without being told to by the core.
    pub fn add_service(&self, name: &str, at_us: u64, took: Duration, failed: bool, worker: &str) {
        self.note(Step {
            what: What::Service,
            name: name.into(),
            id: rand::random::<u64>().max(1),
            parent: self.parent,
            at_us,
            took,
            status: 0,
            failed,
            notes: vec![("worker", worker.into())],
        });
    }

    /// The trace of something that is done for this request, but under an id of its own.
    pub fn follow(&self, cid: &Cid) -> Self {
        let Request { trace_id, sampled, .. } = &*self.request;
        let parent = Parent { trace_id: *trace_id, span: self.parent.max(1), is_sampled: *sampled };
        Self::begin_from(cid, Some(parent), false)
    }

    /// What is sent along with a call out, so that the other side's steps become part of this one.
    pub fn traceparent(&self) -> String {
        let Request { trace_id, flag, .. } = &*self.request;
        format!("00-{trace_id:032x}-{:016x}-{:02x}", self.parent.max(1), u8::from(*flag))
    }

    fn note(&self, step: Step) {
        if step.what == What::Request && (step.status >= 500 || step.took >= SLOW) {
            self.request.is_notable.store(true, Ordering::Relaxed);
        }
        if self.request.sampled {
            timeline().export(&self.request, &step);
        }
        let mut steps = locked(&self.request.steps);
        if steps.len() < STEPS {
            steps.push(step);
        } else {
            self.request.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Open {
    /// The trace for what is done as part of this step.
    pub fn inside(&self) -> Trace {
        Trace { request: Arc::clone(&self.trace.request), parent: self.id }
    }

    /// Adds something to be said of it.
    pub fn say(&mut self, key: &'static str, value: impl Into<Box<str>>) {
        self.notes.push((key, value.into()));
    }

    /// Gives it its name, where that was not known at the beginning.
    pub fn rename(&mut self, name: &str) {
        self.name = name.into();
    }

    /// It has ended; with `status` 0 it has none.
    pub fn end(mut self, status: u16, failed: bool) {
        self.is_over = true;
        self.note(status, failed);
    }

    /// It has ended, and went as it should.
    pub fn done(self) {
        self.end(0, false);
    }

    fn note(&mut self, status: u16, failed: bool) {
        let request = &self.trace.request;
        let since = self.started.saturating_duration_since(request.began);
        let step = Step {
            what: self.what,
            name: std::mem::take(&mut self.name),
            id: self.id,
            parent: self.trace.parent,
            at_us: request.began_us.saturating_add(micros(since)),
            took: self.started.elapsed(),
            status,
            failed,
            notes: std::mem::take(&mut self.notes),
        };
        self.trace.note(step);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_over {
            self.notes.push(("ended", "given up".into()));
            self.note(0, true);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trace id by which the correlation id is found, where that is one of ours.
fn trace_id_of(cid: &Cid) -> u128 {
    let random: u32 = rand::random();
    match u128::from_str_radix(cid.as_str(), 16) {
        Ok(number) if cid.as_str().len() == 24 && number != 0 => {
            (number << 32) | u128::from(random)
        }
        _ => rand::random::<u128>().max(1),
    }
}

/// The requests of this process.
struct Timeline {
    rings: Mutex<Rings>,
    is_exporting: AtomicBool,
    /// Of 2^64 trace ids, those below this are exported.
    share: AtomicU64,
    exporter: RwLock<Option<Exporter>>,
}

#[derive(Default)]
struct Rings {
    last: VecDeque<Arc<Request>>,
    notable: VecDeque<Arc<Request>>,
}

/// Where steps go.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// The queue; what does not fit is dropped.
    pub queue: mpsc::Sender<Exported>,
    /// Counts what was dropped.
    pub dropped: Arc<AtomicU64>,
}

static TIMELINE: Timeline = Timeline {
    rings: Mutex::new(Rings { last: VecDeque::new(), notable: VecDeque::new() }),
    is_exporting: AtomicBool::new(false),
    share: AtomicU64::new(0),
    exporter: RwLock::new(None),
};

fn timeline() -> &'static Timeline {
    &TIMELINE
}

/// From now on steps of a share of the requests (0 to 1) go there; None: nowhere.
pub fn export_to(exporter: Option<Exporter>, share: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share between 0 and 1 of the numbers there are; a conversion that is too large gives the largest"
    )]
    let share = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
    let timeline = timeline();
    timeline.share.store(share, Ordering::Relaxed);
    timeline.is_exporting.store(exporter.is_some(), Ordering::Relaxed);
    *timeline.exporter.write().unwrap_or_else(PoisonError::into_inner) = exporter;
}

impl Timeline {
    /// The same for every box a request comes by: its trace id decides.
    fn wants(&self, trace_id: u128) -> bool {
        let low = u64::try_from(trace_id & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        // The low half holds four random bytes, and the correlation id's last four, which are random as well.
        low.wrapping_mul(0x9e37_79b9_7f4a_7c15) <= self.share.load(Ordering::Relaxed)
    }

    fn keep(&self, request: Arc<Request>) {
        let mut rings = locked(&self.rings);
        if rings.last.len() >= KEPT
            && let Some(oldest) = rings.last.pop_front()
            && oldest.is_notable.load(Ordering::Relaxed)
        {
            if rings.notable.len() >= NOTABLE {
                rings.notable.pop_front();
            }
            rings.notable.push_back(oldest);
        }
        rings.last.push_back(request);
    }

    fn find(&self, cid: &str) -> Vec<Arc<Request>> {
        let rings = locked(&self.rings);
        let all = rings.notable.iter().chain(&rings.last);
        all.filter(|request| request.cid.as_str() == cid).cloned().collect()
    }

    fn export(&self, request: &Request, step: &Step) {
        let exporter = self.exporter.read().unwrap_or_else(PoisonError::into_inner);
        let Some(exporter) = &*exporter else { return };
        let exported =
            Exported { trace_id: request.trace_id, cid: request.cid.clone(), step: step.clone() };
        if exporter.queue.try_send(exported).is_err() {
            exporter.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is known of a request; None: nothing.
pub fn view(cid: &str) -> Option<TraceView> {
    let requests = timeline().find(cid);
    let first = requests.first()?;
    let mut view = TraceView {
        cid: cid.to_owned(),
        trace: format!("{:032x}", first.trace_id),
        steps: Vec::new(),
        left_out: 0,
    };
    for request in requests {
        view.steps.extend(locked(&request.steps).iter().map(wire));
        view.left_out += request.left_out.load(Ordering::Relaxed);
    }
    view.steps.sort_by_key(|step| step.at_us);
    Some(view)
}

fn wire(step: &Step) -> TraceStep {
    let id = |id: u64| if id == 0 { String::new() } else { format!("{id:016x}") };
    TraceStep {
        unit: "arsrv".to_owned(),
        what: step.what.as_str().to_owned(),
        name: step.name.to_string(),
        at_us: step.at_us,
        took_us: micros(step.took),
        status: (step.status != 0).then_some(step.status),
        failed: step.failed,
        span: id(step.id),
        parent: id(step.parent),
        notes: step
            .notes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_string()))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// The trace ids of those of the requests that are known.
pub fn ids_of(cids: &BTreeSet<&str>) -> HashMap<String, u128> {
    let rings = locked(&timeline().rings);
    let all = rings.notable.iter().chain(&rings.last);
    let known = all.filter(|request| cids.contains(request.cid.as_str()));
    known.map(|request| (request.cid.to_string(), request.trace_id)).collect()
}

/// The requests that fit, newest first.
pub fn list(query: &TraceQuery) -> Vec<TraceSummary> {
    let all: Vec<Arc<Request>> = {
        let rings = locked(&timeline().rings);
        rings.last.iter().rev().chain(rings.notable.iter().rev()).cloned().collect()
    };
    let fits = |summary: &TraceSummary| {
        (!query.failed || summary.status.is_some_and(|status| status >= 500))
            && query.slow_ms.is_none_or(|ms| summary.took_us.is_some_and(|us| us >= ms * 1000))
    };
    let most = query.most.unwrap_or(LISTED);
    all.iter().map(|request| summary(request)).filter(fits).take(most).collect()
}

fn summary(request: &Request) -> TraceSummary {
    let steps = locked(&request.steps);
    let whole = steps.iter().find(|step| step.what == What::Request);
    let name: Cow<'_, str> = match whole.or(steps.first()) {
        Some(step) => step.name.as_ref().into(),
        None => "".into(),
    };
    TraceSummary {
        cid: request.cid.to_string(),
        at_us: request.began_us,
        took_us: whole.map(|step| micros(step.took)),
        name: name.into_owned(),
        status: whole.map(|step| step.status).filter(|status| *status != 0),
        steps: u64::try_from(steps.len()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests;
