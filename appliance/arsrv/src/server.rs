//! The core from start to stop, in the order in which it happens.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arapi::arsrv::{CheckRequest, CheckVerdict, FoundService};
use arbase::http::ListenError;
use arbase::{Chain, Stop, Stopper};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::Recorder;
use crate::call::{Invoker, Outside};
use crate::channel::table::Defaults;
use crate::channel::{self, Table};
use crate::config::Config;
use crate::control::{self, Control};
use crate::crypto::Crypto;
use crate::http::body::Budget;
use crate::http::cache::Cache;
use crate::http::spool::Spools;
use crate::http::websocket::{Hub, Sockets};
use crate::http::{Door, listen};
use crate::outgoing::{self, Connections, Outgoing};
use crate::pool::{self, Pool, PoolFigures, PoolStatus};
use crate::security::attempts::Attempts;
use crate::security::tokens::Tokens;
use crate::security::{Secrets, Shared};
use crate::telemetry::otlp;
use crate::telemetry::outside::{OutsideFigures, Watched};
use crate::world::{self, Progress, World};

/// The socket of the data path, which the balancer speaks to.
pub const HTTP_SOCKET: &str = "arsrv-http.sock";
/// The socket of the control interface.
pub const CONTROL_SOCKET: &str = "arsrv.sock";

/// How long to wait for the first world before serving with what there is.
const FIRST_WORLD: Duration = Duration::from_secs(5);
/// How long requests under way may take to end after the stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How long workers may take to end after that.
const WORKERS_END: Duration = Duration::from_secs(15);
/// The size of the kernel's queue of file descriptors that is enough for thousands of connections both ways.
const DESCRIPTORS: u64 = 65_536;

/// What the doors and the control interface need of the workers.
pub trait Workers: Invoker {
    /// Loads sources in a fresh worker.
    fn check(&self, request: CheckRequest) -> Waiting<'_, CheckVerdict>;

    /// How the workers and their services are.
    fn status(&self) -> PoolStatus;

    /// The pool, where there is one: it has the packages.
    fn pool(&self) -> Option<&Pool> {
        None
    }

    /// What there is for a page of figures.
    fn figures(&self) -> PoolFigures {
        PoolFigures::default()
    }

    /// The services that load, with their documentation and schemas.
    fn services(&self) -> Vec<FoundService> {
        Vec::new()
    }

    /// Returns once every worker has ended.
    fn stopped(&self) -> Waiting<'_, ()>;
}

/// Something under way.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Workers for Pool {
    fn check(&self, request: CheckRequest) -> Waiting<'_, CheckVerdict> {
        Box::pin(Self::check(self, request))
    }

    fn status(&self) -> PoolStatus {
        Self::status(self)
    }

    fn pool(&self) -> Option<&Self> {
        Some(self)
    }

    fn figures(&self) -> PoolFigures {
        Self::figures(self)
    }

    fn services(&self) -> Vec<FoundService> {
        Self::services(self)
    }

    fn stopped(&self) -> Waiting<'_, ()> {
        Box::pin(Self::stopped(self))
    }
}

/// What workers are started with.
pub struct Surroundings {
    /// The config.
    pub config: Arc<Config>,
    /// Answers their requests.
    pub outside: Arc<dyn Outside>,
    /// What is configured.
    pub worlds: watch::Receiver<Arc<World>>,
    /// Where they report, as [`pool::RECONCILER`].
    pub progress: Progress,
    /// When they are to end.
    pub stop: Stop,
}

