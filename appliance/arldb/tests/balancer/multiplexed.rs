//! HTTP/2 with prior knowledge: many requests of one connection, and the limits of each.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::fixture::{Fixture, wait_for};

async fn connect(addr: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    sender
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://shop.test{path}")).body(Full::default()).unwrap()
}

async fn text(answer: Response<Incoming>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn ask(sender: &SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> (u16, String) {
    let mut sender = sender.clone();
    let asking = async {
        let answer = sender.send_request(request).await.unwrap();
        (answer.status().as_u16(), text(answer).await)
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_go_over_one_connection_at_once() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let sender = connect(fixture.addr).await;
    let started = std::time::Instant::now();
    let all = (0..100).map(|_| ask(&sender, get("/wait?300")));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, (200, "done".to_owned()));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let body = Full::new(Bytes::from(vec![b'x'; 5_000_000]));
    let upload = Request::post("http://shop.test/count").body(body).unwrap();
    assert_eq!(ask(&sender, upload).await, (200, "5000000".to_owned()));
    let status = fixture.status().await;
    assert_eq!((status.connections, status.requests), (1, 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_one_request_breaks_costs_no_other_of_the_connection() {
    let (fixture, backend) = Fixture::with_core(|config| {
        config.request_timeout_ms = 400;
        config.max_body_bytes = 1000;
        config.max_header_count = 20;
    })
    .await;
    let sender = connect(fixture.addr).await;
    let waiting = ask(&sender, get("/wait?250"));
    let late = ask(&sender, get("/wait?5000"));
    let large =
        Request::post("http://shop.test/count").body(Full::new(vec![0; 1001].into())).unwrap();
    let large = ask(&sender, large);
    let mut many = Request::get("http://shop.test/x");
    for number in 0..30 {
        many = many.header(format!("x-{number}"), "1");
    }
    let many = ask(&sender, many.body(Full::default()).unwrap());
    let ((status, answer), late, large, many) = tokio::join!(waiting, late, large, many);
    assert_eq!((status, answer.as_str()), (200, "done"));
    assert_eq!((late.0, large.0, many.0), (504, 413, 431));
    assert!(late.1.contains("the integrator core did not answer within 400ms"), "{}", late.1);
    assert!(many.1.contains("the request's headers are more than 20 lines"), "{}", many.1);
    wait_for("the late call given up", || backend.seen.cancelled.load(SeqCst) == 1).await;
    assert_eq!(ask(&sender, get("/x")).await, (200, "ok".to_owned()));
    assert_eq!(fixture.status().await.connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gives_a_request_up_gives_its_call_up() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let mut sender = connect(fixture.addr).await;
    let mut asking = Box::pin(sender.send_request(get("/wait?20000")));
    let begun = async { wait_for("the request", || backend.seen.count("/wait") == 1).await };
    tokio::select! {
        _ = &mut asking => panic!("it was answered"),
        () = begun => {}
    }
    drop(asking);
    wait_for("the call given up", || backend.seen.cancelled.load(SeqCst) == 1).await;
    assert_eq!(ask(&sender, get("/x")).await, (200, "ok".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_and_a_core_that_stalls_are_cut_off() {
    let (fixture, _backend) = Fixture::with_core(|config| {
        config.write_timeout_ms = 500;
        config.request_timeout_ms = 500;
    })
    .await;
    let mut sender = connect(fixture.addr).await;
    let untouched = sender.send_request(get("/big?50000000")).await.unwrap();
    fixture.wait_until(|status| status.connections == 0).await;
    drop(untouched);
    let mut sender = connect(fixture.addr).await;
    let stalled = sender.send_request(get("/stall")).await.unwrap();
    assert!(stalled.into_body().collect().await.is_err());
    fixture.wait_until(|status| status.connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_in_flight_and_closes_idle_connections() {
    let (fixture, backend) = Fixture::with_core(|_| {}).await;
    let (busy, idle) = (connect(fixture.addr).await, connect(fixture.addr).await);
    assert_eq!(ask(&idle, get("/x")).await.0, 200);
    let stopping = async {
        wait_for("the request", || backend.seen.count("/wait") == 1).await;
        fixture.stopper.stop();
    };
    let (answer, ()) = tokio::join!(ask(&busy, get("/wait?1000")), stopping);
    assert_eq!(answer, (200, "done".to_owned()));
    tokio::time::timeout(Duration::from_secs(10), fixture.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_a_while() {
    let (fixture, _backend) = Fixture::with_core(|config| {
        config.keep_alive_timeout_ms = 100;
        config.header_timeout_ms = 100;
    })
    .await;
    let sender = connect(fixture.addr).await;
    assert_eq!(ask(&sender, get("/x")).await.0, 200);
    fixture.wait_until(|status| status.connections == 0).await;
}
