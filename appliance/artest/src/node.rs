//! A whole node, as `make run` starts it, in a folder and on ports of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// The admin that [`Node::start`] claims the node for.
pub const ADMIN: &str = "admin";
/// Its password.
pub const ADMIN_PASSWORD: &str = "correct horse battery staple";

/// How a node is started.
#[derive(Debug, Default)]
pub struct NodeBuilder {
    extra_config: String,
    args: Vec<String>,
    unclaimed: bool,
    data_dir: Option<PathBuf>,
}

impl NodeBuilder {
    /// TOML whose tables (`[arsrv]`, …) are added to the units' config files.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.extra_config.push_str(toml);
        self
    }

    /// A further argument of `arint dev`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Leaves the node unclaimed.
    #[must_use]
    pub fn unclaimed(mut self) -> Self {
        self.unclaimed = true;
        self
    }

    /// Uses this data folder, which outlives the node; it is not claimed again if it is already.
    #[must_use]
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Starts it and returns once it answers.
    pub async fn start(self) -> Node {
        crate::use_ring();
        let temp = self.data_dir.is_none().then(crate::temp_dir);
        let data_dir = match (&self.data_dir, &temp) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temp)) => temp.path().to_owned(),
            (None, None) => unreachable!("a temp dir was made above"),
        };
        let mut command = Command::new(crate::arint());
        command.args(["dev", "--json", "--free-ports", "--data"]).arg(&data_dir).args(&self.args);
        command.arg("--python").arg(crate::python());
        if !self.extra_config.is_empty() {
            let path = data_dir.join("extra.toml");
            std::fs::write(&path, &self.extra_config).expect("cannot write the extra config");
            command.arg("--extra-config").arg(path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("arint does not start");
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let collected = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                collected.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        // Ends at the latest when `arint dev` gives up (60 s) and closes its stdout.
        let stdout = tokio::task::spawn_blocking(move || {
            stdout.read_line(&mut line).ok();
            (stdout, line)
        });
        let (stdout, line) = stdout.await.expect("reading the node's first line does not panic");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            std::thread::yield_now();
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            panic!("the node did not start; its log:\n{log}")
        });
        let text =
            |key: &str| ready.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("the HTTP client can be built");
        let mut node = Node {
            channels: text("channels"),
            admin: text("admin"),
            kvdb: text("kvdb"),
            code: ready.get("code").and_then(Value::as_str).map(ToOwned::to_owned),
            runtime_dir: text("runtime_dir").into(),
            pickup_dir: text("pickup_dir").into(),
            data_dir,
            token: String::new(),
            http,
            child,
            log,
            _stdout: stdout,
            _temp: temp,
        };
        if !self.unclaimed {
            node.claim_or_log_in().await;
        }
        node
    }
}

/// A running node.  Stopped when dropped.
#[derive(Debug)]
pub struct Node {
    /// The balancer's address, `http://127.0.0.1:…`.
    pub channels: String,
    /// The admin API's address.
    pub admin: String,
    /// The key-value store's address, `127.0.0.1:…`.
    pub kvdb: String,
    /// The first-run code, while unclaimed.
    pub code: Option<String>,
    /// The folder of the sockets.
    pub runtime_dir: PathBuf,
    /// The pickup folder for services.
    pub pickup_dir: PathBuf,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The admin's token.
    pub token: String,
    http: reqwest::Client,
    child: Child,
    log: Arc<Mutex<String>>,
    _stdout: BufReader<std::process::ChildStdout>,
    _temp: Option<tempfile::TempDir>,
}

impl Node {
    /// Starts a node with every default and claims it.
    pub async fn start() -> Self {
        NodeBuilder::default().start().await
    }

    /// A node to be started otherwise.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// The HTTP client, for requests the helpers do not cover.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// What the node has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The processes of some of its units, in the same order.
    pub fn pids(&self, units: &[&str]) -> Vec<u32> {
        let task = format!("/proc/{}/task", self.pid());
        let children: Vec<u32> = std::fs::read_dir(task)
            .expect("the node runs")
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .flat_map(|pids| {
                pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        let line = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let is = |pid: u32, unit: &str| {
            line(pid).unwrap_or_default().split('\0').any(|part| part == unit)
        };
        let found = units.iter().map(|unit| children.iter().find(|pid| is(**pid, unit)));
        found.map(|pid| *pid.expect("the unit runs")).collect()
    }

    /// The most memory that some of its units have had together, KiB.
    pub fn most_memory(&self, units: &[&str]) -> u64 {
        let most = |pid: &u32| {
            let status =
                std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the unit runs");
            let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let most = most.expect("the kernel says it").trim().trim_end_matches(" kB");
            most.parse::<u64>().expect("it is a number")
        };
        self.pids(units).iter().map(most).sum()
    }

    /// The process id of `arint dev`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn claim_or_log_in(&mut self) {
        let (path, body) = match &self.code {
            Some(code) => {
                ("/v1/claim", json!({"code": code, "user": ADMIN, "password": ADMIN_PASSWORD}))
            }
            None => ("/v1/login", json!({"user": ADMIN, "password": ADMIN_PASSWORD})),
        };
        let answer = self.api(Method::POST, path, Some(body)).await;
        let token = answer.get("token").and_then(Value::as_str);
        self.token = token.expect("claiming and logging in answer a token").to_owned();
    }

    /// Calls the admin API and returns status and document.
    pub async fn try_api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.admin));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the admin API answers");
        let status = answer.status();
        let text = answer.text().await.expect("the admin API's answer can be read");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Calls the admin API; ends the test if it does not answer with success.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, document) = self.try_api(method.clone(), path, body).await;
        assert!(
            status.is_success(),
            "{method} {path} answered {status}: {document}\n{}",
            self.log()
        );
        document
    }

    /// Makes or replaces one object.
    pub async fn put(&self, kind: &str, name: &str, spec: Value) -> Value {
        let change = json!({"do": "put", "kind": kind, "name": name, "spec": spec});
        self.api(Method::POST, "/v1/transactions", Some(json!({"changes": [change]}))).await
    }

    /// Deploys one file and returns once it is live.
    pub async fn deploy(&self, file_name: &str, source: &str) -> Value {
        let files = json!({"files": [{"file_name": file_name, "source": source}]});
        self.api(Method::POST, "/v1/deployments", Some(files)).await
    }

    /// Requests a path of the balancer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let request = self.http.request(method, format!("{}{path}", self.channels)).body(body);
        request.send().await.expect("the balancer answers")
    }

    /// Waits until the core has carried out every change that was committed.
    pub async fn settled(&self) {
        crate::wait_for(
            "the core to carry out every change",
            Duration::from_secs(20),
            async || {
                let status = self.api(Method::GET, "/v1/status", None).await;
                let of = |part: &str| {
                    status.get(part).and_then(|part| part.get("revision")).and_then(Value::as_u64)
                };
                match (of("arclst"), of("arsrv")) {
                    (Some(store), Some(core)) if core >= store => Ok(()),
                    seen => Err(seen),
                }
            },
        )
        .await;
    }

    /// Stops it as Ctrl-C does, and returns what it logged.
    pub fn stop(mut self) -> String {
        self.end();
        self.log()
    }

    /// Kills the process of `arint dev` without a chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid {
            kill(pid, Signal::SIGINT).ok();
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            crate::say(&format!("--- log of the node ---\n{}", self.log()));
        }
    }
}
