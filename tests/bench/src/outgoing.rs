//! 500 concurrent calls of a service that waits 200 ms on an outgoing connection.

use std::time::{Duration, Instant};

use artest::Node;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::median;

const CALLS: usize = 500;
const ROUNDS: usize = 5;

pub(crate) async fn run() {
    println!("{CALLS} concurrent calls of a service that waits 200 ms on an outgoing connection");
    let slow = slow_server().await;
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.put("Outgoing", "bench-slow", json!({"type": "rest", "host": slow, "ping_interval_s": 0}))
        .await;
    node.deploy("bench_services.py", include_str!("../peers/services.py")).await;
    node.put(
        "Channel",
        "bench-wait",
        json!({"url_path": "/wait", "service": "bench.wait", "data_format": "json"}),
    )
    .await;
    node.settled().await;
    let url = format!("{}/wait", node.channels);
    burst(&url).await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        took.push(burst(&url).await.as_secs_f64());
    }
    println!(
        "  ARINT, 2 workers: {:.2} s (median of {ROUNDS}; the least possible is 0.20 s)\n",
        median(&took)
    );
}

async fn burst(url: &str) -> Duration {
    let client =
        reqwest::Client::builder().no_proxy().build().expect("the HTTP client can be built");
    let started = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let request = client.get(url);
            tokio::spawn(async move { request.send().await.map(|answer| answer.status()) })
        })
        .collect();
    for call in calls {
        let status = call.await.expect("a call does not panic").expect("a call is answered");
        assert!(status.is_success(), "a call was answered {status}");
    }
    started.elapsed()
}

/// Answers every request after 200 ms.
async fn slow_server() -> String {
    let listener =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("no free port on loopback");
    let addr = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0u8; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    // GET has no body: each blank line ends a request.
                    while let Some(end) = seen.windows(4).position(|part| part == b"\r\n\r\n") {
                        seen.drain(..end + 4);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    format!("http://{addr}")
}
