//! Under constant load: a deployment drops no request, and a bad service costs only its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const HAZARDS: &str = include_str!("../services/hazards.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_drops_no_request() {
    let node = Node::start().await;
    let source = |version: u32| {
        format!(
            "from zato.server.service import Service\nclass Version(Service):\n    name = 'version'\n    def handle(self):\n        self.response.payload = {{'version': {version}}}\n"
        )
    };
    node.deploy("version.py", &source(0)).await;
    node.put(
        "Channel",
        "version",
        json!({"url_path": "/version", "service": "version", "data_format": "json"}),
    )
    .await;
    node.settled().await;
    let load = Load::start(&node, "/version", 16);
    for version in 1..=10 {
        node.deploy("version.py", &source(version)).await;
        // The deployment's answer means live: the very next request sees it.
        let answer: Value = node.request(Method::GET, "/version", "").await.json().await.unwrap();
        assert_eq!(answer["version"], version);
    }
    let back =
        node.api(Method::POST, "/v1/deployments/version/rollback", Some(json!({"to": 3}))).await;
    assert_eq!(back["modules"][0]["version"], 12, "{back}");
    let answer: Value = node.request(Method::GET, "/version", "").await.json().await.unwrap();
    assert_eq!(answer["version"], 2, "version 3 of the module is the second change");
    let (answered, faults) = load.stop().await;
    assert!(
        faults.is_empty(),
        "{} of {answered} requests failed: {:?}",
        faults.len(),
        faults.first()
    );
    assert!(answered > 200, "only {answered} requests were answered: no load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_service_costs_only_its_own_request() {
    let node = Node::builder().config("[arsrv]\nworker_memory_mib = 160\n").start().await;
    node.deploy("hazards.py", HAZARDS).await;
    for name in ["good", "loop", "leak", "exit", "crash", "sleep"] {
        let spec = json!({"url_path": format!("/{name}"), "service": format!("hazards.{name}"), "data_format": "json", "timeout_ms": 2000});
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
    let load = Load::start(&node, "/good", 8);
    for (path, statuses) in [
        ("/loop", [StatusCode::GATEWAY_TIMEOUT, StatusCode::GATEWAY_TIMEOUT]),
        ("/exit", [StatusCode::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE]),
        ("/crash", [StatusCode::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE]),
        ("/leak", [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]),
    ] {
        for _ in 0..3 {
            let answer = node.request(Method::POST, path, "{}").await;
            let status = answer.status();
            let document: Value = answer.json().await.unwrap();
            assert!(statuses.contains(&status), "{path} answered {status}: {document}");
            assert_eq!(document["result"], "Error", "{path}: {document}");
            assert!(
                document["cid"].is_string() && document["details"].is_string(),
                "{path}: {document}"
            );
        }
    }
    let (answered, faults) = load.stop().await;
    assert!(
        faults.is_empty(),
        "{} of {answered} good requests failed: {:?}",
        faults.len(),
        faults.first()
    );
    assert!(answered > 200, "only {answered} requests were answered: no load");
    let answer = node.request(Method::GET, "/sleep", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_what_is_configured_drops_no_request() {
    let node = Node::start().await;
    node.deploy("hazards.py", HAZARDS).await;
    node.put(
        "Channel",
        "good",
        json!({"url_path": "/good", "service": "hazards.good", "data_format": "json"}),
    )
    .await;
    node.settled().await;
    let load = Load::start(&node, "/good", 8);
    for round in 0..20 {
        node.put(
            "Channel",
            "other",
            json!({"url_path": format!("/other/{round}"), "service": "hazards.good"}),
        )
        .await;
        node.put("Outgoing", "o", json!({"type": "rest", "host": format!("http://127.0.0.1:{}", 1000 + round), "ping_interval_s": 0})).await;
        node.put("Channel", "good", json!({"url_path": "/good", "service": "hazards.good", "data_format": "json", "timeout_ms": 5000 + round})).await;
    }
    let (answered, faults) = load.stop().await;
    assert!(
        faults.is_empty(),
        "{} of {answered} requests failed: {:?}",
        faults.len(),
        faults.first()
    );
}

/// Requests as fast as they are answered, half GET and half POST.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(node: &Node, path: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let url = format!("{}{path}", node.channels);
        let tasks = (0..clients)
            .map(|number| {
                let (stop, answered, url) = (Arc::clone(&stop), Arc::clone(&answered), url.clone());
                let http = node.http().clone();
                let method = if number % 2 == 0 { Method::GET } else { Method::POST };
                tokio::spawn(async move {
                    let mut faults = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let sent = http.request(method.clone(), &url).body("{}").send().await;
                        match sent {
                            Ok(answer) if answer.status() == StatusCode::OK => {
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(answer) => {
                                let status = answer.status();
                                faults.push(format!(
                                    "{method} {status}: {}",
                                    answer.text().await.unwrap_or_default()
                                ));
                            }
                            Err(err) => faults.push(format!("{method} {err:?}")),
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    faults
                })
            })
            .collect();
        Self { stop, answered, tasks }
    }

    async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut faults = Vec::new();
        for task in self.tasks {
            faults.extend(task.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), faults)
    }
}
