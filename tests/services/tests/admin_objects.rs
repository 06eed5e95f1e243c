//! Changes through the admin API: secrets, revisions, warnings, and what the audit log keeps of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::time::Duration;

use artest::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn secrets_are_shown_once_kept_and_rotated_only_when_asked_for() {
    let node = Node::start().await;
    let made = node.put("Security", "crm", json!({"type": "basic", "username": "crm"})).await;
    let first = made["generated"][0]["value"].as_str().unwrap().to_owned();
    assert_eq!(made["generated"][0]["object"], "Security/crm");
    let object = node.api(Method::GET, "/v1/objects/Security/crm", None).await;
    assert_eq!(object["spec"]["password"], json!({"secret": "Security/crm/password"}));
    // Left out: kept.
    let same = node.put("Security", "crm", json!({"type": "basic", "username": "crm"})).await;
    assert_eq!((same.get("generated"), &same["changed"]), (None, &json!([])));
    let renamed = node.put("Security", "crm", json!({"type": "basic", "username": "other"})).await;
    assert_eq!(renamed.get("generated"), None);
    assert_eq!(renamed["changed"][0]["what"], "changed");
    // The same value twice changes nothing; another one does.
    let with =
        |value: &str| json!({"type": "basic", "username": "other", "password": {"value": value}});
    let changed = node.put("Security", "crm", with("hush hush")).await;
    assert_eq!(changed["changed"][0]["name"], "crm");
    assert_eq!(node.put("Security", "crm", with("hush hush")).await["changed"], json!([]));
    // A reset makes a new one.
    let reset = node.api(Method::POST, "/v1/securities/crm/reset", None).await;
    let second = reset["value"].as_str().unwrap().to_owned();
    assert_eq!((reset["field"].as_str(), second.len()), (Some("password"), 36));
    assert_ne!(first, second);
    // No value is anywhere to be read.
    let audit = node.api(Method::GET, "/v1/audit?most=1000", None).await.to_string();
    let history = node.api(Method::GET, "/v1/history/Security/crm", None).await.to_string();
    let names = node.api(Method::GET, "/v1/secrets", None).await;
    let log = node.log();
    for secret in [first.as_str(), second.as_str(), "hush hush", artest::node::ADMIN_PASSWORD] {
        for (place, text) in [("audit", &audit), ("history", &history), ("log", &log)] {
            assert!(!text.contains(secret), "a secret is in the {place}");
        }
    }
    assert!(names.as_array().unwrap().contains(&json!("Security/crm/password")));
    node.api(Method::DELETE, "/v1/objects/Security/crm", None).await;
    let names = node.api(Method::GET, "/v1/secrets", None).await;
    assert!(!names.to_string().contains("Security/crm"), "{names}");
}

#[tokio::test]
async fn shared_secrets_are_kept_by_name_and_not_removed_while_in_use() {
    let node = Node::start().await;
    let spec = json!({"type": "bearer", "token": {"secret": "crm-token"}});
    let change =
        json!({"changes": [{"do": "put", "kind": "Security", "name": "crm", "spec": spec}]});
    let (status, answer) = node.try_api(Method::POST, "/v1/transactions", Some(change)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer["message"],
        "Security `crm`: field `token`: secret `crm-token` does not exist; set it with \
         `arctl secret set crm-token`, or give `value` or `generate`"
    );
    node.api(Method::POST, "/v1/secrets/crm-token", Some(json!({"value": "t"}))).await;
    node.put("Security", "crm", spec).await;
    let (status, answer) = node.try_api(Method::DELETE, "/v1/secrets/crm-token", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "secret `crm-token` is used by Security `crm`; give that another one first"
    );
    let (status, answer) = node.try_api(Method::POST, "/v1/securities/crm/reset", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Security `crm` uses the shared secret `crm-token`; set that with `arctl secret set crm-token`"
    );
    node.api(Method::DELETE, "/v1/objects/Security/crm", None).await;
    node.api(Method::DELETE, "/v1/secrets/crm-token", None).await;
}