/// Why the core does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be served.
    #[error("cannot serve requests")]
    Listen(#[source] ListenError),
    /// Which tokens were logged out cannot be read or kept.
    #[error("cannot keep `{}`", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The running core.  Dropping it stops it without waiting.
pub struct Server {
    workers: Arc<dyn Workers>,
    doors: Part,
    inner: Part,
    recording: Part,
    workers_stopper: Stopper,
    stopping: Arc<AtomicBool>,
    hub: Arc<Hub>,
}

/// Tasks that are stopped together.
struct Part {
    stopper: Stopper,
    tasks: Vec<JoinHandle<()>>,
}

impl Part {
    async fn end(self) {
        self.stopper.stop();
        for task in self.tasks {
            if let Err(err) = task.await {
                log::error!(error:% = Chain(&err); "task ended badly");
            }
        }
    }
}

impl Server {
    /// Starts the core.  Returns when it would serve.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, |around| {
            let Surroundings { config, outside, worlds, progress, stop } = around;
            Arc::new(Pool::start(config, outside, worlds, progress, stop))
        })
        .await
    }

    /// The same with other workers.
    pub async fn start_with(
        config: Config,
        workers: impl FnOnce(Surroundings) -> Arc<dyn Workers>,
    ) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let config = Arc::new(config);
        let (inner_stopper, inner_stop) = Stop::new();
        let (workers_stopper, workers_stop) = Stop::new();
        let (recorder_stopper, recorder_stop) = Stop::new();
        let (doors_stopper, doors_stop) = Stop::new();
        let stopping = Arc::new(AtomicBool::new(false));

        // The token before the sockets: a caller that finds a socket finds what it has to show there.
        let dir = &config.runtime_dir;
        std::fs::create_dir_all(dir)
            .map_err(|source| ListenError::Bind { path: dir.clone(), source })
            .and_then(|()| arbase::http::peer_token(dir))
            .map_err(StartError::Listen)?;

        // Sockets first: whoever comes early waits in their queues instead of being refused.
        let open = |name: &str| {
            arbase::http::listen_unix(&dir.join(name), 0o660).map_err(StartError::Listen)
        };
        let http_socket = open(HTTP_SOCKET)?;
        let control_socket = open(CONTROL_SOCKET)?;

        // Which tokens were logged out.
        let ended = config.state_dir.join("ended-tokens");
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let tokens = std::fs::create_dir_all(&config.state_dir)
            .and_then(|()| Tokens::open(&ended, i64::try_from(seconds).unwrap_or(i64::MAX)))
            .map_err(|source| StartError::Tokens { path: ended, source })?;
        let shared = Arc::new(Shared { tokens: Arc::new(tokens), ..Shared::default() });

        // What is configured.
        let store = arapi::arclst::Client::in_runtime_dir(&config.runtime_dir);
        let progress = Progress::of(&[
            channel::reconcile::RECONCILER,
            outgoing::reconcile::RECONCILER,
            pool::RECONCILER,
        ]);
        let (publish_world, worlds) = watch::channel(Arc::<World>::default());
        let mut inner = Part { stopper: inner_stopper, tasks: Vec::new() };
        inner.tasks.push(tokio::spawn(world::follow(
            store.clone(),
            publish_world,
            inner_stop.clone(),
        )));

        // Connections out, before anybody could call out.
        let (publish_connections, connections) = watch::channel(Arc::<Connections>::default());
        let outgoing = Outgoing::of(connections);
        inner.tasks.push(tokio::spawn(outgoing::reconcile::run(
            worlds.clone(),
            Secrets::of(store.clone()),
            publish_connections,
            config.files_dir(),
            progress.clone(),
            inner_stop.clone(),
        )));

        // What a collector gets.
        let otlp = Arc::new(otlp::Figures::default());
        if let Some(to) = &config.otlp {
            let sending =
                otlp::run(to.clone(), outgoing.clone(), Arc::clone(&otlp), inner_stop.clone());
            inner.tasks.push(tokio::spawn(sending));
        }

        // The workers.
        let (publish_table, tables) = watch::channel(Arc::<Table>::default());
        let hub = Hub::of(config.max_web_sockets);
        let figures = OutsideFigures::default();
        let workers = workers(Surroundings {
            config: Arc::clone(&config),
            outside: Arc::new(Watched::before(
                Arc::new(Sockets::before(
                    Arc::new(Crypto::before(Arc::new(outgoing.clone()), store.clone())),
                    Arc::clone(&hub),
                    tables.clone(),
                )),
                figures.clone(),
            )),
            worlds: worlds.clone(),
            progress: progress.clone(),
            stop: workers_stop,
        });

        // What channels keep of requests and answers.  It ends last: everybody hands over to it.
        let (recorder, recording) = Recorder::start(
            config.state_dir.join("messages.sqlite"),
            config.messages_mib.saturating_mul(1024 * 1024),
            recorder_stop,
        );
        let recorder = Arc::new(recorder);
        let recording = Part { stopper: recorder_stopper, tasks: vec![tokio::spawn(recording)] };

        // Channels, and the door they make.
        let mib = usize::try_from(config.response_cache_mib).unwrap_or(usize::MAX);
        let cache = Arc::new(Cache::of(mib.saturating_mul(1024 * 1024)));
        let defaults = Defaults {
            timeout: Duration::from_millis(config.timeout_ms),
            max_body_bytes: config.max_body_bytes,
        };
        inner.tasks.push(tokio::spawn(channel::reconcile::run(
            worlds.clone(),
            Secrets::of(store),
            publish_table,
            defaults,
            Arc::clone(&shared),
            Arc::clone(&cache),
            Arc::clone(&recorder),
            progress.clone(),
            inner_stop.clone(),
        )));
        let heard = Arc::new(AtomicBool::new(false));
        let readiness = {
            let (workers, heard, stopping) =
                (Arc::clone(&workers), Arc::clone(&heard), Arc::clone(&stopping));
            move || readiness(&*workers, &heard, &stopping)
        };
        let memory = usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX);
        let door = Arc::new(Door {
            tables: tables.clone(),
            invoker: Arc::clone(&workers) as Arc<dyn Invoker>,
            outgoing: outgoing.clone(),
            figures: figures.clone(),
            readiness: Arc::new(readiness),
            openapi: config.openapi,
            services: {
                let workers = Arc::clone(&workers);
                Arc::new(move || workers.services())
            },
            admin: arapi::arwadm::Client::in_runtime_dir(&config.runtime_dir, "arsrv"),
            // Two bodies of the largest size, or many smaller ones.
            budget: Budget::of(memory.saturating_mul(2)),
            spools: Spools::in_folder(&config.state_dir.join("bodies")),
            max_body_bytes: config.max_body_bytes,
            ide_attempts: Attempts::default(),
            log_in_attempts: Attempts::default(),
            shared: Arc::clone(&shared),
            cache,
            recorder: Arc::clone(&recorder),
            hub: Arc::clone(&hub),
            client_certificates: config.client_certificates,
            return_tracebacks: config.return_tracebacks,
        });

        // The control interface: it answers while the rest is still coming up.
        let control = Control {
            workers: Arc::clone(&workers),
            outgoing,
            figures,
            otlp,
            tables,
            worlds,
            recorder,
            progress: progress.clone(),
            timeout: defaults.timeout,
        };
        inner.tasks.push(tokio::spawn(arbase::http::serve_unix(
            control::router(control),
            control_socket,
            inner_stop,
        )));

        // Serve once there is something to serve, or what there is.
        let first = async {
            progress.wait_for_one(channel::reconcile::RECONCILER).await;
            progress.wait_for_one(outgoing::reconcile::RECONCILER).await;
        };
        if tokio::time::timeout(FIRST_WORLD, first).await.is_err() {
            log::warn!(
                waited_ms = FIRST_WORLD.as_millis();
                "object store not heard yet; serving without configuration"
            );
        }
        heard.store(true, Ordering::Relaxed);
        let serving = tokio::spawn(listen::serve(http_socket, door, DRAIN, doors_stop));
        let doors = Part { stopper: doors_stopper, tasks: vec![serving] };
        Ok(Self { workers, doors, inner, recording, workers_stopper, stopping, hub })
    }

    /// Serves until told to stop, then ends in order: no new requests, requests under way, workers, the rest.
    pub async fn run_until(self, stop: Stop) {
        stop.wait().await;
        self.stopping.store(true, Ordering::Relaxed);
        // Clients of WebSockets are told, and come again where somebody answers.
        tokio::join!(self.doors.end(), self.hub.close(DRAIN));
        self.workers_stopper.stop();
        if tokio::time::timeout(WORKERS_END, self.workers.stopped()).await.is_err() {
            log::error!(waited_ms = WORKERS_END.as_millis(); "workers have not ended");
        }
        self.inner.end().await;
        self.recording.end().await;
    }
}

fn readiness(
    workers: &dyn Workers,
    heard: &AtomicBool,
    stopping: &AtomicBool,
) -> Result<(), String> {
    if stopping.load(Ordering::Relaxed) {
        return Err("the core is stopping".to_owned());
    }
    if !heard.load(Ordering::Relaxed) {
        return Err("the configuration has not been heard yet".to_owned());
    }
    let status = workers.status();
    if status.services.is_empty() || status.workers.iter().any(|worker| worker.state == "ready") {
        return Ok(());
    }
    Err(status.problems.into_iter().next().unwrap_or("no worker is ready yet".to_owned()))
}

/// Thousands of clients and of calls out need more than the usual 1024 descriptors.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(DESCRIPTORS);
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(err) = raised {
        log::warn!(error:% = err; "cannot raise the limit of open files");
    }
}
