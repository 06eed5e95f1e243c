//! A request is seen step by step under its correlation id, and its trace goes on in the systems it calls.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::process::Command;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SOURCE: &str = "from zato.server.service import Service
class Front(Service):
    name = 'front'
    def handle(self):
        inner = self.invoke('inner', {'a': 1})
        answer = self.out.rest['peer'].conn.get(self.cid)
        self.response.payload = {'inner': inner, 'peer': answer.data}
class Inner(Service):
    name = 'inner'
    def handle(self):
        self.response.payload = {'b': 2}
class Peer(Service):
    name = 'peer'
    def handle(self):
        self.response.payload = {'traceparent': self.wsgi_environ['HTTP_TRACEPARENT']}
class Bad(Service):
    name = 'bad'
    def handle(self):
        raise Exception('on purpose')
";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

async fn node() -> Node {
    let node = Node::start().await;
    node.deploy("some.py", SOURCE).await;
    let peer =
        json!({"type": "rest", "host": node.channels, "url_path": "/peer", "data_format": "json"});
    node.put("Outgoing", "peer", peer).await;
    node.put(
        "Security",
        "visitor",
        json!({"type": "api_key", "key": {"value": "a-key-of-a-visitor"}}),
    )
    .await;
    for name in ["front", "peer", "bad"] {
        let mut spec =
            json!({"url_path": format!("/{name}"), "service": name, "data_format": "json"});
        if name == "front" {
            spec["security"] = json!(["visitor"]);
        }
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
    node
}

fn cid(answer: &reqwest::Response) -> String {
    answer.headers()["x-zato-cid"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_is_seen_from_the_balancer_to_the_calls_out() {
    let node = node().await;
    let url = format!("{}/front", node.channels);
    let send = || {
        let request = node.http().get(&url).header("x-api-key", "a-key-of-a-visitor");
        request.header("traceparent", format!("00-{TRACE}-{SPAN}-01")).body("{}").send()
    };
    // The first call warms the worker up, so that the second one's times are its own.
    send().await.unwrap();
    let answer = send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let cid = cid(&answer);
    let document: Value = answer.json().await.unwrap();
    let seen_by_peer = document["peer"]["traceparent"].as_str().unwrap().to_owned();

    let view = node.api(Method::GET, &format!("/v1/traces/{cid}"), None).await;
    assert_eq!((&view["cid"], &view["trace"]), (&json!(cid), &json!(TRACE)));
    let steps = view["steps"].as_array().unwrap();
    let step = |what: &str, name: &str| {
        let fits = |step: &&Value| {
            step["what"] == what && step["name"].as_str().unwrap_or_default() == name
        };
        steps.iter().find(fits).unwrap_or_else(|| panic!("no {what} {name} in {view:#}"))
    };
    let balancer = step("balancer", "");
    assert_eq!((&balancer["unit"], &balancer["status"]), (&json!("arldb"), &json!(200)));
    let request = step("request", "front");
    assert_eq!((&request["status"], &request["parent"]), (&json!(200), &json!(SPAN)));
    assert_eq!(request["notes"]["path"], "/front");
    for (what, name) in [("gate", "visitor"), ("queue", "front"), ("service", "front")] {
        assert_eq!(step(what, name)["parent"], request["span"], "{view:#}");
    }
    let service = step("service", "front");
    assert!(service["notes"]["worker"].as_str().unwrap().starts_with("default-"));
    assert_eq!(step("service", "inner")["parent"], service["span"]);
    let out = step("outgoing", "peer");
    assert_eq!((&out["parent"], &out["status"]), (&service["span"], &json!(200)));
    // What the other side got names our step as its parent, in the caller's own trace.
    let expected = format!("00-{TRACE}-{}-01", out["span"].as_str().unwrap());
    assert_eq!(seen_by_peer, expected);

    // Every step lies within the one it is part of.
    let end = |step: &Value| step["at_us"].as_u64().unwrap() + step["took_us"].as_u64().unwrap();
    for (part, whole) in [(request, balancer), (service, request), (out, service)] {
        assert!(part["at_us"].as_u64() >= whole["at_us"].as_u64(), "{view:#}");
        // Clocks of two processes are compared; the monotonic and the wall clock may differ by a little.
        assert!(end(part) <= end(whole) + 2000, "{view:#}");
    }
    assert!(!view.to_string().contains("a-key-of-a-visitor"));
}

#[tokio::test]
async fn arctl_shows_the_steps_lists_what_failed_and_says_what_it_does_not_know() {
    let node = node().await;
    let bad = cid(&node.request(Method::GET, "/bad?secret=1", "").await);
    node.request(Method::GET, "/peer", "").await;
    let arctl = |args: &[&str]| {
        let output = Command::new(artest::arint())
            .args(["arctl", "trace"])
            .args(args)
            .args(["--server", &node.admin, "--token", &node.token])
            .env("XDG_CONFIG_HOME", &node.data_dir)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, listed, err) = arctl(&["--failed"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains(&bad) && listed.contains("500"), "{listed}");
    let (code, shown, _) = arctl(&[&bad]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("balancer 500") && shown.contains("  service bad 500"), "{shown}");
    assert!(!shown.contains("secret"), "queries are not kept: {shown}");
    let (code, out, err) = arctl(&["nobody-knows-this"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.starts_with("error: nothing is known of a request `nobody-knows-this`: only the last"),
        "{err}"
    );
}

#[tokio::test]
async fn what_a_service_does_later_and_what_is_invoked_by_hand_is_seen_too() {
    let node = node().await;
    let source = "from zato.server.service import Service
class Starter(Service):
    name = 'starter'
    def handle(self):
        self.invoke_async('inner', {'a': 1})
";
    node.deploy("starter.py", source).await;
    let invoked = node.api(Method::POST, "/v1/services/starter/invoke", Some(json!({}))).await;
    let cid = invoked["cid"].as_str().unwrap();
    let first = node.api(Method::GET, &format!("/v1/traces/{cid}"), None).await;
    let started =
        first["steps"].as_array().unwrap().iter().find(|it| it["what"] == "later").unwrap();
    let cid = started["notes"]["cid"].as_str().unwrap();
    let limit = std::time::Duration::from_secs(20);
    artest::wait_for("the later call to be seen", limit, async || {
        let view = node.api(Method::GET, &format!("/v1/traces/{cid}"), None).await;
        assert_eq!(view["trace"], first["trace"]);
        let steps = view["steps"].as_array().unwrap();
        let names: Vec<_> = steps
            .iter()
            .filter(|step| step["what"] != "queue")
            .map(|step| {
                (
                    step["what"].as_str().unwrap().to_owned(),
                    step["name"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let own = |what: &str, name: &str| (what.to_owned(), name.to_owned());
        let wanted = [own("service", "inner")];
        if names == wanted { Ok(()) } else { Err(names) }
    })
    .await;
}
