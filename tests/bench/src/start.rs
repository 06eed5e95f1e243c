//! From the start of the node to the first answer of a user's service.

use std::time::{Duration, Instant};

use artest::Node;
use reqwest::Method;
use serde_json::json;

use crate::median;

const ROUNDS: usize = 5;

pub(crate) async fn run() {
    println!(
        "from starting the node (a service and its channel are there) to the service's first answer"
    );
    let dir = artest::temp_dir();
    let node = Node::builder().data_dir(dir.path()).start().await;
    node.deploy("bench_services.py", include_str!("../peers/services.py")).await;
    node.put(
        "Channel",
        "bench-echo",
        json!({"url_path": "/echo", "service": "bench.echo", "data_format": "json"}),
    )
    .await;
    node.settled().await;
    node.stop();
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let node = Node::builder()
            .unclaimed()
            .data_dir(dir.path())
            .arg("--workers")
            .arg("2")
            .start()
            .await;
        artest::wait_for("the first answer", Duration::from_secs(20), async || {
            let answer = node.request(Method::POST, "/echo", "{\"a\": 1}").await;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status()) }
        })
        .await;
        took.push(started.elapsed().as_secs_f64());
        node.stop();
    }
    println!("  ARINT: {:.2} s (median of {ROUNDS})\n", median(&took));
}
