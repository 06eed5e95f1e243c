//! The core's life: start, stop, the control interface, and deployments from editors.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arapi::arsrv::{CheckRequest, CheckVerdict, InvokeRequest, ModuleSource};
use arapi::names::Kind;
use arsrv::control::ROUTES;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{Connection, Setting, Stage, done, failed};

fn setting() -> Setting {
    Setting::new().service("echo", async |call| done(200, call.body))
}

// Start and stop.

#[tokio::test]
async fn its_sockets_are_for_the_group_only() {
    let stage = setting().start().await;
    for name in ["arsrv.sock", "arsrv-http.sock"] {
        let mode = std::fs::metadata(stage.socket(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{name}");
    }
}

#[tokio::test]
async fn a_second_core_in_the_same_folder_does_not_start() {
    let stage = setting().start().await;
    let config = arsrv::Config { runtime_dir: stage.dir.path().to_owned(), ..Default::default() };
    let err = arsrv::Server::start(config).await.err().unwrap();
    let path = stage.socket("arsrv-http.sock");
    assert_eq!(
        arbase::Chain(&err).to_string(),
        format!(
            "cannot serve requests: another process serves `{}` already; stop it first",
            path.display()
        )
    );
}

#[tokio::test]
async fn without_an_object_store_it_serves_what_there_is_and_says_what_is_missing() {
    let stage = setting().channel("echo", "/echo", "echo", json!({})).start_alone().await;
    // Nothing is configured yet; what is built in answers.
    assert_eq!(stage.get("/echo").await.status, 404);
    assert_eq!(stage.get("/zato/ping").await.status, 200);
    let problems = stage.control().status().await.unwrap().problems;
    let sentence =
        "the object store has not been heard yet; nothing is configured; is `arclst` running?";
    assert_eq!(problems, [sentence]);
    stage.store.listen(stage.dir.path());
    artest::wait_for("the store to be heard", Duration::from_secs(5), async || {
        match stage.get("/echo").await.status.as_u16() {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_core_ends() {
    let stage = setting()
        .service("slow", async |_| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            done(200, "done")
        })
        .channel("slow", "/slow", "slow", json!({}))
        .start()
        .await;
    let mut connection = Connection::open(&stage).await;
    let mut idle = UnixStream::connect(stage.socket("arsrv-http.sock")).await.unwrap();
    let slow = tokio::spawn(async move { connection.send(Request::get("/slow"), "").await });
    artest::wait_for("the request", Duration::from_secs(5), async || {
        let status = stage.control().status().await.unwrap();
        if status.channels[0].calls == 1 { Ok(()) } else { Err(status) }
    })
    .await;
    let socket = stage.socket("arsrv-http.sock");
    let ended = stage.core.begin_stop();
    // No new connection is taken, and idle ones are closed at once.
    let started = Instant::now();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() && started.elapsed() < Duration::from_millis(250));
    artest::wait_for("the door to be shut", Duration::from_secs(5), async || {
        match UnixStream::connect(&socket).await {
            Ok(_) => Err(()),
            Err(_) => Ok(()),
        }
    })
    .await;
    let got = slow.await.unwrap();
    assert_eq!((got.status.as_u16(), got.text()), (200, "done"));
    ended.await.unwrap();
}

#[tokio::test]
async fn requests_go_on_while_the_configuration_changes_all_the_time() {
    let stage = Arc::new(setting().channel("echo", "/echo", "echo", json!({})).start().await);
    let asking = (0..4).map(|_| {
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            let mut connection = Connection::open(&stage).await;
            for _ in 0..500 {
                let got = connection.send(Request::post("/echo"), "x").await;
                assert_eq!((got.status.as_u16(), got.text()), (200, "x"));
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut changes = 0;
    while !asking.iter().all(tokio::task::JoinHandle::is_finished) {
        changes += 1;
        let spec = json!({"url_path": "/echo", "service": "echo", "timeout_ms": 1000 + changes});
        stage.put(Kind::Channel, "echo", spec).await;
    }
    for one in asking {
        one.await.unwrap();
    }
    assert!(changes > 3, "{changes}");
    assert_eq!(stage.control().status().await.unwrap().channels[0].calls, 2000);
}

// The control interface.

#[tokio::test]
async fn every_route_answers() {
    let stage = setting().start().await;
    for route in ROUTES {
        let path = route.path.replace("{revision}", "1").replace("{name}", "x");
        let found = stage.control().0.call::<(), Value>(route.method.clone(), &path, None).await;
        if let Err(err) = &found {
            let text = err.to_string();
            assert!(
                !text.contains("no such path") && !text.contains("does not take"),
                "{path}: {text}"
            );
        }
    }
    let err = stage.control().0.get::<Value>("/v1/nothing").await.unwrap_err();
    assert!(err.to_string().contains("no such path"), "{err}");
}

#[tokio::test]
async fn a_service_is_invoked_by_hand() {
    let stage = setting()
        .service("binary", async |_| done(200, vec![0xff, 0xfe]))
        .service("fails", async |_| failed(500, "ValueError", Value::Null))
        .service("look", async |call| {
            assert_eq!((call.channel, call.data_format, call.method), ("invoke", "dict", None));
            assert!(call.http.is_empty());
            done(202, call.body)
        })
        .start()
        .await;
    let invoke = async |service: &str, payload: Value| {
        let service = service.to_owned();
        let request = InvokeRequest { service, payload, timeout_ms: None };
        stage.control().invoke(&request).await
    };
    let found = invoke("look", json!({"a": [1]})).await.unwrap();
    assert_eq!((found.status, found.body.as_deref()), (202, Some("{\"a\":[1]}")));
    assert_eq!(found.content_type, "application/json");
    assert_eq!(found.cid.len(), 24);
    assert_eq!(invoke("look", Value::Null).await.unwrap().body.as_deref(), Some(""));
    let found = invoke("binary", Value::Null).await.unwrap();
    assert_eq!((found.body, found.body_base64.as_deref()), (None, Some("//4=")));
    let found = invoke("fails", Value::Null).await.unwrap();
    let body: Value = serde_json::from_str(&found.body.unwrap()).unwrap();
    assert_eq!(found.status, 500);
    assert_eq!(
        body,
        json!({"result": "Error", "cid": found.cid, "details": "ValueError happened"})
    );
    let err = invoke("nobody", Value::Null).await.unwrap_err();
    assert_eq!(err.to_string(), "not-found happened");
}

#[tokio::test]
async fn sources_are_checked_by_the_workers() {
    let stage = setting().start().await;
    let module = ModuleSource { file_name: "m.py".to_owned(), source: "x = 1".to_owned() };
    let request = CheckRequest { modules: vec![module], ..CheckRequest::default() };
    let verdict = stage.control().check(&request).await.unwrap();
    assert_eq!(verdict, CheckVerdict::Loads { services: Vec::new() });
}

#[tokio::test]
async fn status_shows_channels_with_what_they_did() {
    let stage = setting()
        .service("fails", async |_| failed(500, "ValueError", Value::Null))
        .channel("a", "/a", "echo", json!({}))
        .channel("b", "/b", "fails", json!({}))
        .channel("c", "/c", "soon", json!({}))
        .start()
        .await;
    stage.get("/a").await;
    stage.get("/b").await;
    stage.get("/b").await;
    stage.get("/elsewhere").await;
    let status = stage.control().status().await.unwrap();
    assert_eq!(status.revision, 1);
    let found: Vec<_> = status
        .channels
        .iter()
        .map(|c| (c.name.as_str(), c.state.as_str(), c.calls, c.failures))
        .collect();
    assert_eq!(
        found,
        [("a", "serving", 1, 0), ("b", "serving", 2, 2), ("c", "service not deployed", 0, 0)]
    );
    assert_eq!(status.problems, ["channel `c`: service not deployed"]);
}

// Deployments from editors.

/// The admin API's side of a deployment, in miniature.
async fn admin(stage: &Stage, status: u16, answer: Value) -> Arc<Mutex<Vec<(String, Value)>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let handler = move |headers: http::HeaderMap, body: axum::Json<Value>| {
        let service = headers["x-arint-service"].to_str().unwrap().to_owned();
        all.lock().unwrap().push((service, body.0));
        let status = http::StatusCode::from_u16(status).unwrap();
        std::future::ready((status, axum::Json(answer.clone())))
    };
    let router = axum::Router::new().route("/v1/ide-deploy", axum::routing::post(handler));
    let listener = arbase::http::listen_unix(&stage.socket("arwadm.sock"), 0o600).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    seen
}

fn publisher() -> Setting {
    let spec = json!({"type": "basic", "username": "ide_publisher", "password": {"secret": "ide"}});
    setting().object(Kind::Security, "ide_publisher", spec).secret("ide", "pw")
}

async fn deploy(stage: &Stage, body: impl Into<bytes::Bytes>) -> (bool, String) {
    let pair = BASE64_STANDARD.encode("ide_publisher:pw");
    let request = Request::post("/ide-deploy").header("authorization", format!("Basic {pair}"));
    let got = stage.send_body(request, body).await;
    assert_eq!(got.status, 200);
    let answer = &got.json()["zato_ide_deploy_create_response"];
    (answer["success"].as_bool().unwrap(), answer["msg"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_editor_deploys_through_the_admin_api() {
    let stage = publisher().start().await;
    let service = json!({"name": "x.hello", "module": "x", "class": "Hello"});
    let answer = json!({"revision": 7, "modules": [{"name": "x", "version": 1, "changed": true}],
                        "services": [service], "removed": [], "elapsed_ms": 12.4});
    let seen = admin(&stage, 200, answer).await;
    let payload = BASE64_STANDARD.encode("print()");
    let body = json!({"payload_name": "/home/me/x.py", "payload": payload}).to_string();
    let (success, msg) = deploy(&stage, body).await;
    assert!(success);
    assert_eq!(msg, "deployed `/home/me/x.py` in 12 ms; services: x.hello");
    let sent =
        json!({"user": "ide_publisher", "payload_name": "/home/me/x.py", "payload": payload});
    assert_eq!(*seen.lock().unwrap(), [("arsrv".to_owned(), sent)]);
    // An empty body asks whether somebody is there.
    let pong = (true, "pong: this box takes deployments".to_owned());
    assert_eq!(deploy(&stage, "").await, pong);
    let (success, msg) = deploy(&stage, "{\"payload\": 1}").await;
    assert!(!success);
    assert!(msg.starts_with("`payload_name` and `payload` (base64) were expected: "), "{msg}");
}

#[tokio::test]
async fn an_editor_learns_why_a_deployment_was_refused() {
    let stage = publisher().start().await;
    let sentence = "`x.py`, line 3: name `oops` is not defined";
    let answer = json!({"code": "refused", "message": sentence, "request_id": "1"});
    admin(&stage, 422, answer).await;
    let body = json!({"payload_name": "x.py", "payload": ""}).to_string();
    assert_eq!(deploy(&stage, body).await, (false, sentence.to_owned()));
}

#[tokio::test]
async fn an_editor_without_credentials_deploys_nothing() {
    for setting in [setting(), publisher()] {
        let stage = setting.start().await;
        let seen = admin(&stage, 200, json!({})).await;
        let got = stage.post("/ide-deploy", "{\"payload_name\":\"x.py\",\"payload\":\"\"}").await;
        assert_eq!(got.status, 401);
        let challenge = "Basic realm=\"ARINT\", charset=\"UTF-8\"";
        assert_eq!(got.header("www-authenticate"), Some(challenge));
        assert!(seen.lock().unwrap().is_empty());
    }
    // Without the admin API the editor learns that, too.
    let stage = publisher().start().await;
    let (success, msg) = deploy(&stage, "{\"payload_name\":\"x.py\",\"payload\":\"\"}").await;
    assert!(!success);
    assert!(
        msg.starts_with("the deployment failed inside; the log has the cause under `"),
        "{msg}"
    );
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_the_stop_up() {
    let stage = setting().start().await;
    let mut half = UnixStream::connect(stage.socket("arsrv-http.sock")).await.unwrap();
    half.write_all(b"GET /zato/ping HTTP/1.1\r\nhost: x\r\n\r\nGET /ha").await.unwrap();
    // The first request is answered, so the half of the second has been read.
    let mut answer = [0; 12];
    half.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let started = Instant::now();
    stage.core.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
