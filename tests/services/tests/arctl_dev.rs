//! `arctl dev` as who writes services uses it: a node of his own, what is saved is served, and nothing stays behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest time for anything to be told.
const PATIENCE: Duration = Duration::from_secs(180);

const CHANNEL: &str = "kind: Channel
name: orders
spec:
  url_path: /orders
  service: orders.create
  data_format: json
";

/// `arctl dev` at work, told of as JSON.
struct Dev {
    child: Child,
    events: mpsc::Receiver<Value>,
    home: tempfile::TempDir,
}

impl Dev {
    fn start(home: tempfile::TempDir, args: &[&str]) -> Self {
        let mut child = arctl(home.path())
            .args(["--json", "dev"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let events = read(child.stdout.take().unwrap());
        Self { child, events, home }
    }

    /// The next event of this kind; others are passed over.
    #[track_caller]
    fn next(&self, kind: &str) -> Value {
        loop {
            let event = self.events.recv_timeout(PATIENCE);
            assert!(event.is_ok(), "no `{kind}`: {event:?}");
            let event = event.unwrap();
            assert!(event.is_object(), "a line is no document: {event}");
            if event.get("event").is_some_and(|told| told == kind) {
                return event;
            }
        }
    }

    fn end(&mut self) -> i32 {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn arctl(home: &Path) -> Command {
    let mut command = Command::new(artest::arint());
    command.arg("arctl").current_dir(home).env("XDG_CONFIG_HOME", home).env("TMPDIR", home);
    command.env("ARINT_PYTHON", artest::python());
    for name in ["ARCTL_SERVER", "ARCTL_TOKEN", "ARCTL_PROFILE", "ARCTL_FINGERPRINT"] {
        command.env_remove(name);
    }
    command
}

fn read(out: ChildStdout) -> mpsc::Receiver<Value> {
    let (tx, events) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // A line that is no JSON fails whoever waits, with the line.
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if tx.send(event).is_err() {
                return;
            }
        }
    });
    events
}

fn run(home: &Path, args: &[&str]) -> (i32, String) {
    let output = arctl(home).args(args).output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    let text = [output.stdout, output.stderr].concat();
    (code, String::from_utf8(text).unwrap())
}

/// Folders that nodes made beside the home's own files.
fn nodes(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains("arint-dev-")).collect()
}

