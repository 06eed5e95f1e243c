//! Keeps the workers as they should be: the right modules, the right number, in spite of whatever happens.
//!
//! One task.  It is told that something happened ([`Event`]), looks at how things are, and does what is missing;
//! nothing is lost if it is told twice or late.
//!
//! A new set of modules is loaded by one worker first.  When that is ready the groups change over at once, the old
//! workers finish what they have, and the rest of the new ones are started.  A set that does not load changes
//! nothing: the old one goes on serving, and it is tried again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arapi::arsrv::{
    CheckRequest, CheckVerdict, EnvironmentInfo, FoundService, LoadFault, PackagesView,
    ResolveRequest,
};
use arapi::names::Kind;
use arapi::objects::{Requirements, Spec};
use arbase::{Chain, Stop};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::group::{Group, Room};
use super::launch::{LaunchError, Launcher, Order};
use super::requests::Hosting;
use super::table::{Entry, Limits, Table};
use super::{Inner, RECONCILER, locked};
use crate::modules::{DEFAULT, ModuleSet, View};
use crate::packages::environment::Conflict;
use crate::packages::{Asked, PackagesError};
use crate::worker::process::Spawner;
use crate::worker::{Cause, End, Loaded, State, Worker};
use crate::world::{Progress, World};

/// Where workers are listed that try a set of modules.
const TRIAL: &str = "trial";
/// How long a service that ended a worker is kept apart from the others.
const QUARANTINE: Duration = Duration::from_secs(600);
/// How long a checked worker waits for its deployment.
const WARM: Duration = Duration::from_secs(30);
/// When the modules of a set that went live are compiled.
const COMPILE_AFTER: Duration = Duration::from_secs(2);
/// Pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Deaths within this time count together.
const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// How often the key-value store's password is looked for.
const LOOK_FOR_KVDB: Duration = Duration::from_millis(500);
/// The same while none has been seen yet.
const LOOK_FOR_NEW_KVDB: Duration = Duration::from_millis(50);
/// Slots of a worker, less some for threads that change over.
const SLOTS: usize = 1000;
/// How long calls may still take when the core stops, and how long it has to be quiet.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(100);

/// What happened.
pub(crate) enum Event {
    /// A group may lack a worker.
    Wanting,
    /// A worker has answered as many calls as it should.
    WornOut(Arc<Worker>),
    /// A worker started for a group is ready, or is not.
    Started {
        /// The group.
        group: String,
        /// The set.
        set: Arc<ModuleSet>,
        /// What came of it.
        outcome: Result<(Arc<Worker>, Loaded), LaunchError>,
    },
    /// The first workers of a new set are ready, or are not.
    Tried {
        /// The set.
        set: Arc<ModuleSet>,
        /// What came of it.
        outcome: Result<Trial, LaunchError>,
    },
    /// How workers are started is known, or why they cannot be.
    Prepared(Result<Arc<Launcher>, String>),
    /// The key-value store is another one.
    Kvdb(Value),
    /// A worker of a group died.
    Died {
        /// The group.
        group: String,
    },
}

/// The first workers of a set: one for each of its views.
pub(crate) struct Trial {
    /// With their views' keys.
    workers: Vec<(String, Arc<Worker>)>,
    /// What they have found.
    services: Vec<FoundService>,
}

impl Trial {
    fn drain(self) {
        for (_, worker) in self.workers {
            worker.drain(Cause::Unneeded);
        }
    }
}

/// Checked workers that wait for their deployment.
#[derive(Default)]
pub(crate) struct Warm(Mutex<Option<Waiting>>);

struct Waiting {
    trial: Trial,
    set: Arc<ModuleSet>,
    /// Tells it from one that is kept later for the same set.
    since: Instant,
}

impl Warm {
    /// Keeps workers; those that were kept before go.
    fn keep(&self, waiting: Waiting) {
        if let Some(old) = locked(&self.0).replace(waiting) {
            old.trial.drain();
        }
    }

    /// The workers for this set, if they are still there.
    fn take(&self, hash: &str) -> Option<Trial> {
        let mut kept = locked(&self.0);
        let fits = |waiting: &mut Waiting| {
            let mut workers = waiting.trial.workers.iter();
            waiting.set.hash == hash && workers.all(|(_, worker)| worker.state() == State::Ready)
        };
        kept.take_if(fits).map(|waiting| waiting.trial)
    }

    /// What the kept workers have loaded, if they are for this set.
    fn loaded(&self, hash: &str) -> Option<Vec<FoundService>> {
        let kept = locked(&self.0);
        let waiting = kept.as_ref().filter(|waiting| waiting.set.hash == hash)?;
        Some(waiting.trial.services.clone())
    }

    /// Lets workers go, if they are still kept.
    fn forget(&self, since: Instant) {
        let expired = locked(&self.0).take_if(|waiting| waiting.since == since);
        if let Some(expired) = expired {
            expired.trial.drain();
        }
    }

