//! What a node tells of itself in figures, as a collector sees it: promtool and Prometheus itself are the judges.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests end the test")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SOURCE: &str = "from zato.server.service import Service
class Good(Service):
    name = 'good'
    def handle(self):
        self.response.payload = {'ok': True}
class Bad(Service):
    name = 'bad'
    def handle(self):
        raise Exception('on purpose')
class Out(Service):
    name = 'out'
    def handle(self):
        self.response.payload = {'status': self.out.rest['peer'].conn.get(self.cid).status_code}
";

/// A node whose figures are worth looking at.
async fn busy_node(config: &str) -> Node {
    let node = Node::builder().config(config).start().await;
    node.deploy("some.py", SOURCE).await;
    // The node's own ping stands in for another system: a real HTTP server.
    let peer = json!({"type": "rest", "host": node.channels, "url_path": "/zato/ping"});
    node.put("Outgoing", "peer", peer).await;
    for name in ["good", "bad", "out"] {
        let spec = json!({"url_path": format!("/{name}"), "service": name, "data_format": "json"});
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
    for _ in 0..3 {
        assert_eq!(node.request(Method::GET, "/good", "").await.status(), StatusCode::OK);
    }
    assert_eq!(node.request(Method::GET, "/bad", "").await.status(), 500);
    assert_eq!(node.request(Method::GET, "/good", "{").await.status(), 400);
    let answer: Value = node.request(Method::GET, "/out", "").await.json().await.unwrap();
    assert_eq!(answer, json!({"status": 200}));
    node
}

async fn page(node: &Node) -> String {
    let answer = node.http().get(format!("{}/metrics", node.admin));
    let answer = answer.bearer_auth(&node.token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.text().await.unwrap()
}

#[track_caller]
fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no `{sample}` in\n{page}")).parse().unwrap()
}

#[tokio::test]
async fn every_unit_gives_its_figures_and_promtool_finds_no_fault_in_them() {
    let node = busy_node("").await;
    let page = page(&node).await;
    for (sample, expected) in [
        ("arint_unit_up{unit=\"arsrv\"}", 1.0),
        ("arint_unit_up{unit=\"arldb\"}", 1.0),
        ("arint_unit_up{unit=\"arclst\"}", 1.0),
        ("arsrv_channel_requests_total{channel=\"good\",status=\"2xx\"}", 3.0),
        ("arsrv_channel_requests_total{channel=\"good\",status=\"4xx\"}", 1.0),
        ("arsrv_channel_requests_total{channel=\"bad\",status=\"5xx\"}", 1.0),
        ("arsrv_channel_duration_seconds_count{channel=\"good\"}", 4.0),
        ("arsrv_service_duration_seconds_count{service=\"good\"}", 3.0),
        ("arsrv_service_errors_total{service=\"bad\"}", 1.0),
        ("arsrv_service_errors_total{service=\"good\"}", 0.0),
        ("arsrv_outgoing_duration_seconds_count{connection=\"peer\"}", 1.0),
        ("arsrv_outgoing_errors_total{connection=\"peer\"}", 0.0),
        ("arsrv_queue_waiting", 0.0),
        ("arsrv_workers_lost_total", 0.0),
        ("arldb_backend_up{backend=\"local\"}", 1.0),
        ("arclst_writable", 1.0),
        ("arkvd_writable", 1.0),
    ] {
        assert!((value(&page, sample) - expected).abs() < 0.01, "{sample}: {page}");
    }
    assert!(value(&page, "arldb_requests_total") >= 6.0);
    assert!(value(&page, "arsrv_workers{group=\"default\",state=\"ready\"}") >= 2.0);
    for unit in ["arclst", "arsrv", "arldb", "arwadm"] {
        let memory = value(&page, &format!("{unit}_process_resident_memory_bytes"));
        assert!((1e6..1e9).contains(&memory), "{unit} has {memory} bytes");
    }
    let mut promtool = Command::new(artest::tool("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said = (said.status.success(), String::from_utf8(said.stderr).unwrap());
    assert_eq!(said, (true, String::new()), "{page}");
}

#[tokio::test]
async fn figures_need_the_permission_but_on_a_loopback_port_that_was_asked_for() {
    let own = artest::free_addr();
    let node = busy_node(&format!("[arwadm]\nmetrics_listen = \"{own}\"\n")).await;
    let stranger = node.http().get(format!("{}/metrics", node.admin)).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let answer = node.http().get(format!("http://{own}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let page = answer.text().await.unwrap();
    assert!(value(&page, "arsrv_service_duration_seconds_count{service=\"good\"}") >= 3.0);
    // Nothing else is there.
    for path in ["/v1/status", "/v1/objects", "/"] {
        let other = node.http().get(format!("http://{own}{path}")).send().await.unwrap();
        assert_eq!(other.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_configured_any_more_and_what_strangers_send_makes_no_series() {
    let node = busy_node("").await;
    for number in 0..20 {
        node.request(Method::GET, &format!("/invented/{number}"), "").await;
    }
    let before = page(&node).await;
    assert!(!before.contains("invented"));
    let lines = before.lines().count();
    for name in ["good", "bad", "out"] {
        node.api(Method::DELETE, &format!("/v1/objects/Channel/{name}"), None).await;
    }
    node.api(Method::DELETE, "/v1/objects/Outgoing/peer", None).await;
    node.settled().await;
    let after = page(&node).await;
    assert!(!after.contains("channel=\"good\"") && !after.contains("connection=\"peer\""));
    assert!(after.lines().count() < lines);
}

#[tokio::test]
async fn prometheus_scrapes_a_node_with_a_token_and_answers_queries_on_it() {
    let node = busy_node("").await;
    let dir = artest::temp_dir();
    let target = node.admin.trim_start_matches("http://");
    let config = format!(
        "scrape_configs:\n  - job_name: arint\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    authorization: {{credentials: '{}'}}\n    static_configs: [{{targets: ['{target}']}}]\n",
        node.token
    );
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let addr = artest::free_addr();
    let mut prometheus = Command::new(artest::tool("prometheus", "prometheus"))
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={addr}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let query = "sum by (channel) (arsrv_channel_requests_total{channel=\"good\"})";
    let url = format!("http://{addr}/api/v1/query");
    let found =
        artest::wait_for("Prometheus to have scraped", Duration::from_secs(60), async || {
            let asked = node.http().get(format!("{url}?query={}", escaped(query))).send().await;
            let answer = asked.map_err(|err| err.to_string())?.text().await.unwrap();
            let document: Value = serde_json::from_str(&answer).unwrap_or_default();
            let value = document["data"]["result"][0]["value"][1].as_str().map(ToOwned::to_owned);
            value.ok_or(answer)
        })
        .await;
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    assert_eq!(found, "4");
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
