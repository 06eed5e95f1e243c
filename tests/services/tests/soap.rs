//! Outgoing SOAP on a whole node, against a real server: by the WSDL of an address, with credentials, and without a
//! server.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

const SOURCE: &str = "
from arint import Service

class Ask(Service):
    name = 'soap.ask'
    def handle(self):
        try:
            operation = getattr(self.out.soap['greeter'].conn.client.service, self.request.payload['op'])
            self.response.payload = {'said': str(operation(*self.request.payload.get('args', [])))}
        except Exception as e:
            self.response.payload = {'failed': type(e).__name__ + ': ' + str(e)}
";

/// A SOAP server made of spyne, in a process of its own.
struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    fn start() -> Self {
        let script = artest::repository().join("appliance/arsrv/sdk/tests/soap_peer.py");
        let mut command = Command::new(artest::python());
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn ask(node: &Node, payload: Value) -> String {
    let body = json!({"payload": payload});
    let answer = node.api(Method::POST, "/v1/services/soap.ask/invoke", Some(body)).await;
    answer.get("body").and_then(Value::as_str).unwrap().to_owned()
}

#[tokio::test]
async fn operations_of_a_wsdl_are_called_through_the_cores_connection() {
    let peer = Peer::start();
    let node = Node::start().await;
    let connect = async |more: Value| {
        // The address in the WSDL is the server's own; the connection's is what counts.
        let mut spec = json!({"type": "soap", "host": format!("http://127.0.0.1:{}", peer.port),
            "url_path": "/greeter", "ping_interval_s": 0});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node.put("Outgoing", "greeter", spec).await;
        node.settled().await;
    };
    connect(json!({})).await;
    node.deploy("asking.py", SOURCE).await;
    let said = ask(&node, json!({"op": "say", "args": ["Ewa", 2]})).await;
    assert_eq!(said, r#"{"said":"['hello Ewa', 'hello Ewa']"}"#);
    let said = ask(&node, json!({"op": "fail"})).await;
    assert_eq!(said, r#"{"failed":"Fault: there is no such customer"}"#);
    let said = ask(&node, json!({"op": "who"})).await;
    assert_eq!(said, r#"{"said":"nobody"}"#);
    // The password stays in the secret store; its digest goes into the envelope.
    let security = json!({"type": "wss", "username": "anna", "password": {"value": "geheim&<"}});
    node.put("Security", "anna", security).await;
    connect(json!({"security": "anna"})).await;
    artest::wait_for("the token to be sent", std::time::Duration::from_secs(20), async || {
        let said = ask(&node, json!({"op": "who"})).await;
        if said == r#"{"said":"anna by digest"}"# { Ok(()) } else { Err(said) }
    })
    .await;
    let status = node.api(Method::GET, "/v1/status", None).await;
    let connection = status.pointer("/arsrv/outgoing/0").unwrap();
    assert_eq!(connection["health"], "up", "{connection}");
    assert!(connection["calls"].as_u64().unwrap() >= 5, "{connection}");
    drop(peer);
    let said = ask(&node, json!({"op": "who"})).await;
    assert!(
        said.starts_with(r#"{"failed":"ConnectionError: outgoing connection `greeter`"#),
        "{said}"
    );
    let put = json!({"changes": [{"do": "put", "kind": "Outgoing", "name": "bad",
        "spec": {"type": "soap", "host": "http://x", "url_path": "/{id}"}}]});
    let (_, answer) = node.try_api(Method::POST, "/v1/transactions", Some(put)).await;
    assert_eq!(
        answer["message"],
        "Outgoing `bad`: field `url_path`: a SOAP connection's path has neither parameters nor a query"
    );
    let log = node.stop();
    assert!(!log.contains("geheim"), "the password is in the log");
}
