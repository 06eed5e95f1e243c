//! The backends: where they are, how they are, and which one is next.
//!
//! The set can change at run time: a backend is added, drained (it gets no new requests), removed.
//! Each has a prober task (`probe`) that lives as long as its entry in the set.
//!
//! **Order:** the backends on this box first, then by smoothed round-trip time weighed with the requests
//! each has now.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::health::{Health, Thresholds, Turn};
use crate::link::Link;
use crate::probe;

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket of this box.
    Unix(PathBuf),
    /// An address in the network.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(addr) => write!(f, "{addr}"),
        }
    }
}

/// How backends are probed and their connections kept.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// The path of the health check.
    pub health_path: http::uri::PathAndQuery,
    /// Between two health checks of a backend that is up.
    pub health_interval: Duration,
    /// How long a health check may take.
    pub health_timeout: Duration,
    /// How many in a row change a backend's state.
    pub thresholds: Thresholds,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// Idle connections kept per backend.
    pub max_idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long after the last backend went down requests still wait for one.
    pub patience: Duration,
}

/// One backend.
pub struct Backend {
    name: String,
    address: Address,
    is_local: bool,
    #[expect(clippy::vec_box, reason = "a link is a kilobyte, and is moved with each request")]
    idle: Mutex<Vec<Box<Link>>>,
    health: Mutex<Health>,
    up: AtomicBool,
    draining: AtomicBool,
    /// When it last was up, or was added.
    down_since: Mutex<Instant>,
    in_flight: AtomicU64,
    requests: AtomicU64,
    answered: AtomicU64,
    failures: AtomicU64,
    /// Smoothed, nanoseconds; 0: not known.
    rtt_ns: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Asks the prober to look at once.
    pub(crate) nudge: Notify,
    /// Tells those who wait that some backend came up.
    came_up: Arc<Notify>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A backend as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Address,
    /// Whether it gets requests.
    pub is_healthy: bool,
    /// Requests it has now.
    pub in_flight: u64,
    /// Requests since it was added.
    pub requests: u64,
    /// Those it failed.
    pub failures: u64,
    /// Smoothed time of its health check.
    pub rtt: Option<Duration>,
    /// What the last failed check or request said.
    pub last_error: Option<String>,
}

