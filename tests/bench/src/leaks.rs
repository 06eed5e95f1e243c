//! 100 deployments in a row: what the node holds afterwards that it did not hold before.

use std::time::Duration;

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

use crate::processes::{files, held, megabytes, number, tree};

/// Deployments before the first look: stores, caches and the allocator have found their size.
const WARM_UP: usize = 50;
const DEPLOYMENTS: usize = 100;
const WORKERS: usize = 2;

pub(crate) async fn run() {
    println!("{DEPLOYMENTS} deployments in a row, after {WARM_UP} to warm up, two workers");
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.deploy("bench_leaks.py", &source(0)).await;
    let channel = json!({"url_path": "/leaks", "service": "bench.leaks"});
    node.put("Channel", "leaks", channel).await;
    node.settled().await;
    for version in 1..=WARM_UP {
        deploy(&node, version).await;
    }
    at_rest(&node).await;
    let before = tree(node.pid());
    let parts = ["arsrv", "modules", "arsrv/scratch", "arclst"];
    let on_disk = |part: &str| match part {
        // Where the workers' files lie depends on whether they have a user of their own.
        "modules" => folders(&node.data_dir, "modules"),
        part => files(&node.data_dir.join(part)),
    };
    let disk_before = parts.map(on_disk);
    for version in WARM_UP + 1..=WARM_UP + DEPLOYMENTS {
        deploy(&node, version).await;
    }
    at_rest(&node).await;
    let after = tree(node.pid());
    println!(
        "  {:<10} {:>20} {:>22} {:>18} {:>18}",
        "", "resident MB", "kB per deployment", "descriptors", "threads"
    );
    for unit in ["arsrv", "arldb", "arclst", "arwadm", "worker", ""] {
        let (first, last) = (held(&before, unit), held(&after, unit));
        let more = number(last.resident_kib) - number(first.resident_kib);
        println!(
            "  {:<10} {:>8.1} -> {:>8.1} {:>22.1} {:>7} -> {:>7} {:>7} -> {:>7}",
            if unit.is_empty() { "all" } else { unit },
            megabytes(first.resident_kib),
            megabytes(last.resident_kib),
            more * 1.024 / number(DEPLOYMENTS as u64),
            first.descriptors,
            last.descriptors,
            first.threads,
            last.threads,
        );
    }
    for (part, first) in parts.iter().zip(disk_before) {
        let last = on_disk(part);
        println!(
            "  {part:<14} {} -> {} files, {} -> {} kB on disk",
            first.0,
            last.0,
            first.1 / 1000,
            last.1 / 1000
        );
    }
    println!("  (the store keeps the earlier versions of a module, for a rollback)\n");
}

fn source(version: usize) -> String {
    format!(
        "from zato.server.service import Service\n\n\nclass Leaks(Service):\n    name = 'bench.leaks'\n\n    def handle(self):\n        self.response.payload = '{version}'\n"
    )
}

async fn deploy(node: &Node, version: usize) {
    node.deploy("bench_leaks.py", &source(version)).await;
    let answer = node.request(Method::GET, "/leaks", "").await;
    let text = answer.text().await.unwrap_or_default();
    assert_eq!(text, version.to_string(), "a deployment is live when it is answered");
}

/// Files of every folder of a name.
fn folders(below: &std::path::Path, name: &str) -> (usize, u64) {
    let mut found = (0, 0);
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let (count, bytes) = if path.ends_with(name) { files(&path) } else { folders(&path, name) };
        found = (found.0 + count, found.1 + bytes);
    }
    found
}

/// Waits until the replaced workers are gone and their successors are ready.
async fn at_rest(node: &Node) {
    artest::wait_for("replaced workers to be gone", Duration::from_secs(120), async || {
        let status = node.api(Method::GET, "/v1/status", None).await;
        let workers = status.pointer("/arsrv/workers").and_then(Value::as_array);
        let workers = workers.cloned().unwrap_or_default();
        let is_ready = |worker: &&Value| worker.get("state").is_some_and(|state| state == "ready");
        let ready = workers.iter().filter(is_ready).count();
        let running = held(&tree(node.pid()), "worker").processes;
        if workers.len() == WORKERS && ready == WORKERS && running == WORKERS {
            Ok(())
        } else {
            Err((running, Value::from(workers)))
        }
    })
    .await;
}
