//! A pool in a folder of its own, with modules as they would come from the object store.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test stands on ends the test if it is not there"
)]

mod calls;
mod deployment;
mod faults;
mod inside;
mod sandbox;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arapi::arclst::Listing;
use arapi::arsrv::WorkerStatus;
use arapi::names::{Cid, Kind, ObjectName};
use arapi::objects::{Object, Spec};
use arbase::{Stop, Stopper};
use arsrv::Config;
use arsrv::call::{
    Answering, Call, Failure, Invoker as _, Outcome, Outside, Reply, WorkerReply, WorkerRequest,
};
use arsrv::pool::{Pool, PoolStatus, RECONCILER};
use arsrv::world::{Progress, World};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A service that answers what it got.
pub(crate) const ECHO: &str = r#"
from zato.server.service import Service

class Echo(Service):
    """Answers what it got."""
    name = "echo"
    def handle(self):
        self.response.payload = self.request.raw_request or "nothing"
"#;

/// What the pool asks of the outside, in the tests.
pub(crate) struct NoOutside;

impl Outside for NoOutside {
    fn indexes(&self) -> Vec<Arc<arsrv::outgoing::index::Index>> {
        Vec::new()
    }

    fn answer(&self, request: WorkerRequest) -> Answering<'_> {
        Box::pin(async move {
            let meta =
                json!({"error": {"type": "not-found", "message": format!("no {}", request.meta)}});
            WorkerReply { meta, body: Bytes::new() }
        })
    }
}

/// A running pool.
pub(crate) struct Bench {
    pub(crate) pool: Pool,
    pub(crate) config: Arc<Config>,
    pub(crate) progress: Progress,
    world: watch::Sender<Arc<World>>,
    objects: Mutex<Vec<Object>>,
    revision: Mutex<u64>,
    stopper: Stopper,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Starts a pool with these modules and waits until they are live.
    pub(crate) async fn start(modules: &[(&str, &str)]) -> Self {
        Self::start_with(modules, |_| {}).await
    }

    pub(crate) async fn start_with(
        modules: &[(&str, &str)],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let bench = Self::start_empty(change);
        for (name, source) in modules {
            bench.put_module(name, source);
        }
        bench.deployed().await;
        bench
    }

    pub(crate) fn start_empty(change: impl FnOnce(&mut Config)) -> Self {
        if let Some(level) = std::env::var("TEST_LOG").ok().and_then(|level| level.parse().ok()) {
            arbase::logging::install("arsrv", level);
        }
        let folder = artest::temp_dir();
        let mut config = Config {
            runtime_dir: folder.path().join("run"),
            state_dir: folder.path().join("state"),
            python: artest::python().to_owned(),
            workers: 2,
            timeout_ms: 10_000,
            worker_exec: Some(PathBuf::from(env!("CARGO_BIN_EXE_worker-exec"))),
            ..Config::default()
        };
        change(&mut config);
        let config = Arc::new(config);
        let (stopper, stop) = Stop::new();
        let (world, worlds) = watch::channel(Arc::new(World::default()));
        let progress = Progress::of(&[RECONCILER]);
        let pool =
            Pool::start(Arc::clone(&config), Arc::new(NoOutside), worlds, progress.clone(), stop);
        Self {
            pool,
            config,
            progress,
            world,
            objects: Mutex::default(),
            revision: Mutex::new(0),
            stopper,
            folder,
        }
    }

    /// Puts or removes an object without publishing the world.
    fn set(&self, kind: Kind, name: &str, spec: Option<Value>) {
        let mut objects = self.objects.lock().unwrap();
        objects.retain(|object| object.kind != kind || object.name.as_str() != name);
        if let Some(spec) = spec {
            objects.push(Object {
                kind,
                name: ObjectName::parse(name).unwrap(),
                spec: Spec::parse(kind, name, spec).unwrap(),
                revision: 1,
                created_ms: 0,
                changed_ms: 0,
                changed_by: "test".to_owned(),
            });
        }
    }

    pub(crate) fn put_module(&self, name: &str, source: &str) {
        let spec = json!({
            "file_name": format!("{name}.py"), "source": source, "sha256": "", "version": 1, "origin": "api",
        });
        self.set(Kind::Module, name, Some(spec));
    }

    pub(crate) fn remove_module(&self, name: &str) {
        self.set(Kind::Module, name, None);
    }

    pub(crate) fn put(&self, kind: Kind, name: &str, spec: Value) {
        self.set(kind, name, Some(spec));
    }

    /// Publishes the world; returns its revision.
    pub(crate) fn publish(&self) -> u64 {
        let mut revision = self.revision.lock().unwrap();
        *revision += 1;
        let objects = self.objects.lock().unwrap().clone();
        self.world
            .send_replace(Arc::new(World::of_listing(Listing { revision: *revision, objects })));
        *revision
    }

    /// Publishes the world and waits until it is served.
    pub(crate) async fn deployed(&self) {
        let revision = self.publish();
        let live = tokio::time::timeout(Duration::from_secs(30), self.progress.wait_for(revision));
        if live.await.is_err() {
            panic!("revision {revision} is not live after 30 s: {:?}", self.status());
        }
    }