#[test]
fn what_is_saved_is_served_and_tried_and_what_is_wrong_is_told() {
    let home = artest::temp_dir();
    let (code, said) = run(home.path(), &["new", "service", "orders.create", "--folder", "svc"]);
    assert_eq!(code, 0, "{said}");
    std::fs::write(home.path().join("channel.yaml"), CHANNEL).unwrap();
    std::fs::write(home.path().join("order.json"), r#"{"who": "Ana"}"#).unwrap();
    let args = ["svc", "-f", "channel.yaml", "--call", "/orders", "--data", "@order.json"];
    let mut dev = Dev::start(home, &args);
    let file = dev.home.path().join("svc/orders_create.py");
    let source = std::fs::read_to_string(&file).unwrap();

    let ready = dev.next("ready");
    assert_eq!(ready["profile"], "dev");
    let deployed = dev.next("deployed");
    let modules = deployed["answer"]["modules"].as_array().unwrap();
    let names: Vec<&Value> = modules.iter().map(|module| &module["name"]).collect();
    assert_eq!(names, ["orders_create"], "tests are not deployed");
    let called = dev.next("called");
    assert_eq!(called["call"], "POST /orders");
    assert_eq!(called["outcome"]["status"], 200, "{called}");
    assert_eq!(called["outcome"]["body"], r#"{"greeting":"Hello Ana"}"#);

    // Another terminal reaches the node, and so does whoever calls its channel.
    let (code, said) = run(dev.home.path(), &["--profile", "dev", "get", "channel", "orders"]);
    assert_eq!(code, 0, "{said}");

    let url = format!("{}/openapi.json", ready["channels"].as_str().unwrap());
    let seen = Command::new("curl").args(["-sSf", &url]).output().unwrap();
    let interface: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert!(interface["paths"]["/orders"].is_object(), "{interface}");

    // As editors write: another file, renamed.
    let save = |text: &str| {
        let new = file.with_extension("swp");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    save(&source.replace("Hello", "Buna"));
    assert_eq!(dev.next("called")["outcome"]["body"], r#"{"greeting":"Buna Ana"}"#);
    let line = loop {
        let event = dev.next("log");
        if event["line"]["target"] == "orders.create" {
            break event;
        }
    };
    assert_eq!(line["line"]["message"], "greeting Ana");

    save(&source.replace("who = ", "who = ("));
    let refused = dev.next("refused");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.starts_with("refused: orders_create.py:13: SyntaxError"), "{reason}");

    save(&source.replace("Hello", "Hola"));
    assert_eq!(dev.next("called")["outcome"]["body"], r#"{"greeting":"Hola Ana"}"#);
    std::fs::write(dev.home.path().join("order.json"), "{}").unwrap();
    assert_eq!(dev.next("called")["outcome"]["status"], 400, "what it sends was saved");
    std::fs::write(dev.home.path().join("channel.yaml"), CHANNEL.replace("/orders", "/other"))
        .unwrap();
    let applied = dev.next("applied");
    assert_eq!(applied["answer"]["changed"][0]["name"], "orders", "{applied}");
    assert_eq!(dev.next("called")["outcome"]["status"], 404);
    std::fs::remove_file(&file).unwrap();
    assert!(dev.next("gone")["file"].as_str().unwrap().ends_with("svc/orders_create.py"));

    assert_eq!(nodes(dev.home.path()).len(), 1);
    assert_eq!(dev.end(), 0);
    assert_eq!(nodes(dev.home.path()), Vec::<PathBuf>::new(), "the node's data goes with it");
    let (code, said) = run(dev.home.path(), &["--profile", "dev", "status"]);
    assert_eq!(code, 1, "the profile goes as well: {said}");
}

#[test]
fn a_node_whose_data_are_kept_is_the_same_the_next_time() {
    let home = artest::temp_dir();
    run(home.path(), &["new", "service", "orders.create", "--folder", "svc"]);
    let args =
        ["svc", "--data-dir", "kept", "--call", "orders.create", "--data", r#"{"who": "Ana"}"#];
    let mut first = Dev::start(home, &args);
    assert_eq!(first.next("deployed")["answer"]["modules"][0]["changed"], true);
    assert_eq!(first.next("called")["outcome"]["status"], 200);
    assert_eq!(first.end(), 0);
    let home = std::mem::replace(&mut first.home, artest::temp_dir());
    let again = Dev::start(home, &args);
    assert_eq!(again.next("deployed")["answer"]["modules"][0]["changed"], false);
    assert_eq!(again.next("called")["outcome"]["body"], r#"{"greeting":"Hello Ana"}"#);
}

#[test]
fn a_node_does_not_outlive_the_command_that_was_killed() {
    let home = artest::temp_dir();
    run(home.path(), &["new", "service", "orders.create", "--folder", "svc"]);
    let mut dev = Dev::start(home, &["svc"]);
    let ready = dev.next("ready");
    let admin = ready["admin"].as_str().unwrap().trim_start_matches("http://").to_owned();
    std::net::TcpStream::connect(&admin).unwrap();
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    let since = std::time::Instant::now();
    while std::net::TcpStream::connect(&admin).is_ok() {
        assert!(since.elapsed() < PATIENCE, "the node goes on at {admin}");
        std::thread::yield_now();
    }
}

#[test]
fn what_cannot_be_done_is_refused_before_a_node_starts() {
    let home = artest::temp_dir();
    let refused = |args: &[&str], code: i32, told: &str| {
        let (ended, said) = run(home.path(), args);
        assert_eq!(ended, code, "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    };
    refused(&["dev", "nowhere"], 1, "cannot read `nowhere`");
    refused(&["dev", "--call", "a b"], 2, "neither a service");
    refused(&["dev", "--call", "a.b", "-H", "X: y"], 2, "`--call` names a service");
    refused(&["dev", "--call", "/a", "-H", "X y"], 2, "`Name: value` was expected");
    assert_eq!(nodes(home.path()), Vec::<PathBuf>::new());
}
