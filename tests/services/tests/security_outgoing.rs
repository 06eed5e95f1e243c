//! What outgoing connections present, against real other sides: tokens of an OAuth 2.0 server, NTLM as Samba has it,
//! certificates as nginx asks for them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

mod peer;

use std::time::Duration;

use artest::Node;
use peer::{Nginx, Peer, make_certificates};
use reqwest::Method;
use serde_json::{Value, json};

const SERVICE: &str = "\
import json
from zato.server.service import Service

class Call(Service):
    name = 'gates.call'
    def handle(self):
        wish = json.loads(self.request.raw_request)
        conn = self.out.rest[wish['conn']].conn
        if wish.get('body') is None:
            response = conn.get(self.cid)
        else:
            response = conn.post(self.cid, wish['body'])
        self.response.payload = {'status': response.status_code, 'text': response.text}
";

async fn call(node: &Node, conn: &str, body: Option<&str>) -> (u16, String) {
    let wish = json!({"conn": conn, "body": body});
    let answer = node.request(Method::POST, "/call", wish.to_string()).await;
    let document: Value = answer.json().await.unwrap();
    assert!(document["status"].is_u64(), "{document}");
    let status = document["status"].as_u64().unwrap();
    (u16::try_from(status).unwrap(), document["text"].as_str().unwrap().to_owned())
}

async fn start(workers: u32) -> Node {
    let node = Node::builder().config(&format!("[arsrv]\nworkers = {workers}\n")).start().await;
    node.deploy("gates.py", SERVICE).await;
    let channel = json!({"url_path": "/call", "service": "gates.call", "data_format": "json"});
    node.put("Channel", "call", channel).await;
    node
}

