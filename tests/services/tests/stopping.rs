//! Stopping and dying: no orphans, nothing acknowledged is lost, a dead unit comes back.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::time::Duration;

use artest::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::json;

const HAZARDS: &str = include_str!("../services/hazards.py");

#[tokio::test]
async fn ctrl_c_stops_every_process() {
    let node = Node::start().await;
    node.deploy("hazards.py", HAZARDS).await;
    let below = processes_below(node.pid());
    assert!(below.len() >= 6, "four units and two workers were expected: {below:?}");
    let log = node.stop();
    gone(&below).await;
    assert!(!log.contains(" ERROR "), "{log}");
}

#[tokio::test]
async fn killing_arint_dev_leaves_no_orphan() {
    let node = Node::start().await;
    node.deploy("hazards.py", HAZARDS).await;
    let below = processes_below(node.pid());
    node.kill();
    gone(&below).await;
}

#[tokio::test]
async fn a_killed_core_takes_its_workers_along_and_comes_back() {
    let node = Node::start().await;
    node.deploy("hazards.py", HAZARDS).await;
    node.put("Channel", "good", json!({"url_path": "/good", "service": "hazards.good"})).await;
    node.settled().await;
    let core = unit(&node, "arsrv");
    let workers = processes_below(core);
    assert!(!workers.is_empty());
    kill(Pid::from_raw(core.cast_signed()), Signal::SIGKILL).unwrap();
    gone(&workers).await;
    // The balancer holds the request until the core is back.
    artest::wait_for("the core to be back", Duration::from_secs(20), async || {
        let status = node.request(Method::GET, "/good", "").await.status();
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn acknowledged_changes_survive_the_death_of_the_whole_node() {
    let dir = artest::temp_dir();
    let mut node = Node::builder().data_dir(dir.path()).start().await;
    for round in 0..3 {
        for number in 0..10 {
            let spec = json!({"url_path": format!("/r{round}/{number}"), "service": "later"});
            node.put("Channel", &format!("r{round}-{number}"), spec).await;
        }
        let below = processes_below(node.pid());
        // Stopped first, so that it does not start its units again while they are killed.
        kill(Pid::from_raw(node.pid().cast_signed()), Signal::SIGSTOP).unwrap();
        for pid in &below {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).ok();
        }
        node.kill();
        gone(&below).await;
        node = Node::builder().data_dir(dir.path()).start().await;
        let listed = node.api(Method::GET, "/v1/objects/Channel", None).await;
        let count = listed["objects"].as_array().unwrap().len();
        assert_eq!(count, (round + 1) * 10);
    }
}

#[tokio::test]
async fn channels_go_on_while_the_object_store_is_dead() {
    let node = Node::start().await;
    node.deploy("hazards.py", HAZARDS).await;
    node.put("Channel", "good", json!({"url_path": "/good", "service": "hazards.good"})).await;
    node.settled().await;
    let store = unit(&node, "arclst");
    kill(Pid::from_raw(store.cast_signed()), Signal::SIGSTOP).unwrap();
    for _ in 0..50 {
        assert_eq!(node.request(Method::GET, "/good", "").await.status(), StatusCode::OK);
    }
    kill(Pid::from_raw(store.cast_signed()), Signal::SIGKILL).unwrap();
    for _ in 0..50 {
        assert_eq!(node.request(Method::GET, "/good", "").await.status(), StatusCode::OK);
    }
    artest::wait_for("the store to be back", Duration::from_secs(20), async || {
        let spec = json!({"kind": "Channel", "name": "new", "do": "put", "spec": {"url_path": "/new", "service": "hazards.good"}});
        match node.try_api(Method::POST, "/v1/transactions", Some(json!({"changes": [spec]}))).await {
            (StatusCode::OK, _) => Ok(()),
            refused => Err(refused),
        }
    })
    .await;
    node.settled().await;
    assert_eq!(node.request(Method::GET, "/new", "").await.status(), StatusCode::OK);
}

fn unit(node: &Node, name: &str) -> u32 {
    let is_unit = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').nth(1) == Some(name)
    };
    processes_below(node.pid()).into_iter().find(is_unit).unwrap()
}

fn processes_below(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for thread in
            std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten()
        {
            let children =
                std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}

async fn gone(pids: &[u32]) {
    artest::wait_for("every process to end", Duration::from_secs(10), async || {
        let alive: Vec<String> = pids
            .iter()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            // A zombie has ended; who inherits it collects it.
            .filter(|stat| {
                !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
            })
            .collect();
        if alive.is_empty() { Ok(()) } else { Err(alive) }
    })
    .await;
}