    fn set(&self) -> Option<Arc<ModuleSet>> {
        locked(&self.0).as_ref().map(|waiting| Arc::clone(&waiting.set))
    }
}

/// The set that serves.
struct Live {
    set: Arc<ModuleSet>,
    services: Vec<FoundService>,
}

/// A set that is to serve.
enum Candidate {
    /// Its first worker is loading it.
    Trying(String),
    /// It did not load; it is tried again later.
    Failed { hash: String, again: Instant },
}

/// Failures of one group.
#[derive(Default)]
struct Trouble {
    deaths: VecDeque<Instant>,
    failed_starts: u32,
    not_before: Option<Instant>,
}

struct Keeper {
    inner: Arc<Inner>,
    progress: Progress,
    live: Option<Live>,
    candidate: Option<Candidate>,
    /// How often in a row the wanted set did not load.
    failed_tries: u32,
    /// What the store wants, and the revision that says so.
    wanted: Option<(u64, Arc<ModuleSet>)>,
    /// Workers that are being started, by group and set.
    starting: HashMap<(String, String), usize>,
    trouble: HashMap<String, Trouble>,
    /// Workers that go as soon as another one is there, by group.
    worn_out: Vec<(String, Arc<Worker>)>,
    kvdb: Value,
    /// The revision and the key-value store that the settings were made of.
    settings_from: Option<(u64, Value)>,
    /// The revision that was reported.
    served: Option<u64>,
}

