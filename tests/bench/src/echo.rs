//! Echo over REST at 64 connections: JSON in, the same out.

use artest::Node;
use serde_json::json;

use crate::load::{self, Load};
use crate::{median, peers};

const ROUNDS: usize = 5;
const SECONDS: u32 = 6;
const SCRIPT: &str = "echo.lua";

pub(crate) async fn run() {
    println!(
        "echo service over REST, POST of 113 bytes of JSON, 64 connections, wrk on the same machine"
    );
    let node = Node::builder().arg("--workers").arg("2").start().await;
    let services = include_str!("../peers/services.py");
    node.deploy("bench_services.py", services).await;
    let channel = json!({"url_path": "/echo", "service": "bench.echo", "data_format": "json", "method": "POST"});
    node.put("Channel", "bench-echo", channel).await;
    node.settled().await;
    let ours = format!("{}/echo", node.channels);
    let fastapi = peers::fastapi(false).await;
    let fastapi_fast = peers::fastapi(true).await;
    let node_red = peers::node_red().await;
    let parts = [
        ("ARINT, 2 workers, through the balancer", ours.as_str()),
        ("FastAPI on uvicorn, 2 workers", fastapi.url.as_str()),
        ("FastAPI on uvicorn[standard], 2 workers", fastapi_fast.url.as_str()),
        ("Node-RED http-in flow", node_red.url.as_str()),
    ];
    for (_, url) in parts {
        load::run(SCRIPT, url, 3).await;
    }
    let mut runs: Vec<Vec<Load>> = vec![Vec::new(); parts.len()];
    for _ in 0..ROUNDS {
        for ((_, url), runs) in parts.iter().zip(&mut runs) {
            runs.push(load::run(SCRIPT, url, SECONDS).await);
        }
    }
    println!(
        "  {:<42} {:>9} {:>9} {:>9} {:>7} {:>12} {:>11}",
        "", "req/s", "p50 ms", "p99 ms", "errors", "ours/theirs", "p99 ratio"
    );
    let (first, _) = runs.split_first().expect("there are four parts");
    let first = first.clone();
    for ((name, _), runs) in parts.iter().zip(&runs) {
        let of = |figure: fn(&Load) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
        let ratio = |figure: fn(&Load) -> f64| {
            let ratios: Vec<f64> = first
                .iter()
                .zip(runs)
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
                .collect();
            median(&ratios)
        };
        println!(
            "  {name:<42} {:>9.0} {:>9.2} {:>9.2} {:>7} {:>12.2} {:>11.2}",
            of(|run| run.per_second),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            runs.iter().map(|run| run.errors).sum::<u64>(),
            ratio(|run| run.per_second),
            ratio(|run| run.p99_ms),
        );
    }
    println!("  (median of {ROUNDS} rounds of {SECONDS} s, in turns, after a warm-up)\n");
}