    pub(crate) fn status(&self) -> PoolStatus {
        self.pool.status()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(&self, what: &str, fits: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        artest::wait_for(what, Duration::from_secs(20), || async {
            let status = self.status();
            if fits(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    /// Waits until the group has so many ready workers.
    pub(crate) async fn until_ready(&self, group: &str, workers: usize) -> Vec<WorkerStatus> {
        let of_group = |status: &PoolStatus| -> Vec<WorkerStatus> {
            let ready = |worker: &&WorkerStatus| worker.group == group && worker.state == "ready";
            status.workers.iter().filter(ready).cloned().collect()
        };
        let status = self.until("ready workers", |status| of_group(status).len() == workers).await;
        of_group(&status)
    }

    pub(crate) fn call(&self, service: &str) -> CallBuilder<'_> {
        let call = Call {
            service: service.into(),
            cid: Cid::random(),
            channel: "http-soap",
            data_format: "",
            method: Some("POST"),
            http: Bytes::new(),
            environ: Bytes::new(),
            body: Bytes::new(),
            deadline: Instant::now() + Duration::from_secs(30),
            spool: None,
            priority: arapi::objects::Priority::Interactive,
            is_idempotent: false,
        };
        CallBuilder { pool: &self.pool, call }
    }

    pub(crate) async fn stop(self) {
        drop(self.stop_and_keep().await);
    }

    /// Stops the pool; its folder lives on in what is returned.
    pub(crate) async fn stop_and_keep(self) -> tempfile::TempDir {
        self.stopper.stop();
        tokio::time::timeout(Duration::from_secs(20), self.pool.stopped()).await.unwrap();
        self.folder
    }
}

/// Calls of a good service, without pause, from several sides.
pub(crate) struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<(u64, Duration, Vec<String>)>>,
}

/// What came of a [`Load`].
#[derive(Debug)]
pub(crate) struct LoadResult {
    pub(crate) calls: u64,
    pub(crate) slowest: Duration,
    /// Every answer that was not 200 with the right body.
    pub(crate) bad: Vec<String>,
}

impl Load {
    /// Half of the callers GET, the others POST.
    pub(crate) fn start(bench: &Bench, callers: usize) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let callers = (0..callers).map(|number| {
            let (stop, pool) = (Arc::clone(&stop), bench.pool.clone());
            tokio::spawn(async move {
                let (mut calls, mut slowest, mut bad) = (0, Duration::ZERO, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let body = format!("caller {number} call {calls}");
                    let call = Call {
                        service: "echo".into(),
                        cid: Cid::random(),
                        channel: "http-soap",
                        data_format: "",
                        method: Some(if number % 2 == 0 { "GET" } else { "POST" }),
                        http: Bytes::new(),
                        environ: Bytes::new(),
                        body: body.clone().into(),
                        deadline: Instant::now() + Duration::from_secs(30),
                        spool: None,
                        priority: arapi::objects::Priority::Interactive,
                        is_idempotent: number % 2 == 0,
                    };
                    let started = Instant::now();
                    match pool.call(call).await {
                        Outcome::Done(reply) if reply.status == 200 && reply.body == body => {}
                        outcome => bad.push(format!("{number}: {outcome:?}")),
                    }
                    calls += 1;
                    slowest = slowest.max(started.elapsed());
                    // Room for the worker under test on a small machine.
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                (calls, slowest, bad)
            })
        });
        Self { callers: callers.collect(), stop }
    }

    pub(crate) async fn end(self) -> LoadResult {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut result = LoadResult { calls: 0, slowest: Duration::ZERO, bad: Vec::new() };
        for caller in self.callers {
            let (calls, slowest, bad) = caller.await.unwrap();
            result.calls += calls;
            result.slowest = result.slowest.max(slowest);
            result.bad.extend(bad);
        }
        artest::say(&format!(
            "load: {} calls, slowest {:?}, {} bad",
            result.calls,
            result.slowest,
            result.bad.len()
        ));
        result
    }

    /// Ends the load; every call must have been answered well.
    pub(crate) async fn end_all_good(self) {
        let result = self.end().await;
        assert_eq!(result.bad, Vec::<String>::new(), "of {} calls", result.calls);
        assert!(result.calls > 20, "{result:?}");
    }
}

pub(crate) struct CallBuilder<'a> {
    pool: &'a Pool,
    call: Call,
}

impl CallBuilder<'_> {
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.call.body = body.into();
        self
    }

    pub(crate) fn get(mut self) -> Self {
        self.call.method = Some("GET");
        self.call.is_idempotent = true;
        self
    }

    pub(crate) fn priority(mut self, priority: arapi::objects::Priority) -> Self {
        self.call.priority = priority;
        self
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.call.deadline = Instant::now() + limit;
        self
    }

    pub(crate) async fn send(self) -> Outcome {
        self.pool.call(self.call).await
    }

    /// Ends the test unless the service answered with 200.
    pub(crate) async fn reply(self) -> Reply {
        match self.send().await {
            Outcome::Done(reply) => reply,
            Outcome::Streamed(reply, _) => panic!("it streams its answer: {reply:?}"),
            Outcome::Failed(failure) => panic!("it failed: {failure:?}"),
        }
    }

    pub(crate) async fn text(self) -> String {
        String::from_utf8(self.reply().await.body.to_vec()).unwrap()
    }

    pub(crate) async fn failure(self) -> Failure {
        match self.send().await {
            Outcome::Failed(failure) => failure,
            Outcome::Done(reply) | Outcome::Streamed(reply, _) => {
                panic!("it did not fail: {reply:?}")
            }
        }
    }
}
