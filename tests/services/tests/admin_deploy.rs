//! Deployments through the admin API and the pickup folder: what is refused, what is kept, what is remembered.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn source(service: &str, answer: &str) -> String {
    format!(
        "from arint import Service\n\nclass Told(Service):\n    name = '{service}'\n    def handle(self):\n        self.response.payload = '{answer}'\n"
    )
}

async fn deploy(node: &Node, file: &str, source: &str) -> (StatusCode, Value) {
    let files = json!({"files": [{"file_name": file, "source": source}]});
    node.try_api(Method::POST, "/v1/deployments", Some(files)).await
}

async fn invoke(node: &Node, service: &str) -> Value {
    node.api(Method::POST, &format!("/v1/services/{service}/invoke"), None).await["body"].clone()
}

#[tokio::test]
async fn a_refused_deployment_leaves_everything_as_it_was() {
    let node = Node::start().await;
    node.deploy("told.py", &source("told.get", "one")).await;
    let broken = format!("{}\nimport nothing_of_that_name\n", source("told.get", "two"));
    let (status, answer) = deploy(&node, "told.py", &broken).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["code"], "refused");
    assert_eq!(
        answer["message"],
        "told.py line 8: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    );
    assert_eq!(
        (&answer["details"]["file"], &answer["details"]["line"]),
        (&json!("told.py"), &json!(8))
    );
    assert!(answer["details"]["traceback"].as_str().unwrap().contains("Traceback"));
    assert_eq!(invoke(&node, "told.get").await, "one");
    let (status, answer) = deploy(&node, "other.py", &source("told.get", "x")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("other.py") && message.contains("told"), "{message}");
    let (status, answer) = deploy(&node, "my-told.py", "").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["message"],
        "my-told.py: `my-told.py` is not the name of a Python module: letters, digits and `_`, then \
         `.py`, were expected"
    );
    let versions = node.api(Method::GET, "/v1/deployments/told", None).await;
    assert_eq!(versions.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn versions_are_counted_rolled_back_to_and_keep_an_admins_settings() {
    let node = Node::start().await;
    let first = node.deploy("told.py", &source("told.get", "one")).await;
    assert_eq!(first["modules"][0], json!({"name": "told", "version": 1, "changed": true}));
    let again = node.deploy("told.py", &source("told.get", "one")).await;
    assert_eq!(again["modules"][0], json!({"name": "told", "version": 1, "changed": false}));
    assert_eq!(again["revision"], first["revision"]);
    node.put("Service", "told.get", json!({"timeout_ms": 1234})).await;
    node.deploy("told.py", &source("told.get", "two")).await;
    assert_eq!(invoke(&node, "told.get").await, "two");
    let service = node.api(Method::GET, "/v1/objects/Service/told.get", None).await;
    assert_eq!(service["spec"]["timeout_ms"], 1234);
    let rollback = |to: Value| {
        node.try_api(Method::POST, "/v1/deployments/told/rollback", Some(json!({"to": to})))
    };
    let (status, answer) = rollback(json!(9)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["message"], "module `told` has no version 9; there are 2, 1");
    let (status, answer) = rollback(Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["modules"][0]["version"], 3);
    assert_eq!(invoke(&node, "told.get").await, "one");
    let versions = node.api(Method::GET, "/v1/deployments/told", None).await;
    assert_eq!(
        (&versions[0]["origin"], &versions[0]["current"]),
        (&json!("rollback to 1"), &json!(true))
    );
    // A service that goes with a new version, and a module that goes with its services.
    let moved = node.deploy("told.py", &source("told.put", "three")).await;
    assert_eq!(moved["removed"], json!(["told.get"]));
    let gone = node.api(Method::DELETE, "/v1/deployments/told", None).await;
    assert_eq!(gone["removed"], json!(["told.put"]));
    let left = node.api(Method::GET, "/v1/deployments", None).await;
    assert_eq!(left, json!([]));
    // It may come back, by its history or anew, and goes on counting.
    let back =
        node.api(Method::POST, "/v1/deployments/told/rollback", Some(json!({"to": 2}))).await;
    assert_eq!(back["modules"][0]["version"], 5, "{back}");
    assert_eq!(invoke(&node, "told.get").await, "two");
}

#[tokio::test]
async fn files_of_the_pickup_folder_are_live_soon_and_not_again_after_a_restart() {
    let dir = artest::temp_dir();
    let node = Node::builder().data_dir(dir.path()).start().await;
    node.put("Channel", "told", json!({"url_path": "/told", "service": "told.get"})).await;
    let file = node.pickup_dir.join("told.py");
    std::fs::write(&file, source("told.get", "one")).unwrap();
    until(&node, "one").await;
    let saved = Instant::now();
    std::fs::write(&file, source("told.get", "two")).unwrap();
    until(&node, "two").await;
    artest::say(&format!("a saved file is live after {:?}", saved.elapsed()));
    // Two files at one time, one of them broken: the other is live, and a note says why the one is not.
    std::fs::write(node.pickup_dir.join("broken.py"), "def (\n").unwrap();
    std::fs::write(&file, source("told.get", "three")).unwrap();
    until(&node, "three").await;
    let note = node.pickup_dir.join("broken.py.refused.txt");
    let reason = read_soon(&note).await;
    assert!(reason.starts_with("broken.py line 1: SyntaxError"), "{reason}");
    // Set right by a move, as editors do.
    let temporary = node.pickup_dir.join(".broken.py.tmp");
    std::fs::write(&temporary, source("broken.get", "whole")).unwrap();
    std::fs::rename(&temporary, node.pickup_dir.join("broken.py")).unwrap();
    artest::wait_for("the file set right", LIMIT, async || {
        let path = "/v1/services/broken.get/invoke";
        let (_, answer) = node.try_api(Method::POST, path, None).await;
        if answer["body"] == "whole" { Ok(()) } else { Err(answer) }
    })
    .await;
    assert!(!note.try_exists().unwrap());
    // Deployed otherwise since: the older file in the folder does not come back with a restart.
    node.deploy("told.py", &source("told.get", "four")).await;
    node.stop();
    let node = Node::builder().data_dir(dir.path()).start().await;
    std::fs::write(node.pickup_dir.join("later.py"), source("later.get", "later")).unwrap();
    artest::wait_for("the folder to be looked at", LIMIT, async || {
        let (status, answer) =
            node.try_api(Method::GET, "/v1/objects/Service/later.get", None).await;
        if status.is_success() { Ok(()) } else { Err(answer) }
    })
    .await;
    until(&node, "four").await;
    let told = node.api(Method::GET, "/v1/objects/Module/told", None).await;
    assert_eq!((&told["spec"]["origin"], &told["spec"]["version"]), (&json!("api"), &json!(4)));
}

#[tokio::test]
async fn ini_files_become_users_config_and_a_broken_one_is_refused_with_its_line() {
    let node = Node::start().await;
    let dir = node.pickup_dir.parent().unwrap().join("user-conf");
    std::fs::write(dir.join("app.ini"), "[crm]\nurl = http://x\n").unwrap();
    artest::wait_for("the config", LIMIT, async || {
        let (status, answer) = node.try_api(Method::GET, "/v1/objects/UserConfig/app", None).await;
        if status.is_success() { Ok(()) } else { Err(answer) }
    })
    .await;
    let config = node.api(Method::GET, "/v1/objects/UserConfig/app", None).await;
    assert_eq!(config["spec"]["sections"], json!({"crm": {"url": "http://x"}}));
    std::fs::write(dir.join("app.ini"), "[crm]\nurl\n").unwrap();
    let reason = read_soon(&dir.join("app.ini.refused.txt")).await;
    assert_eq!(reason.trim_end(), "app.ini line 2: `url` has no `=`; `key = value` was expected");
}

#[tokio::test]
async fn the_log_of_all_parts_comes_in_one_stream_by_its_cid() {
    let node = Node::start().await;
    let source = "from arint import Service\nclass Talk(Service):\n    name = 'talk.get'\n    def handle(self):\n        self.logger.info('talked')\n";
    node.deploy("talk.py", source).await;
    let url = format!("{}/v1/logs?follow=true&tail=0&unit=talk.get", node.admin);
    let mut stream = node.http().get(url).bearer_auth(&node.token).send().await.unwrap();
    let answer = node.api(Method::POST, "/v1/services/talk.get/invoke", None).await;
    let cid = answer["cid"].as_str().unwrap();
    let line = tokio::time::timeout(LIMIT, async {
        loop {
            let chunk = stream.chunk().await.unwrap().unwrap();
            if let Ok(line) = serde_json::from_slice::<Value>(&chunk) {
                return line;
            }
        }
    });
    let line = line.await.unwrap();
    assert_eq!(
        (&line["message"], &line["cid"], &line["unit"]),
        (&json!("talked"), &json!(cid), &json!("arsrv"))
    );
    let deployed = node.api(Method::GET, "/v1/audit?action=deploy", None).await;
    let cid = deployed["entries"][0]["cid"].as_str().unwrap();
    let url = format!("{}/v1/logs?cid={cid}", node.admin);
    let text =
        node.http().get(url).bearer_auth(&node.token).send().await.unwrap().text().await.unwrap();
    let units: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["unit"].clone())
        .collect();
    assert!(units.contains(&json!("arclst")) && units.contains(&json!("arwadm")), "{text}");
}

async fn until(node: &Node, expected: &str) {
    artest::wait_for(&format!("/told to answer {expected}"), LIMIT, async || {
        let text = node.request(Method::GET, "/told", "").await.text().await.unwrap();
        if text == expected { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn read_soon(path: &Path) -> String {
    artest::wait_for(&format!("`{}`", path.display()), LIMIT, async || {
        let text = std::fs::read_to_string(path).map_err(|err| err.to_string())?;
        if text.is_empty() { Err("empty".to_owned()) } else { Ok(text) }
    })
    .await
}
