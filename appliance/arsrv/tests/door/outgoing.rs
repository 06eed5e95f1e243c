//! Connections out against real servers: well-behaved, slow, broken, garbage, and nginx with TLS.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peer::{Act, Peer, response};
use super::{Connection, Setting, Stage, done};
use arapi::arsrv::OutgoingStatus;
use arapi::names::{Cid, Kind};
use arsrv::call::{Outside, WorkerReply, WorkerRequest};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\n\r\nok";

fn rest(host: &str, more: Value) -> Value {
    let mut spec = json!({"type": "rest", "host": host, "ping_interval_s": 0});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

async fn stage(host: &str, more: Value) -> Stage {
    Setting::new().object(Kind::Outgoing, "crm", rest(host, more)).start().await
}

async fn ask(stage: &Stage, meta: Value, body: &str) -> WorkerReply {
    ask_until(stage, meta, body, Duration::from_secs(20)).await
}

async fn ask_until(stage: &Stage, meta: Value, body: &str, time: Duration) -> WorkerReply {
    let request = WorkerRequest {
        meta,
        body: Bytes::copy_from_slice(body.as_bytes()),
        cid: Cid::parse("0123456789abcdef").unwrap(),
        deadline: Instant::now() + time,
    };
    stage.core.outside().answer(request).await
}

async fn get(stage: &Stage) -> WorkerReply {
    ask(stage, json!({"op": "rest", "conn": "crm", "method": "GET"}), "").await
}

async fn post(stage: &Stage) -> WorkerReply {
    ask(stage, json!({"op": "rest", "conn": "crm", "method": "POST"}), "{}").await
}

#[track_caller]
fn check_error(reply: &WorkerReply, kind: &str, message: &str) {
    assert_eq!(reply.meta, json!({"error": {"type": kind, "message": message}}));
}

#[track_caller]
fn check_ok(reply: &WorkerReply) {
    assert_eq!(
        (&reply.meta["status"], reply.body.as_ref()),
        (&json!(200), &b"ok"[..]),
        "{reply:?}"
    );
}

async fn status(stage: &Stage) -> OutgoingStatus {
    let status = stage.control().status().await.unwrap();
    status.outgoing.into_iter().find(|connection| connection.name == "crm").unwrap()
}

#[tokio::test]
async fn a_call_is_sent_as_the_service_says_and_the_answer_comes_back_whole() {
    let answer =
        "HTTP/1.1 201 Made\r\ncontent-length: 4\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nmade";
    let peer = Peer::saying(answer.to_owned()).await;
    let more = json!({"url_path": "/api/{id}?v=2", "content_type": "application/x-own"});
    let stage = stage(&peer.url(), more).await;
    let meta = json!({
        "op": "rest", "conn": "crm", "method": "put", "path_params": {"id": "a b"},
        "query": [["q", "x&y"], ["q", "2"]], "timeout_ms": null,
        "headers": {"X-Zato-CID": "c-1", "X-Many": ["1", "2"], "Connection": "close", "Content-Length": "99"},
    });
    let reply = ask(&stage, meta, "[1]").await;
    assert_eq!(reply.body, "made");
    assert_eq!(reply.meta["status"], 201);
    assert_eq!(reply.meta["reason"], "Created");
    assert_eq!(reply.meta["url"], format!("{}/api/a%20b?v=2&q=x%26y&q=2", peer.url()));
    assert!(reply.meta["elapsed_ms"].as_f64().unwrap() > 0.0);
    let headers = reply.meta["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["set-cookie", "a=1"])), "{headers:?}");
    assert!(headers.contains(&json!(["set-cookie", "b=2"])), "{headers:?}");
    let seen = peer.seen().remove(0).to_ascii_lowercase();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("put /api/a%20b?v=2&q=x%26y&q=2 http/1.1\r\n"), "{head}");
    let has = |line: String| assert!(head.lines().any(|l| l == line), "{line:?} in {head}");
    has("x-zato-cid: c-1".to_owned());
    has("x-many: 1".to_owned());
    has("x-many: 2".to_owned());
    has("content-length: 3".to_owned());
    has("content-type: application/x-own".to_owned());
    has(format!("user-agent: arint/{}", env!("CARGO_PKG_VERSION")));
    has(format!("host: {}", peer.addr));
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!(body, "[1]");
    let found = status(&stage).await;
    assert_eq!((found.calls, found.retries, found.failures), (1, 0, 0));
    assert_eq!(found.health, "up");
    assert_eq!(found.address, format!("{}/api/{{id}}", peer.url()));
}

#[tokio::test]
async fn bodies_get_the_content_type_of_the_data_format_where_the_service_sets_none() {
    let peer = Peer::saying(OK.to_owned()).await;
    for (format, expected) in [
        ("json", Some("application/json")),
        ("form", Some("application/x-www-form-urlencoded")),
        ("none", None),
    ] {
        let stage = stage(&peer.url(), json!({"data_format": format})).await;
        check_ok(&post(&stage).await);
        let seen = peer.seen().pop().unwrap();
        let found = seen.lines().find_map(|line| line.strip_prefix("content-type: "));
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn credentials_are_those_of_the_security_whatever_the_service_sets() {
    let peer = Peer::saying(OK.to_owned()).await;
    let security = [
        (
            "basic",
            json!({"type": "basic", "username": "ü", "password": {"secret": "s"}}),
            "authorization: Basic w7w6Z2hlaW0=",
        ),
        (
            "key",
            json!({"type": "api_key", "header": "X-Key", "key": {"secret": "s"}}),
            "x-key: gheim",
        ),
        (
            "bearer",
            json!({"type": "bearer", "token": {"secret": "s"}}),
            "authorization: Bearer gheim",
        ),
    ];
    for (name, spec, expected) in security {
        let stage = Setting::new()
            .secret("s", "gheim")
            .object(Kind::Security, name, spec.clone())
            .object(Kind::Outgoing, "crm", rest(&peer.url(), json!({"security": name})))
            .start()
            .await;
        let headers = json!({"Authorization": "forged", "X-Key": "forged"});
        let meta = json!({"op": "rest", "conn": "crm", "method": "GET", "headers": headers});
        check_ok(&ask(&stage, meta, "").await);
        let seen = peer.seen().pop().unwrap();
        assert!(seen.lines().any(|line| line == expected), "{expected} in {seen}");
        // A new secret is used from then on.
        let revision = stage.store.put_secret("s", "neu");
        stage.control().wait_for(revision).await.unwrap();
        check_ok(&get(&stage).await);
        let seen = peer.seen().pop().unwrap();
        assert!(!seen.contains("gheim") && !seen.contains("w7w6Z2hlaW0="), "{seen}");
        // Without it nothing is sent.
        let mut inactive = spec.clone();
        inactive["is_active"] = json!(false);
        let count = peer.seen().len();
        stage.put(Kind::Security, name, inactive).await;
        let message = format!("outgoing connection `crm`: its security `{name}` is inactive");
        check_error(&get(&stage).await, "inactive", &message);
        assert_eq!(peer.seen().len(), count);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_in_one_sentence() {
    let peer = Peer::saying(OK.to_owned()).await;
    let stage = Setting::new()
        .object(Kind::Outgoing, "crm", rest(&peer.url(), json!({"url_path": "/a/{id}"})))
        .object(Kind::Outgoing, "off", rest(&peer.url(), json!({"is_active": false})))
        .object(
            Kind::Outgoing,
            "db",
            json!({"type": "sql", "engine": "sqlite", "db_name": "/x.db"}),
        )
        .start()
        .await;
    for (meta, kind, message) in [
        (json!({"op": "rest", "conn": "x"}), "not-found", "there is no outgoing connection `x`"),
        (
            json!({"op": "rest", "conn": "db"}),
            "not-found",
            "outgoing connection `db` is a database, not a REST connection",
        ),
        (
            json!({"op": "sql", "name": "crm"}),
            "not-found",
            "outgoing connection `crm` is a REST connection, not a database",
        ),
        (json!({"op": "rest", "conn": "off"}), "inactive", "outgoing connection `off` is inactive"),
        (
            json!({"op": "rest", "conn": "crm"}),
            "bad-request",
            "outgoing connection `crm`: path `/a/{id}` needs a value for `id`",
        ),
        (
            json!({"op": "rest", "conn": "crm", "path_params": {"id": 1}, "method": "G T"}),
            "bad-request",
            "outgoing connection `crm`: `G T` is not an HTTP method",
        ),
        (
            json!({"op": "rest", "conn": "crm", "path_params": {"id": 1}, "headers": {"a b": "1"}}),
            "bad-request",
            "outgoing connection `crm`: `a b` is not the name of a header",
        ),
        (
            json!({"op": "rest", "conn": "crm", "path_params": {"id": 1}, "headers": {"a": "1\r\nb: 2"}}),
            "bad-request",
            "outgoing connection `crm`: the value of header `a` has a control character",
        ),
        (json!({"op": "dance"}), "bad-request", "operation `dance` is unknown"),
    ] {
        check_error(&ask(&stage, meta, "").await, kind, message);
    }
    assert!(peer.seen().is_empty());
    let reply = ask(&stage, json!({"op": "sql", "name": "db"}), "").await;
    assert_eq!(
        reply.meta,
        json!({"url": "sqlite:////x.db", "pool_size": 5, "pool_timeout_ms": 30_000, "ping_interval_s": 60})
    );
    let reply = ask(&stage, json!({"op": "rest_info", "conn": "crm"}), "").await;
    assert_eq!(
        reply.meta,
        json!({"data_format": "json", "content_type": null, "address": format!("{}/a/{{id}}", peer.url()),
               "url_path": "/a/{id}", "is_active": true, "method": null})
    );
}

// Failures and retries.

/// An address where nobody listens.
fn nobody() -> String {
    format!("http://{}", artest::free_addr())
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_whatever_the_method_and_named_in_the_end() {
    let host = nobody();
    let stage = stage(&host, json!({"retry": {"attempts": 3, "backoff_ms": 1}})).await;
    let message = format!(
        "outgoing connection `crm`: cannot reach `{host}/` in 3 attempts: Connection refused (os error 111)"
    );
    check_error(&post(&stage).await, "connection", &message);
    let found = status(&stage).await;
    assert_eq!((found.calls, found.retries, found.failures), (1, 2, 1));
    assert_eq!(
        (found.health.as_str(), found.last_error.as_deref()),
        ("down", Some(message.as_str()))
    );
    let problems = stage.control().status().await.unwrap().problems;
    assert_eq!(problems, [message]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let stage = stage("http://no-such-host.invalid", json!({"retry": {"attempts": 1}})).await;
    let reply = get(&stage).await;
    let message = reply.meta["error"]["message"].as_str().unwrap();
    let begin = "outgoing connection `crm`: cannot reach `http://no-such-host.invalid/`: failed to lookup address";
    assert!(message.starts_with(begin), "{message}");
}

#[tokio::test]
async fn a_failed_status_is_tried_again_only_where_that_does_no_harm() {
    let busy = response("503 Service Unavailable", "", "busy");
    let peer = Peer::start(move |n, _| match n % 3 {
        2 => Act::Say(OK.to_owned()),
        _ => Act::Say(busy.clone()),
    })
    .await;
    let stage = stage(&peer.url(), json!({"retry": {"attempts": 3, "backoff_ms": 1}})).await;
    check_ok(&get(&stage).await);
    assert_eq!(peer.seen().len(), 3);
    // A POST may have done its work: the service sees the answer as it is.
    let reply = post(&stage).await;
    assert_eq!((&reply.meta["status"], reply.body.as_ref()), (&json!(503), &b"busy"[..]));
    assert_eq!(peer.seen().len(), 4);
    assert_eq!(status(&stage).await.failures, 1);
}

#[tokio::test]
async fn retry_after_is_honoured_within_the_calls_time() {
    let busy = response("503 Service Unavailable", "retry-after: 1\r\n", "busy");
    let peer = Peer::start(move |n, _| match n {
        1 => Act::Say(OK.to_owned()),
        _ => Act::Say(busy.clone()),
    })
    .await;
    let stage = stage(&peer.url(), json!({"retry": {"attempts": 2, "backoff_ms": 1}})).await;
    let started = Instant::now();
    check_ok(&get(&stage).await);
    assert!(started.elapsed() >= Duration::from_secs(1));
    // There is no time for it: the answer comes back at once.
    let meta = json!({"op": "rest", "conn": "crm", "method": "GET"});
    let reply = ask_until(&stage, meta, "", Duration::from_millis(900)).await;
    assert_eq!(reply.meta["status"], 503);
    assert_eq!(peer.seen().len(), 3);
}

#[tokio::test]
async fn a_late_answer_is_a_timeout_of_the_attempt_or_of_the_call() {
    let peer = Peer::start(|_, _| Act::Hang).await;
    let more = json!({"timeout_ms": 50, "retry": {"attempts": 2, "backoff_ms": 1}});
    let stage = stage(&peer.url(), more).await;
    let url = peer.url();
    let message =
        format!("outgoing connection `crm`: `{url}/` did not answer within 50ms in 2 attempts");
    check_error(&get(&stage).await, "timeout", &message);
    let message = format!("outgoing connection `crm`: `{url}/` did not answer within 50ms");
    check_error(&post(&stage).await, "timeout", &message);
    // The service's own limit for the call.
    let meta = json!({"op": "rest", "conn": "crm", "method": "POST", "timeout_ms": 20});
    let message = format!("outgoing connection `crm`: `{url}/` did not answer within 20ms");
    check_error(&ask(&stage, meta, "").await, "timeout", &message);
    let meta = json!({"op": "rest", "conn": "crm", "method": "POST", "timeout_ms": 10_000});
    let started = Instant::now();
    let reply = ask_until(&stage, meta, "", Duration::from_millis(100)).await;
    assert_eq!(reply.meta["error"]["type"], "timeout");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn broken_and_garbled_answers_are_named() {
    for (act, cause) in [
        (Act::Close, "connection closed before message completed"),
        (Act::SayAndClose("garbage\r\n\r\n".to_owned()), "invalid HTTP version parsed"),
        (
            Act::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()),
            "end of file before message length reached",
        ),
        (
            Act::SayAndClose(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            ),
            "Invalid chunk size line: missing size digit",
        ),
    ] {
        let peer = Peer::start(move |_, _| act.clone()).await;
        let stage = stage(&peer.url(), json!({"retry": {"attempts": 2, "backoff_ms": 1}})).await;
        let url = peer.url();
        let message = format!("outgoing connection `crm`: call of `{url}/` broke off: {cause}");
        check_error(&post(&stage).await, "connection", &message);
        // The request had been sent: only what is idempotent is sent again.
        assert_eq!(peer.seen().len(), 1);
        let message =
            format!("outgoing connection `crm`: call of `{url}/` broke off in 2 attempts: {cause}");
        check_error(&get(&stage).await, "connection", &message);
        assert_eq!(peer.seen().len(), 3);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let peer = Peer::start(|n, _| match n {
        0 => Act::Say(response("200 OK", "", &"x".repeat(1001))),
        1 => Act::SayAndClose(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001))),
        _ => Act::Say(response("200 OK", "", &"x".repeat(1000))),
    })
    .await;
    let stage = stage(&peer.url(), json!({"max_response_bytes": 1000})).await;
    let message = format!(
        "outgoing connection `crm`: the answer of `{}/` is larger than the 1000 bytes allowed",
        peer.url()
    );
    check_error(&get(&stage).await, "too-large", &message);
    check_error(&get(&stage).await, "too-large", &message);
    assert_eq!(get(&stage).await.body.len(), 1000);
}

#[tokio::test]
async fn a_query_with_keys_in_it_is_not_shown() {
    let host = nobody();
    let stage = stage(&host, json!({"url_path": "/a?key=gheim", "retry": {"attempts": 1}})).await;
    let message = format!(
        "outgoing connection `crm`: cannot reach `{host}/a`: Connection refused (os error 111)"
    );
    check_error(&get(&stage).await, "connection", &message);
    assert!(!format!("{:?}", status(&stage).await).contains("gheim"));
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_for_methods_that_only_read() {
    let peer = Peer::start(|_, request| match request {
        r if r.starts_with("GET /old ") => {
            Act::Say(response("302 Found", "location: /new\r\n", ""))
        }
        r if r.starts_with("GET /out ") => {
            Act::Say(response("302 Found", "location: http://127.0.0.1:1/\r\n", "out"))
        }
        r if r.starts_with("GET /loop ") => {
            Act::Say(response("302 Found", "location: /loop\r\n", "l"))
        }
        r if r.starts_with("POST ") => Act::Say(response("302 Found", "location: /new\r\n", "p")),
        _ => Act::Say(OK.to_owned()),
    })
    .await;
    let stage = Setting::new()
        .object(Kind::Outgoing, "crm", rest(&peer.url(), json!({"url_path": "/{x}"})))
        .start()
        .await;
    let call = async |method: &str, path: &str| {
        let meta =
            json!({"op": "rest", "conn": "crm", "method": method, "path_params": {"x": path}});
        ask(&stage, meta, "").await
    };
    let reply = call("GET", "old").await;
    check_ok(&reply);
    assert_eq!(reply.meta["url"], format!("{}/new", peer.url()));
    assert_eq!(call("GET", "out").await.meta["status"], 302);
    assert_eq!(call("POST", "old").await.meta["status"], 302);
    assert_eq!(call("GET", "loop").await.meta["status"], 302);
}

#[tokio::test]
async fn a_gzip_answer_is_unpacked() {
    // printf ok | gzip -n | base64
    let packed = base64_bytes("H4sIAAAAAAAAA8vPBgBH3dx5AgAAAA==");
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        packed.len()
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(&[head.as_bytes(), &packed].concat()).await.unwrap();
    });
    check_ok(&get(&stage(&host, json!({})).await).await);
}

fn base64_bytes(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.decode(text).unwrap()
}

// Circuit breaker and health.

#[tokio::test]
async fn the_circuit_opens_after_failures_in_a_row_and_closes_by_itself() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&healthy);
    let peer = Peer::start(move |_, _| match flag.load(std::sync::atomic::Ordering::Relaxed) {
        true => Act::Say(OK.to_owned()),
        false => Act::Close,
    })
    .await;
    let more =
        json!({"retry": {"attempts": 1}, "circuit_breaker": {"failures": 3, "open_ms": 300}});
    let stage = stage(&peer.url(), more).await;
    for _ in 0..3 {
        assert_eq!(post(&stage).await.meta["error"]["type"], "connection");
    }
    assert_eq!(status(&stage).await.circuit, "open");
    let reply = post(&stage).await;
    assert_eq!(reply.meta["error"]["type"], "circuit-open");
    let message = reply.meta["error"]["message"].as_str().unwrap();
    let begin =
        "outgoing connection `crm`: circuit is open after 3 failures in a row, next attempt in ";
    assert!(message.starts_with(begin) && message.ends_with("ms"), "{message}");
    assert_eq!(peer.seen().len(), 3, "an open circuit sends nothing");
    healthy.store(true, std::sync::atomic::Ordering::Relaxed);
    artest::wait_for("the circuit to let a call through", Duration::from_secs(5), async || {
        let reply = post(&stage).await;
        if reply.meta["status"] == 200 { Ok(()) } else { Err(reply) }
    })
    .await;
    assert_eq!(status(&stage).await.circuit, "closed");
}

#[tokio::test]
async fn health_is_found_in_the_background_and_on_demand() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&broken);
    let peer = Peer::start(move |_, _| match flag.load(std::sync::atomic::Ordering::Relaxed) {
        false => Act::Say("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
        true => Act::Say(response("500 Internal Server Error", "", "")),
    })
    .await;
    let more = json!({"ping_interval_s": 1, "url_path": "/a/{b}"});
    let stage = stage(&peer.url(), more).await;
    let health = async |wanted: &str| {
        artest::wait_for(wanted, Duration::from_secs(10), async || {
            let found = status(&stage).await;
            if found.health == wanted { Ok(found) } else { Err(found) }
        })
        .await
    };
    let found = health("up").await;
    assert!(found.checked_ms.is_some() && found.ping_ms.is_some(), "{found:?}");
    assert_eq!((found.calls, found.last_error), (0, None));
    // HEAD, and a path that needs no parameters.
    assert!(peer.seen()[0].starts_with("HEAD / HTTP/1.1\r\n"), "{:?}", peer.seen());
    broken.store(true, std::sync::atomic::Ordering::Relaxed);
    let found = health("down").await;
    let message = format!("`{}/a/{{b}}` answered with 500 Internal Server Error", peer.url());
    assert_eq!(found.last_error.as_deref(), Some(message.as_str()));
    let pinged = stage.control().ping("crm").await.unwrap();
    assert_eq!((pinged.ok, pinged.status, pinged.message), (false, Some(500), message));
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let pinged = stage.control().ping("crm").await.unwrap();
    assert_eq!((pinged.ok, pinged.status), (true, Some(404)));
    // What a service asks for itself.
    let reply = ask(&stage, json!({"op": "rest_ping", "conn": "crm"}), "").await;
    assert_eq!(reply.meta["status"], 404);
    let missing = stage.control().ping("nobody").await.unwrap_err();
    assert_eq!(missing.to_string(), "there is no outgoing connection `nobody`");
}

// Changes and load.

#[tokio::test]
async fn a_call_under_way_ends_on_the_connection_it_began_with() {
    let old = Peer::start(|_, _| Act::SayAfter(Duration::from_millis(300), OK.to_owned())).await;
    let new = Peer::saying(response("200 OK", "", "new")).await;
    let stage = stage(&old.url(), json!({})).await;
    let (reply, ()) = tokio::join!(get(&stage), async {
        artest::wait_for("the request", Duration::from_secs(5), async || {
            if old.seen().is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
        stage.put(Kind::Outgoing, "crm", rest(&new.url(), json!({}))).await;
        assert_eq!(get(&stage).await.body, "new");
    });
    check_ok(&reply);
    assert_eq!(status(&stage).await.calls, 2);
    let revision = stage.store.delete(Kind::Outgoing, "crm");
    stage.control().wait_for(revision).await.unwrap();
    check_error(&get(&stage).await, "not-found", "there is no outgoing connection `crm`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_services_wait_for_a_slow_system_at_once() {
    let peer = Peer::start(|_, _| Act::SayAfter(Duration::from_millis(200), OK.to_owned())).await;
    let outside: Arc<std::sync::OnceLock<Arc<dyn Outside>>> = Arc::default();
    let given = Arc::clone(&outside);
    let stage = Setting::new()
        .object(Kind::Outgoing, "crm", rest(&peer.url(), json!({})))
        .service("wait", move |call| {
            let outside = Arc::clone(given.get().unwrap());
            async move {
                let meta = json!({"op": "rest", "conn": "crm", "method": "GET"});
                let (cid, deadline) = (call.cid, call.deadline);
                let request = WorkerRequest { meta, body: Bytes::new(), cid, deadline };
                let reply = outside.answer(request).await;
                done(200, reply.body)
            }
        })
        .channel("wait", "/wait", "wait", json!({}))
        .start()
        .await;
    outside.set(Arc::clone(stage.core.outside())).ok().unwrap();
    let started = Instant::now();
    let calls = (0..500).map(|_| async {
        let mut connection = Connection::open(&stage).await;
        connection.send(Request::get("/wait"), "").await
    });
    for got in futures_util::future::join_all(calls).await {
        assert_eq!((got.status.as_u16(), got.text()), (200, "ok"));
    }
    let elapsed = started.elapsed();
    artest::say(&format!("500 calls that wait 200 ms each: {elapsed:?}"));
    assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
}

// TLS, against nginx.

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(program: &Path, arguments: &[&str], dir: &Path) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::piped());
    let done = command.spawn().unwrap().wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// nginx with a certificate for `localhost`; gives its port and the authority in PEM.
async fn nginx(dir: &Path) -> (Nginx, u16, String) {
    let openssl = artest::tool("openssl", "openssl");
    let nginx = artest::tool("nginx", "nginx-light");
    let subject = "/CN=Test authority";
    let ca =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = [&ca[..], &["-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", subject]]
        .concat();
    run(&openssl, &ca, dir);
    let leaf =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let more = ["-keyout", "leaf.key", "-out", "leaf.pem", "-days", "2", "-subj", "/CN=localhost"];
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost"];
    let plain = ["-addext", "basicConstraints=critical,CA:FALSE"];
    run(&openssl, &[&leaf[..], &more, &signed, &plain].concat(), dir);
    let port = artest::free_addr().port();
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;
         events {{}}
         http {{ access_log off;
           client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
           server {{ listen 127.0.0.1:{port} ssl; ssl_certificate leaf.pem; ssl_certificate_key leaf.key;
             location / {{ return 200 ok; }} }} }}"
    );
    std::fs::write(dir.join("nginx.conf"), text).unwrap();
    let dir_text = format!("{}/", dir.display());
    let mut command = Command::new(nginx);
    command.args(["-e", "stderr", "-p", &dir_text, "-c", "nginx.conf"]).stderr(Stdio::null());
    let child = Nginx(command.spawn().unwrap());
    artest::wait_for("nginx to listen", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop)
    })
    .await;
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    (child, port, ca)
}

#[tokio::test]
async fn certificates_are_checked_unless_the_admin_says_not_to() {
    let dir = artest::temp_dir();
    let (_nginx, port, ca) = nginx(dir.path()).await;
    let host = format!("https://localhost:{port}");
    let once = json!({"attempts": 3, "backoff_ms": 1});
    let stage = stage(&host, json!({"retry": once})).await;
    // Unknown authority; not asked for again, because it would not be better.
    let message = format!(
        "outgoing connection `crm`: cannot reach `{host}/`: invalid peer certificate: UnknownIssuer"
    );
    check_error(&get(&stage).await, "connection", &message);
    assert_eq!(status(&stage).await.retries, 0);
    // The right authority.
    stage.put(Kind::Outgoing, "crm", rest(&host, json!({"tls_ca_pem": ca}))).await;
    check_ok(&get(&stage).await);
    // The right authority, the wrong name.
    let other = format!("https://127.0.0.1:{port}");
    stage.put(Kind::Outgoing, "crm", rest(&other, json!({"tls_ca_pem": ca}))).await;
    let reply = get(&stage).await;
    let message = reply.meta["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("invalid peer certificate: certificate not valid for name"),
        "{message}"
    );
    // No check at all.
    stage.put(Kind::Outgoing, "crm", rest(&other, json!({"validate_tls": false}))).await;
    check_ok(&get(&stage).await);
    // An authority that is none.
    stage.put(Kind::Outgoing, "crm", rest(&host, json!({"tls_ca_pem": "nonsense"}))).await;
    let message = "outgoing connection `crm`: `tls_ca_pem` is not a certificate in PEM: there is no `BEGIN CERTIFICATE` in it";
    check_error(&get(&stage).await, "refused", message);
    assert_eq!(status(&stage).await.last_error.as_deref(), Some(message));
}

#[tokio::test]
async fn speaking_tls_to_what_has_none_is_named() {
    let peer = Peer::saying(OK.to_owned()).await;
    let host = format!("https://{}", peer.addr);
    let stage = stage(&host, json!({"retry": {"attempts": 1}})).await;
    let reply = get(&stage).await;
    let message = reply.meta["error"]["message"].as_str().unwrap().to_owned();
    if !message.starts_with(&format!("outgoing connection `crm`: cannot reach `{host}/`: ")) {
        panic!("{message}");
    }
}