/// Keeps the workers until told to stop.
pub(super) async fn keep(
    inner: Arc<Inner>,
    mut events: mpsc::UnboundedReceiver<Event>,
    progress: Progress,
    stop: Stop,
) {
    let mut worlds = inner.worlds.clone();
    let preparing = tokio::spawn(prepare(Arc::clone(&inner)));
    let watching = tokio::spawn(watch_kvdb(Arc::clone(&inner)));
    let mut keeper = Keeper {
        inner,
        progress,
        live: None,
        candidate: None,
        failed_tries: 0,
        wanted: None,
        starting: HashMap::new(),
        trouble: HashMap::new(),
        worn_out: Vec::new(),
        kvdb: Value::Null,
        settings_from: None,
        served: None,
    };
    keeper.reconcile();
    while !stop.is_stopped() {
        let wake = keeper.wake_at();
        tokio::select! {
            () = stop.wait() => break,
            event = events.recv() => match event {
                Some(event) => keeper.hear(event),
                None => break,
            },
            // Its sender lives as long as the core; without it the last world stays in force.
            changed = worlds.changed() => if changed.is_err() {
                stop.wait().await;
            },
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        keeper.reconcile();
    }
    preparing.abort();
    watching.abort();
    keeper.stop().await;
}

/// Finds out how workers are started, until it is known.
async fn prepare(inner: Arc<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let prepared = match Spawner::start() {
            Err(err) => Err(format!("cannot start the thread that starts workers: {err}")),
            Ok(spawner) => Launcher::prepare(Arc::clone(&inner.config), spawner)
                .await
                .map_err(|err| Chain(&err).to_string()),
        };
        let is_done = prepared.is_ok();
        inner.tell(Event::Prepared(prepared.map(Arc::new)));
        if is_done {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the key-value store's password file.
async fn watch_kvdb(inner: Arc<Inner>) {
    let socket = inner.config.runtime_dir.join("arkvd.sock");
    let password = inner.config.runtime_dir.join("arkvd.password");
    let mut last = Value::Null;
    let mut opened = None;
    loop {
        let now = match tokio::fs::read_to_string(&password).await {
            Ok(password) if !password.trim().is_empty() => json!({
                "unix_socket_path": socket.display().to_string(),
                "username": null,
                "password": password.trim(),
            }),
            // Not there yet, or for a moment while it is replaced: what is known stays.
            Ok(_) | Err(_) => last.clone(),
        };
        if now != last {
            last = now;
            inner.tell(Event::Kvdb(last.clone()));
        }
        if let Some(uid) = inner.launcher.borrow().as_ref().and_then(|launcher| launcher.uid()) {
            open_socket(&socket, uid, &mut opened);
        }
        // The store starts beside the core: services that use it at once should not have to wait for the usual look.
        tokio::time::sleep(if last.is_null() { LOOK_FOR_NEW_KVDB } else { LOOK_FOR_KVDB }).await;
    }
}

/// Lets the workers' group use the key-value store's socket.  Only where the core is root and the workers are not.
fn open_socket(socket: &Path, gid: u32, opened: &mut Option<(u64, i64)>) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = std::fs::metadata(socket) else {
        return;
    };
    let this = (meta.ino(), meta.ctime());
    if *opened == Some(this) {
        return;
    }
    if meta.gid() != gid
        && let Err(err) = chown(socket, None, Some(gid))
    {
        log::warn!(path:% = socket.display(), error:% = err; "workers cannot be let in to the key-value store");
    }
    *opened = std::fs::metadata(socket).ok().map(|meta| (meta.ino(), meta.ctime()));
}

impl Inner {
    /// Tells the keeper.
    pub(super) fn tell(&self, event: Event) {
        // After the stop nobody listens any more.
        self.events.send(event).ok();
    }

    /// Takes a worker out of every group.
    pub(super) fn leave_groups(&self, worker: &Arc<Worker>) {
        for group in locked(&self.groups).values() {
            group.remove(worker);
        }
    }

    /// A worker is gone.
    pub(super) fn bury(&self, worker: &Arc<Worker>, end: &End) {
        let group = {
            let mut workers = locked(&self.workers);
            let at = workers.iter().position(|(_, other)| Arc::ptr_eq(other, worker));
            at.map(|at| workers.swap_remove(at).0)
        };
        if end.is_no_loss {
            log::debug!(worker = worker.name.as_str(), how = end.how.as_str(), served = worker.served(); "worker ended");
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            log::warn!(worker = worker.name.as_str(), how = end.how.as_str(), service = end.blamed.join(" ").as_str(); "worker died");
        }
        for service in &end.blamed {
            self.put_under_quarantine(service);
        }
        match group {
            Some(group) if !end.is_no_loss => self.tell(Event::Died { group }),
            _ => self.tell(Event::Wanting),
        }
    }

    fn put_under_quarantine(&self, service: &Arc<str>) {
        let until = Instant::now() + QUARANTINE;
        locked(&self.quarantine).insert(Arc::clone(service), until);
        if let Some(entry) = self.table().services.get(service) {
            // At once, and not when the keeper gets to it: the next call of it may be waiting already.
            let group = self.group(&quarantine_group(service), &entry.group().base, 1);
            if !Arc::ptr_eq(&entry.group(), &group) {
                log::warn!(service = service.as_ref(), minutes = QUARANTINE.as_secs() / 60; "service runs in a worker of its own for a while: it ended one");
                entry.move_to(group);
            }
        }
    }

    /// The group of this name; made if it is new.
    fn group(&self, name: &str, base: &str, wanted: usize) -> Arc<Group> {
        let threads = self.config.worker_threads;
        let room = Room {
            // Coroutines take slots beside the threads.
            calls: self.config.worker_in_flight.min(SLOTS.saturating_sub(threads.min(768))),
            // A quarter is for services that others wait for.
            threads: (threads - threads / 4).max(1),
        };
        let mut groups = locked(&self.groups);
        let group = groups
            .entry(name.to_owned())
            .or_insert_with(|| Group::new(name.to_owned(), base.to_owned(), wanted, room));
        if group.base != base {
            // A quarantined service has moved: its workers are to load other modules.
            *group = Group::new(name.to_owned(), base.to_owned(), wanted, room);
        }
        Arc::clone(group)
    }

    /// One sentence for each service under quarantine.
    pub(super) fn quarantine_problems(&self) -> Vec<String> {
        let now = Instant::now();
        let mut problems: Vec<String> = locked(&self.quarantine)
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(service, until)| {
                let minutes = until.duration_since(now).as_secs() / 60 + 1;
                format!(
                    "service `{service}` ended its worker; it runs in a worker of its own for another {minutes} min"
                )
            })
            .collect();
        problems.sort();
        problems
    }

    fn problem(&self, key: &str, sentence: Option<String>) {
        let mut problems = locked(&self.problems);
        match sentence {
            Some(sentence) => problems.insert(key.to_owned(), sentence),
            None => problems.remove(key),
        };
    }

    /// Starts a worker for a group; it is in the list of workers from its first moment.
    async fn launch(
        self: &Arc<Self>,
        launcher: &Launcher,
        group: &str,
        set: &Arc<ModuleSet>,
        view: View,
    ) -> Result<(Arc<Worker>, Loaded), LaunchError> {
        let settings = Arc::clone(&locked(&self.settings));
        let order = Order {
            // What is tried becomes one of these.
            name: if group == TRIAL { DEFAULT } else { group },
            set: Arc::clone(set),
            view,
            indexes: self.outside.indexes(),
            settings: &settings,
            host: Arc::new(Hosting(Arc::clone(self))),
        };
        let register = |worker: &Arc<Worker>| {
            locked(&self.workers).push((group.to_owned(), Arc::clone(worker)));
        };
        let (worker, loaded) = launcher.launch(order, register).await?;
        let confined = worker.confined();
        log::info!(
            worker = worker.name.as_str(),
            pid = worker.pid,
            took_ms = arbase::time::now_ms().saturating_sub(worker.started_ms),
            sandbox = confined.by.join(" ").as_str();
            "worker is ready"
        );
        let missing = confined.missing.join("; ");
        if !missing.is_empty() {
            self.problem(
                "sandbox",
                Some(format!("workers are not confined as they should be: {missing}")),
            );
        }
        Ok((worker, loaded))
    }

    /// Loads a set, each of its views in a worker of its own.
    async fn try_views(
        self: &Arc<Self>,
        launcher: &Launcher,
        set: &Arc<ModuleSet>,
    ) -> Result<Trial, LaunchError> {
        let views = set.views().map_err(|conflict| LaunchError::Load(conflicting(&conflict)))?;
        let mut trial = Trial { workers: Vec::new(), services: Vec::new() };
        for view in views {
            let key = view.key.clone();
            match self.launch(launcher, TRIAL, set, view).await {
                Ok((worker, loaded)) => {
                    trial.workers.push((key, worker));
                    for found in loaded.services {
                        let is_known = |other: &FoundService| {
                            (&other.name, &other.module) == (&found.name, &found.module)
                        };
                        if !trial.services.iter().any(is_known) {
                            trial.services.push(found);
                        }
                    }
                }
                Err(err) => {
                    trial.drain();
                    return Err(err);
                }
            }
        }
        Ok(trial)
    }

    fn registered_as(&self, worker: &Arc<Worker>, group: &str) {
        for (of, other) in locked(&self.workers).iter_mut() {
            if Arc::ptr_eq(other, worker) {
                group.clone_into(of);
            }
        }
    }
}

fn conflicting(conflict: &Conflict) -> LoadFault {
    LoadFault {
        reason: conflict.to_string(),
        file: String::new(),
        line: 0,
        traceback: String::new(),
        exit_code: None,
    }
}

fn quarantine_group(service: &str) -> String {
    format!("quarantine-{service}")
}

/// Loads what the set would be after a deployment, in a fresh worker.
pub(super) async fn check(inner: &Arc<Inner>, request: &CheckRequest) -> CheckVerdict {
    let refused = |reason: String| {
        CheckVerdict::Refused(LoadFault {
            reason,
            file: String::new(),
            line: 0,
            traceback: String::new(),
            exit_code: None,
        })
    };
    let launcher = match ready_launcher(inner).await {
        Ok(launcher) => launcher,
        Err(problem) => return refused(problem),
    };
    let world = Arc::clone(&inner.worlds.borrow());
    let set = Arc::new(ModuleSet::of_world(&world).changed_by(request));
    if let Some(services) = inner.warm.loaded(&set.hash) {
        return CheckVerdict::Loads { services };
    }
    match inner.try_views(&launcher, &set).await {
        Ok(trial) => {
            let services = trial.services.clone();
            let since = Instant::now();
            inner.warm.keep(Waiting { trial, set, since });
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                tokio::time::sleep(WARM).await;
                inner.warm.forget(since);
            });
            CheckVerdict::Loads { services }
        }
        Err(LaunchError::Load(mut fault)) => {
            if fault.file.is_empty()
                && let [only] = request.modules.as_slice()
            {
                // It changed, and nothing else did.
                fault.file.clone_from(&only.file_name);
            }
            CheckVerdict::Refused(fault)
        }
        Err(err) => refused(Chain(&err).to_string()),
    }
}