#[tokio::test]
async fn a_token_is_made_once_for_all_workers_and_anew_when_it_is_refused() {
    let peer = Peer::start();
    let node = start(3).await;
    let oauth = |secret: &str| {
        json!({"type": "oauth", "auth_endpoint": format!("{}/token", peer.url), "client_id": "arint",
               "client_secret": {"value": secret}, "client_secret_field": "my_secret",
               "scopes": ["orders", "mail"], "extra_fields": {"audience": "crm"}})
    };
    node.put("Security", "crm-token", oauth("cl1ent")).await;
    let out = |path: &str| {
        json!({"type": "rest", "host": peer.url, "url_path": path, "security": "crm-token",
               "ping_interval_s": 0, "data_format": "none"})
    };
    node.put("Outgoing", "crm", out("/api")).await;
    node.put("Outgoing", "crm-2", out("/api")).await;
    node.settled().await;

    // Thirty at once, on two connections and three workers: one token.
    let calls = (0..30).map(|n| call(&node, if n % 2 == 0 { "crm" } else { "crm-2" }, None));
    for (status, text) in futures_util::future::join_all(calls).await {
        assert_eq!((status, text.as_str()), (200, "{\"token\": \"minted-1\"}"));
    }
    let seen = peer.control(json!({})).await;
    assert_eq!(seen["tokens"], 1);
    let fields = &seen["fields"][0];
    assert_eq!(
        (&fields["client_id"], &fields["grant_type"]),
        (&json!("arint"), &json!("client_credentials"))
    );
    assert_eq!((&fields["scope"], &fields["audience"]), (&json!("orders mail"), &json!("crm")));

    // Refused in between: one new token, and the service sees nothing of it, whatever the method.
    peer.control(json!({"state": {"oldest": 2}})).await;
    let calls = (0..10).map(|_| call(&node, "crm", Some("x")));
    for (status, text) in futures_util::future::join_all(calls).await {
        assert_eq!((status, text.as_str()), (200, "{\"token\": \"minted-2\"}"));
    }
    assert_eq!(peer.control(json!({})).await["tokens"], 2);

    // Short-lived ones are renewed before they end.
    peer.control(json!({"state": {"oldest": 3, "expires_in": 2}})).await;
    assert_eq!(call(&node, "crm", None).await.0, 200);
    tokio::time::sleep(Duration::from_millis(1800)).await;
    assert_eq!(call(&node, "crm", None).await.1, "{\"token\": \"minted-4\"}");

    // A refusal for good is the service's to see, and asks for one token more, not for many.
    peer.control(json!({"state": {"oldest": 1000}})).await;
    let before = peer.control(json!({})).await["tokens"].as_u64().unwrap();
    assert_eq!(call(&node, "crm", None).await.0, 401);
    let after = peer.control(json!({})).await["tokens"].as_u64().unwrap();
    assert!(after <= before + 2, "{before} {after}");

    // Wrong credentials: a sentence that says so, with no secret in it.
    node.put("Security", "crm-token", oauth("wr0ng")).await;
    node.settled().await;
    let answer = node.request(Method::POST, "/call", json!({"conn": "crm"}).to_string()).await;
    assert_eq!(answer.status().as_u16(), 500);
    let text = answer.text().await.unwrap();
    assert!(text.contains("the endpoint answered 401 Unauthorized: invalid_client"), "{text}");
    let log = node.log();
    for secret in ["cl1ent", "wr0ng", "minted-1", "minted-4"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn ntlm_lets_a_connection_in_and_keeps_it() {
    let peer = Peer::start();
    let node = start(2).await;
    for (name, password) in [("good", "s3cret"), ("bad", "wrong")] {
        let spec =
            json!({"type": "ntlm", "username": "CORP\\anna", "password": {"value": password}});
        node.put("Security", name, spec).await;
        let out = json!({"type": "rest", "host": peer.url, "url_path": "/ntlm", "security": name,
                         "ping_interval_s": 0, "data_format": "none"});
        node.put("Outgoing", name, out).await;
    }
    node.settled().await;

    let (status, text) = call(&node, "good", Some("hello")).await;
    assert_eq!((status, text.as_str()), (200, "{\"user\": \"CORP\\\\anna\", \"body\": \"hello\"}"));
    for n in 0..5 {
        let (status, text) = call(&node, "good", Some(&format!("again {n}"))).await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains(&format!("again {n}")), "{text}");
    }
    // One handshake for six calls, all over one connection.
    let seen = peer.control(json!({})).await;
    assert_eq!(seen["handshakes"], 1);
    let connections = seen["connections"].as_array().unwrap();
    assert!(connections.iter().all(|one| one == &connections[0]), "{connections:?}");

    // Side by side each connection has its own.
    let calls = (0..8).map(|_| call(&node, "good", None));
    for (status, text) in futures_util::future::join_all(calls).await {
        assert_eq!(status, 200, "{text}");
    }
    assert_eq!(call(&node, "bad", Some("hello")).await.0, 401);
    assert!(!node.log().contains("s3cret"));
}

#[tokio::test]
async fn a_certificate_is_presented_to_who_asks_for_one() {
    let dir = artest::temp_dir();
    make_certificates(dir.path());
    let nginx = Nginx::start(
        dir.path(),
        "ssl_verify_client on; location / { default_type text/plain; return 200 \"$ssl_client_verify $ssl_client_s_dn\\n\"; }",
    );
    let node = start(2).await;
    let pem = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let own = |key: &str| json!({"type": "tls_key_cert", "certificate": {"value": pem("client.crt")}, "key": {"value": pem(key)}});
    node.put("Security", "own", own("client.key")).await;
    let out = |more: Value| {
        let mut spec = json!({"type": "rest", "host": nginx.url, "url_path": "/", "tls_ca_pem": pem("ca.crt"),
                              "ping_interval_s": 0, "data_format": "none"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    node.put("Outgoing", "with", out(json!({"security": "own"}))).await;
    node.put("Outgoing", "beside", out(json!({"tls_client": "own"}))).await;
    node.put("Outgoing", "without", out(json!({}))).await;
    node.settled().await;
    for conn in ["with", "beside"] {
        assert_eq!(
            call(&node, conn, None).await,
            (200, "SUCCESS CN=arint-client,O=ACME\n".to_owned())
        );
    }
    assert_eq!(call(&node, "without", None).await.0, 400);

    // A key of another certificate is refused before anything is sent, and status says so.
    node.put("Security", "own", own("ca.key")).await;
    node.settled().await;
    let answer = node.request(Method::POST, "/call", json!({"conn": "with"}).to_string()).await;
    assert_eq!(answer.status().as_u16(), 500);
    let status = node.api(Method::GET, "/v1/status", None).await.to_string();
    assert!(status.contains("the key that it is to present cannot be used"), "{status}");
    assert!(!node.log().contains("PRIVATE KEY") && !status.contains("PRIVATE KEY"));
}
