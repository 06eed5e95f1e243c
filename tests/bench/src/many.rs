//! 1,000 services and 1,000 channels: the start, and what an idle one costs.

use std::time::{Duration, Instant};

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

use crate::median;
use crate::processes::{held, number, tree};

const SERVICES: usize = 1000;
/// Services in one file, as those who write services have it.
const PER_FILE: usize = 10;
const ROUNDS: usize = 3;

pub(crate) async fn run() {
    println!(
        "{SERVICES} services in {} files and {SERVICES} channels, two workers",
        SERVICES / PER_FILE
    );
    let dir = artest::temp_dir();
    let start = async || {
        Node::builder().unclaimed().data_dir(dir.path()).arg("--workers").arg("2").start().await
    };
    let node = Node::builder().data_dir(dir.path()).start().await;
    node.deploy("bench_many_first.py", &file(SERVICES, 1)).await;
    channels(&node, SERVICES..SERVICES + 1).await;
    node.settled().await;
    node.stop();
    // With one service: what the node is without the others.
    let mut few = Vec::new();
    for _ in 0..ROUNDS {
        let node = start().await;
        few.push(rest(&node, SERVICES).await);
        node.stop();
    }
    let node = Node::builder().data_dir(dir.path()).start().await;
    let files: Vec<Value> = (0..SERVICES / PER_FILE)
        .map(|at| {
            let source = file(at * PER_FILE, PER_FILE);
            json!({"file_name": format!("bench_many_{at}.py"), "source": source})
        })
        .collect();
    let began = Instant::now();
    node.api(Method::POST, "/v1/deployments", Some(json!({"files": files}))).await;
    println!("  deploying all at once: {:.2} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    for at in (0..SERVICES).step_by(100) {
        channels(&node, at..at + 100).await;
    }
    node.settled().await;
    println!("  making the channels, 100 at a time: {:.2} s", began.elapsed().as_secs_f64());
    node.stop();
    let mut took = Vec::new();
    let mut many = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let node = start().await;
        let held = rest_after(&node, SERVICES - 1, || took.push(began.elapsed().as_secs_f64()));
        many.push(held.await);
        node.stop();
    }
    println!("  from starting the node to the first answer: {:.2} s (target: 5)", median(&took));
    for (at, (what, target)) in
        [("core", " (target: 60)"), ("balancer", ""), ("worker", "")].into_iter().enumerate()
    {
        let of = |runs: &[[f64; 3]]| {
            median(&runs.iter().filter_map(|run| run.get(at).copied()).collect::<Vec<_>>())
        };
        let (few, many) = (of(&few), of(&many));
        println!(
            "  {what:<9} {:>7.1} -> {:>7.1} MB: {:.1} kB for each service and channel{target}",
            few / 1000.0,
            many / 1000.0,
            (many - few) / number(SERVICES as u64)
        );
    }
    println!("  (median of {ROUNDS} starts, with one service and with all)\n");
}

/// A file with services of consecutive numbers.
fn file(first: usize, count: usize) -> String {
    let mut text = "from zato.server.service import Int, Service\n".to_owned();
    for number in first..first + count {
        text.push_str(&format!(
            "\n\nclass Many{number}(Service):\n    \"\"\"Adds {number} to what it was sent.\"\"\"\n\n    name = 'bench.many.{number}'\n\n    class SimpleIO:\n        input_required = Int('value')\n        output_required = Int('value')\n\n    def handle(self):\n        self.response.payload = {{'value': self.request.input.value + {number}}}\n"
        ));
    }
    text
}

async fn channels(node: &Node, numbers: std::ops::Range<usize>) {
    let changes: Vec<Value> = numbers
        .map(|number| {
            let spec = json!({"url_path": format!("/many/{number}"), "data_format": "json",
                              "service": format!("bench.many.{number}")});
            json!({"do": "put", "kind": "Channel", "name": format!("many-{number}"), "spec": spec})
        })
        .collect();
    node.api(Method::POST, "/v1/transactions", Some(json!({"changes": changes}))).await;
}

async fn rest(node: &Node, number: usize) -> [f64; 3] {
    rest_after(node, number, || ()).await
}

/// What core, balancer and one worker hold, kB, after the answer of one service.
async fn rest_after(node: &Node, service: usize, mut answered: impl FnMut()) -> [f64; 3] {
    artest::wait_for("the first answer", Duration::from_secs(60), async || {
        let path = format!("/many/{service}");
        let answer = node.request(Method::POST, &path, "{\"value\": 1}").await;
        if answer.status().is_success() { Ok(()) } else { Err(answer.status()) }
    })
    .await;
    answered();
    // Both workers have loaded, and what the start needed has been given back.
    artest::wait_for("both workers", Duration::from_secs(60), async || {
        let running = held(&tree(node.pid()), "worker").processes;
        if running == 2 { Ok(()) } else { Err(running) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let processes = tree(node.pid());
    ["arsrv", "arldb", "worker"].map(|unit| {
        let held = held(&processes, unit);
        number(held.resident_kib) * 1.024 / number(held.processes.max(1) as u64)
    })
}
