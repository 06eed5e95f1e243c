//! The main job, end to end: a user's existing service is deployed without a change, bound to a channel with
//! security, called through the balancer, and calls out to another system.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const ORDERS: &str = include_str!("../services/orders.py");

#[tokio::test]
async fn an_unmodified_service_answers_through_a_secured_channel_and_calls_out() {
    let mut crm = Crm::start();
    let node = Node::start().await;
    let made = node.put("Security", "crm", json!({"type": "basic", "username": "arint"})).await;
    let crm_password = generated(&made);
    node.put(
        "Outgoing",
        "CRM",
        json!({"type": "rest", "host": crm.url, "url_path": "/customers/{customer_id}/orders", "security": "crm"}),
    )
    .await;
    let made = node.put("Security", "shop", json!({"type": "basic", "username": "shop"})).await;
    let shop_password = generated(&made);
    let deployed = node.deploy("orders.py", ORDERS).await;
    let names: Vec<&str> = deployed["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["orders.create-order", "orders.get"]);
    node.put(
        "Channel",
        "orders",
        json!({"url_path": "/orders", "service": "orders.create-order", "data_format": "json", "method": "POST", "security": ["shop"]}),
    )
    .await;
    node.settled().await;

    let order = json!({"customer_id": 7, "item": "A-100"});
    let url = format!("{}/orders", node.channels);
    let refused = node.http().post(&url).json(&order).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));

    let answer = node
        .http()
        .post(&url)
        .basic_auth("shop", Some(&shop_password))
        .json(&order)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["x-order"], "4711");
    let cid = answer.headers()["x-zato-cid"].to_str().unwrap().to_owned();
    assert_eq!(cid.len(), 24);
    let document: Value = answer.json().await.unwrap();
    assert_eq!((&document["order_id"], &document["status"]), (&json!(4711), &json!("booked")));

    // The other system saw the credentials, the path, the same correlation id and JSON.
    let seen = crm.next_request();
    assert_eq!(seen["path"], "/customers/7/orders");
    assert_eq!(seen["cid"], cid.as_str());
    assert_eq!(seen["body"], json!({"customer": 7, "item": "A-100"}));
    let expected = format!("Basic {}", base64(&format!("arint:{crm_password}")));
    assert_eq!(seen["authorization"], expected.as_str());

    // The service's own log line is found under the correlation id.
    let lines = node.api(Method::GET, &format!("/v1/logs?cid={cid}"), None).await.to_string();
    assert!(lines.contains("booking an order of customer 7"), "{lines}");
    assert!(!node.log().contains(&shop_password) && !node.log().contains(&crm_password));
}

