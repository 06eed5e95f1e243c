//! Golden tests of the SDK: request in, response out, through a whole node.
//!
//! Each area is two files in `golden/`: `<area>.py` with services, and `<area>.json` with channels and cases.  A
//! case names what it stands for (`of`: the row of the SDK's reference or of docs/http.md), sends a request, and
//! compares status, the headers it names, and the body.  In what is expected, `$CID` is the request's correlation
//! id and `$ANY` stands for any value or any part of a text.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests end the test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use artest::Node;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    /// Objects to be made first: `Kind/name` and spec.
    #[serde(default)]
    objects: Vec<(String, Value)>,
    /// Channel specs by name; what they lack: the path `/<name>`, and the service `<name>` where requests name none.
    channels: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    of: String,
    #[serde(default)]
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text is sent as it is, anything else as JSON.
    #[serde(default)]
    body: Value,
    #[serde(default = "ok")]
    status: u16,
    /// What the answer's headers have to be; null: not there.
    #[serde(default)]
    answer_headers: BTreeMap<String, Option<String>>,
    /// Text: the body as it is.  Anything else: the body as JSON.  Missing: not looked at.
    #[serde(default)]
    answer: Option<Value>,
    /// Asked again until it is right: what it tells of happens later.
    #[serde(default)]
    later: bool,
}

fn ok() -> u16 {
    200
}

/// A node with an area's services and channels.
async fn stage(area: &str) -> (Node, Vec<Case>) {
    let folder = artest::repository().join("tests/services/golden");
    let text = std::fs::read_to_string(folder.join(format!("{area}.json"))).unwrap();
    let crm = artest::repository().join("tests/services/golden/echo.py");
    let Area { objects, channels, cases } =
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{area}.json: {err}"));
    let node = Node::start().await;
    let (services, objects): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|(name, _)| name.starts_with("Service/"));
    for (name, spec) in objects {
        let (kind, name) = name.split_once('/').unwrap();
        let mut spec = spec;
        if spec["host"] == "$ECHO" {
            spec["host"] = json!(echo(&crm).await);
        }
        node.put(kind, name, spec).await;
    }
    let source = std::fs::read_to_string(folder.join(format!("{area}.py"))).unwrap();
    let module = area.replace('-', "_");
    node.deploy(&format!("{module}.py"), &source).await;
    // A deployment makes them; what is configured about them comes behind it.
    for (name, spec) in services {
        let (kind, name) = name.split_once('/').unwrap();
        node.put(kind, name, spec).await;
    }
    for (name, mut spec) in channels {
        let fields = spec.as_object_mut().unwrap();
        fields.entry("url_path").or_insert_with(|| json!(format!("/{name}")));
        if !fields.contains_key("service_whitelist") {
            fields.entry("service").or_insert_with(|| json!(name));
        }
        node.put("Channel", &name, spec).await;
    }
    node.settled().await;
    (node, cases)
}

/// Another system, which tells what it was asked; ends with the test's process.
async fn echo(script: &std::path::Path) -> String {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let mut child = tokio::process::Command::new(artest::python())
        .arg(script)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).await.unwrap();
    // It lives as long as the runtime of the test.
    tokio::spawn(async move { child.wait().await });
    format!("http://127.0.0.1:{}", port.trim())
}

async fn run(area: &str) {
    let (node, cases) = stage(area).await;
    let mut faults = String::new();
    let count = cases.len();
    for case in cases {
        if case.later {
            artest::wait_for(
                &format!("{area}: {}", case.of),
                Duration::from_secs(20),
                async || check(&node, &case).await,
            )
            .await;
        } else if let Err(fault) = check(&node, &case).await {
            writeln!(faults, "- {} ({}): {fault}", case.of, case.path).unwrap();
        }
    }
    assert!(count > 0, "{area}.json has no cases");
    assert!(faults.is_empty(), "{area}:\n{faults}");
}

async fn check(node: &Node, case: &Case) -> Result<(), String> {
    let default = if case.body.is_null() { "GET" } else { "POST" };
    let method = case.method.as_deref().unwrap_or(default);
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let body = match &case.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut request =
        node.http().request(method, format!("{}{}", node.channels, case.path)).body(body);
    for (name, value) in &case.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.map_err(|err| err.to_string())?;
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let text = answer.text().await.map_err(|err| err.to_string())?;
    if status != case.status {
        return Err(format!("status {status} instead of {}: {text}", case.status));
    }
    let cid = headers["x-zato-cid"].to_str().unwrap();
    for (name, expected) in &case.answer_headers {
        let found = headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let fits = match (&found, expected) {
            (Some(found), Some(expected)) => text_fits(found, expected, cid),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        if !fits {
            return Err(format!("header `{name}` is {found:?} instead of {expected:?}"));
        }
    }
    let Some(expected) = &case.answer else { return Ok(()) };
    let fits = match expected {
        Value::String(expected) => text_fits(&text, expected, cid),
        _ => match serde_json::from_str::<Value>(&text) {
            Ok(found) => value_fits(&found, expected, cid),
            Err(_) => false,
        },
    };
    if fits { Ok(()) } else { Err(format!("\n    got      {text}\n    expected {expected}")) }
}

fn value_fits(found: &Value, expected: &Value, cid: &str) -> bool {
    match (found, expected) {
        (_, Value::String(any)) if any == "$ANY" => true,
        (Value::String(found), Value::String(expected)) => text_fits(found, expected, cid),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| value_fits(found, expected, cid))
        }
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len()
                && expected.iter().all(|(name, expected)| {
                    found.get(name).is_some_and(|found| value_fits(found, expected, cid))
                })
        }
        (found, expected) => found == expected,
    }
}

/// Whether a text is what is expected, where `$CID` is the correlation id and `$ANY` matches anything.
fn text_fits(found: &str, expected: &str, cid: &str) -> bool {
    let expected = expected.replace("$CID", cid);
    let mut parts = expected.split("$ANY");
    let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[tokio::test]
async fn simple_io_reads_and_writes_what_is_declared() {
    run("simple_io").await;
}

#[tokio::test]
async fn models_are_read_checked_and_written() {
    run("models").await;
}

#[tokio::test]
async fn requests_are_seen_as_they_came() {
    run("incoming").await;
}

#[tokio::test]
async fn responses_go_out_as_they_were_set() {
    run("responses").await;
}

#[tokio::test]
async fn hooks_run_in_the_order_of_3_2() {
    run("life").await;
}

#[tokio::test]
async fn services_invoke_each_other_now_and_later() {
    run("invoking").await;
}

#[tokio::test]
async fn other_systems_are_called_over_rest() {
    run("outgoing").await;
}

#[tokio::test]
async fn the_tools_of_a_service_do_what_they_did() {
    run("tools").await;
}

#[tokio::test]
async fn what_is_not_there_says_what_to_do() {
    run("absent").await;
}

#[tokio::test]
async fn channels_answer_as_in_3_2() {
    run("channels").await;
}

#[tokio::test]
async fn requests_that_name_their_service_reach_it_and_no_other() {
    run("naming").await;
}

#[tokio::test]
async fn messages_of_soap_are_answered_in_their_version() {
    run("soap").await;
}
