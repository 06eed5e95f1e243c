//! A core that is not there, goes away, comes back, or dies over a request.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arldb::{Config, Server};

use crate::backend::Backend;
use crate::client::Client;
use crate::fixture::{Fixture, wait_for};

const NO_CORE: &str = "no integrator core is available; try again";
const DIED: &str = "the integrator core ended the connection before it answered; \
                    the request may have been carried out";

#[tokio::test]
async fn without_a_core_the_answer_is_503_after_patience_and_then_at_once() {
    let fixture = Fixture::alone(|config| config.connect_patience_ms = 300);
    let begun = Instant::now();
    let answer = fixture.client().await.get("/x").await;
    answer.is_error(503, NO_CORE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut client = fixture.client().await;
    for _ in 0..20 {
        client.get("/x").await.is_error(503, NO_CORE);
    }
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    let status = fixture.status().await;
    assert_eq!(status.refused, 21);
    let error = status.backends[0].last_error.clone().unwrap();
    assert_eq!(error, "cannot connect: No such file or directory (os error 2)");

    let _backend = Backend::start(&fixture.socket());
    fixture.wait_until(|status| status.backends[0].healthy).await;
    assert_eq!(client.get("/x").await.text(), "ok");
}

#[tokio::test]
async fn requests_wait_for_a_core_that_is_about_to_start() {
    let fixture = Fixture::alone(|_| {});
    let mut client = fixture.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    fixture.wait_until(|status| status.requests == 1).await;
    let _backend = Backend::start(&fixture.socket());
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_post_that_the_core_died_over_is_never_repeated() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    client.post("/die", b"order").await.is_error(502, DIED);
    client.post("/die", b"").await.is_error(502, DIED);
    assert_eq!(backend.seen.count("/die"), 2);
    let status = fixture.status().await;
    assert_eq!((status.retried, status.backends[0].failures), (0, 2));
    assert_eq!(client.get("/x").await.text(), "ok", "the client's connection stays");
}

#[tokio::test]
async fn a_get_that_the_core_died_over_is_repeated_once() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    assert_eq!(client.get("/die-once").await.text(), "second");
    client.get("/die").await.is_error(502, DIED);
    assert_eq!(backend.seen.count("/die-once"), 2);
    assert_eq!(backend.seen.count("/die"), 2);
    assert_eq!(fixture.status().await.retried, 2);
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_with_its_body_if_that_is_small() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let put = |body: usize| {
        let head = format!("PUT /die-once HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
        [head.as_bytes(), &vec![b'x'; body]].concat()
    };
    assert_eq!(client.ask(put(1000)).await.text(), "second");
    assert_eq!(backend.seen.body_bytes.load(SeqCst), 2000);
    backend.seen.requests.lock().unwrap().clear();
    client.ask(put(100_000)).await.is_error(502, DIED);
    assert_eq!(backend.seen.count("/die-once"), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_at_the_core() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    client.send("GET /wait?60000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the request at the core", || backend.seen.count("/wait") == 1).await;
    drop(client);
    wait_for("its end", || backend.seen.cancelled.load(SeqCst) == 1).await;
    fixture.wait_until(|status| status.backends[0].in_flight == 0).await;
}

#[tokio::test]
async fn a_core_that_says_it_is_not_well_gets_no_requests_until_it_is() {
    let (fixture, backend) = Fixture::with_core(|config| {
        (config.health_interval_ms, config.connect_patience_ms) = (50, 0)
    })
    .await;
    backend.seen.health.store(503, SeqCst);
    let status = fixture.wait_until(|status| !status.backends[0].healthy).await;
    assert_eq!(
        status.backends[0].last_error.as_deref(),
        Some("the health check answered 503 Service Unavailable")
    );
    fixture.client().await.get("/x").await.is_error(503, NO_CORE);
    assert_eq!(backend.seen.count("/x"), 0);
    backend.seen.health.store(200, SeqCst);
    fixture.wait_until(|status| status.backends[0].healthy).await;
    assert_eq!(fixture.client().await.get("/x").await.text(), "ok");
}

#[tokio::test]
async fn what_the_balancer_refuses_is_in_the_log_with_its_cid_and_the_client() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    arbase::logging::install("arldb", log::LevelFilter::Info);
    let fixture = Fixture::alone(|config| config.connect_patience_ms = 0);
    let mut client = fixture.client().await;
    let from = client.stream.local_addr().unwrap();
    let unavailable = client.get("/x").await;
    let malformed = client.ask("nonsense\r\n\r\n").await;
    for (answer, level) in [(unavailable, "warn"), (malformed, "info")] {
        let cid = answer.header("x-zato-cid").unwrap();
        let control = fixture.dir.path().join("arldb.sock");
        let mut log = tokio::net::UnixStream::connect(control).await.unwrap();
        let token = std::fs::read_to_string(fixture.dir.path().join("peer.token")).unwrap();
        let request = format!("GET /v1/logs?cid={cid} HTTP/1.0\r\nX-ARINT-Peer: {token}\r\n\r\n");
        log.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).await.unwrap();
        for part in [
            format!("\"level\":\"{level}\""),
            "\"message\":\"request refused\"".to_owned(),
            format!("\"addr\":\"{from}\""),
            format!("\"status\":\"{}\"", answer.status),
            format!("\"details\":\"{}\"", answer.details()),
        ] {
            assert!(text.contains(&part), "{part} in {text}");
        }
    }
}

