//! A core on a stage: the real server with its real sockets, in front of an object store in miniature that
//! speaks the real protocol, and of workers in miniature that run closures.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test stands on ends the test if it is not there"
)]

mod channels;
mod life;
mod outgoing;
mod peer;
mod quality;
mod real;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arapi::arsrv::{CheckRequest, CheckVerdict, ServiceStatus, WorkerStatus};
use arapi::names::Kind;
use arbase::{Stop, Stopper};
use arsrv::call::{Call, Calling, Failure, Invoker, Outcome, Outside, Reply};
use arsrv::pool::{self, PoolStatus};
use arsrv::server::{Surroundings, Waiting, Workers};
use arsrv::{Config, Server};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

pub(crate) use store::Store;

type Service = Arc<dyn Fn(Call) -> Calling<'static> + Send + Sync>;

/// Workers that run closures.
pub(crate) struct Closures {
    services: HashMap<String, Service>,
}

impl Invoker for Closures {
    fn call(&self, call: Call) -> Calling<'_> {
        match self.services.get(&*call.service) {
            Some(service) => {
                let deadline = call.deadline;
                let running = service(call);
                Box::pin(async move {
                    match tokio::time::timeout_at(deadline.into(), running).await {
                        Ok(outcome) => outcome,
                        Err(_) => failed(504, "timeout", Value::Null),
                    }
                })
            }
            None => Box::pin(async { failed(404, "not-found", Value::Null) }),
        }
    }

    fn generation(&self) -> u64 {
        0
    }
}

impl Workers for Closures {
    fn check(&self, request: CheckRequest) -> Waiting<'_, CheckVerdict> {
        Box::pin(async move {
            assert_eq!(request.modules[0].file_name, "m.py");
            CheckVerdict::Loads { services: Vec::new() }
        })
    }

    fn status(&self) -> PoolStatus {
        let service = |name: &String| ServiceStatus {
            name: name.clone(),
            module: "m".to_owned(),
            is_active: true,
            calls: 0,
            failures: 0,
            p50_ms: 0.0,
            p99_ms: 0.0,
        };
        let worker = WorkerStatus {
            name: "default-1".to_owned(),
            group: "default".to_owned(),
            pid: 1,
            state: "ready".to_owned(),
            in_flight: 0,
            served: 0,
            memory_bytes: 0,
            started_ms: 0,
            sandbox: Vec::new(),
        };
        PoolStatus {
            workers: vec![worker],
            services: self.services.keys().map(service).collect(),
            problems: Vec::new(),
        }
    }

    fn stopped(&self) -> Waiting<'_, ()> {
        Box::pin(async {})
    }
}

/// A service's answer.
pub(crate) fn done(status: u16, body: impl Into<Bytes>) -> Outcome {
    let headers = Vec::new();
    Outcome::Done(Reply { status, content_type: None, headers, body: body.into() })
}

/// A service's failure.
pub(crate) fn failed(status: u16, kind: &str, details: Value) -> Outcome {
    Outcome::Failed(Failure {
        status,
        headers: Vec::new(),
        details,
        kind: kind.to_owned(),
        message: format!("{kind} happened"),
        retry_after: None,
    })
}

