//! Steps and log lines reach a collector, which decodes them with the official messages of OTLP; one that is away holds
//! nothing up.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SOURCE: &str = "from zato.server.service import Service
class Front(Service):
    name = 'front'
    def handle(self):
        self.logger.info('front is asked')
        self.invoke('inner')
        self.out.rest['peer'].conn.get(self.cid)
class Inner(Service):
    name = 'inner'
    def handle(self):
        pass
";

struct Collector {
    child: Child,
    url: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start(refuse: u32) -> Self {
        let script = artest::repository().join("tests/services/services/collector.py");
        let mut child = Command::new(artest::python())
            .arg(script)
            .arg(refuse.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let to = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                to.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, url: format!("http://127.0.0.1:{}", port.trim()), seen }
    }

    fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn node(otlp: &str, collector: &str) -> Node {
    let node = Node::builder().config(&format!("[arsrv.otlp]\n{otlp}\n")).start().await;
    node.deploy("some.py", SOURCE).await;
    let out = |host: &str, path: &str| json!({"type": "rest", "host": host, "url_path": path, "ping_interval_s": 0});
    node.put("Outgoing", "peer", out(&node.channels, "/zato/ping")).await;
    node.put("Outgoing", "collector", out(collector, "/")).await;
    node.put("Channel", "front", json!({"url_path": "/front", "service": "front"})).await;
    node.settled().await;
    node
}

async fn figure(node: &Node, sample: &str) -> f64 {
    let page = node.http().get(format!("{}/metrics", node.admin)).bearer_auth(&node.token);
    let page = page.send().await.unwrap().text().await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_default().parse().unwrap()
}

#[tokio::test]
async fn a_collector_that_is_busy_at_first_gets_the_steps_of_a_request_and_its_log_lines() {
    let collector = Collector::start(2);
    let node = node("connection = \"collector\"", &collector.url).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let theirs = format!("00-{trace}-00f067aa0ba902b7-01");
    let url = format!("{}/front", node.channels);
    let answer = node.http().get(&url).header("traceparent", &theirs).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let cid = answer.headers()["x-zato-cid"].to_str().unwrap().to_owned();
    let limit = Duration::from_secs(60);
    let seen = artest::wait_for("the collector to have it all", limit, async || {
        let seen = collector.seen();
        let ours = |it: &&Value| it["attributes"]["arint.cid"] == cid.as_str();
        let ours: Vec<Value> = seen.iter().filter(ours).cloned().collect();
        let has = |key: &str, text: &str| ours.iter().any(|it| it[key] == text);
        let whole = has("span", "request front") && has("span", "outgoing peer");
        if whole && has("span", "service inner") && has("log", "front is asked") {
            Ok(ours)
        } else {
            Err(seen)
        }
    })
    .await;
    let find = |name: &str| seen.iter().find(|it| it["span"] == name || it["log"] == name).unwrap();
    let (request, service) = (find("request front"), find("service front"));
    assert_eq!((&request["parent"], &request["kind"]), (&json!("00f067aa0ba902b7"), &json!(2)));
    assert_eq!(request["attributes"]["http.response.status_code"], 200);
    assert_eq!(request["attributes"]["url.path"], "/front");
    assert_eq!(request["resource"]["service.name"], "arint");
    assert_eq!(service["parent"], request["id"]);
    assert_eq!(find("service inner")["parent"], service["id"]);
    assert_eq!(find("outgoing peer")["kind"], 3);
    let log = find("front is asked");
    assert_eq!((&log["level"], &log["number"]), (&json!("INFO"), &json!(9)));
    assert_eq!(log["attributes"]["arint.target"], "front");
    for one in &seen {
        assert_eq!(one["trace"], trace, "{one}");
    }
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let start = request["start"].as_u64().unwrap();
    assert!(start < now && start > now - 120_000_000_000, "{request}");
    assert!(collector.seen().iter().filter(|it| it.get("refused").is_some()).count() == 2);
    assert!(figure(&node, "arsrv_otlp_sent_total{signal=\"traces\"}").await >= 5.0);
    assert!(figure(&node, "arsrv_otlp_failures_total{signal=\"traces\"}").await >= 1.0);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_no_request_and_what_is_lost_is_counted() {
    let away = artest::free_addr();
    let node = node("connection = \"collector\"\nlogs = false", &format!("http://{away}")).await;
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    // More steps than the queue holds.
    while figure(&node, "arsrv_otlp_dropped_total{signal=\"traces\"}").await < 1.0 {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing was dropped");
        let asked = (0..200).map(|_| node.request(Method::GET, "/front", ""));
        let before = Instant::now();
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.status(), StatusCode::OK);
        }
        slowest = slowest.max(before.elapsed());
    }
    assert!(slowest < Duration::from_secs(20), "200 requests took {slowest:?}");
    assert!(figure(&node, "arsrv_otlp_failures_total{signal=\"traces\"}").await >= 1.0);
    // And it stops at once all the same.
    let stopping = Instant::now();
    let log = node.stop();
    assert!(stopping.elapsed() < Duration::from_secs(20), "{log}");
}

#[tokio::test]
async fn a_share_that_is_none_is_refused_at_the_start_with_its_field() {
    let dir = artest::temp_dir();
    let config = dir.path().join("arsrv.toml");
    std::fs::write(&config, "[otlp]\nconnection = \"c\"\nshare = 1.5\n").unwrap();
    let said = Command::new(artest::arint())
        .args(["arsrv", "--check", "--config-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("`otlp.share`: 1.5 is not between 0 and 1"), "{said}");
}