/// What clients met while they asked without a pause.
#[derive(Default)]
pub struct Load {
    pub done: AtomicUsize,
    pub failed: std::sync::Mutex<Vec<String>>,
    pub over: AtomicBool,
}

impl Load {
    /// Clients that send GET and POST by turns until the load is over.  A connection that the balancer
    /// announced to close is replaced by a new one.
    pub fn begin(fixture: &Fixture, clients: usize) -> (Arc<Self>, tokio::task::JoinSet<()>) {
        let load = Arc::new(Self::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(Arc::clone(&load).one(fixture.addr));
        }
        (load, tasks)
    }

    async fn one(self: Arc<Self>, addr: std::net::SocketAddr) {
        let mut client: Option<Client> = None;
        let mut turn = 0;
        while !self.over.load(SeqCst) {
            let mut connected = match client.take() {
                Some(client) => client,
                // Refused: the balancer has stopped, and nothing was sent.
                None => match tokio::net::TcpStream::connect(addr).await {
                    Ok(stream) => Client::on(stream),
                    Err(_) => return,
                },
            };
            turn += 1;
            let request = if turn % 2 == 0 {
                "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
            } else {
                "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"
            };
            let written =
                tokio::io::AsyncWriteExt::write_all(&mut connected.stream, request.as_bytes())
                    .await;
            let answer = match written {
                Ok(()) => connected.try_answer(false).await,
                Err(_) => None,
            };
            match answer {
                Some(answer) if answer.status == 200 => {
                    self.done.fetch_add(1, SeqCst);
                    if answer.header("connection") != Some("close") {
                        client = Some(connected);
                    }
                }
                Some(answer) => {
                    let failed = format!("turn {turn}: {} {}", answer.status, answer.text());
                    self.failed.lock().unwrap().push(failed);
                }
                None => self.failed.lock().unwrap().push(format!("turn {turn}: no answer")),
            }
        }
    }

