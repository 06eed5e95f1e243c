//! Under load for half an hour: deployments, killed workers and changes of what is configured, in turns.
//!
//! The only requests that may fail are those that a killed worker had begun, and memory must stay flat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::processes::{held, megabytes, number, slope, tree};

/// Where `SECONDS` does not say otherwise.
const SECONDS: u64 = 1800;
const CLIENTS: usize = 16;
/// Between two disturbances.
const PAUSE: Duration = Duration::from_millis(500);
/// Of the time, how much goes by before memory is looked at: stores, caches and allocators find their size.
const WARM_UP: f64 = 0.25;

#[derive(Default)]
struct Told {
    answered: AtomicU64,
    /// Of a worker that was killed: not idempotent, begun, not answered.
    of_killed: AtomicU64,
}

pub(crate) async fn run() {
    let seconds = match std::env::var("SECONDS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SECONDS=`{text}` is not a number")),
        Err(_) => SECONDS,
    };
    println!("{seconds} s under load: deployments, killed workers, changes of what is configured");
    let node = Node::builder().arg("--workers").arg("2").start().await;
    node.deploy("bench_services.py", include_str!("../peers/services.py")).await;
    node.put("Channel", "soak", channel(60_000)).await;
    let pause = json!({"url_path": "/pause", "service": "bench.pause", "data_format": "json"});
    node.put("Channel", "pause", pause).await;
    node.settled().await;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::new(Told::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let path = if number % 4 < 2 { "/soak" } else { "/pause" };
            let (http, url) = (node.http().clone(), format!("{}{path}", node.channels));
            tokio::spawn(client(number, http, url, Arc::clone(&stop), Arc::clone(&told)))
        })
        .collect();
    let began = Instant::now();
    let mut counts = [0u64; 3];
    let mut points: Vec<(f64, [f64; 4])> = Vec::new();
    let mut round = 0u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        round += 1;
        match round % 3 {
            0 => deploy(&node, round).await,
            1 => change(&node, round).await,
            _ => kill(&node),
        }
        if let Some(count) = usize::try_from(round % 3).ok().and_then(|kind| counts.get_mut(kind)) {
            *count += 1;
        }
        tokio::time::sleep(PAUSE).await;
        let processes = tree(node.pid());
        let of = |unit| megabytes(held(&processes, unit).resident_kib);
        // Of the workers it is the descriptors that would show: they are young.
        let open = number(held(&processes, "arsrv").descriptors as u64);
        let now = began.elapsed().as_secs_f64();
        points.push((now, [of("arsrv"), of("arldb"), of("arclst"), open]));
    }
    stop.store(true, Ordering::Relaxed);
    let mut faults = Vec::new();
    for client in clients {
        faults.extend(client.await.expect("a client does not panic"));
    }
    let [deployments, changes, kills] = counts;
    let answered = told.answered.load(Ordering::Relaxed);
    let of_killed = told.of_killed.load(Ordering::Relaxed);
    println!("  {deployments} deployments, {changes} changes, {kills} killed workers");
    println!(
        "  {answered} requests answered, {of_killed} failed with their killed worker, {} otherwise (target: 0)",
        faults.len()
    );
    for fault in faults.iter().take(5) {
        println!("    {fault}");
    }
    let from = number(seconds) * WARM_UP;
    points.retain(|point| point.0 >= from);
    for (at, what) in
        ["core, MB", "balancer, MB", "object store, MB", "core, descriptors"].iter().enumerate()
    {
        let line: Vec<(f64, f64)> = points
            .iter()
            .filter_map(|(time, figures)| Some((time / 3600.0, *figures.get(at)?)))
            .collect();
        if let (Some(first), Some(last)) = (line.first(), line.last()) {
            println!(
                "  {what:<18} {:>7.1} -> {:>7.1}, {:+.2} per hour",
                first.1,
                last.1,
                slope(&line)
            );
        }
    }
    println!("  (slopes after the first quarter)\n");
}

fn channel(timeout_ms: u64) -> Value {
    json!({"url_path": "/soak", "service": "bench.echo", "data_format": "json", "timeout_ms": timeout_ms})
}

async fn deploy(node: &Node, round: u64) {
    let source = format!(
        "from zato.server.service import Service\n\n\nclass Soak(Service):\n    name = 'bench.soak'\n\n    def handle(self):\n        self.response.payload = '{round}'\n"
    );
    node.deploy("bench_soak.py", &source).await;
}

async fn change(node: &Node, round: u64) {
    node.put("Channel", "soak", channel(30_000 + round % 1000)).await;
    let host = format!("http://127.0.0.1:{}", 1000 + round % 1000);
    let outgoing = json!({"type": "rest", "host": host, "ping_interval_s": 0});
    node.put("Outgoing", "soak", outgoing).await;
}

/// Kills a worker: the one that was found last, which is any.
fn kill(node: &Node) {
    let worker = tree(node.pid()).into_iter().rfind(|process| process.unit == "worker");
    let worker = worker.expect("a node under load has a worker");
    let mut kill = std::process::Command::new("kill");
    let killed = kill.arg("-KILL").arg(worker.pid.to_string()).status();
    // One that was being replaced may have ended by itself meanwhile.
    if !killed.is_ok_and(|status| status.success()) {
        println!("  worker {} was gone before it was killed", worker.pid);
    }
}

/// Requests as fast as they are answered.  Returns those that failed and should not have.
async fn client(
    number: usize,
    http: reqwest::Client,
    url: String,
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
) -> Vec<String> {
    let method = if number.is_multiple_of(2) { Method::GET } else { Method::POST };
    let mut faults = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match http.request(method.clone(), &url).body("{\"a\": 1}").send().await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                told.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                // Those that are idempotent are begun again, and are never lost with one worker.
                let of_killed = status == StatusCode::SERVICE_UNAVAILABLE
                    && text.contains("SIGKILL")
                    && (method == Method::POST || text.contains("ended its worker"));
                if of_killed {
                    told.of_killed.fetch_add(1, Ordering::Relaxed);
                } else {
                    faults.push(format!("{method} {status}: {text}"));
                }
            }
            Err(err) => faults.push(format!("{method}: {err:?}")),
        }
    }
    faults
}
