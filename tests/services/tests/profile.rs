//! `arctl profile` on a real node: sandboxed workers tell where their time goes.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SERVICE: &str = "\
from zato.server.service import Service

def total(many):
    sum = 0
    for number in range(many):
        sum += number * number
    return sum

class Busy(Service):
    name = 'shop.busy'
    def handle(self):
        self.response.payload = {'total': total(20_000)}

class Quiet(Service):
    name = 'shop.quiet'
    def handle(self):
        pass
";

/// A node whose service is called all the time, until this is dropped.
struct Load(Arc<AtomicBool>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn load(node: &Node) -> Load {
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        let (over, http) = (Arc::clone(&over), node.http().clone());
        let url = format!("{}/busy", node.channels);
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                http.get(&url).send().await.ok();
            }
        });
    }
    Load(over)
}

async fn set_up() -> Node {
    let node = Node::start().await;
    node.deploy("shop.py", SERVICE).await;
    node.put("Channel", "busy", json!({"url_path": "/busy", "service": "shop.busy"})).await;
    node.settled().await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_names_the_function_that_takes_the_time_of_all_workers() {
    let node = set_up().await;
    loop {
        let status = node.api(Method::GET, "/v1/status", None).await;
        let workers = status["arsrv"]["workers"].as_array().unwrap();
        if workers.iter().filter(|worker| worker["state"] == "ready").count() >= 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _load = load(&node);
    let asked = json!({"service": "shop.busy", "seconds": 3, "rate_hz": 200});
    let profile = node.api(Method::POST, "/v1/profiles", Some(asked)).await;
    let workers = profile["workers"].as_array().unwrap();
    assert!(workers.len() >= 2, "{workers:?}");
    for worker in workers {
        assert!(worker["error"].is_null() && worker["samples"].as_u64().unwrap() > 0, "{worker}");
    }
    let stacks = profile["stacks"].as_array().unwrap();
    assert!(stacks.iter().all(|stack| stack["service"] == "shop.busy"), "{stacks:?}");
    let function =
        |at: &Value| profile["frames"][usize::try_from(at.as_u64().unwrap()).unwrap()].clone();
    let most = stacks
        .iter()
        .find(|stack| {
            let last = function(stack["frames"].as_array().unwrap().last().unwrap());
            last["name"] == "total" && last["file"] == "shop.py" && last["line"] == 3
        })
        .expect("the function that computes is among them");
    assert_eq!(function(&most["frames"][0])["name"], "Busy.handle");
    // A worker goes on as before, with nothing left of it.
    assert_eq!(node.request(Method::GET, "/busy", "").await.status(), 200);
    // It is in the audit log.
    let audit = node.api(Method::GET, "/v1/audit?action=profile_take", None).await;
    assert_eq!(audit["entries"][0]["target"], "Service/shop.busy", "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arctl_shows_it_in_every_form_and_says_what_cannot_be_done() {
    let node = set_up().await;
    let _load = load(&node);
    let folder = artest::temp_dir();
    let arctl = |args: &[&str]| {
        let output = Command::new(artest::arint())
            .arg("arctl")
            .args(args)
            .env("XDG_CONFIG_HOME", folder.path())
            .env("ARCTL_SERVER", &node.admin)
            .env("ARCTL_TOKEN", &node.token)
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap_or(-1), text)
    };
    let (code, text) = arctl(&["profile", "--seconds", "2"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("shop.busy: seen ") && text.contains("total (shop.py:3)"), "{text}");
    let (code, text) = arctl(&["profile", "shop.busy", "--seconds", "2", "-f", "collapsed"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("shop.busy;Busy.handle (shop.py:"), "{text}");
    let file = folder.path().join("p.json");
    let name = file.display().to_string();
    let (code, text) = arctl(&["profile", "--seconds", "1", "-f", "speedscope", "-o", &name]);
    assert_eq!(code, 0, "{text}");
    let document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["profiles"][0]["name"], "shop.busy", "{document}");
    let (code, text) = arctl(&["profile", "shop.none"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("there is no service `shop.none`"), "{text}");
    let (code, text) = arctl(&["profile", "--worker", "default-99", "--seconds", "1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("there is no worker `default-99` that is ready"), "{text}");
    let (code, _) = arctl(&["profile", "--seconds", "0"]);
    assert_eq!(code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_profile_is_taken_at_a_time_and_ends_with_who_wanted_it() {
    let node = set_up().await;
    let long = json!({"seconds": 120, "rate_hz": 10});
    let (http, token) = (node.http().clone(), node.token.clone());
    let url = format!("{}/v1/profiles", node.admin);
    // Again where a short one was quicker.
    let asking = tokio::spawn(async move {
        loop {
            let asking = http.post(&url).bearer_auth(&token).json(&long).send().await;
            if asking.unwrap().status() != StatusCode::CONFLICT {
                return;
            }
        }
    });
    let short = || node.try_api(Method::POST, "/v1/profiles", Some(json!({"seconds": 1})));
    let since = std::time::Instant::now();
    let mut taken = 0;
    loop {
        let (status, said) = short().await;
        taken += usize::from(status == StatusCode::OK);
        if status == StatusCode::CONFLICT {
            assert_eq!(said["message"], "a profile is being taken; try again when it is done");
            break;
        }
        assert!(since.elapsed().as_secs() < 60, "the long one never began: {said}");
    }
    asking.abort();
    loop {
        let (status, said) = short().await;
        taken += usize::from(status == StatusCode::OK);
        let workers = said["workers"].as_array();
        if status == StatusCode::OK && workers.unwrap().iter().all(|one| one["error"].is_null()) {
            break;
        }
        assert!(since.elapsed().as_secs() < 100, "the long one goes on: {said}");
    }
    // Also the one whose client has left is written down.
    let path = "/v1/audit?action=profile_take&outcome=done&most=1000";
    let audit = node.api(Method::GET, path, None).await;
    assert_eq!(audit["entries"].as_array().unwrap().len(), taken + 1, "{audit:#}");
}