    pub async fn reaches(&self, more: usize) {
        let goal = self.done.load(SeqCst) + more;
        wait_for("more requests", || {
            self.done.load(SeqCst) >= goal || !self.failed.lock().unwrap().is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_restart_of_the_core_under_load_drops_nothing() {
    let (fixture, mut backend) = Fixture::with_core(|_| {}).await;
    let (load, mut tasks) = Load::begin(&fixture, 16);
    for _ in 0..5 {
        load.reaches(500).await;
        let seen = backend.stop_gracefully().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        backend = Backend::start_with(&fixture.socket(), seen);
    }
    load.reaches(500).await;
    load.over.store(true, SeqCst);
    while tasks.join_next().await.is_some() {}
    assert_eq!(*load.failed.lock().unwrap(), [""; 0]);
    let seen = backend.seen.count("/x") + backend.seen.count("/count");
    let done = load.done.load(SeqCst);
    assert_eq!(seen, done, "and nothing was carried out twice");
    assert!(done >= 3000);
}

/// Not a test: the core of the next one, in a process of its own.
#[test]
fn core_process() {
    let Some(socket) = std::env::var_os("ARLDB_TEST_CORE") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _backend = Backend::start(Path::new(&socket));
        std::future::pending::<()>().await;
    });
}

fn start_core_process(socket: &Path) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::core_process"])
        .env("ARLDB_TEST_CORE", socket)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_core_killed_over_requests_costs_a_post_a_clear_502_and_a_get_nothing() {
    let fixture = Fixture::alone(|_| {});
    let mut core = start_core_process(&fixture.socket());
    fixture.wait_until(|status| status.backends[0].healthy).await;
    let (mut get, mut post, mut idle) =
        (fixture.client().await, fixture.client().await, fixture.client().await);
    assert_eq!(idle.post("/count", b"12").await.text(), "2");
    get.send("GET /wait?300 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    post.send("POST /wait?300 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    fixture.wait_until(|status| status.backends[0].in_flight == 2).await;
    // In flight means sent; that the core has read it shows only from its side, so give it the time.
    tokio::time::sleep(Duration::from_millis(100)).await;
    core.kill().await.unwrap();
    post.answer().await.is_error(502, DIED);
    // A POST on a connection of which the core's end is gone was not begun: it waits for the next core.
    idle.send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    let _core = start_core_process(&fixture.socket());
    assert_eq!(idle.answer().await.text(), "3");
    assert_eq!(get.answer().await.text(), "done");
}

#[tokio::test]
async fn backends_come_drain_and_go_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        runtime_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let server = Server::start(config).unwrap();
    let (addr, backends) = (server.local_addr(), server.backends());
    let (_stopper, stop) = arbase::Stop::new();
    tokio::spawn(server.run_until(stop));
    let local = Backend::start(&dir.path().join("arsrv-http.sock"));
    let other = Backend::start(&dir.path().join("other.sock"));
    let path = dir.path().join("other.sock");
    backends.add("other", arproxy::Address::Unix(path), false);
    let healthy = |name: &'static str| {
        let backends = Arc::clone(&backends);
        move || backends.view().iter().any(|view| view.name == name && view.is_healthy)
    };
    wait_for("both up", || healthy("local")() && healthy("other")()).await;
    let mut client = Client::connect(addr).await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.text(), "ok");
    }
    assert_eq!((local.seen.count("/x"), other.seen.count("/x")), (10, 0), "local first");

    client.send("GET /wait?200 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the request at the local core", || local.seen.count("/wait") == 1).await;
    assert!(backends.drain("local"));
    let mut second = Client::connect(addr).await;
    assert_eq!(second.get("/x").await.text(), "ok");
    assert_eq!(other.seen.count("/x"), 1, "nothing new for one that drains");
    assert_eq!(client.answer().await.text(), "done", "what it has it finishes");

    // A request that one backend died over goes to another.
    assert!(backends.remove("local"));
    assert!(!backends.remove("local"));
    backends.add("local", arproxy::Address::Unix(dir.path().join("arsrv-http.sock")), true);
    wait_for("the local one again", healthy("local")).await;
    other.seen.requests.lock().unwrap().insert("/die-once".to_owned(), 1);
    assert_eq!(client.get("/die-once").await.text(), "second");
    assert_eq!((local.seen.count("/die-once"), other.seen.count("/die-once")), (1, 2));
}

#[tokio::test]
async fn a_backend_in_the_network_is_served_too() {
    let fixture = Fixture::alone(|_| {});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // The same core, reached through a second balancer, which is a backend in the network.
    drop(listener);
    let config = Config {
        listen: addr,
        runtime_dir: fixture.dir.path().join("second"),
        core_socket: Some(fixture.socket()),
        ..Config::default()
    };
    let second = Server::start(config).unwrap();
    let (_stopper, stop) = arbase::Stop::new();
    tokio::spawn(second.run_until(stop));
    let _backend = Backend::start(&fixture.socket());
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        runtime_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let first = Server::start(config).unwrap();
    let (front, backends) = (first.local_addr(), first.backends());
    assert!(backends.remove("local"));
    backends.add("peer", arproxy::Address::Tcp(addr), false);
    let (_stopper, stop) = arbase::Stop::new();
    tokio::spawn(first.run_until(stop));
    let mut client = Client::connect(front).await;
    assert_eq!(client.post("/count", &[b'x'; 200_000]).await.text(), "200000");
    assert_eq!(client.get("/big?300000").await.body.len(), 300_000);
}
