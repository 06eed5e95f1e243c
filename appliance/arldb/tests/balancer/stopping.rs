//! Starting and stopping.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use arbase::Chain;
use arldb::{Config, Server};

use crate::client::Client;
use crate::faults::Load;
use crate::fixture::{Fixture, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_drops_nothing() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let (load, mut tasks) = Load::begin(&fixture, 16);
    load.reaches(500).await;
    let mut slow = fixture.client().await;
    slow.send("GET /wait?700 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the slow one at the core", || backend.seen.count("/wait") == 1).await;
    let mut idle = fixture.client().await;
    assert_eq!(idle.get("/x").await.text(), "ok");
    fixture.stopper.stop();
    // Clients end when they are no longer let in.
    while tasks.join_next().await.is_some() {}
    assert_eq!(*load.failed.lock().unwrap(), [""; 0]);
    assert!(load.done.load(SeqCst) >= 500);
    let answer = slow.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
    idle.closes().await;
    tokio::time::timeout(Duration::from_secs(10), fixture.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off_by_the_stop() {
    let (fixture, backend) = Fixture::with_core(|config| config.stop_grace_ms = 300).await;
    let mut slow = fixture.client().await;
    slow.send("GET /wait?60000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the slow one at the core", || backend.seen.count("/wait") == 1).await;
    let begun = Instant::now();
    fixture.stopper.stop();
    tokio::time::timeout(Duration::from_secs(10), fixture.running).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    slow.closes().await;
}

#[tokio::test]
async fn connections_that_wait_in_the_queue_at_the_stop_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        runtime_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let _backend = crate::backend::Backend::start(&dir.path().join("arsrv-http.sock"));
    let server = Server::start(config).unwrap();
    let mut client = Client::connect(server.local_addr()).await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (stopper, stop) = arbase::Stop::new();
    stopper.stop();
    let running = tokio::spawn(server.run_until(stop));
    assert_eq!(client.answer().await.text(), "ok");
    running.await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let fixture = Fixture::alone(|_| {});
    let start = |listen| {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { listen, runtime_dir: dir.path().to_owned(), ..Config::default() };
        Server::start(config).unwrap_err()
    };
    let port = fixture.addr.port();
    assert_eq!(
        Chain(&start(fixture.addr)).to_string(),
        format!("cannot listen on `127.0.0.1:{port}`: another program has port {port}")
    );
    let refused = start("192.0.2.1:11223".parse().unwrap());
    assert_eq!(
        Chain(&refused).to_string(),
        "cannot listen on `192.0.2.1:11223`: Cannot assign requested address (os error 99)"
    );
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        runtime_dir: fixture.dir.path().to_owned(),
        ..Config::default()
    };
    assert_eq!(
        Chain(&Server::start(config).unwrap_err()).to_string(),
        format!(
            "another process serves `{}/arldb.sock` already; stop it first",
            fixture.dir.path().display()
        )
    );
}

#[tokio::test]
async fn both_kinds_of_addresses_are_served_and_the_client_is_named_in_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "[::]:0".parse().unwrap(),
        runtime_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let _backend = crate::backend::Backend::start(&dir.path().join("arsrv-http.sock"));
    let server = Server::start(config).unwrap();
    let port = server.local_addr().port();
    let (_stopper, stop) = arbase::Stop::new();
    let has_v6 = server.local_addr().is_ipv6();
    tokio::spawn(server.run_until(stop));
    let mut client = Client::connect(([127, 0, 0, 1], port).into()).await;
    let answer = client.get("/echo").await;
    assert!(answer.text().contains("\nx-forwarded-for: 127.0.0.1\n"), "{answer:?}");
    if has_v6 {
        let mut client = Client::connect((std::net::Ipv6Addr::LOCALHOST, port).into()).await;
        let answer = client.get("/echo").await;
        assert!(answer.text().contains("\nx-forwarded-for: ::1\n"), "{answer:?}");
    }
}
