//! The pool of workers: gets calls run, whatever becomes of the workers.
//!
//! [`Pool`] is all that the doors see.  Behind it: `table` says which services there are, `group` which worker takes
//! a call, `keeper` follows what is configured and keeps the groups at their strength, `launch` starts workers,
//! `requests` answers what services ask for, `later` does what they do not wait for.  docs/decisions/0005-worker-isolation.md has the reasons.
//!
//! **Invariant:** a call ends at the latest a moment after its deadline, and user code is run a second time for it
//! only if it is idempotent and its worker died under it.

mod group;
mod keeper;
mod later;
mod launch;
mod profile;
mod requests;
mod stats;
mod table;
mod warming;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arapi::arsrv::{
    CheckRequest, CheckVerdict, FoundService, PackagesView, Profile, ProfileRequest,
    ResolveRequest, ResolveVerdict, ServiceStatus, WheelInfo, WorkerStatus,
};
use arapi::error::ErrorCode;
use arapi::objects::Priority;
use arbase::http::ApiError;
use arbase::metrics::Seen;
use arbase::{Chain, Stop};
use tokio::sync::{Semaphore, mpsc, watch};

use self::group::{Group, Load, Place};
use self::keeper::Event;
use self::later::Later;
use self::launch::Launcher;
use self::stats::Stats;
use self::table::{Entry, Table};
use crate::call::{Call, Calling, Failure, Invoker, Outcome, Outside};
use crate::config::Config;
use crate::packages::PackagesError;
use crate::telemetry::trace::{self, Open, What};
use crate::worker::{Ended, Sending, Unsent, Worker};
use crate::world::{Progress, World};

/// The name under which the workers report to [`Progress`].
pub const RECONCILER: &str = "workers";

/// What callers that find no place are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Services that may wait for one another in a row.
const DEEPEST: u16 = 64;

/// Gets calls run.  Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

pub(crate) struct Inner {
    config: Arc<Config>,
    outside: Arc<dyn Outside>,
    worlds: watch::Receiver<Arc<World>>,
    table: RwLock<Arc<Table>>,
    /// Told when the table was replaced.
    new_table: watch::Sender<()>,
    /// Counts changes of what calls are run with.
    generation: AtomicU64,
    /// Calls that wait for a place.
    waiting: AtomicUsize,
    /// Calls under way.
    active: AtomicUsize,
    /// Workers that died, or were ended for a fault.
    lost: AtomicU64,
    later: Later,
    stats: Mutex<HashMap<Arc<str>, Arc<Stats>>>,
    groups: Mutex<BTreeMap<String, Arc<Group>>>,
    /// Services under quarantine, until when.
    quarantine: Mutex<HashMap<Arc<str>, Instant>>,
    /// Every worker that lives, with its group.
    workers: Mutex<Vec<(String, Arc<Worker>)>>,
    problems: Mutex<BTreeMap<String, String>>,
    launcher: watch::Sender<Option<Arc<Launcher>>>,
    /// What workers are told beside modules.
    settings: Mutex<Arc<serde_json::Value>>,
    events: mpsc::UnboundedSender<Event>,
    warm: keeper::Warm,
    stopped: watch::Sender<bool>,
    /// Held while a profile is taken.
    profiling: tokio::sync::Mutex<()>,
}

/// How the workers and their services are.
#[derive(Debug, Clone, Default)]
pub struct PoolStatus {
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// What is wrong now, one sentence each.
    pub problems: Vec<String>,
}

/// What the pool says in figures.
#[derive(Debug, Clone, Default)]
pub struct PoolFigures {
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The services by name: calls that failed, and durations.
    pub services: Vec<(String, (u64, Seen))>,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Calls that may wait.
    pub queue: usize,
    /// Calls under way.
    pub active: usize,
    /// Workers that died, or were ended for a fault.
    pub lost: u64,
}