/// How workers are started, once it is known; or what keeps them from it.
pub(super) async fn ready_launcher(inner: &Arc<Inner>) -> Result<Arc<Launcher>, String> {
    let mut launchers = inner.launcher.subscribe();
    let limit = Duration::from_millis(inner.config.load_timeout_ms);
    let launcher = match tokio::time::timeout(limit, launchers.wait_for(Option::is_some)).await {
        Ok(Ok(launcher)) => launcher.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    launcher.ok_or_else(|| {
        let problem = locked(&inner.problems).values().next().cloned();
        problem.unwrap_or_else(|| "no worker can be started yet".to_owned())
    })
}

/// Resolves requirements for modules that are to be deployed together.
pub(super) async fn resolve(
    inner: &Arc<Inner>,
    request: &ResolveRequest,
) -> Result<Requirements, PackagesError> {
    let launcher = ready_launcher(inner)
        .await
        .map_err(|problem| PackagesError::Run(std::io::Error::other(problem)))?;
    let set = ModuleSet::of_world(&Arc::clone(&inner.worlds.borrow()));
    let groups = match &request.group {
        Some(group) => BTreeSet::from([group.clone()]),
        None => set.groups(&request.modules),
    };
    let mut held = BTreeMap::new();
    for group in &groups {
        held.extend(set.held(group, &request.modules));
    }
    let group = groups.first().map_or(DEFAULT, String::as_str);
    let indexes = inner.outside.indexes();
    let asked = Asked { text: &request.requirements, group, held, indexes: &indexes };
    launcher.packages().resolve(asked).await
}

/// The packages of this box.
pub(super) fn packages(inner: &Arc<Inner>) -> Result<PackagesView, PackagesError> {
    let indexes = inner.outside.indexes();
    let mut view = PackagesView {
        indexes: indexes.iter().map(|index| index.spec.address.clone()).collect(),
        ..PackagesView::default()
    };
    let Some(launcher) = inner.launcher.borrow().clone() else { return Ok(view) };
    let read = |source| PackagesError::File { path: launcher.sets(), source };
    view.wheels = launcher.packages().wheels().map_err(read)?;
    let set = ModuleSet::of_world(&Arc::clone(&inner.worlds.borrow()));
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in groups_of(&inner.table()).into_values().map(|group| group.base.clone()) {
        if let Ok(View { environment: Some(environment), .. }) = set.view(&name) {
            groups.entry(environment.name).or_default().push(name);
        }
    }
    for (name, packages) in launcher.packages().built().map_err(read)? {
        let groups = groups.remove(&name).unwrap_or_default();
        view.environments.push(EnvironmentInfo { name, groups, packages });
    }
    Ok(view)
}

/// What workers are told beside modules.
fn settings_of(world: &World, kvdb: Value) -> Value {
    let mut user_config = serde_json::Map::new();
    for object in world.of_kind(Kind::UserConfig) {
        if let Spec::UserConfig(config) = &object.spec {
            user_config.insert(object.name.to_string(), json!(config.sections));
        }
    }
    let inactive: Vec<&str> = world
        .of_kind(Kind::Service)
        .filter(|object| matches!(&object.spec, Spec::Service(service) if !service.is_active))
        .map(|object| object.name.as_str())
        .collect();
    json!({"user_config": user_config, "inactive": inactive, "kvdb": kvdb})
}

impl Keeper {
    /// When to look again even if nothing happens.
    fn wake_at(&self) -> Instant {
        let mut at = Instant::now() + Duration::from_secs(5);
        if let Some(Candidate::Failed { again, .. }) = &self.candidate {
            at = at.min(*again);
        }
        for trouble in self.trouble.values() {
            at = trouble.not_before.map_or(at, |not_before| at.min(not_before));
        }
        at
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Wanting => {}
            Event::Prepared(Ok(launcher)) => {
                if let Some(warning) = launcher.warning() {
                    log::warn!(reason = warning; "workers run as the core's own user");
                }
                self.inner.problem("interpreter", None);
                self.inner.launcher.send_replace(Some(launcher));
            }
            Event::Prepared(Err(why)) => {
                log::error!(error = why.as_str(); "workers cannot be started");
                self.inner.problem("interpreter", Some(why));
            }
            Event::Kvdb(kvdb) => self.kvdb = kvdb,
            Event::WornOut(worker) => {
                let group = locked(&self.inner.workers)
                    .iter()
                    .find(|(_, other)| Arc::ptr_eq(other, &worker))
                    .map(|(group, _)| group.clone());
                if let Some(group) = group {
                    self.worn_out.push((group, worker));
                }
            }
            Event::Died { group } => self.note_death(group),
            Event::Started { group, set, outcome } => self.started(group, &set, outcome),
            Event::Tried { set, outcome } => self.tried(set, outcome),
        }
    }

    fn note_death(&mut self, group: String) {
        let now = Instant::now();
        let wanted = locked(&self.inner.groups).get(&group).map_or(1, |group| group.wanted);
        let trouble = self.trouble.entry(group).or_default();
        trouble.deaths.push_back(now);
        trouble.deaths.retain(|at| now.duration_since(*at) < DEATHS_WITHIN);
        // Each worker may die once and twice at full speed; a group that dies on and on is slowed down.
        let free = 2 * wanted + 1;
        if let Some(beyond) = trouble.deaths.len().checked_sub(free)
            && beyond > 0
        {
            let pause = pause_after(u32::try_from(beyond).unwrap_or(u32::MAX));
            trouble.not_before = Some(now + pause.min(Duration::from_secs(5)));
        }
    }

    fn started(
        &mut self,
        name: String,
        set: &ModuleSet,
        outcome: Result<(Arc<Worker>, Loaded), LaunchError>,
    ) {
        if let Some(starting) = self.starting.get_mut(&(name.clone(), set.hash.clone())) {
            *starting = starting.saturating_sub(1);
        }
        let key = format!("group {name}");
        match outcome {
            Ok((worker, _)) => {
                let is_current = self.live.as_ref().is_some_and(|live| live.set.hash == set.hash);
                let group = locked(&self.inner.groups).get(&name).cloned();
                let Some(group) = group.filter(|_| is_current) else {
                    worker.drain(Cause::Unneeded);
                    return;
                };
                self.inner.problem(&key, None);
                let trouble = self.trouble.entry(name.clone()).or_default();
                trouble.failed_starts = 0;
                self.welcome(&worker);
                group.add(worker);
                self.release_worn_out(&name, &group);
            }
            Err(err) => {
                let why = reason_of(&err);
                log::error!(group = name.as_str(), error = why.as_str(); "worker does not start");
                self.inner.problem(
                    &key,
                    Some(format!("a worker of group `{name}` does not start: {why}")),
                );
                let trouble = self.trouble.entry(name).or_default();
                trouble.failed_starts += 1;
                trouble.not_before = Some(Instant::now() + pause_after(trouble.failed_starts));
            }
        }
    }

    /// One worker more is there: one that is worn out may go.
    fn release_worn_out(&mut self, name: &str, group: &Arc<Group>) {
        if let Some(at) = self.worn_out.iter().position(|(of, _)| of == name) {
            let (_, worker) = self.worn_out.swap_remove(at);
            group.remove(&worker);
            worker.drain(Cause::Unneeded);
        }
    }

    /// Tells a new worker what changed since it was started.
    fn welcome(&self, worker: &Arc<Worker>) {
        let settings = Arc::clone(&locked(&self.inner.settings));
        worker.configure(settings.to_string().as_bytes());
    }

    fn tried(&mut self, set: Arc<ModuleSet>, outcome: Result<Trial, LaunchError>) {
        let is_wanted =
            matches!(&self.candidate, Some(Candidate::Trying(hash)) if *hash == set.hash);
        match outcome {
            Ok(trial) if !is_wanted => trial.drain(),
            Err(_) if !is_wanted => {}
            Ok(trial) => self.go_live(set, trial),
            Err(err) => {
                let why = reason_of(&err);
                log::error!(error = why.as_str(); "deployed modules do not load; the ones before go on serving");
                self.inner.problem(
                    "modules",
                    Some(format!(
                        "the deployed modules do not load here, and the ones before go on serving: {why}"
                    )),
                );
                let failures = self.failed_tries + 1;
                self.failed_tries = failures;
                let again = Instant::now() + pause_after(failures + 2);
                self.candidate = Some(Candidate::Failed { hash: set.hash.clone(), again });
            }
        }
    }

    /// Looks at how things are and does what is missing.
    fn reconcile(&mut self) {
        let world = Arc::clone(&self.inner.worlds.borrow());
        if world.revision == 0 {
            // Nothing is known yet; that is not the same as nothing being there.
            return;
        }
        self.apply_settings(&world);
        let set = match &self.wanted {
            Some((revision, set)) if *revision == world.revision => Arc::clone(set),
            _ => Arc::new(ModuleSet::of_world(&world)),
        };
        self.wanted = Some((world.revision, Arc::clone(&set)));
        let is_live = self.live.as_ref().is_some_and(|live| live.set.hash == set.hash);
        if is_live {
            if self.candidate.take().is_some() {
                self.inner.problem("modules", None);
            }
            self.failed_tries = 0;
        } else {
            self.try_set(&set);
        }
        self.refresh_table(&world);
        self.staff();
    }

    fn apply_settings(&mut self, world: &World) {
        if self.settings_from == Some((world.revision, self.kvdb.clone())) {
            return;
        }
        self.settings_from = Some((world.revision, self.kvdb.clone()));
        let settings = settings_of(world, self.kvdb.clone());
        if settings != **locked(&self.inner.settings) {
            let document = settings.to_string();
            *locked(&self.inner.settings) = Arc::new(settings);
            for (_, worker) in locked(&self.inner.workers).iter() {
                // One that is starting is told again when it is ready.
                if worker.state() == State::Ready {
                    worker.configure(document.as_bytes());
                }
            }
            self.inner.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn try_set(&mut self, set: &Arc<ModuleSet>) {
        match &self.candidate {
            Some(Candidate::Trying(hash)) if *hash == set.hash => return,
            Some(Candidate::Failed { hash, again })
                if *hash == set.hash && Instant::now() < *again =>
            {
                return;
            }
            Some(Candidate::Failed { hash, .. }) if *hash == set.hash => {}
            _ => self.failed_tries = 0,
        }
        if set.is_empty() {
            let nothing = Trial { workers: Vec::new(), services: Vec::new() };
            return self.go_live(Arc::clone(set), nothing);
        }
        if let Some(trial) = self.inner.warm.take(&set.hash) {
            return self.go_live(Arc::clone(set), trial);
        }
        let Some(launcher) = self.inner.launcher.borrow().clone() else {
            return;
        };
        self.candidate = Some(Candidate::Trying(set.hash.clone()));
        let (inner, set) = (Arc::clone(&self.inner), Arc::clone(set));
        tokio::spawn(async move {
            let outcome = inner.try_views(&launcher, &set).await;
            inner.tell(Event::Tried { set, outcome });
        });
    }

    /// Changes over to a set: from here on every new call is run by it.
    fn go_live(&mut self, set: Arc<ModuleSet>, trial: Trial) {
        let world = Arc::clone(&self.inner.worlds.borrow());
        let Trial { mut workers, services } = trial;
        // What is deployed now may be mended.
        locked(&self.inner.quarantine).clear();
        let table = self.table(&world, &set, &services);
        let used = groups_of(&table);
        let groups = locked(&self.inner.groups).clone();
        let mut old = Vec::new();
        // The default group comes first to what fits several.
        let default = groups.get_key_value(DEFAULT).into_iter();
        for (name, group) in default.chain(groups.iter().filter(|(name, _)| *name != DEFAULT)) {
            let mut new = Vec::new();
            let key =
                set.view(&group.base).ok().map(|view| view.key).filter(|_| used.contains_key(name));
            let fitting = workers.iter().position(|(of, _)| Some(of) == key.as_ref());
            if let Some(at) = fitting {
                let (_, worker) = workers.remove(at);
                self.welcome(&worker);
                self.inner.registered_as(&worker, name);
                new.push(worker);
            }
            old.extend(group.replace(new));
        }
        self.inner.publish(table);
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        // A set without services needs no worker.
        old.extend(workers.into_iter().map(|(_, worker)| worker));
        log::info!(modules = set.hash.as_str(), services = services.len(), draining = old.len(); "modules are live");
        for worker in old {
            worker.drain(Cause::Unneeded);
        }
        self.worn_out.clear();
        self.candidate = None;
        self.failed_tries = 0;
        self.inner.problem("modules", None);
        let before = self.live.replace(Live { set: Arc::clone(&set), services });
        let kept = [Some(set), before.map(|live| live.set)];
        self.tidy_sets(kept.into_iter().flatten().collect());
    }

    /// Removes what neither these sets nor a check needs.
    fn tidy_sets(&self, keep: Vec<Arc<ModuleSet>>) {
        let Some(launcher) = self.inner.launcher.borrow().clone() else {
            return;
        };
        let (inner, live) = (Arc::clone(&self.inner), self.live.as_ref());
        let set = live.filter(|live| !live.set.is_empty()).map(|live| Arc::clone(&live.set));
        tokio::spawn(async move {
            let removing = Arc::clone(&launcher);
            let removed = tokio::task::spawn_blocking(move || {
                // A check may have loaded another one meanwhile.
                let keep: Vec<_> = keep.into_iter().chain(inner.warm.set()).collect();
                removing.remove_other_sets(keep.iter().map(|set| set.hash.clone()).collect())?;
                let views = keep.iter().filter_map(|set| set.views().ok()).flatten();
                let environments = views.filter_map(|view| Some(view.environment?.name)).collect();
                let needs: Vec<_> = keep.iter().flat_map(|set| set.needs()).collect();
                removing.packages().remove_others(&environments, &needs)
            });
            if let Ok(Err(err)) = removed.await {
                log::warn!(error:% = err; "old modules cannot be removed");
            }
            if let Some(set) = set {
                // The workers of this set come first.
                tokio::time::sleep(COMPILE_AFTER).await;
                launcher.compile(&set).await;
            }
        });
    }

    /// Makes the table again if what it was made of has changed, and reports how far we are.
    fn refresh_table(&mut self, world: &World) {
        let Some(live) = &self.live else {
            return;
        };
        let now = Instant::now();
        let expired = {
            let mut quarantine = locked(&self.inner.quarantine);
            let before = quarantine.len();
            quarantine.retain(|_, until| *until > now);
            quarantine.len() != before
        };
        let table = self.inner.table();
        if table.revision != world.revision || !table.is_live || expired {
            let table = self.table(world, &live.set, &live.services);
            self.inner.publish(table);
        }
        let wanted = self.wanted.as_ref().is_some_and(|(_, set)| set.hash == live.set.hash);
        if wanted && self.served != Some(world.revision) {
            self.served = Some(world.revision);
            self.progress.report(RECONCILER, world.revision);
        }
    }

    fn table(&self, world: &World, set: &ModuleSet, services: &[FoundService]) -> Table {
        let old = self.inner.table();
        let quarantine = locked(&self.inner.quarantine).clone();
        let mut table = Table { revision: world.revision, is_live: true, ..Table::default() };
        let specs: HashMap<&str, &Spec> = world
            .of_kind(Kind::Service)
            .map(|object| (object.name.as_str(), &object.spec))
            .collect();
        for found in services {
            let spec = match specs.get(found.name.as_str()) {
                Some(Spec::Service(spec)) => Some(spec),
                // Deployed, and the store has not said how it is limited.
                _ => None,
            };
            let timeout = spec.and_then(|spec| spec.timeout_ms);
            let limits = Limits {
                is_active: spec.is_none_or(|spec| spec.is_active),
                timeout: Duration::from_millis(timeout.unwrap_or(self.inner.config.timeout_ms)),
                max_concurrency: spec.and_then(|spec| spec.max_concurrency),
            };
            let before = old.services.get(found.name.as_str());
            let permits = limits.max_concurrency.map(|most| {
                let same = before.filter(|entry| entry.max_concurrency == Some(most));
                same.and_then(|entry| entry.permits.clone())
                    .unwrap_or_else(|| Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1))))
            });
            let name: Arc<str> = found.name.as_str().into();
            let base = spec.map_or(DEFAULT, |spec| spec.group.as_str());
            let base = set.group_of(&found.module, base);
            let group = if quarantine.contains_key(&name) {
                self.inner.group(&quarantine_group(&name), base, 1)
            } else {
                self.inner.group(base, base, self.inner.config.workers)
            };
            let stats = Arc::clone(locked(&self.inner.stats).entry(Arc::clone(&name)).or_default());
            let entry = Entry::new(found.clone(), limits, permits, stats, group);
            table.services.insert(name, Arc::new(entry));
        }
        table
    }

    /// Starts the workers that are missing, and lets those go whose group nobody uses.
    fn staff(&mut self) {
        let Some(launcher) = self.inner.launcher.borrow().clone() else {
            return;
        };
        let Some(live) = &self.live else {
            return;
        };
        let set = Arc::clone(&live.set);
        let used = groups_of(&self.inner.table());
        let unused: Vec<Arc<Group>> = {
            let mut groups = locked(&self.inner.groups);
            let names: Vec<String> =
                groups.keys().filter(|name| !used.contains_key(*name)).cloned().collect();
            names.iter().filter_map(|name| groups.remove(name)).collect()
        };
        for group in unused {
            for worker in group.replace(Vec::new()) {
                worker.drain(Cause::Unneeded);
            }
            self.trouble.remove(&group.name);
            self.inner.problem(&format!("group {}", group.name), None);
        }
        let now = Instant::now();
        for (name, group) in used {
            if let Some(trouble) = self.trouble.get_mut(&name) {
                if trouble.not_before.is_some_and(|not_before| now < not_before) {
                    continue;
                }
                trouble.not_before = None;
            }
            let key = (name.clone(), set.hash.clone());
            let starting = self.starting.get(&key).copied().unwrap_or(0);
            let worn_out = self.worn_out.iter().filter(|(of, _)| *of == name).count();
            let living = locked(&self.inner.workers).iter().filter(|(of, _)| *of == name).count();
            let have = group.strength() + starting;
            // Workers that end slowly must not pile up.
            let room = (3 * group.wanted + 2).saturating_sub(living + starting);
            let missing = (group.wanted + worn_out).saturating_sub(have).min(room);
            let Ok(view) = set.view(&group.base) else { continue };
            for _ in 0..missing {
                *self.starting.entry(key.clone()).or_default() += 1;
                let (inner, launcher) = (Arc::clone(&self.inner), Arc::clone(&launcher));
                let (group, set, view) = (name.clone(), Arc::clone(&set), view.clone());
                tokio::spawn(async move {
                    let outcome = inner.launch(&launcher, &group, &set, view).await;
                    inner.tell(Event::Started { group, set, outcome });
                });
            }
        }
    }

    /// Lets what is under way end, then the workers.
    async fn stop(self) {
        let limit = Instant::now() + STOP_LIMIT;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET && Instant::now() < limit {
            tokio::time::sleep(QUIET / 10).await;
            if self.inner.active.load(Ordering::Acquire) > 0 {
                quiet_since = Instant::now();
            }
        }
        let workers = locked(&self.inner.workers).clone();
        for (_, worker) in &workers {
            worker.drain(Cause::Unneeded);
        }
        let all_gone = async {
            for (_, worker) in &workers {
                worker.gone().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), all_gone).await.is_err() {
            for (_, worker) in workers.iter().filter(|(_, worker)| worker.state() != State::Dead) {
                log::warn!(worker = worker.name.as_str(); "worker did not end in time and is killed");
                crate::worker::process::kill_group(worker.pid);
                worker.gone().await;
            }
        }
        // With the last clone of it goes the thread that the kernel ties the workers' lives to.
        self.inner.launcher.send_replace(None);
        self.inner.stopped.send_replace(true);
    }
}

fn groups_of(table: &Table) -> BTreeMap<String, Arc<Group>> {
    table
        .services
        .values()
        .map(|entry| {
            let group = entry.group();
            (group.name.clone(), group)
        })
        .collect()
}

/// 0.2 s, 0.4 s, … 30 s.
fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE)
}

fn reason_of(err: &LaunchError) -> String {
    match err {
        LaunchError::Load(fault) if fault.file.is_empty() => fault.reason.clone(),
        LaunchError::Load(fault) => format!("{} ({}:{})", fault.reason, fault.file, fault.line),
        err => Chain(err).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pauses: Vec<u128> = [1, 2, 3, 8, 9, 99].map(|n| pause_after(n).as_millis()).to_vec();
        assert_eq!(pauses, [200, 400, 800, 25_600, 30_000, 30_000]);
    }
}
