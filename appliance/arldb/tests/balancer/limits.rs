//! Each limit, met by a client that goes over it.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use crate::client::Client;
use crate::fixture::{Fixture, wait_for};

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused_with_431() {
    let (fixture, _backend) = Fixture::with_core(|config| {
        config.max_header_count = 5;
        config.max_header_bytes = 2000;
    })
    .await;
    let sentence = "the request's headers are more than 5 lines or 2000 bytes";
    let lines = |count| "X-A: b\r\n".repeat(count);
    let mut client = fixture.client().await;
    let most = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(4));
    assert_eq!(client.ask(most).await.text(), "ok");
    let more = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(5));
    client.ask(more).await.is_error(431, sentence);
    client.closes().await;

    let mut client = fixture.client().await;
    let large = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "b".repeat(2000));
    client.ask(large).await.is_error(431, sentence);
    // One that never ends is refused as soon as it is too large.
    let mut client = fixture.client().await;
    client
        .ask(format!("GET /x HTTP/1.1\r\nHost: {}", "b".repeat(2000)))
        .await
        .is_error(431, sentence);
}

#[tokio::test]
async fn a_large_set_of_headers_is_passed_within_the_limits() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    let mut client = fixture.client().await;
    let lines: String = (0..89).map(|at| format!("X-{at}: {}\r\n", "v".repeat(340))).collect();
    let answer = client.ask(format!("GET /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    assert_eq!(answer.text().matches(&"v".repeat(340)).count(), 89);
    // Slowly and in small pieces, too.
    let request = format!("GET /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for piece in request.as_bytes().chunks(5000) {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(client.answer().await.text().matches(&"v".repeat(340)).count(), 89);
}

#[tokio::test]
async fn a_target_too_long_is_refused_with_414() {
    let (fixture, _backend) = Fixture::with_core(|config| config.max_header_bytes = 100_000).await;
    let mut client = fixture.client().await;
    let answer =
        client.ask(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(66_000))).await;
    answer.is_error(414, "the request target is longer than 65534 bytes");
}

#[tokio::test]
async fn a_body_too_large_is_refused_with_413_whatever_its_framing() {
    let (fixture, backend) = Fixture::with_core(|config| config.max_body_bytes = 100_000).await;
    let mut client = fixture.client().await;
    assert_eq!(client.post("/count", &[b'x'; 100_000]).await.text(), "100000");
    // The announcement is enough: nothing of the body is waited for.
    let head = "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n";
    client.ask(head).await.is_error(413, "the request body is larger than 100000 bytes");
    client.closes().await;

    let mut client = fixture.client().await;
    client.send("POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000));
    for _ in 0..11 {
        client.send(&chunk).await;
    }
    let answer = client.answer().await;
    answer.is_error(413, "the request body is larger than allowed");
    assert_eq!(fixture.status().await.refused, 2);
    assert_eq!(backend.seen.count("/count"), 2, "the core saw the streamed one begin");
}

#[tokio::test]
async fn a_refused_client_that_goes_on_sending_still_reads_why() {
    let (fixture, _backend) = Fixture::with_core(|config| config.max_body_bytes = 1000).await;
    let mut client = fixture.client().await;
    let body = vec![b'x'; 4_000_000];
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), &body].concat()).await;
    client.answer().await.is_error(413, "the request body is larger than 1000 bytes");
}

#[tokio::test]
async fn slow_headers_are_answered_with_408() {
    let (fixture, _backend) = Fixture::with_core(|config| config.header_timeout_ms = 200).await;
    let mut client = fixture.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n").await;
    // A byte now and then does not help.
    let begun = Instant::now();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"X").await.is_err() {
                break;
            }
            let mut peeked = [0; 1];
            let peek = client.stream.peek(&mut peeked);
            if tokio::time::timeout(Duration::from_millis(1), peek).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), drip).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    client.answer().await.is_error(408, "the request's headers were not complete within 200ms");

    // One that sends nothing at all is closed without a word.
    let mut silent = fixture.client().await;
    silent.closes().await;
    // The second request of a connection has the same limit.
    let mut client = fixture.client().await;
    assert_eq!(client.get("/x").await.text(), "ok");
    client
        .ask("GET /x HT")
        .await
        .is_error(408, "the request's headers were not complete within 200ms");
    client.closes().await;
}

#[tokio::test]
async fn slow_bodies_are_answered_with_408_small_or_large() {
    let (fixture, backend) = Fixture::with_core(|config| {
        (config.body_timeout_ms, config.min_body_rate) = (200, 0);
    })
    .await;
    for length in [10, 1_000_000] {
        let mut client = fixture.client().await;
        let head =
            format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc");
        let answer = client.ask(head).await;
        answer.is_error(408, "the request's body did not go on within 200ms");
        client.closes().await;
    }
    wait_for("the end of the streamed one", || {
        backend.seen.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(backend.seen.count("/count"), 1, "the core is not troubled with a small one");
    // Slow as a whole, but with no pause over the limit: that is allowed.
    let mut client = fixture.client().await;
    client.send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.text(), "6");
}

#[tokio::test]
async fn a_body_that_drips_is_answered_with_408() {
    let (fixture, _backend) = Fixture::with_core(|config| {
        (config.body_timeout_ms, config.min_body_rate) = (200, 1000);
    })
    .await;
    for length in [1000, 1_000_000] {
        let mut client = fixture.client().await;
        client
            .send(format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))
            .await;
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            // It may have been refused and closed by now.
            tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"x").await.ok();
        }
        client.answer().await.is_error(408, "the request's body came too slowly");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_its_time() {
    let (fixture, _backend) = Fixture::with_core(|config| config.keep_alive_timeout_ms = 200).await;
    let mut client = fixture.client().await;
    let begun = Instant::now();
    assert_eq!(client.get("/x").await.text(), "ok");
    client.closes().await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    fixture.wait_until(|status| status.connections == 0).await;
    assert_eq!(fixture.status().await.refused, 0);
}

