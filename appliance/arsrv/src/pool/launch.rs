//! Starting a worker: its files, its confinement, its first frame.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arapi::arsrv::LoadFault;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{locked, warming};
use crate::config::Config;
use crate::interpreter::{self, Interpreter};
use crate::modules::{ModuleSet, View, remove_others};
use crate::outgoing::index::Index;
use crate::packages::{Packages, PackagesError};
use crate::sandbox::{Files, Limits, Spec};
use crate::worker::process::Spawner;
use crate::worker::slots::SlotsFile;
use crate::worker::{Birth, Host, Loaded, Rules, Scratch, Worker};

/// The protocol's version.
const PROTOCOL: u32 = 1;
/// Open files of one worker.
const OPEN_FILES: u64 = 8192;
/// Memory for threads and the allocator beside what services use, per worker.
const OVERHEAD: u64 = 256 * 1024 * 1024;
/// Stack and thread data of one thread of the SDK.
const THREAD: u64 = 1024 * 1024;

/// Starts workers.
pub(crate) struct Launcher {
    config: Arc<Config>,
    interpreter: Interpreter,
    spawner: Spawner,
    last_number: AtomicU64,
    /// Sets that are being written or loaded.
    loading: Mutex<Vec<String>>,
    /// What services need beside the SDK.
    packages: Packages,
}

/// Keeps a set from being removed while a worker loads it.
struct Loading<'a>(&'a Mutex<Vec<String>>, String);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut loading = locked(self.0);
        if let Some(at) = loading.iter().position(|hash| *hash == self.1) {
            loading.swap_remove(at);
        }
    }
}

/// What a worker is started for.
pub(crate) struct Order<'a> {
    /// What its name begins with.
    pub(crate) name: &'a str,
    /// What it loads from.
    pub(crate) set: Arc<ModuleSet>,
    /// What of that it loads.
    pub(crate) view: View,
    /// Where packages come from that are not on this box any more.
    pub(crate) indexes: Vec<Arc<Index>>,
    /// `user_config`, `inactive`, `kvdb`.
    pub(crate) settings: &'a Value,
    /// The pool.
    pub(crate) host: Arc<dyn Host>,
}

/// A worker that could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A file or folder.
    #[error("cannot prepare `{path}`")]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process.
    #[error("cannot start a worker's process")]
    Spawn(#[source] std::io::Error),
    /// What it was to load.
    #[error("the modules do not load")]
    Load(LoadFault),
}

impl Launcher {
    /// Finds out how workers are started.
    pub(crate) async fn prepare(
        config: Arc<Config>,
        spawner: Spawner,
    ) -> Result<Self, interpreter::InterpreterError> {
        let interpreter = interpreter::prepare(&config, &spawner).await?;
        let packages = Packages::open(Arc::clone(&config), interpreter.clone(), spawner.clone());
        let packages = packages.map_err(|err| match err {
            PackagesError::File { path, source } => {
                interpreter::InterpreterError::Folder { path, source }
            }
            // Nothing else is done there.
            other => interpreter::InterpreterError::Folder {
                path: interpreter.home.clone(),
                source: std::io::Error::other(other),
            },
        })?;
        let launcher = Self {
            config,
            interpreter,
            spawner,
            last_number: AtomicU64::new(0),
            loading: Mutex::default(),
            packages,
        };
        launcher.remove_leftovers();
        Ok(launcher)
    }

