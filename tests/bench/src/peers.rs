//! The peers: installed here, started here, ended with the figure.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running peer; ended when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    /// Where it answers.
    pub(crate) url: String,
    _dir: tempfile_dir::Dir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // uvicorn ends its workers on SIGTERM; Node-RED has none.
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().ok();
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Peer {
    /// Its processes without the first.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).expect("the peer runs");
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

mod tempfile_dir {
    //! A folder for a peer that has to have one.

    /// A folder, removed at the end.
    #[derive(Debug)]
    pub(super) struct Dir(pub(super) std::path::PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }
}

fn scratch(name: &str) -> tempfile_dir::Dir {
    let path = std::env::temp_dir().join(format!("arint-bench-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).expect("cannot make a scratch folder");
    tempfile_dir::Dir(path)
}

fn cache(name: &str) -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache")
    });
    base.join("arint").join(name)
}

fn done(what: &str, command: &mut Command) {
    let status = command.stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{what} failed");
}

/// FastAPI on uvicorn with two workers.  `fast`: with uvloop and httptools (`uvicorn[standard]`), else as `pip install
/// uvicorn` has it.
pub(crate) async fn fastapi(fast: bool) -> Peer {
    let here = artest::repository().join("tests/bench/peers");
    let env = cache("bench-fastapi");
    if !env.join("ready").is_file() {
        done(
            "making a Python environment",
            Command::new(artest::python()).args(["-m", "venv"]).arg(&env),
        );
        let requirements = here.join("requirements.txt");
        done(
            "installing FastAPI",
            Command::new(env.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(requirements),
        );
        std::fs::write(env.join("ready"), "").expect("cannot write into the cache");
    }
    let addr = artest::free_addr();
    let mut command = Command::new(env.join("bin/python"));
    command.args([
        "-m",
        "uvicorn",
        "fastapi_echo:app",
        "--workers",
        "2",
        "--no-access-log",
        "--log-level",
        "warning",
    ]);
    command.args(["--port", &addr.port().to_string(), "--app-dir"]).arg(here);
    if !fast {
        command.args(["--loop", "asyncio", "--http", "h11"]);
    }
    let child = command.stdin(Stdio::null()).spawn().expect("uvicorn does not start");
    let peer = Peer { child, url: format!("http://{addr}/echo"), _dir: scratch("fastapi") };
    answers(&peer.url).await;
    peer
}

/// A SOAP echo of spyne on gunicorn with two workers.
pub(crate) async fn spyne() -> Peer {
    let here = artest::repository().join("tests/bench/peers");
    let env = cache("bench-spyne");
    if !env.join("ready").is_file() {
        done(
            "making a Python environment",
            Command::new(artest::python()).args(["-m", "venv"]).arg(&env),
        );
        let requirements = here.join("spyne-requirements.txt");
        done(
            "installing spyne",
            Command::new(env.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(requirements),
        );
        std::fs::write(env.join("ready"), "").expect("cannot write into the cache");
    }
    let addr = artest::free_addr();
    let mut command = Command::new(env.join("bin/python"));
    // Threads, because wrk's connections stay open and gunicorn's plain workers close each.
    command.args(["-m", "gunicorn", "--workers", "2", "--threads", "32", "--log-level", "error"]);
    command.args(["--bind", &addr.to_string(), "--chdir"]).arg(here).arg("spyne_echo:app");
    let child = command.stdin(Stdio::null()).spawn().expect("gunicorn does not start");
    let peer = Peer { child, url: format!("http://{addr}/"), _dir: scratch("spyne") };
    let client =
        reqwest::Client::builder().no_proxy().build().expect("the HTTP client can be built");
    artest::wait_for("spyne to answer", Duration::from_secs(60), async || {
        let sent = client.get(format!("{}?wsdl", peer.url)).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(err) => Err(err.to_string()),
        }
    })
    .await;
    peer
}

/// Node-RED with a flow of `http in` and `http response`.
pub(crate) async fn node_red() -> Peer {
    let here = artest::repository().join("tests/bench/peers");
    let home = cache("bench-node-red");
    if !home.join("ready").is_file() {
        std::fs::create_dir_all(&home).expect("cannot make a folder in the cache");
        let npm = artest::tool("npm", "npm");
        done(
            "installing Node-RED",
            Command::new(npm)
                .args(["install", "--no-audit", "--no-fund", "--silent", "node-red@4"])
                .current_dir(&home),
        );
        std::fs::write(home.join("ready"), "").expect("cannot write into the cache");
    }
    let dir = scratch("node-red");
    std::fs::copy(here.join("node-red-flows.json"), dir.0.join("flows.json"))
        .expect("cannot copy the flow");
    let settings = "module.exports = {flowFile: 'flows.json', httpAdminRoot: false, logging: {console: {level: 'warn'}}, telemetry: {enabled: false}};";
    std::fs::write(dir.0.join("settings.js"), settings).expect("cannot write the settings");
    let addr = artest::free_addr();
    let child = Command::new("node")
        .arg(home.join("node_modules/node-red/red.js"))
        .args(["--port", &addr.port().to_string(), "--userDir"])
        .arg(&dir.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("node does not start");
    let peer = Peer { child, url: format!("http://{addr}/echo"), _dir: dir };
    answers(&peer.url).await;
    peer
}

/// nginx with two workers; `server` stands in its `server` block, `http` before that.
pub(crate) async fn nginx(name: &str, server: &str, http: &str) -> Peer {
    let dir = scratch(&format!("nginx-{name}"));
    let here = dir.0.display();
    let addr = artest::free_addr();
    let config = format!(
        "daemon off; worker_processes 2; pid {here}/pid; error_log {here}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {here}/b;\n\
         proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
         {http} server {{ listen {addr}; {server} }} }}\n"
    );
    std::fs::write(dir.0.join("nginx.conf"), config).expect("cannot write the config");
    let child = Command::new(artest::tool("nginx", "nginx-light"))
        .arg("-c")
        .arg(dir.0.join("nginx.conf"))
        .arg("-e")
        .arg(dir.0.join("error.log"))
        .stdin(Stdio::null())
        .spawn()
        .expect("nginx does not start");
    let peer = Peer { child, url: format!("http://{addr}"), _dir: dir };
    answers(&peer.url).await;
    peer
}

async fn answers(url: &str) {
    let client =
        reqwest::Client::builder().no_proxy().build().expect("the HTTP client can be built");
    artest::wait_for("the peer to answer", Duration::from_secs(60), async || {
        let sent = client.post(url).json(&serde_json::json!({"a": 1})).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(err) => Err(err.to_string()),
        }
    })
    .await;
}