#[tokio::test]
async fn a_service_too_slow_is_answered_with_504_and_cancelled() {
    let (fixture, backend) = Fixture::with_core(|config| config.request_timeout_ms = 200).await;
    let mut client = fixture.client().await;
    let answer = client.get("/wait?60000").await;
    answer.is_error(504, "the integrator core did not answer within 200ms");
    wait_for("the end of the request at the core", || {
        backend.seen.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(client.get("/x").await.text(), "ok", "the client's connection stays");
    assert_eq!(fixture.status().await.backends[0].in_flight, 0);
}

#[tokio::test]
async fn an_answer_that_stops_in_its_middle_is_cut_off() {
    let (fixture, _backend) = Fixture::with_core(|config| config.request_timeout_ms = 200).await;
    let mut client = fixture.client().await;
    client.send("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let mut rest = Vec::new();
    let read = client.stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().ok();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a client can tell that it is not whole");
    fixture.wait_until(|status| status.connections == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let (fixture, backend) = Fixture::with_core(|config| config.write_timeout_ms = 300).await;
    let mut client = fixture.client().await;
    client.send("GET /big?50000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    fixture.wait_until(|status| status.connections == 0).await;
    assert_eq!(fixture.status().await.backends[0].in_flight, 0);
    drop(backend);
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_gets_it() {
    let (fixture, _backend) = Fixture::with_core(|config| {
        config.write_timeout_ms = 500;
        config.request_timeout_ms = 500;
    })
    .await;
    let mut client = fixture.client().await;
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let begun = Instant::now();
    let mut taken = 0;
    let mut buffer = vec![0; 2_000_000];
    while taken < 19_000_000 {
        let read = client.stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "cut off after {taken}");
        taken += read;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "slower than either limit");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let (fixture, _backend) = Fixture::with_core(|config| config.max_connections = 2).await;
    let mut first = fixture.client().await;
    let mut second = fixture.client().await;
    assert_eq!(first.get("/x").await.text(), "ok");
    assert_eq!(second.get("/x").await.text(), "ok");
    let mut third = fixture.client().await;
    let answer = third.answer().await;
    answer.is_error(503, "too many connections are open; try again");
    assert_eq!(answer.header("retry-after"), Some("1"));
    third.closes().await;
    drop(first);
    fixture.wait_until(|status| status.connections == 1).await;
    assert_eq!(fixture.client().await.get("/x").await.text(), "ok");
}

#[tokio::test]
async fn requests_over_the_limit_wait_and_over_the_queue_are_refused() {
    let (fixture, backend) = Fixture::with_core(|config| {
        config.max_in_flight = 1;
        config.max_queue = 1;
    })
    .await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        clients.push(fixture.client().await);
    }
    let [first, second, third] = &mut clients[..] else { unreachable!() };
    first.send("GET /wait?400 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the first at the core", || backend.seen.count("/wait") == 1).await;
    second.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    fixture.wait_until(|status| status.requests == 2).await;
    let answer = third.get("/x").await;
    answer.is_error(503, "too many requests are in progress; try again");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(backend.seen.count("/x"), 0);
    assert_eq!(first.answer().await.text(), "done");
    assert_eq!(second.answer().await.text(), "ok");
    assert_eq!(third.get("/x").await.text(), "ok");
}

#[tokio::test]
async fn a_turn_that_does_not_come_is_told_so() {
    let (fixture, backend) = Fixture::with_core(|config| {
        config.max_in_flight = 1;
        config.queue_timeout_ms = 50;
    })
    .await;
    let mut first = fixture.client().await;
    first.send("GET /wait?400 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wait_for("the first at the core", || backend.seen.count("/wait") == 1).await;
    let answer = fixture.client().await.get("/x").await;
    answer.is_error(503, "too many requests are in progress and no turn came; try again");
    assert_eq!(first.answer().await.text(), "done");
}

#[tokio::test]
async fn five_hundred_idle_connections_are_cheap() {
    let (fixture, _backend) = Fixture::with_core(|_| {}).await;
    assert_eq!(fixture.client().await.get("/x").await.text(), "ok");
    let before = resident_kib();
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = fixture.client().await;
        assert_eq!(client.get("/x").await.text(), "ok");
        clients.push(client);
    }
    assert_eq!(fixture.status().await.connections, 500);
    let grown = resident_kib().saturating_sub(before);
    // Both ends are in this process; measured 8 MiB, most of it hyper's buffers.
    assert!(grown < 24 * 1024, "{grown} KiB for 500 connections");
    let begun = cpu_ticks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(cpu_ticks() - begun <= 5, "idle connections use the processor");
    assert_eq!(clients[250].get("/x").await.text(), "ok");
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// Hundredths of a second.  Other tests run in the same process only if somebody runs them so.
fn cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
