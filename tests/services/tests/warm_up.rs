//! Warming up: what a service has every new worker do before it takes calls, on a real node.

use artest::Node;
use reqwest::Method;
use serde_json::{Value, json};

const SERVICE: &str = "\
from zato.server.service import Service

prices = None

class Prices(Service):
    name = 'shop.price'

    def warm_up_worker(self):
        global prices
        self.kvdb.conn.incr('warmed-up')
        prices = {'A-100': 7}

    def handle(self):
        # Would fail in a worker that has not been warmed up.
        self.response.payload = {'price': prices['A-100']}
";

const FAILS: &str = "\
from zato.server.service import Service

class Fails(Service):
    name = 'shop.fails'
    def warm_up_worker(self):
        raise ValueError('no prices today')
    def handle(self):
        self.response.payload = 'works'
";

const ENDS: &str = "\
import ctypes
from zato.server.service import Service

class Ends(Service):
    name = 'shop.ends'
    def warm_up_worker(self):
        ctypes.string_at(0)
    def handle(self):
        pass
";

async fn invoke(node: &Node, service: &str) -> Value {
    let path = format!("/v1/services/{service}/invoke");
    node.api(Method::POST, &path, Some(json!({"payload": null}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_worker_is_warmed_up_before_its_first_call_also_those_that_replace_others() {
    let config = "[arsrv]\nworkers = 2\nworker_max_requests = 5\n";
    let node = Node::builder().config(config).start().await;
    node.deploy("shop.py", SERVICE).await;
    node.settled().await;
    // Workers are replaced meanwhile, again and again.
    for _ in 0..60 {
        let answer = invoke(&node, "shop.price").await;
        assert_eq!(answer["status"], 200, "{answer}\n{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_warm_up_is_told_of_and_one_that_ends_the_worker_is_refused() {
    let node = Node::start().await;
    node.deploy("fails.py", FAILS).await;
    node.settled().await;
    assert_eq!(invoke(&node, "shop.fails").await["body"], "works");
    let log = node.log();
    assert!(
        log.contains("could not warm up") && log.contains("ValueError: no prices today"),
        "{log}"
    );
    let files = json!({"files": [{"file_name": "ends.py", "source": ENDS}]});
    let (status, said) = node.try_api(Method::POST, "/v1/deployments", Some(files)).await;
    assert_eq!(status, 422, "{said}");
    let message = said["message"].as_str().unwrap();
    assert!(
        message.contains("the worker ended while service `shop.ends` warmed up: "),
        "{message}"
    );
    // What was there goes on.
    assert_eq!(invoke(&node, "shop.fails").await["body"], "works");
}
