//! Rate limits through a whole node: exact across workers, told to callers, changed without a restart.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use artest::Node;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const SERVICE: &str = "\
from zato.server.service import Service

class Echo(Service):
    name = 'limits.echo'
    def handle(self):
        self.response.payload = {'ok': True}
";

/// Windows are aligned to the clock: where the hour is about to end, the next one is waited for.
async fn early_in_the_hour() {
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let left = 3600 - now.as_secs() % 3600;
        if left > 60 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_secs(left)).await;
    }
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn call(node: &Node, path: &str, password: Option<&str>) -> Response {
    let mut request = node.http().get(format!("{}{path}", node.channels));
    if let Some(password) = password {
        request = request.basic_auth("shop", Some(password));
    }
    request.send().await.unwrap()
}

async fn statuses(node: &Node, path: &str, password: Option<&str>, times: usize) -> Vec<u16> {
    let calls = (0..times).map(|_| call(node, path, password));
    let answers = futures_util::future::join_all(calls).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn a_limit_is_exact_across_workers_and_told_to_callers() {
    let node = Node::builder().config("[arsrv]\nworkers = 3\n").start().await;
    node.deploy("limits.py", SERVICE).await;
    let limit = json!({"definition": "# everybody\n*=40/h"});
    let channel = |limit: &Value| {
        json!({"url_path": "/limited", "service": "limits.echo", "data_format": "json",
               "rate_limit": limit})
    };
    node.put("Channel", "limited", channel(&limit)).await;
    node.settled().await;
    early_in_the_hour().await;

    let first = call(&node, "/limited", None).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(header(&first, "ratelimit-limit"), "40");
    assert_eq!(header(&first, "ratelimit-remaining"), "39");

    let statuses_of_99 = statuses(&node, "/limited", None, 99).await;
    assert_eq!(statuses_of_99.iter().filter(|status| **status == 200).count(), 39);
    assert_eq!(statuses_of_99.iter().filter(|status| **status == 429).count(), 60);

    let refused = call(&node, "/limited", None).await;
    let retry: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=3600).contains(&retry), "{retry}");
    assert_eq!(header(&refused, "ratelimit-remaining"), "0");
    assert_eq!(header(&refused, "ratelimit-reset"), retry.to_string());
    let document: Value = refused.json().await.unwrap();
    assert_eq!(document["details"], format!("too many requests; try again in {retry} s"));
    let log = node.log();
    assert!(log.contains("request is above a rate limit"), "{log}");

    // A raised limit holds at once, and what was counted stays counted.
    node.put("Channel", "limited", channel(&json!({"definition": "*=45/h"}))).await;
    node.settled().await;
    let statuses_of_9 = statuses(&node, "/limited", None, 9).await;
    assert_eq!(statuses_of_9, [200, 200, 200, 200, 200, 429, 429, 429, 429]);

    // Counters are in the core's status.
    let status = node.api(Method::GET, "/v1/status", None).await.to_string();
    assert!(status.contains("\"limited\":65"), "{status}");
}

#[tokio::test]
async fn the_limits_of_caller_and_service_hold_on_every_channel_unless_it_says_otherwise() {
    let node = Node::start().await;
    node.deploy("limits.py", SERVICE).await;
    node.put("QuotaTier", "bronze", json!({"definition": "127.0.0.1,::1=3/h\n*=none"})).await;
    node.put(
        "Security",
        "shop",
        json!({"type": "basic", "username": "shop", "password": {"value": "s3cret"},
               "rate_limit": {"tier": "bronze"}}),
    )
    .await;
    for (name, own) in [
        ("a", Value::Null),
        ("b", Value::Null),
        ("free", json!({"definition": "*=*", "check_parent": false})),
    ] {
        let mut spec = json!({"url_path": format!("/{name}"), "service": "limits.echo",
                              "data_format": "json", "security": ["shop"]});
        if own != Value::Null {
            spec["rate_limit"] = own;
        }
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
    early_in_the_hour().await;

    // Wrong credentials cost the caller nothing of its quota.
    assert_eq!(statuses(&node, "/a", Some("wrong"), 2).await, [401, 401]);
    assert_eq!(statuses(&node, "/a", Some("s3cret"), 2).await, [200, 200]);
    assert_eq!(statuses(&node, "/b", Some("s3cret"), 3).await, [200, 429, 429]);
    assert_eq!(statuses(&node, "/free", Some("s3cret"), 5).await, [200; 5]);

    // A service's own limit, which the invocation by hand counts on as well.
    let service = node.api(Method::GET, "/v1/objects/Service/limits.echo", None).await;
    let mut spec = service["spec"].clone();
    spec["rate_limit"] = json!({"definition": "*=2/h"});
    node.put("Service", "limits.echo", spec).await;
    node.settled().await;
    assert_eq!(statuses(&node, "/free", Some("s3cret"), 1).await, [200]);
    let invoke = || node.try_api(Method::POST, "/v1/services/limits.echo/invoke", Some(json!({})));
    assert_eq!(invoke().await.0, StatusCode::OK);
    let (status, document) = invoke().await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{document}");
    assert_eq!(statuses(&node, "/free", Some("s3cret"), 1).await, [429]);
}

#[tokio::test]
async fn addresses_that_no_line_lets_in_are_refused_and_a_bad_definition_is_not_taken() {
    let node = Node::start().await;
    node.deploy("limits.py", SERVICE).await;
    let spec = |definition: &str| {
        json!({"url_path": "/office", "service": "limits.echo", "data_format": "json",
               "rate_limit": {"definition": definition}})
    };
    node.put("Channel", "office", spec("10.0.0.0/8=*")).await;
    node.settled().await;
    let refused = call(&node, "/office", None).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let document: Value = refused.json().await.unwrap();
    assert_eq!(document["details"], "requests from this address are not taken here");

    let changes = json!({"changes": [{"do": "put", "kind": "Channel", "name": "office", "spec": spec("*=fast")}]});
    let (status, document) = node.try_api(Method::POST, "/v1/transactions", Some(changes)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = document["message"].as_str().unwrap();
    assert!(
        message.contains("field `rate_limit.definition`: line 1: `fast` is no rate;"),
        "{message}"
    );
}