/// What a stage is set up with.
pub(crate) struct Setting {
    /// The core's config; folders are the stage's own.
    pub(crate) config: Config,
    services: HashMap<String, Service>,
    /// The objects there are.
    pub(crate) objects: Vec<(Kind, String, Value)>,
    /// The secrets there are.
    pub(crate) secrets: Vec<(String, String)>,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let config = Config { timeout_ms: 10_000, max_body_bytes: 100_000, ..Config::default() };
        Self { config, services: HashMap::new(), objects: Vec::new(), secrets: Vec::new() }
    }

    /// A service that is deployed and runs this.
    pub(crate) fn service<F>(
        self,
        name: &str,
        run: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut setting = self.object(Kind::Service, name, json!({"module": "m", "class": "C"}));
        let run: Service = Arc::new(move |call| Box::pin(run(call)));
        setting.services.insert(name.to_owned(), run);
        setting
    }

    pub(crate) fn object(mut self, kind: Kind, name: &str, spec: Value) -> Self {
        self.objects.push((kind, name.to_owned(), spec));
        self
    }

    /// A channel of this service.
    pub(crate) fn channel(self, name: &str, path: &str, service: &str, more: Value) -> Self {
        let mut spec = json!({"url_path": path, "service": service});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.object(Kind::Channel, name, spec)
    }

    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn start(self) -> Stage {
        let dir = artest::temp_dir();
        let store = Store::of(&self.objects, &self.secrets);
        store.listen(dir.path());
        let core = Core::start(dir.path().to_owned(), self.config, self.services).await;
        Stage { core, store, dir }
    }

    /// Starts with real workers, which run the modules among the objects.
    pub(crate) async fn start_real(mut self) -> Stage {
        let dir = artest::temp_dir();
        self.config.python = artest::python().to_owned();
        self.config.worker_exec = Some(PathBuf::from(env!("CARGO_BIN_EXE_worker-exec")));
        self.config.workers = 2;
        let store = Store::of(&self.objects, &self.secrets);
        store.listen(dir.path());
        let config = in_folder(dir.path(), self.config);
        let core = Core::of(Server::start(config).await.unwrap(), None);
        let stage = Stage { core, store, dir };
        stage.control().wait_for(1).await.unwrap();
        stage
    }

    /// Starts with an object store that does not listen yet.
    pub(crate) async fn start_alone(self) -> Stage {
        let dir = artest::temp_dir();
        let store = Store::of(&self.objects, &self.secrets);
        let core = Core::start(dir.path().to_owned(), self.config, self.services).await;
        Stage { core, store, dir }
    }
}

/// The running core.
pub(crate) struct Core {
    stopper: Stopper,
    ended: JoinHandle<()>,
    outside: Option<Arc<dyn Outside>>,
}

fn in_folder(dir: &Path, config: Config) -> Config {
    Config { runtime_dir: dir.to_owned(), state_dir: dir.join("arsrv"), ..config }
}

impl Core {
    async fn start(dir: PathBuf, config: Config, services: HashMap<String, Service>) -> Self {
        let config = in_folder(&dir, config);
        let outside = Arc::new(Mutex::new(None));
        let server = Server::start_with(config, |around| {
            let Surroundings { outside: given, mut worlds, progress, stop, .. } = around;
            *outside.lock().unwrap() = Some(given);
            tokio::spawn(async move {
                loop {
                    progress.report(pool::RECONCILER, worlds.borrow_and_update().revision);
                    tokio::select! {
                        () = stop.wait() => return,
                        _ = worlds.changed() => {}
                    }
                }
            });
            Arc::new(Closures { services })
        })
        .await
        .unwrap();
        let outside = outside.lock().unwrap().take();
        Self::of(server, outside)
    }

    fn of(server: Server, outside: Option<Arc<dyn Outside>>) -> Self {
        let (stopper, stop) = Stop::new();
        let ended = tokio::spawn(server.run_until(stop));
        Self { stopper, ended, outside }
    }

    /// What services may use.
    pub(crate) fn outside(&self) -> &Arc<dyn Outside> {
        self.outside.as_ref().unwrap()
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(self) {
        self.stopper.stop();
        self.ended.await.unwrap();
    }

    /// Asks it to stop; gives what ends with it.
    pub(crate) fn begin_stop(self) -> JoinHandle<()> {
        self.stopper.stop();
        self.ended
    }
}

/// A core with what is around it.
pub(crate) struct Stage {
    pub(crate) core: Core,
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn control(&self) -> arapi::arsrv::Client {
        arapi::arsrv::Client::in_runtime_dir(self.dir.path())
    }

    /// Changes an object, and waits until requests are served with it.
    pub(crate) async fn put(&self, kind: Kind, name: &str, spec: Value) {
        let revision = self.store.put(kind, name, spec);
        self.control().wait_for(revision).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(Request::get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Got {
        self.send_body(Request::post(path), body).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> Got {
        self.send_body(request, Bytes::new()).await
    }

    pub(crate) async fn send_body(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Got {
        let mut connection = Connection::open(self).await;
        connection.send(request, body).await
    }

    /// Sends bytes as they are and gives everything that comes back until the core closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = UnixStream::connect(self.socket("arsrv-http.sock")).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A connection to the data path, kept alive.
pub(crate) struct Connection(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(stage: &Stage) -> Self {
        let stream = UnixStream::connect(stage.socket("arsrv-http.sock")).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        Self(sender)
    }

    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Got {
        let request = request.header("host", "box:11223").body(Full::new(body.into())).unwrap();
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status, headers: parts.headers, body }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn cid(&self) -> &str {
        self.header("x-zato-cid").unwrap()
    }
}