/// A request that a backend has; dropping it ends it.
#[derive(Debug)]
pub(crate) struct InFlight(pub(crate) Arc<Backend>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Backend {
    fn new(
        name: String,
        address: Address,
        is_local: bool,
        thresholds: Thresholds,
        came_up: Arc<Notify>,
    ) -> Self {
        Self {
            name,
            address,
            is_local,
            idle: Mutex::default(),
            health: Mutex::new(Health::unknown(thresholds)),
            up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            down_since: Mutex::new(Instant::now()),
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            last_error: Mutex::new(None),
            nudge: Notify::new(),
            came_up,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it gets requests.
    pub fn is_available(&self) -> bool {
        self.up.load(Relaxed) && !self.draining.load(Relaxed)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Answers it has given so far: a sign of life for the prober.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    pub(crate) fn begin(self: Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InFlight(self)
    }

    pub(crate) fn note_answer(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// An idle connection, the one used last first, so that the others grow old and are closed.
    pub(crate) fn take_idle(&self) -> Option<Box<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn give_back(&self, mut link: Box<Link>, max_idle: usize) {
        if !link.is_ready() || !self.is_available() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < max_idle {
            link.idle_since = Instant::now();
            idle.push(link);
        }
    }

    pub(crate) fn close_idle(&self, older_than: Duration, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|link| now.saturating_duration_since(link.idle_since) < older_than);
    }

    pub(crate) fn probe_succeeded(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let old = self.rtt_ns.load(Relaxed);
        // An eighth of the new, as TCP smooths its own (RFC 6298).
        let new = if old == 0 { sample } else { old - old / 8 + sample / 8 };
        self.rtt_ns.store(new, Relaxed);
        let turn = self.health.lock().unwrap_or_else(PoisonError::into_inner).succeeded();
        self.turned(turn, "");
    }

    pub(crate) fn probe_failed(&self, error: &str) {
        self.note_error(error);
        let turn = self.health.lock().unwrap_or_else(PoisonError::into_inner).failed();
        self.turned(turn, error);
    }

    /// No connection can be made.
    pub(crate) fn is_gone(&self, err: &io::Error) {
        let error = format!("cannot connect: {err}");
        self.note_error(&error);
        let turn = self.health.lock().unwrap_or_else(PoisonError::into_inner).gone();
        self.turned(turn, &error);
        self.nudge.notify_one();
    }

    /// A request got no answer.
    pub(crate) fn request_failed(&self, error: &str) {
        self.failures.fetch_add(1, Relaxed);
        self.note_error(error);
        // A connection of the same age is likely in the same state.
        self.close_idle(Duration::ZERO, Instant::now());
        self.nudge.notify_one();
    }

    fn note_error(&self, error: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }

    fn turned(&self, turn: Option<Turn>, error: &str) {
        match turn {
            Some(Turn::Up) => {
                self.up.store(true, Relaxed);
                log::info!(backend = self.name.as_str(), addr:% = self.address; "backend is up");
                self.came_up.notify_waiters();
            }
            Some(Turn::Down) => {
                *self.down_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.up.store(false, Relaxed);
                self.close_idle(Duration::ZERO, Instant::now());
                log::warn!(backend = self.name.as_str(), addr:% = self.address, error; "backend is down");
            }
            None => {}
        }
    }

    fn score(&self) -> Score {
        Score {
            remote: !self.is_local,
            cost: self
                .rtt_ns
                .load(Relaxed)
                .saturating_mul(self.in_flight.load(Relaxed).saturating_add(1)),
        }
    }

    fn view(&self) -> BackendView {
        let rtt_ns = self.rtt_ns.load(Relaxed);
        BackendView {
            name: self.name.clone(),
            address: self.address.clone(),
            is_healthy: self.is_available(),
            in_flight: self.in_flight.load(Relaxed),
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            rtt: (rtt_ns > 0).then(|| Duration::from_nanos(rtt_ns)),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    remote: bool,
    cost: u64,
}

struct Entry {
    backend: Arc<Backend>,
    prober: tokio::task::AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

/// All backends of a balancer.
pub struct BackendSet {
    settings: Arc<BackendSettings>,
    entries: RwLock<Vec<Entry>>,
    came_up: Arc<Notify>,
}

impl fmt::Debug for BackendSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSet").finish_non_exhaustive()
    }
}

impl BackendSet {
    /// A set with no backend in it.
    pub fn new(settings: BackendSettings) -> Arc<Self> {
        let settings = Arc::new(settings);
        Arc::new(Self { settings, entries: RwLock::default(), came_up: Arc::default() })
    }

    pub(crate) fn settings(&self) -> &BackendSettings {
        &self.settings
    }

    /// Adds a backend and begins to probe it, within the present runtime.  A backend of the same name is
    /// replaced.
    pub fn add(&self, name: &str, address: Address, is_local: bool) {
        let backend = Arc::new(Backend::new(
            name.to_owned(),
            address,
            is_local,
            self.settings.thresholds,
            Arc::clone(&self.came_up),
        ));
        let prober = tokio::spawn(probe::run(Arc::clone(&backend), Arc::clone(&self.settings)));
        let entry = Entry { backend, prober: prober.abort_handle() };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.backend.name != name);
        entries.push(entry);
    }

    /// Lets a backend finish what it has and gives it nothing new.  False: there is none of this name.
    pub fn drain(&self, name: &str) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().find(|entry| entry.backend.name == name);
        if let Some(entry) = found {
            entry.backend.draining.store(true, Relaxed);
            entry.backend.close_idle(Duration::ZERO, Instant::now());
        }
        found.is_some()
    }

    /// Takes a backend out of the set.  What it has in flight goes on.
    pub fn remove(&self, name: &str) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let before = entries.len();
        entries.retain(|entry| entry.backend.name != name);
        entries.len() < before
    }

    /// The backend for the next request; `but` only if there is no other.
    pub fn pick(&self, but: Option<&Backend>) -> Option<Arc<Backend>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let is_other = |backend: &Backend| but.is_none_or(|but| !std::ptr::eq(but, backend));
        let candidates = entries.iter().map(|entry| &entry.backend);
        let best = candidates
            .filter(|backend| backend.is_available())
            .min_by_key(|backend| (!is_other(backend), backend.score()));
        best.cloned()
    }

    /// The backend for the next request, waiting for one to come up as long as patience lasts: counted
    /// from when the last backend went down, so that a planned restart costs nobody his request, and a
    /// longer outage nobody his time.
    pub async fn pick_patiently(&self, but: Option<&Backend>) -> Option<Arc<Backend>> {
        loop {
            if let Some(backend) = self.pick(but) {
                return Some(backend);
            }
            let came_up = self.came_up.notified();
            let mut came_up = std::pin::pin!(came_up);
            came_up.as_mut().enable();
            // One may have come up between the two lines above.
            if let Some(backend) = self.pick(but) {
                return Some(backend);
            }
            let end = self.patience_end()?;
            tokio::time::timeout_at(end.into(), came_up).await.ok()?;
        }
    }

    fn patience_end(&self) -> Option<Instant> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let since = |entry: &Entry| {
            *entry.backend.down_since.lock().unwrap_or_else(PoisonError::into_inner)
        };
        let last = entries
            .iter()
            .filter(|entry| !entry.backend.draining.load(Relaxed))
            .map(since)
            .max()?;
        let end = last + self.settings.patience;
        (Instant::now() < end).then_some(end)
    }

    /// All backends, the preferred first.
    pub fn view(&self) -> Vec<BackendView> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut backends: Vec<_> = entries.iter().map(|entry| &entry.backend).collect();
        backends.sort_by_key(|backend| (!backend.is_available(), backend.score()));
        backends.into_iter().map(|backend| backend.view()).collect()
    }
}

#[cfg(test)]
mod tests;
