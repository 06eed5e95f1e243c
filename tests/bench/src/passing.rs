//! A pass-through channel beside nginx's `proxy_pass`, to the same server, at 64 connections.

use std::path::Path;

use artest::Node;
use serde_json::json;

use crate::load::{self, Load};
use crate::{median, peers};

const ROUNDS: usize = 5;
const SECONDS: u32 = 6;

/// One run, with the processor time that a request took of each process, microseconds.
struct Run {
    load: Load,
    processor: Vec<f64>,
}

pub(crate) async fn run() {
    println!(
        "pass-through, POST of 113 bytes of JSON to nginx, 64 connections, wrk on the same machine"
    );
    let behind = peers::nginx(
        "behind",
        "location / { default_type application/json; return 200 '{\"ok\":true}'; }",
        "",
    )
    .await;
    let upstream = format!(
        "upstream behind {{ server {}; keepalive 64; }}",
        behind.url.trim_start_matches("http://")
    );
    let location = "location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; }";
    let nginx = peers::nginx("proxy", location, &upstream).await;
    let node = Node::builder().arg("--workers").arg("1").start().await;
    let outgoing =
        json!({"type": "rest", "host": behind.url, "ping_interval_s": 0, "pool_size": 64});
    node.put("Outgoing", "bench-behind", outgoing).await;
    let channel = json!({"url_path": "/echo", "pass_through": {"outgoing": "bench-behind"}});
    node.put("Channel", "bench-passing", channel).await;
    node.settled().await;
    let parts = [
        (
            "ARINT, through the balancer",
            format!("{}/echo", node.channels),
            node.pids(&["arldb", "arsrv"]),
        ),
        ("nginx proxy_pass, 2 workers", format!("{}/echo", nginx.url), nginx.workers()),
    ];
    for (_, url, _) in &parts {
        load(url, &[], 3).await;
    }
    let mut runs: Vec<Vec<Run>> = parts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, url, pids), runs) in parts.iter().zip(&mut runs) {
            runs.push(load(url, pids, SECONDS).await);
        }
    }
    println!(
        "  {:<30} {:>9} {:>9} {:>9} {:>7} {:>12}  processor time per request",
        "", "req/s", "p50 ms", "p99 ms", "errors", "ours/theirs"
    );
    let first: Vec<f64> =
        runs.first().into_iter().flatten().map(|run| run.load.per_second).collect();
    for ((name, _, _), runs) in parts.iter().zip(&runs) {
        let of = |figure: fn(&Load) -> f64| {
            median(&runs.iter().map(|run| figure(&run.load)).collect::<Vec<_>>())
        };
        let ratios: Vec<f64> =
            first.iter().zip(runs).map(|(ours, theirs)| ours / theirs.load.per_second).collect();
        let processor = |at: usize| {
            let all: Vec<f64> =
                runs.iter().filter_map(|run| run.processor.get(at).copied()).collect();
            format!("{:.1} µs", median(&all))
        };
        let shares: Vec<String> =
            (0..runs.first().map_or(0, |run| run.processor.len())).map(processor).collect();
        println!(
            "  {name:<30} {:>9.0} {:>9.2} {:>9.2} {:>7} {:>12.2}  {}",
            of(|run| run.per_second),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            runs.iter().map(|run| run.load.errors).sum::<u64>(),
            median(&ratios),
            shares.join(" + "),
        );
    }
    println!(
        "  (median of {ROUNDS} rounds of {SECONDS} s, in turns, after a warm-up; ours: balancer + core)\n"
    );
}

async fn load(url: &str, pids: &[u32], seconds: u32) -> Run {
    let before: Vec<f64> = pids.iter().map(|pid| processor_time(*pid)).collect();
    let load = load::run("echo.lua", url, seconds).await;
    let requests = load.per_second * f64::from(seconds);
    let spent = pids.iter().zip(before).map(|(pid, before)| processor_time(*pid) - before);
    Run { load, processor: spent.map(|seconds| seconds * 1e6 / requests).collect() }
}

/// The processor time that a process has had, seconds.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .expect("the process runs");
    // The name in parentheses may have blanks; what follows it begins with the third field.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    // `USER_HZ`, which is 100 on every Linux that this runs on.
    f64::from(ticks) / 100.0
}