#[tokio::test]
async fn verbs_are_dispatched_and_an_unknown_one_is_refused_with_405() {
    let node = Node::start().await;
    node.deploy("orders.py", ORDERS).await;
    node.put(
        "Channel",
        "order",
        json!({"url_path": "/order/{order_id}", "service": "orders.get", "data_format": "json"}),
    )
    .await;
    node.settled().await;
    let got = node.request(Method::GET, "/order/12", "").await;
    assert_eq!(got.status(), StatusCode::OK);
    assert_eq!(got.json::<Value>().await.unwrap(), json!({"order_id": "12", "via": "GET"}));
    assert_eq!(
        node.request(Method::DELETE, "/order/12", "").await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        node.request(Method::POST, "/order/12", "").await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn ping_answers_as_in_3_2() {
    let node = Node::start().await;
    let answer = node.request(Method::GET, "/zato/ping", "").await;
    let cid = answer.headers()["x-zato-cid"].to_str().unwrap().to_owned();
    let document: Value = answer.json().await.unwrap();
    assert_eq!(
        document,
        json!({"pong": "zato", "zato_env": {"result": "ZATO_OK", "cid": cid, "details": ""}})
    );
}

#[tokio::test]
async fn an_unclaimed_node_does_nothing_but_being_claimed() {
    let node = Node::builder().unclaimed().start().await;
    let (status, document) = node.try_api(Method::GET, "/v1/objects", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        document["message"].as_str().unwrap().starts_with("this box is not claimed yet"),
        "{document}"
    );
    let wrong = json!({"code": "0000-0000", "user": "eve", "password": "a long enough password"});
    let (status, _) = node.try_api(Method::POST, "/v1/claim", Some(wrong)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let right = json!({"code": node.code, "user": "anna", "password": "a long enough password"});
    let (status, document) = node.try_api(Method::POST, "/v1/claim", Some(right.clone())).await;
    assert_eq!(status, StatusCode::OK, "{document}");
    let (status, _) = node.try_api(Method::POST, "/v1/claim", Some(right)).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_file_in_the_pickup_folder_is_live_and_a_broken_one_changes_nothing() {
    let node = Node::start().await;
    let source = |text: &str| {
        format!(
            "from zato.server.service import Service\nclass Hello(Service):\n    name = 'hello'\n    def handler(self):\n        self.response.payload = '{text}'\n"
        )
    };
    node.put("Channel", "hello", json!({"url_path": "/hello", "service": "hello"})).await;
    let file = node.pickup_dir.join("hello.py");
    std::fs::write(&file, source("one")).unwrap();
    until_answer(&node, "/hello", "one").await;
    std::fs::write(&file, "def broken(:\n").unwrap();
    let report = node.pickup_dir.join("hello.py.refused.txt");
    artest::wait_for("the refusal", Duration::from_secs(20), async || {
        std::fs::read_to_string(&report)
    })
    .await;
    let reason = std::fs::read_to_string(&report).unwrap();
    assert!(reason.contains("hello.py") && reason.contains("line 1"), "{reason}");
    assert_eq!(node.request(Method::GET, "/hello", "").await.text().await.unwrap(), "one");
    std::fs::write(&file, source("two")).unwrap();
    until_answer(&node, "/hello", "two").await;
    assert!(!report.try_exists().unwrap());
}

#[tokio::test]
async fn an_editor_deploys_by_the_ide_protocol() {
    let node = Node::start().await;
    let made = node.api(Method::POST, "/v1/securities/ide_publisher/reset", None).await;
    let password = made["value"].as_str().unwrap().to_owned();
    let source = "# zato: ide-deploy=True\nfrom zato.server.service import Service\nclass FromIde(Service):\n    def handle(self):\n        self.response.payload = 'from the editor'\n";
    let url = format!("{}/ide-deploy", node.channels);
    let send = |password: String, body: Value| {
        node.http().post(&url).basic_auth("ide_publisher", Some(password)).json(&body).send()
    };
    let body = json!({"payload_name": "from_ide.py", "payload": base64(source)});
    assert_eq!(
        send("wrong".into(), body.clone()).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    // The plug-ins ask with an empty body whether somebody is there.
    let ping = node.http().post(&url).basic_auth("ide_publisher", Some(&password)).body("");
    let ping: Value = ping.send().await.unwrap().json().await.unwrap();
    let pong = json!({"success": true, "msg": "pong: this box takes deployments"});
    assert_eq!(ping, json!({"zato_ide_deploy_create_response": pong}));
    let answer: Value = send(password.clone(), body).await.unwrap().json().await.unwrap();
    assert_eq!(answer["zato_ide_deploy_create_response"]["success"], true, "{answer}");
    // The file's whole path is what editors send.
    let whole = json!({"payload_name": "/home/anna/src/from_ide.py", "payload": base64(source)});
    let answer: Value = send(password.clone(), whole).await.unwrap().json().await.unwrap();
    let reply = &answer["zato_ide_deploy_create_response"];
    assert_eq!(reply["success"], true, "{answer}");
    assert!(reply["msg"].as_str().unwrap().contains("services: from-ide.from-ide"), "{answer}");
    node.put("Channel", "ide", json!({"url_path": "/from-ide", "service": "from-ide.from-ide"}))
        .await;
    until_answer(&node, "/from-ide", "from the editor").await;
    let broken = json!({"payload_name": "from_ide.py", "payload": base64("1/0\n")});
    let answer: Value = send(password, broken).await.unwrap().json().await.unwrap();
    let reply = &answer["zato_ide_deploy_create_response"];
    assert_eq!(reply["success"], false);
    assert!(reply["msg"].as_str().unwrap().contains("from_ide.py line 1"), "{answer}");
}

async fn until_answer(node: &Node, path: &str, expected: &str) {
    artest::wait_for(
        &format!("{path} to answer {expected}"),
        Duration::from_secs(20),
        async || {
            let text = node.request(Method::GET, path, "").await.text().await.unwrap();
            if text == expected { Ok(()) } else { Err(text) }
        },
    )
    .await;
}

fn generated(answer: &Value) -> String {
    let value = answer["generated"][0]["value"].as_str().unwrap().to_owned();
    let parts: Vec<usize> = value.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "a UUID was expected");
    value
}

fn base64(text: &str) -> String {
    let mut child = Command::new("base64")
        .arg("--wrap=0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// The other system, in a process of its own.
struct Crm {
    child: Child,
    lines: BufReader<ChildStdout>,
    url: String,
}

impl Crm {
    fn start() -> Self {
        let script = artest::repository().join("tests/services/services/crm.py");
        let mut child =
            Command::new(artest::python()).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Self { child, lines, url: format!("http://127.0.0.1:{}", port.trim()) }
    }

    fn next_request(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
