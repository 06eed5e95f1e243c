//! Echo over SOAP 1.1 at 64 connections, beside spyne.

use artest::Node;
use serde_json::json;

use crate::load::{self, Load};
use crate::{median, peers};

const ROUNDS: usize = 5;
const SECONDS: u32 = 6;
const SCRIPT: &str = "soap.lua";

pub(crate) async fn run() {
    println!("echo service over SOAP 1.1, 64 connections, wrk on the same machine");
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.deploy("bench_services.py", include_str!("../peers/services.py")).await;
    let channel = json!({"type": "soap", "url_path": "/soap", "service": "bench.soap-echo",
                         "soap_action": "urn:bench:Echo"});
    node.put("Channel", "bench-soap", channel).await;
    node.settled().await;
    let ours = format!("{}/soap", node.channels);
    let spyne = peers::spyne().await;
    answers(&node, &ours).await;
    answers(&node, &spyne.url).await;
    load::run(SCRIPT, &ours, 3).await;
    load::run(SCRIPT, &spyne.url, 3).await;
    let mut runs: Vec<(Load, Load)> = Vec::new();
    for _ in 0..ROUNDS {
        let first = load::run(SCRIPT, &ours, SECONDS).await;
        runs.push((first, load::run(SCRIPT, &spyne.url, SECONDS).await));
    }
    let of =
        |figure: fn(&(Load, Load)) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let errors = |of: fn(&(Load, Load)) -> u64| runs.iter().map(of).sum::<u64>();
    println!(
        "  ARINT, 2 workers, through the balancer: {:.0}/s, p99 {:.1} ms, {} errors",
        of(|run| run.0.per_second),
        of(|run| run.0.p99_ms),
        errors(|run| run.0.errors)
    );
    println!(
        "  spyne on gunicorn, 2 workers:           {:.0}/s, p99 {:.1} ms, {} errors",
        of(|run| run.1.per_second),
        of(|run| run.1.p99_ms),
        errors(|run| run.1.errors)
    );
    println!(
        "  ours/theirs {:.1} (target: 5; median of {ROUNDS} rounds of {SECONDS} s, in turns, after a warm-up)\n",
        of(|run| run.0.per_second / run.1.per_second)
    );
}

/// Makes sure that what is measured is the right answer.
async fn answers(node: &Node, url: &str) {
    let script = include_str!("../peers/soap.lua");
    let body = script.lines().find_map(|line| line.strip_prefix("wrk.body = '"));
    let body = body.and_then(|line| line.strip_suffix('\'')).expect("the script has a body");
    let request =
        node.http().post(url).body(body).header("Content-Type", "text/xml; charset=utf-8");
    let answer = request.header("SOAPAction", "\"urn:bench:Echo\"").send().await;
    let answer = answer.expect("it answers");
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    assert!(status.is_success() && text.contains(">leave at the door<"), "{url}: {status}: {text}");
}