impl Pool {
    /// Starts the pool: it follows `worlds` and reports revisions to `progress` as [`RECONCILER`].
    /// Returns at once; calls wait until the first workers are ready.
    pub fn start(
        config: Arc<Config>,
        outside: Arc<dyn Outside>,
        worlds: watch::Receiver<Arc<World>>,
        progress: Progress,
        stop: Stop,
    ) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let threads = config.workers.saturating_mul(config.worker_threads);
        let inner = Arc::new(Inner {
            later: Later::of(threads.min(Semaphore::MAX_PERMITS)),
            config,
            outside,
            worlds,
            table: RwLock::default(),
            new_table: watch::Sender::new(()),
            generation: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            stats: Mutex::default(),
            groups: Mutex::default(),
            quarantine: Mutex::default(),
            workers: Mutex::default(),
            problems: Mutex::default(),
            launcher: watch::Sender::new(None),
            settings: Mutex::default(),
            events,
            warm: keeper::Warm::default(),
            stopped: watch::Sender::new(false),
            profiling: tokio::sync::Mutex::default(),
        });
        tokio::spawn(keeper::keep(Arc::clone(&inner), received, progress, stop));
        Self(inner)
    }

    /// Loads sources in a fresh worker, which is kept for the deployment that follows.
    pub async fn check(&self, request: CheckRequest) -> CheckVerdict {
        keeper::check(&self.0, &request).await
    }

    /// Looks for a while at what the workers are doing.
    pub async fn profile(&self, request: &ProfileRequest) -> Result<Profile, ApiError> {
        profile::take(&self.0, request).await
    }

    /// Gets every wheel that requirements need.
    pub async fn resolve(&self, request: &ResolveRequest) -> Result<ResolveVerdict, ApiError> {
        match keeper::resolve(&self.0, request).await {
            Ok(requirements) => Ok(ResolveVerdict::Resolved(requirements)),
            Err(PackagesError::Fault { fault }) => Ok(ResolveVerdict::Refused(fault)),
            Err(err) => Err(packages_refused(&err)),
        }
    }

    /// The packages of this box.
    pub async fn packages(&self) -> Result<PackagesView, ApiError> {
        let inner = Arc::clone(&self.0);
        let reading = tokio::task::spawn_blocking(move || keeper::packages(&inner));
        let read = reading.await.map_err(|err| ApiError::internal("list packages", &err))?;
        read.map_err(|err| packages_refused(&err))
    }

    /// Takes a wheel; `upload` writes it to where it is told.
    pub async fn take_wheel(&self, file: &str, upload: Upload<'_>) -> Result<WheelInfo, ApiError> {
        let launcher = self.launcher().await?;
        let refused = |err: PackagesError| packages_refused(&err);
        let incoming = launcher.packages().incoming(file).map_err(refused)?;
        upload(incoming.path()).await?;
        launcher.packages().take_wheel(file, incoming).await.map_err(refused)
    }

    /// Removes an uploaded wheel.
    pub async fn remove_wheel(&self, file: &str) -> Result<(), ApiError> {
        let launcher = self.launcher().await?;
        launcher.packages().remove_wheel(file).await.map_err(|err| packages_refused(&err))
    }

    async fn launcher(&self) -> Result<Arc<Launcher>, ApiError> {
        keeper::ready_launcher(&self.0).await.map_err(ApiError::unavailable)
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let workers = locked(&self.0.workers);
        let workers = workers.iter().map(|(group, worker)| WorkerStatus {
            name: worker.name.clone(),
            group: group.clone(),
            pid: worker.pid,
            state: worker.state().as_str().to_owned(),
            in_flight: u32::try_from(worker.in_flight()).unwrap_or(u32::MAX),
            served: worker.served(),
            memory_bytes: worker.memory_bytes(),
            started_ms: worker.started_ms,
            sandbox: worker.confined().by,
        });
        workers.collect()
    }

    /// What there is for a page of figures.
    pub fn figures(&self) -> PoolFigures {
        let table = self.0.table();
        let services = table.services.values();
        let mut services: Vec<_> =
            services.map(|entry| (entry.found.name.clone(), entry.stats.seen())).collect();
        services.sort_by(|one, other| one.0.cmp(&other.0));
        PoolFigures {
            workers: self.workers(),
            services,
            waiting: self.0.waiting.load(Ordering::Relaxed),
            queue: self.0.config.queue,
            active: self.0.active.load(Ordering::Relaxed),
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    /// How the workers and their services are.
    pub fn status(&self) -> PoolStatus {
        let workers = self.workers();
        let table = self.0.table();
        let mut services: Vec<ServiceStatus> = table
            .services
            .values()
            .map(|entry| {
                let figures = entry.stats.figures();
                ServiceStatus {
                    name: entry.found.name.clone(),
                    module: entry.found.module.clone(),
                    is_active: entry.is_active,
                    calls: figures.calls,
                    failures: figures.failures,
                    p50_ms: figures.p50_ms,
                    p99_ms: figures.p99_ms,
                }
            })
            .collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        let mut problems: Vec<String> = locked(&self.0.problems).values().cloned().collect();
        problems.extend(self.0.quarantine_problems());
        PoolStatus { workers, services, problems }
    }

    /// The services that are deployed and load, with their documentation and schemas.
    pub fn services(&self) -> Vec<FoundService> {
        let table = self.0.table();
        let mut found: Vec<FoundService> =
            table.services.values().map(|entry| entry.found.clone()).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }

    /// Returns once every worker has ended; to be awaited after `stop`.
    pub async fn stopped(&self) {
        // Cannot fail: self holds the sender.
        self.0.stopped.subscribe().wait_for(|stopped| *stopped).await.ok();
    }
}

impl Invoker for Pool {
    fn call(&self, call: Call) -> Calling<'_> {
        Box::pin(self.0.call(call, 0))
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes an upload to a file.
pub type Upload<'a> = Box<
    dyn FnOnce(
            std::path::PathBuf,
        ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>>
        + Send
        + 'a,
>;

fn packages_refused(err: &PackagesError) -> ApiError {
    let code = match err {
        PackagesError::Fault { .. } | PackagesError::Broken { .. } => ErrorCode::Refused,
        PackagesError::NotAWheel { .. } => ErrorCode::Invalid,
        PackagesError::Taken { .. } => ErrorCode::Conflict,
        PackagesError::NoWheel { .. } => ErrorCode::NotFound,
        PackagesError::Late => ErrorCode::Timeout,
        PackagesError::NoPip { .. } | PackagesError::Run(_) => ErrorCode::Unavailable,
        PackagesError::File { .. } => return ApiError::internal("keep packages", err),
    };
    ApiError::new(code, Chain(err).to_string())
}

/// Counts something for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn of(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.new_table.send_replace(());
    }

    /// Runs one call; `depth` services wait for it.
    async fn call(&self, call: Call, depth: u16) -> Outcome {
        let _active = Counted::of(&self.active);
        let started = Instant::now();
        let entry = match self.entry(&call).await {
            Ok(entry) => entry,
            Err(failure) => return Outcome::Failed(*failure),
        };
        let outcome = self.call_entry(&entry, &call, depth, started).await;
        let has_failed = match &outcome {
            Outcome::Done(reply) | Outcome::Streamed(reply, _) => reply.status >= 500,
            Outcome::Failed(failure) => failure.status >= 500,
        };
        entry.stats.note(started.elapsed(), has_failed);
        outcome
    }

    /// The service; waits while nothing is live yet.
    async fn entry(&self, call: &Call) -> Result<Arc<Entry>, Box<Failure>> {
        let find = |table: &Table| match table.services.get(&*call.service) {
            Some(entry) if entry.is_active => Ok(Arc::clone(entry)),
            Some(_) => {
                Err(failure(404, "inactive", format!("service `{}` is inactive", call.service)))
            }
            None => Err(failure(
                404,
                "not-found",
                format!("service `{}` is not deployed", call.service),
            )),
        };
        let table = self.table();
        if table.is_live {
            return find(&table);
        }
        let _waiting = self.wait_in_line(&call.service, call.priority)?;
        let mut new_table = self.new_table.subscribe();
        loop {
            let table = self.table();
            if table.is_live {
                return find(&table);
            }
            if tokio::time::timeout_at(call.deadline.into(), new_table.changed()).await.is_err() {
                let message = format!("service `{}` is not loaded yet", call.service);
                return Err(busy(message));
            }
        }
    }

    /// One more call that waits, if that many may.
    fn wait_in_line(&self, service: &str, priority: Priority) -> Result<Counted<'_>, Box<Failure>> {
        let counted = Counted::of(&self.waiting);
        let waiting = self.waiting.load(Ordering::Acquire);
        // Half of the places are for those whose callers wait for an answer.
        let most = match priority {
            Priority::Interactive => self.config.queue,
            Priority::Batch => self.config.queue.div_ceil(2),
        };
        if waiting > most {
            return Err(busy(format!(
                "service `{service}` cannot be called now: {} calls wait for a worker already, which is as many as may",
                waiting - 1
            )));
        }
        Ok(counted)
    }

    async fn call_entry(
        &self,
        entry: &Entry,
        call: &Call,
        depth: u16,
        started: Instant,
    ) -> Outcome {
        let deadline = call.deadline.min(started + entry.timeout);
        let permit = match &entry.permits {
            None => None,
            Some(permits) => match self.permit(entry, permits, call.priority, deadline).await {
                // Held by the caller, who may run it again, and by the worker: a call that was given up still runs there.
                Ok(permit) => Some(Arc::new(permit)),
                Err(failure) => return Outcome::Failed(*failure),
            },
        };
        let load = if depth > 0 { Load::Nested } else { entry.load() };
        let mut was_interrupted = false;
        loop {
            let waited = trace::current().map(|trace| trace.open(What::Queue, &entry.name));
            let place = match self.place(entry, load, call.priority, started, deadline).await {
                Ok(place) => place,
                Err(failure) => {
                    if let Some(step) = waited {
                        step.end(failure.status, true);
                    }
                    return Outcome::Failed(*failure);
                }
            };
            if let Some(step) = waited {
                step.done();
            }
            let worker = Arc::clone(place.worker());
            let step = trace::current().map(|trace| {
                let mut step = trace.open(What::Service, &entry.name);
                step.say("worker", worker.name.as_str());
                step.say("channel", call.channel);
                step
            });
            let sending = Sending {
                call,
                service_json: &entry.name_json,
                deadline,
                depth,
                trace: step.as_ref().map(Open::inside),
                seat: Box::new((place, permit.clone())),
            };
            let sent = match worker.send(sending) {
                Ok(sent) => sent,
                // It has begun to drain since it was chosen.
                Err(Unsent::Closed) => continue,
                Err(Unsent::Frame(err)) => {
                    return Outcome::Failed(*failure(413, "too-large", err.to_string()));
                }
            };
            let ended = sent.wait(deadline).await;
            if let Some(step) = step {
                let (status, failed) = verdict(ended.as_ref());
                step.end(status, failed);
            }
            match ended {
                Some(Ended::Answered(Outcome::Streamed(reply, mut pieces))) => {
                    pieces.hold(permit);
                    return Outcome::Streamed(reply, pieces);
                }
                Some(Ended::Answered(outcome)) => return outcome,
                Some(Ended::NeverBegun) => {}
                Some(Ended::Responsible(how)) => {
                    return Outcome::Failed(*failure(
                        503,
                        "worker-died",
                        format!("service `{}` ended its worker ({how})", entry.name),
                    ));
                }
                Some(Ended::Interrupted(how)) => {
                    if !call.is_idempotent {
                        return Outcome::Failed(*failure(
                            503,
                            "worker-died",
                            format!(
                                "service `{}` may or may not have been carried out: its worker ended ({how})",
                                entry.name
                            ),
                        ));
                    }
                    if was_interrupted {
                        return Outcome::Failed(*failure(
                            503,
                            "worker-died",
                            format!(
                                "service `{}` was begun twice, and each time its worker ended ({how})",
                                entry.name
                            ),
                        ));
                    }
                    was_interrupted = true;
                }
                None => {
                    return Outcome::Failed(*failure(
                        504,
                        "timeout",
                        format!(
                            "service `{}` did not answer within {} ms",
                            entry.name,
                            limit_ms(started, deadline)
                        ),
                    ));
                }
            }
        }
    }

    async fn permit(
        &self,
        entry: &Entry,
        permits: &Arc<Semaphore>,
        priority: Priority,
        deadline: Instant,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, Box<Failure>> {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = self.wait_in_line(&entry.name, priority)?;
        let permit = Arc::clone(permits).acquire_owned();
        match tokio::time::timeout_at(deadline.into(), permit).await {
            Ok(Ok(permit)) => Ok(permit),
            // Never closed: only time can have run out.
            Ok(Err(_)) | Err(_) => Err(busy(format!(
                "service `{}` is called {} times already, which is as many as may be at one time",
                entry.name,
                entry.max_concurrency.unwrap_or_default()
            ))),
        }
    }

    async fn place(
        &self,
        entry: &Entry,
        load: Load,
        priority: Priority,
        started: Instant,
        deadline: Instant,
    ) -> Result<Place, Box<Failure>> {
        let group = entry.group();
        let given = match group.place(load, priority) {
            Ok(place) => return Ok(place),
            Err(given) => given,
        };
        let _waiting = self.wait_in_line(&entry.name, priority)?;
        match tokio::time::timeout_at(deadline.into(), given).await {
            Ok(Ok(place)) => Ok(place),
            // The group is never dropped while its entry lives: only time can have run out.
            Ok(Err(_)) | Err(_) => Err(busy(format!(
                "service `{}` found no free worker within {} ms",
                entry.name,
                limit_ms(started, deadline)
            ))),
        }
    }
}

/// What a step says of how a call ended: its status, and whether it failed.
fn verdict(ended: Option<&Ended>) -> (u16, bool) {
    let status = match ended {
        Some(Ended::Answered(Outcome::Done(reply) | Outcome::Streamed(reply, _))) => reply.status,
        Some(Ended::Answered(Outcome::Failed(failure))) => failure.status,
        // Run elsewhere, or told to the caller as 503.
        Some(Ended::NeverBegun | Ended::Responsible(_) | Ended::Interrupted(_)) => 503,
        None => 504,
    };
    (status, status >= 500)
}

/// The time a caller waited, as it was asked for: the deadline was counted a moment before the call.
fn limit_ms(started: Instant, deadline: Instant) -> u128 {
    deadline.saturating_duration_since(started).as_micros().div_ceil(1000)
}

fn failure(status: u16, kind: &str, message: String) -> Box<Failure> {
    let details = if status == 404 {
        serde_json::Value::Null
    } else {
        serde_json::Value::String(message.clone())
    };
    Box::new(Failure {
        status,
        headers: Vec::new(),
        details,
        kind: kind.to_owned(),
        message,
        retry_after: None,
    })
}

fn busy(message: String) -> Box<Failure> {
    let mut failure = failure(503, "busy", message);
    failure.retry_after = Some(RETRY_AFTER);
    failure
}