    /// Why the workers have no user of their own though the core is root.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.interpreter.warning.as_deref()
    }

    /// The packages of this box.
    pub(crate) fn packages(&self) -> &Packages {
        &self.packages
    }

    /// The workers' own user, if they have one.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.interpreter.uid
    }

    /// The folder of all sets.
    pub(crate) fn sets(&self) -> PathBuf {
        self.interpreter.home.join("modules")
    }

    /// Removes every set but these and those that are being loaded.
    pub(crate) fn remove_other_sets(&self, keep: Vec<String>) -> std::io::Result<()> {
        // Held to the end: a launch announces its set before it looks whether the folder is there.
        let loading = locked(&self.loading);
        let keep: Vec<String> = keep.into_iter().chain(loading.iter().cloned()).collect();
        remove_others(&self.sets(), &keep)
    }

    /// Compiles a set, for the workers that load it later and for the sets that share modules with it.
    pub(crate) async fn compile(&self, set: &Arc<ModuleSet>) {
        let (sets, uid, set) = (self.sets(), self.interpreter.uid, Arc::clone(set));
        interpreter::compile(&self.interpreter.python, &set.folder(&sets)).await;
        let keeping = tokio::task::spawn_blocking(move || set.keep_compiled(&sets, uid));
        let kept = keeping.await.unwrap_or_else(|err| Err(std::io::Error::other(err)));
        if let Err(err) = kept {
            log::debug!(error:% = err; "compiled modules cannot be kept");
        }
    }

    fn scratch(&self) -> PathBuf {
        self.interpreter.home.join("scratch")
    }

    /// What a core that was killed left behind.
    fn remove_leftovers(&self) {
        for folder in [self.scratch(), self.interpreter.slots.clone()] {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let removed = if path.is_dir() {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                };
                if let Err(err) = removed {
                    log::warn!(path:% = path.display(), error:% = err; "a dead worker's files cannot be removed");
                }
            }
        }
    }

    /// Starts a worker and waits until it has loaded its modules.
    pub(crate) async fn launch(
        &self,
        order: Order<'_>,
        started: impl FnOnce(&Arc<Worker>),
    ) -> Result<(Arc<Worker>, Loaded), LaunchError> {
        let Order { name, set, view, indexes, settings, host } = order;
        locked(&self.loading).push(set.hash.clone());
        let _loading = Loading(&self.loading, set.hash.clone());
        let _using = view.environment.as_ref().map(|it| self.packages.using(it));
        let environment = match &view.environment {
            Some(environment) => {
                let built = self.packages.ensure(environment, &indexes).await;
                Some(built.map_err(|err| LaunchError::Load(err.into_fault()))?)
            }
            None => None,
        };
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{name}-{number}");
        let (sets, uid) = (self.sets(), self.interpreter.uid);
        let folder = set.folder(&sets);
        let written = Arc::clone(&set);
        let writing = tokio::task::spawn_blocking(move || written.write(&sets, uid));
        let prepare = |path: &PathBuf| {
            let path = path.clone();
            move |source| LaunchError::Prepare { path, source }
        };
        let written = writing.await.unwrap_or_else(|err| Err(std::io::Error::other(err)));
        written.map_err(prepare(&folder))?;
        let scratch = self.scratch().join(&name);
        make_scratch(&scratch, uid).map_err(prepare(&scratch))?;
        let scratch = Scratch(scratch);
        let slots = self.interpreter.slots.join(format!("{name}.slots"));
        let slots = SlotsFile::create(&slots, uid).map_err(prepare(&slots))?;

        let spec = self.spec(&folder, environment.as_deref(), &scratch, &slots);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(LaunchError::Spawn)?;
        ours.set_nonblocking(true).map_err(LaunchError::Spawn)?;
        let socket = UnixStream::from_std(ours).map_err(LaunchError::Spawn)?;
        let mut command = interpreter::exec(&self.config, &spec).map_err(LaunchError::Spawn)?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawner.spawn(command).await.map_err(LaunchError::Spawn)?;
        let (Some(pid), Some(stdout), Some(stderr)) =
            (child.id(), child.stdout.take(), child.stderr.take())
        else {
            let gone = std::io::Error::other("the process has no id or no output");
            return Err(LaunchError::Spawn(gone));
        };
        let hello = self.hello(&name, &folder, &view, &slots, settings);
        let rules = Rules {
            load_limit: Duration::from_millis(self.config.load_timeout_ms),
            memory_bytes: self.config.worker_memory_mib.saturating_mul(1024 * 1024),
            most_calls: self.config.worker_max_requests,
            timeout: Duration::from_millis(self.config.timeout_ms),
        };
        let birth = Birth { name, child, pid, socket, slots, scratch, hello, rules, host };
        let (worker, loaded) = Worker::start(birth, stdout, stderr);
        started(&worker);
        match loaded.await {
            Ok(Ok(loaded)) => {
                let limit = Duration::from_millis(self.config.load_timeout_ms);
                warming::warm_up(&worker, &loaded, limit).await.map_err(LaunchError::Load)?;
                Ok((worker, loaded))
            }
            Ok(Err(fault)) => Err(LaunchError::Load(fault)),
            // Its tasks are gone: the runtime ends.
            Err(_) => Err(LaunchError::Spawn(std::io::Error::other("the core stops"))),
        }
    }

    fn spec(
        &self,
        modules: &std::path::Path,
        environment: Option<&std::path::Path>,
        scratch: &Scratch,
        slots: &SlotsFile,
    ) -> Spec {
        let memory = self.config.worker_memory_mib.saturating_mul(1024 * 1024);
        let threads = u64::try_from(self.config.worker_threads).unwrap_or(u64::MAX);
        let workers = u64::try_from(self.config.workers).unwrap_or(u64::MAX);
        let Interpreter { python, uid, sdk, folders, .. } = &self.interpreter;
        let mut read = folders.clone();
        read.extend([sdk.clone(), modules.to_owned()]);
        read.extend(environment.map(ToOwned::to_owned));
        let mut write = self.config.worker_writable.clone();
        write.extend([scratch.0.clone(), slots.path().to_owned()]);
        let limits = Limits {
            files: OPEN_FILES,
            // The core replaces a worker above its limit; this is where a single step ends that outruns the core.
            data_bytes: memory
                .saturating_mul(2)
                .saturating_add(threads.saturating_mul(THREAD))
                .saturating_add(OVERHEAD),
            processes: uid
                .map(|_| workers.saturating_mul(4).saturating_add(8).saturating_mul(threads + 64)),
        };
        let args = ["-X", "utf8", "-P", "-s", "-m", "arint.worker"].map(str::to_owned).to_vec();
        Spec {
            program: python.clone(),
            args,
            env: {
                let mut env = interpreter::environment(&scratch.0, Some(sdk));
                if let Some(environment) = environment {
                    // Behind the SDK, whose names are taken, and before what the system has.
                    let path = format!("{}:{}", sdk.display(), environment.display());
                    env.insert("PYTHONPATH".to_owned(), path);
                }
                env
            },
            dir: scratch.0.clone(),
            parent: std::process::id().cast_signed(),
            uid: *uid,
            limits,
            files: Some(Files { read, write }),
            network: self.config.worker_network,
        }
    }

    fn hello(
        &self,
        name: &str,
        modules_dir: &std::path::Path,
        view: &View,
        slots: &SlotsFile,
        settings: &Value,
    ) -> Vec<u8> {
        let setting = |key: &str| settings.get(key).cloned().unwrap_or_default();
        let hello = json!({
            "protocol": PROTOCOL,
            "worker": name,
            "threads": self.config.worker_threads,
            "slots": slots.path().display().to_string(),
            "modules_dir": modules_dir.display().to_string(),
            "modules": view.list(),
            "user_config": setting("user_config"),
            "inactive": setting("inactive"),
            "kvdb": setting("kvdb"),
            "return_tracebacks": self.config.return_tracebacks,
            "enforce_service_invokes": self.config.enforce_service_invokes,
            "debug": log::max_level() >= log::LevelFilter::Debug,
        });
        hello.to_string().into_bytes()
    }
}

fn make_scratch(path: &std::path::Path, uid: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    if let Some(uid) = uid {
        chown(path, Some(uid), Some(uid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
