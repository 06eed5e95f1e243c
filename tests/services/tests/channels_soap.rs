//! SOAP channels with a client that many use: zeep reads the description, sends messages and reads answers and faults.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::process::Stdio;

use artest::Node;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

async fn node() -> Node {
    let node = Node::start().await;
    let source = artest::repository().join("tests/services/golden/soap.py");
    node.deploy("soap.py", &std::fs::read_to_string(source).unwrap()).await;
    node
}

/// What a client gets for each of its calls.
async fn zeep(node: &Node, path: &str, more: Value) -> Vec<Value> {
    let mut asked = json!({"wsdl": format!("{}{path}?wsdl", node.channels), "version": "11"});
    for (key, value) in more.as_object().unwrap() {
        asked[key] = value.clone();
    }
    let script = artest::repository().join("tests/services/services/soap_client.py");
    let mut child = tokio::process::Command::new("/usr/bin/python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(asked.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let done = child.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "the client failed; it needs the Debian package `python3-zeep`:\n{errors}"
    );
    let lines = String::from_utf8(done.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_client_that_knows_nothing_but_the_description_calls_services() {
    let node = node().await;
    let channel = |service: &str, action: &str| json!({"type": "soap", "url_path": "/shop", "service": service, "soap_action": action});
    node.put("Channel", "place", channel("soap.place-order", "urn:shop:PlaceOrder")).await;
    node.put("Channel", "greet", channel("soap.hello", "urn:shop:Greet")).await;
    node.put("Channel", "raises", channel("soap.raises", "urn:shop:Raises")).await;
    node.settled().await;
    let order = json!({"id": "007", "lines": [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}]});
    let placed = json!({"id": "007", "lines": [{"sku": "a", "count": 2}, {"sku": "b", "count": 2}], "note": null});
    let calls = json!([
        ["PlaceOrder", order],
        ["Greet", {"name": "anna", "times": 3, "tags": ["x"]}],
        ["Greet", {"name": "żółw & <co>"}],
        ["PlaceOrder", {"id": "1", "lines": [{"sku": "a", "count": 1}], "note": "soon"}],
    ]);
    for version in ["11", "12"] {
        let answers = zeep(&node, "/shop", json!({"version": version, "calls": calls})).await;
        assert_eq!(
            answers,
            [
                json!({"answer": placed}),
                json!({"answer": {"text": "hello anna", "times": 3, "tags": ["x"]}}),
                json!({"answer": {"text": "hello żółw & <co>", "times": 0, "tags": []}}),
                json!({"answer": {"id": "1", "lines": [{"sku": "a", "count": 2}], "note": "soon"}}),
            ],
            "SOAP {version}"
        );
    }
}

#[tokio::test]
async fn faults_are_raised_as_such_by_a_client() {
    let node = node().await;
    let channel = json!({"type": "soap", "url_path": "/place", "service": "soap.place-order",
                         "soap_action": "urn:PlaceOrder"});
    node.put("Channel", "place", channel).await;
    node.settled().await;
    let calls = json!([["PlaceOrder", {"id": "1", "lines": []}]]);
    for (version, code) in [("11", "soap:Client"), ("12", "soap:Sender")] {
        let answers = zeep(&node, "/place", json!({"version": version, "calls": calls})).await;
        let [Value::Object(fault)] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(fault["code"], code);
        assert!(fault["fault"].as_str().unwrap().contains("lines"), "{fault:?}");
        assert_eq!(fault["cid"].as_str().unwrap().len(), 24);
    }
}

#[tokio::test]
async fn a_client_shows_who_it_is_in_the_message_or_by_http() {
    let node = node().await;
    let secret = json!({"value": "s3cret-token"});
    let digest = json!({"type": "wss", "username": "crm", "password": secret});
    node.put("Security", "digest", digest).await;
    let basic = json!({"type": "basic", "username": "shop", "password": secret});
    node.put("Security", "basic", basic).await;
    for (path, security) in [("/token", "digest"), ("/basic", "basic")] {
        let channel = json!({"type": "soap", "url_path": path, "service": "soap.hello",
                             "soap_action": "urn:Greet", "security": [security]});
        node.put("Channel", security, channel).await;
    }
    node.settled().await;
    let calls = json!([["Greet", {"name": "anna"}], ["Greet", {"name": "bert"}]]);
    let with = |key: &str, credentials: Value| json!({"calls": calls, key: credentials});
    let answers = zeep(&node, "/token", with("token", json!(["crm", "s3cret-token", true]))).await;
    // Each message has a nonce of its own, and counts once.
    assert_eq!(answers[0]["answer"]["text"], "hello anna");
    assert_eq!(answers[1]["answer"]["text"], "hello bert");
    for wrong in [json!(["crm", "wrong", true]), json!(["crm", "s3cret-token", false])] {
        let answers = zeep(&node, "/token", with("token", wrong)).await;
        assert_eq!(answers[0]["fault"], "credentials are missing or wrong");
        assert_eq!(answers[0]["code"], "wsse:FailedAuthentication");
    }
    let answers = zeep(&node, "/basic", with("basic", json!(["shop", "s3cret-token"]))).await;
    assert_eq!(answers[0]["answer"]["text"], "hello anna");
}

#[tokio::test]
async fn a_bomb_costs_its_sender_a_fault_and_the_box_nothing() {
    let node = node().await;
    let channel = json!({"type": "soap", "url_path": "/hello", "service": "soap.hello"});
    node.put("Channel", "hello", channel).await;
    node.settled().await;
    let mut entities = String::from("<!ENTITY e0 \"aaaaaaaaaaaaaaaa\">");
    for at in 1..30 {
        let refers = format!("&e{};", at - 1).repeat(10);
        entities.push_str(&format!("<!ENTITY e{at} \"{refers}\">"));
    }
    let bomb = format!(
        "<?xml version=\"1.0\"?><!DOCTYPE x [{entities}]><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><Hello><name>&e29;</name></Hello></s:Body></s:Envelope>"
    );
    let worker =
        node.api(reqwest::Method::GET, "/v1/status", None).await["arsrv"]["workers"].clone();
    for _ in 0..20 {
        let answer = node.request(reqwest::Method::POST, "/hello", bomb.clone()).await;
        assert_eq!(answer.status().as_u16(), 500);
        let text = answer.text().await.unwrap();
        assert!(text.contains("the message has a DOCTYPE, which is not accepted"), "{text}");
    }
    let after =
        node.api(reqwest::Method::GET, "/v1/status", None).await["arsrv"]["workers"].clone();
    let pids = |workers: &Value| {
        workers.as_array().unwrap().iter().map(|one| one["pid"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(pids(&worker), pids(&after));
}
