//! What services ask of the core, and what they say to its log.

use std::sync::OnceLock;

use super::*;

const ASKING: &str = r#"
import json, threading
from arint import runtime
from zato.server.service import Service

def ask(op, body=b"", **meta):
    meta, body = runtime.get().request({"op": op, **meta}, body)
    return json.dumps([meta, body.decode()])

def go_on(service):
    meta, body = json.loads(ask("invoke", service=service, data_format="", timeout_ms=None, channel="invoke"))
    return body or meta["error"]["message"]

class Invoke(Service):
    name = "ask.invoke"
    def handle(self):
        name, _, body = self.request.raw_request.partition(" ")
        self.response.payload = ask("invoke", body.encode(), service=name, data_format="", timeout_ms=None, channel="invoke")

class Deep(Service):
    name = "ask.deep"
    def handle(self):
        self.response.payload = go_on("ask.deeper")

class Deeper(Service):
    name = "ask.deeper"
    def handle(self):
        self.response.payload = go_on("ask.deep")

class Fail(Service):
    name = "ask.fail"
    def handle(self):
        raise ValueError("no such thing")

class Elsewhere(Service):
    name = "ask.elsewhere"
    def handle(self):
        self.response.payload = ask("rest_info", conn="crm")

class Kvdb(Service):
    name = "ask.kvdb"
    def handle(self):
        self.response.payload = json.dumps(runtime.get().hello.get("kvdb"))

class Talk(Service):
    name = "ask.talk"
    def handle(self):
        self.logger.warning("careful with %s", self.request.raw_request)
        print("printed by", self.request.raw_request)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_invokes_another_by_way_of_the_core() {
    let bench = Bench::start(&[("asking", ASKING), ("echo", ECHO)]).await;
    let asked = async |body: &str| -> Value {
        serde_json::from_str(&bench.call("ask.invoke").body(body.to_owned()).text().await).unwrap()
    };
    let answer = asked("echo hello").await;
    assert_eq!((&answer[0]["status"], &answer[1]), (&json!(200), &json!("hello")));
    let answer = asked("no.such x").await;
    assert_eq!(
        answer[0]["error"],
        json!({"type": "not-found", "message": "service `no.such` is not deployed"})
    );
    let answer = asked("ask.fail x").await;
    assert_eq!(
        (&answer[0]["status"], &answer[0]["error"]["type"]),
        (&json!(500), &json!("ValueError"))
    );
    // Anything else is for the outgoing connections.
    let answer: Value = serde_json::from_str(&bench.call("ask.elsewhere").text().await).unwrap();
    assert_eq!(answer[0]["error"]["type"], "not-found");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_wait_for_others_do_not_take_the_last_place_from_them() {
    let bench = Bench::start_with(&[("asking", ASKING), ("echo", ECHO)], |config| {
        config.workers = 1;
        config.worker_threads = 16;
    })
    .await;
    let calls = (0..100).map(|_| bench.call("ask.invoke").body("echo x").text());
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.ends_with("\"x\"]")), "{:?}", answers[0]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_invoke_each_other_without_end_are_stopped_with_a_sentence() {
    let bench = Bench::start(&[("asking", ASKING)]).await;
    assert_eq!(
        bench.call("ask.deep").text().await,
        "service `ask.deeper` cannot be invoked: 64 services wait for each other already"
    );
    bench.stop().await;
}

#[tokio::test]
async fn the_key_value_stores_password_reaches_workers_that_were_there_before_it() {
    let bench = Bench::start(&[("asking", ASKING)]).await;
    assert_eq!(bench.call("ask.kvdb").text().await, "null");
    std::fs::write(bench.config.runtime_dir.join("arkvd.password"), "very secret\n").unwrap();
    let socket = bench.config.runtime_dir.join("arkvd.sock").display().to_string();
    let wanted = json!({"unix_socket_path": socket, "username": null, "password": "very secret"});
    artest::wait_for("the password", Duration::from_secs(5), || async {
        let now: Value = serde_json::from_str(&bench.call("ask.kvdb").text().await).unwrap();
        if now == wanted { Ok(()) } else { Err(now) }
    })
    .await;
    bench.stop().await;
}

/// Level, target, message and cid of every line.
struct Lines(Mutex<Vec<[String; 4]>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let cid = record.key_values().get("cid".into()).map(|cid| cid.to_string());
        let line = [
            record.level().to_string(),
            record.target().to_owned(),
            record.args().to_string(),
            cid.unwrap_or_default(),
        ];
        self.0.lock().unwrap().push(line);
    }
    fn flush(&self) {}
}

#[tokio::test]
async fn what_a_service_logs_and_prints_is_in_the_log() {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines(Mutex::default()));
    // Fails where TEST_LOG has installed another one.
    if log::set_logger(lines).is_err() {
        return;
    }
    log::set_max_level(log::LevelFilter::Info);
    let bench = Bench::start(&[("asking", ASKING)]).await;
    bench.call("ask.talk").body("fire").reply().await;
    let has = |level: &str, target: &str, message: &str, with_cid: bool| {
        let lines = lines.0.lock().unwrap();
        lines.iter().any(|[l, t, m, cid]| {
            l == level && t == target && m == message && cid.is_empty() != with_cid
        })
    };
    artest::wait_for("both lines", Duration::from_secs(5), || async {
        let logged = has("WARN", "service:ask.talk", "careful with fire", true);
        let printed = has("INFO", "arsrv::worker::output", "printed by fire", false);
        if logged && printed { Ok(()) } else { Err((logged, printed)) }
    })
    .await;
    bench.stop().await;
}