#[tokio::test]
async fn a_change_based_on_an_old_revision_is_refused_with_both_revisions() {
    let node = Node::start().await;
    let spec = |path: &str| json!({"url_path": path, "service": "x"});
    node.put("Channel", "a", spec("/1")).await;
    let url = format!("{}/v1/objects/Channel/a", node.admin);
    let got = node.http().get(&url).bearer_auth(&node.token).send().await.unwrap();
    let tag = got.headers()["etag"].to_str().unwrap().to_owned();
    let put = async |tag: &str, path: &str| {
        let request = node.http().put(&url).bearer_auth(&node.token).header("if-match", tag);
        let answer = request.json(&json!({"spec": spec(path)})).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, changed) = put(&tag, "/2").await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    let (status, answer) = put(&tag, "/3").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let message = answer["message"].as_str().unwrap();
    let (old, new) = (tag.trim_matches('"'), changed["revision"].to_string());
    assert!(message.contains(old) && message.contains(&new), "{message}");
    let answer = node.http().put(&url).bearer_auth(&node.token).header("if-none-match", "*");
    let answer = answer.json(&json!({"spec": spec("/4")})).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let dry = json!({"changes": [{"do": "put", "kind": "Channel", "name": "a", "spec": spec("/5")}], "dry_run": true});
    let would = node.api(Method::POST, "/v1/transactions", Some(dry)).await;
    assert_eq!(would["changed"][0]["after"]["url_path"], "/5");
    let object = node.api(Method::GET, "/v1/objects/Channel/a", None).await;
    assert_eq!(object["spec"]["url_path"], "/2");
}

#[tokio::test]
async fn a_transaction_is_accepted_whole_or_not_at_all_and_warns_of_what_will_not_work() {
    let node = Node::start().await;
    let put = |kind: &str, name: &str, spec: Value| json!({"do": "put", "kind": kind, "name": name, "spec": spec});
    let channel =
        |security: &str| json!({"url_path": "/x", "service": "none.such", "security": [security]});
    let changes = json!({"changes": [
        put("Security", "s", json!({"type": "api_key"})), put("Channel", "c", channel("missing"))]});
    let (status, answer) = node.try_api(Method::POST, "/v1/transactions", Some(changes)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (status, _) = node.try_api(Method::GET, "/v1/objects/Security/s", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // In whatever order they are written.
    let changes = json!({"changes": [
        put("Channel", "c", channel("s")), put("Security", "s", json!({"type": "api_key"}))]});
    let done = node.api(Method::POST, "/v1/transactions", Some(changes)).await;
    assert_eq!(done["changed"].as_array().unwrap().len(), 2);
    assert_eq!(
        done["warnings"],
        json!([
            "Channel `c`: service `none.such` is not deployed; the channel answers 404 until it is"
        ])
    );
}

#[tokio::test]
async fn a_change_that_was_answered_is_in_the_audit_log_whatever_is_killed() {
    let node = Node::start().await;
    for round in 0..3 {
        let name = format!("c{round}");
        let done = node.put("Channel", &name, json!({"url_path": "/x", "service": "y"})).await;
        kill(child_of(node.pid(), "arwadm"), Signal::SIGKILL).unwrap();
        let page =
            artest::wait_for("the admin API to be back", Duration::from_secs(30), async || {
                let url = format!("{}/v1/audit?target=Channel%2F{name}", node.admin);
                let answer = node.http().get(url).bearer_auth(&node.token).send().await;
                let answer = answer.map_err(|err| err.to_string())?;
                if !answer.status().is_success() {
                    return Err(answer.text().await.unwrap());
                }
                answer.json::<Value>().await.map_err(|err| err.to_string())
            })
            .await;
        let entry = &page["entries"][0];
        assert_eq!(entry["outcome"], "done", "{page}");
        assert_eq!(entry["who"], "user:admin");
        assert_eq!(entry["after"]["url_path"], "/x");
        assert_eq!(done["changed"][0]["name"], name);
    }
}

/// The process of a unit that `arint dev` has started.
fn child_of(parent: u32, unit: &str) -> Pid {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let of_parent = after.split_whitespace().nth(1) == Some(parent.to_string().as_str());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        of_parent && line.split(|byte| *byte == 0).any(|arg| arg == unit.as_bytes())
    };
    Pid::from_raw(pids.into_iter().find(is_it).unwrap())
}
