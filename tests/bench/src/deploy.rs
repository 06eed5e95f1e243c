//! From saving a changed service to its first new answer.

use std::time::{Duration, Instant};

use artest::Node;
use reqwest::Method;
use serde_json::json;

use crate::median;

const ROUNDS: usize = 10;

pub(crate) async fn run() {
    println!("from a changed service to its first new answer, two workers");
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.deploy("bench_version.py", &source(0)).await;
    node.put("Channel", "version", json!({"url_path": "/version", "service": "bench.version"}))
        .await;
    node.settled().await;
    let mut by_file = Vec::new();
    let mut by_api = Vec::new();
    for round in 1..=ROUNDS {
        let started = Instant::now();
        let path = node.pickup_dir.join("bench_version.py");
        std::fs::write(path, source(round * 2 - 1)).expect("cannot write into the pickup folder");
        until(&node, round * 2 - 1).await;
        by_file.push(started.elapsed().as_secs_f64() * 1000.0);
        let started = Instant::now();
        node.deploy("bench_version.py", &source(round * 2)).await;
        until(&node, round * 2).await;
        by_api.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    println!(
        "  ARINT, saved in the pickup folder: {:.0} ms (median of {ROUNDS})",
        median(&by_file)
    );
    println!(
        "  ARINT, sent to the admin API:      {:.0} ms (median of {ROUNDS})\n",
        median(&by_api)
    );
}

fn source(version: usize) -> String {
    format!(
        "from zato.server.service import Service\n\n\nclass Version(Service):\n    name = 'bench.version'\n\n    def handle(self):\n        self.response.payload = '{version}'\n"
    )
}

async fn until(node: &Node, version: usize) {
    artest::wait_for("the new version", Duration::from_secs(20), async || {
        let answer = node.request(Method::GET, "/version", "").await;
        let text = answer.text().await.unwrap_or_default();
        if text == version.to_string() { Ok(()) } else { Err(text) }
    })
    .await;
}
