//! The core's config file, `arsrv.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::openapi::Readers;
use crate::telemetry::otlp::OtlpConfig;

/// The core's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the sockets; default `/run/arint`.
    pub runtime_dir: PathBuf,
    /// The core's own folder; default `/var/lib/arint/arsrv`.
    pub state_dir: PathBuf,
    /// Threads of the runtime, 1 to 64; default: half of the processors, at least 1.
    pub threads: usize,
    /// The Python interpreter of the workers, 3.11 or newer; default `/usr/bin/python3`.
    pub python: PathBuf,
    /// Workers per group, 1 to 64; default: the number of processors, at least 2.
    pub workers: usize,
    /// Most requests that one worker has at a time, 1 to 4096; default 512.
    pub worker_in_flight: usize,
    /// Most threads of one worker, 1 to 1024; default 256.
    pub worker_threads: usize,
    /// Requests that may wait for a worker, 0 to 100000; default 2000.  Beyond that: 503 with `Retry-After`.
    pub queue: usize,
    /// Memory of one worker, MiB, 64 to 65536; default 512.  Beyond it the worker is replaced.
    pub worker_memory_mib: u64,
    /// Requests after which a worker is replaced, 0 (never) or more; default 0.
    pub worker_max_requests: u64,
    /// Longest time for one request where neither service nor channel says otherwise, milliseconds; default 60000.
    pub timeout_ms: u64,
    /// Longest time for loading the modules, milliseconds; default 30000.
    pub load_timeout_ms: u64,
    /// Largest request body, bytes; default 64 MiB.
    pub max_body_bytes: u64,
    /// Memory for answers that channels keep (`response_cache`), MiB, 0 to 65536; default 32.
    pub response_cache_mib: u64,
    /// Room on disk for requests and answers that channels keep (`audit`), MiB, 1 to 65536; default 256.
    pub messages_mib: u64,
    /// Whether a failed request's answer shows the exception's arguments, as 3.2 does; default true.
    pub return_tracebacks: bool,
    /// Whether a service that declares `invokes` may invoke those services only; default false, as in 3.2.
    pub enforce_service_invokes: bool,
    /// User and group id that workers run as where the core runs as root; default 64600.  0 is refused.
    pub worker_uid: u32,
    /// Folders, beside its own, that a worker may write to; default none.
    pub worker_writable: Vec<PathBuf>,
    /// The folder in which connections of type `files` have theirs; default: `files` in `state_dir`.
    pub files_dir: Option<PathBuf>,
    /// Whether the header `X-Forwarded-Client-Cert` is believed: only where the proxy in front of the balancer is the one
    /// way in and always sets it itself; default false.
    pub client_certificates: bool,
    /// Most WebSockets at one time, 1 to 1000000; default 10000.
    pub max_web_sockets: usize,
    /// Who may read what channels there are, at `/openapi.json`: `callers` (who presents the credentials of a channel reads
    /// of those that he may use), `public` (everybody reads of all) or `off`; default `callers`.
    pub openapi: Readers,
    /// Whether workers may open network connections of their own; default true, because existing services do.
    pub worker_network: bool,
    /// Where steps of requests and log lines are sent by OTLP; default: nowhere.
    pub otlp: Option<OtlpConfig>,
    /// The executable that has the subcommand `worker-exec`; not in the file: tests run in another one.
    #[serde(skip)]
    pub worker_exec: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            runtime_dir: "/run/arint".into(),
            state_dir: "/var/lib/arint/arsrv".into(),
            threads: (processors / 2).max(1),
            python: "/usr/bin/python3".into(),
            workers: processors.max(2),
            worker_in_flight: 512,
            worker_threads: 256,
            queue: 2000,
            worker_memory_mib: 512,
            worker_max_requests: 0,
            timeout_ms: 60_000,
            load_timeout_ms: 30_000,
            max_body_bytes: 64 * 1024 * 1024,
            response_cache_mib: 32,
            messages_mib: 256,
            return_tracebacks: true,
            enforce_service_invokes: false,
            worker_uid: 64_600,
            worker_writable: Vec::new(),
            files_dir: None,
            client_certificates: false,
            max_web_sockets: 10_000,
            openapi: Readers::Callers,
            worker_network: true,
            otlp: None,
            worker_exec: None,
        }
    }
}

impl Config {
    /// Loads `arsrv.toml` of a folder.
    pub fn load(dir: &Path) -> Result<Self, arbase::ConfigError> {
        arbase::config::load(dir, "arsrv", Self::check)
    }

    /// Where connections of type `files` have their folders.
    pub fn files_dir(&self) -> PathBuf {
        self.files_dir.clone().unwrap_or_else(|| self.state_dir.join("files"))
    }

    /// The rules the types cannot express.
    pub fn check(&self) -> Result<(), arbase::config::Broken> {
        let within = |field, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err((field, format!("{value} is not between {low} and {high}")))
            }
        };
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        within("threads", number(self.threads), 1, 64)?;
        within("workers", number(self.workers), 1, 64)?;
        within("worker_in_flight", number(self.worker_in_flight), 1, 4096)?;
        within("worker_threads", number(self.worker_threads), 1, 1024)?;
        within("queue", number(self.queue), 0, 100_000)?;
        within("worker_memory_mib", self.worker_memory_mib, 64, 65_536)?;
        within("timeout_ms", self.timeout_ms, 1, 3_600_000)?;
        within("load_timeout_ms", self.load_timeout_ms, 1000, 600_000)?;
        within("response_cache_mib", self.response_cache_mib, 0, 65_536)?;
        within("messages_mib", self.messages_mib, 1, 65_536)?;
        within("max_web_sockets", number(self.max_web_sockets), 1, 1_000_000)?;
        if let Some(otlp) = &self.otlp
            && !(0.0..=1.0).contains(&otlp.share)
        {
            return Err(("otlp.share", format!("{} is not between 0 and 1", otlp.share)));
        }
        within("worker_uid", self.worker_uid.into(), 1, 4_294_967_294)
    }
}
