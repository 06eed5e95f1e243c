//! A generator as an answer, through the whole node: worker, core and balancer.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::collections::HashMap;
use std::time::Duration;

use artest::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const STREAMS: &str = include_str!("../services/streams.py");

async fn node() -> Node {
    let node = Node::start().await;
    node.deploy("streams.py", STREAMS).await;
    for name in ["events", "endless", "large", "slow", "which-closed"] {
        let mut spec =
            json!({"url_path": format!("/{name}"), "service": format!("streams.{name}")});
        if name == "slow" {
            spec["timeout_ms"] = json!(1000);
        }
        node.put("Channel", name, spec).await;
    }
    node.settled().await;
    node
}

#[tokio::test]
async fn a_generator_is_sent_as_server_sent_events_and_may_take_longer_than_the_time_limit() {
    let node = node().await;
    let answer = node.request(Method::GET, "/events", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["x-zato-cid"].len(), 24);
    assert_eq!(
        answer.text().await.unwrap(),
        "data: {\"number\":0}\n\ndata: {\"number\":1}\n\ndata: {\"number\":2}\n\n"
    );
    // The limit is for the beginning.
    let answer = node.request(Method::GET, "/slow", "").await;
    assert_eq!(answer.text().await.unwrap(), "data: begun\n\ndata: ended\n\n");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_generator() {
    let node = node().await;
    artest::wait_for("the key-value store", Duration::from_secs(20), async || {
        let text = node.request(Method::GET, "/which-closed", "").await.text().await.unwrap();
        if text == "none" { Ok(()) } else { Err(text) }
    })
    .await;
    let mut answer = node.request(Method::GET, "/endless", "").await;
    let cid = answer.headers()["x-zato-cid"].to_str().unwrap().to_owned();
    assert!(answer.chunk().await.unwrap().unwrap().starts_with(b"data: {\"pid\":"));
    drop(answer);
    artest::wait_for("the generator to be closed", Duration::from_secs(20), async || {
        let closed = node.request(Method::GET, "/which-closed", "").await.text().await.unwrap();
        if closed == cid { Ok(()) } else { Err(closed) }
    })
    .await;
}

#[tokio::test]
async fn an_answer_whose_worker_dies_does_not_look_complete() {
    let node = node().await;
    let mut answer = node.request(Method::GET, "/endless", "").await;
    let event = answer.chunk().await.unwrap().unwrap();
    let event = String::from_utf8(event.to_vec()).unwrap();
    let document = event.lines().next().unwrap().strip_prefix("data: ").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let pid = i32::try_from(document["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let broken = loop {
        match answer.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the answer ended as if it were complete");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_and_memory_stays_flat() {
    let node = node().await;
    // Whatever is made once is made now.
    node.request(Method::POST, "/large?pieces=2", "").await.bytes().await.unwrap();
    let before = resident_kib(node.pid());
    let mut answer = node.request(Method::POST, "/large", "").await;
    assert_eq!(answer.headers()["content-type"], "application/x-large");
    let (mut length, mut seen, mut most) = (0_usize, 0_usize, 0);
    while let Some(piece) = answer.chunk().await.unwrap() {
        assert!(
            piece
                .iter()
                .enumerate()
                .step_by(97)
                .all(|(at, byte)| { *byte == b"0123456789abcdef"[(length + at) % 16] })
        );
        length += piece.len();
        if length - seen >= 5 * 1024 * 1024 {
            seen = length;
            most = most.max(resident_kib(node.pid()));
        }
    }
    assert_eq!(length, 1600 * 65536);
    let more = most.saturating_sub(before);
    artest::say(&format!("100 MB streamed: {before} KiB before, at most {more} KiB more"));
    assert!(more < 30 * 1024, "memory grew by {more} KiB while 100 MB were streamed");
}

#[tokio::test]
async fn a_client_that_takes_nothing_stops_the_generator_for_as_long() {
    let node = node().await;
    node.request(Method::POST, "/large?pieces=2", "").await.bytes().await.unwrap();
    let before = resident_kib(node.pid());
    let answer = node.request(Method::POST, "/large", "").await;
    let mut others = Vec::new();
    for _ in 0..50 {
        others.push(node.request(Method::GET, "/events", "").await.status());
    }
    assert!(others.iter().all(|status| *status == StatusCode::OK));
    let more = resident_kib(node.pid()).saturating_sub(before);
    assert!(more < 30 * 1024, "memory grew by {more} KiB for a client that takes nothing");
    assert_eq!(answer.bytes().await.unwrap().len(), 1600 * 65536);
}

/// Resident memory of a process and everything below it.
fn resident_kib(root: u32) -> u64 {
    let mut of: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let parent = number("PPid:").and_then(|parent| u32::try_from(parent).ok());
        of.insert(pid, (parent.unwrap_or(0), number("VmRSS:").unwrap_or(0)));
    }
    let is_below = |mut pid: u32| {
        while pid != 0 {
            if pid == root {
                return true;
            }
            pid = of.get(&pid).map_or(0, |(parent, _)| *parent);
        }
        false
    };
    of.iter().filter(|(pid, _)| is_below(**pid)).map(|(_, (_, kib))| kib).sum()
}
