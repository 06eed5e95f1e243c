//! Channels through real HTTP: the behaviour of 3.2 row by row, and what this core adds to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Connection, Got, Setting, Stage, done, failed};
use arapi::names::Kind;
use arsrv::call::{Call, Failure, Outcome, Reply};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, Request};
use serde_json::{Value, json};

async fn echo(call: Call) -> Outcome {
    done(200, call.body)
}

/// Answers with what the worker gets.
async fn mirror(call: Call) -> Outcome {
    let http: Value = serde_json::from_slice(&call.http).unwrap();
    let seen = json!({
        "service": &*call.service,
        "cid": call.cid,
        "channel": call.channel,
        "data_format": call.data_format,
        "method": call.method,
        "http": http,
        "body": String::from_utf8_lossy(&call.body),
        "is_idempotent": call.is_idempotent,
    });
    done(200, seen.to_string())
}

fn setting() -> Setting {
    Setting::new().service("echo", echo).service("mirror", mirror)
}

#[track_caller]
fn check_error(got: &Got, status: u16, details: &Value) {
    let cid = got.cid();
    let mut expected = json!({"result": "Error", "cid": cid, "details": details});
    if details.is_null() {
        expected.as_object_mut().unwrap().remove("details");
    }
    assert_eq!((got.status.as_u16(), got.json()), (status, expected));
    assert_eq!(got.header("content-type"), Some("application/json"));
}

#[track_caller]
fn check_not_found(got: &Got) {
    let text = format!("URL not found (CID:{})", got.cid());
    assert_eq!((got.status.as_u16(), got.text()), (404, text.as_str()));
    assert_eq!(got.header("content-type"), Some("text/plain"));
}

// Row 1: no channel matches.

#[tokio::test]
async fn what_no_channel_matches_is_not_found_and_the_path_is_not_repeated() {
    let stage = setting()
        .channel("get", "/only-get", "echo", json!({"method": "GET"}))
        .channel("csv", "/csv", "echo", json!({"http_accept": "text/csv"}))
        .start()
        .await;
    check_not_found(&stage.get("/%3Cscript%3E").await);
    check_not_found(&stage.post("/only-get", "x").await);
    check_not_found(&stage.send(Request::get("/csv").header("accept", "application/json")).await);
    assert_eq!(stage.get("/only-get").await.status, 200);
    assert_eq!(stage.send(Request::get("/csv").header("accept", "text/*")).await.status, 200);
    // The slash at the end matters.
    check_not_found(&stage.get("/only-get/").await);
    let got = stage.get("/%ff").await;
    assert_eq!(got.status, 400);
    assert_eq!(
        got.text(),
        format!("the path is not UTF-8 once it is percent-decoded (CID:{})", got.cid())
    );
}

// Row 2: inactive.

#[tokio::test]
async fn inactive_channels_and_services_are_not_found() {
    let stage = setting()
        .channel("off", "/off", "echo", json!({"is_active": false}))
        .object(Kind::Service, "asleep", json!({"module": "m", "class": "C", "is_active": false}))
        .channel("asleep", "/asleep", "asleep", json!({}))
        .channel("soon", "/soon", "not.deployed", json!({}))
        .start()
        .await;
    for path in ["/off", "/asleep", "/soon"] {
        check_not_found(&stage.get(path).await);
    }
    // A change needs no restart.
    stage.put(Kind::Channel, "off", json!({"url_path": "/off", "service": "echo"})).await;
    assert_eq!(stage.get("/off").await.status, 200);
    let spec = json!({"url_path": "/off", "service": "echo", "is_active": false});
    stage.put(Kind::Channel, "off", spec).await;
    check_not_found(&stage.get("/off").await);
}

#[tokio::test]
async fn a_service_the_workers_do_not_have_is_not_found() {
    let stage = setting()
        .object(Kind::Service, "ghost", json!({"module": "m", "class": "C"}))
        .channel("ghost", "/ghost", "ghost", json!({"data_format": "json"}))
        .start()
        .await;
    check_not_found(&stage.get("/ghost").await);
}

// Rows 3 and 4: methods.

#[tokio::test]
async fn methods_that_are_not_allowed_are_405() {
    let stage = setting()
        .service("get-only", async |call| match call.method {
            Some("GET") => done(200, "ok"),
            _ => failed(405, "MethodNotAllowed", Value::Null),
        })
        .channel("echo", "/echo", "echo", json!({}))
        .channel("verbs", "/verbs", "get-only", json!({"data_format": "json"}))
        .start()
        .await;
    for method in [Method::TRACE, Method::from_bytes(b"BREW").unwrap()] {
        let got = stage.send(Request::builder().method(method).uri("/echo")).await;
        assert_eq!(got.status, 405);
        assert_eq!(got.text(), format!("Method not allowed (CID:{})", got.cid()));
        let allowed = "GET, POST, DELETE, PUT, PATCH, HEAD, OPTIONS";
        assert_eq!(got.header("allow"), Some(allowed));
    }
    for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"] {
        let got = stage.send(Request::builder().method(method).uri("/echo")).await;
        assert_eq!(got.status, 200, "{method}");
    }
    check_error(&stage.post("/verbs", "").await, 405, &Value::Null);
}

// Rows 5 to 7: security.

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn secured() -> Setting {
    let basic =
        |user: &str| json!({"type": "basic", "username": user, "password": {"secret": user}});
    setting()
        .object(Kind::Security, "anna", basic("anna"))
        .object(Kind::Security, "bert", basic("bert"))
        .object(Kind::Security, "key", json!({"type": "api_key", "key": {"secret": "key"}}))
        .object(Kind::SecurityGroup, "partners", json!({"members": ["anna", "key"]}))
        .secret("anna", "pässwörd")
        .secret("bert", "pw")
        .secret("key", "k-1")
        .channel("one", "/one", "mirror", json!({"security": ["anna"], "data_format": "json"}))
        .channel("many", "/many", "mirror", json!({"security": ["anna", "bert", "key"]}))
        .channel(
            "group",
            "/group",
            "mirror",
            json!({"security_groups": ["partners"], "data_format": "json"}),
        )
}

#[tokio::test]
async fn missing_or_bad_credentials_are_401_with_a_challenge() {
    let stage = secured().start().await;
    let details = json!("credentials are missing or wrong");
    for sent in [None, Some(basic("anna", "wrong")), Some("Bearer x".to_owned())] {
        let mut request = Request::get("/one");
        if let Some(sent) = sent {
            request = request.header("authorization", sent);
        }
        let got = stage.send(request).await;
        check_error(&got, 401, &details);
        let challenge = "Basic realm=\"ARINT\", charset=\"UTF-8\"";
        assert_eq!(got.header("www-authenticate"), Some(challenge));
    }
    let got = stage.get("/many").await;
    let challenges: Vec<_> = got.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(
        challenges,
        ["Basic realm=\"ARINT\", charset=\"UTF-8\"", "ApiKey header=\"X-API-Key\""]
    );
    assert_eq!(got.text(), "credentials are missing or wrong");
}

#[tokio::test]
async fn any_one_of_a_channels_securities_opens_it_and_the_service_sees_which() {
    let stage = secured().start().await;
    for (header, value, name) in [
        ("authorization", basic("anna", "pässwörd"), "anna"),
        ("authorization", basic("bert", "pw"), "bert"),
        ("X-API-Key", "k-1".to_owned(), "key"),
    ] {
        let got = stage.send(Request::get("/many").header(header, value)).await;
        assert_eq!(got.json()["http"]["channel"]["security"]["name"], name);
    }
}

#[tokio::test]
async fn a_group_takes_one_kind_of_credentials_and_forbids_bad_ones() {
    let stage = secured().start().await;
    let group = || Request::get("/group");
    let good = basic("anna", "pässwörd");
    let got = stage.send(group().header("authorization", good.clone())).await;
    assert_eq!(got.status, 200);
    assert_eq!(stage.send(group().header("x-api-key", "k-1")).await.status, 200);
    let got = stage.send(group().header("authorization", good).header("x-api-key", "k-1")).await;
    let both = "Basic Auth and an API key cannot be sent together; send one of them";
    check_error(&got, 400, &json!(both));
    let details = json!("these credentials open nothing here");
    check_error(&stage.send(group().header("x-api-key", "no")).await, 403, &details);
    let got = stage.send(group().header("authorization", basic("bert", "pw"))).await;
    check_error(&got, 403, &details);
    check_error(&stage.get("/group").await, 401, &json!("credentials are missing or wrong"));
}

#[tokio::test]
async fn a_changed_secret_counts_at_once_and_the_old_one_no_more() {
    let stage = secured().start().await;
    let with =
        |password: &str| Request::get("/one").header("authorization", basic("anna", password));
    assert_eq!(stage.send(with("pässwörd")).await.status, 200);
    let revision = stage.store.put_secret("anna", "new");
    stage.control().wait_for(revision).await.unwrap();
    assert_eq!(stage.send(with("new")).await.status, 200);
    assert_eq!(stage.send(with("pässwörd")).await.status, 401);
    // An inactive security opens nothing.
    let spec = json!({"type": "basic", "username": "anna", "password": {"secret": "anna"}, "is_active": false});
    stage.put(Kind::Security, "anna", spec).await;
    assert_eq!(stage.send(with("new")).await.status, 401);
    let status = stage.control().status().await.unwrap();
    let state = &status.channels.iter().find(|channel| channel.name == "one").unwrap().state;
    assert_eq!(state, "nobody can pass: security `anna` is inactive");
}

#[tokio::test]
async fn while_secrets_cannot_be_read_the_last_known_ones_stay_and_unknown_ones_open_nothing() {
    let stage = secured().start().await;
    stage.store.set_secrets_away(true);
    stage.store.put_secret("anna", "unheard");
    let carl = json!({"type": "basic", "username": "carl", "password": {"secret": "carl"}});
    stage.put(Kind::Security, "carl", carl).await;
    let spec = json!({"url_path": "/carl", "service": "echo", "security": ["carl"], "data_format": "json"});
    stage.put(Kind::Channel, "carl", spec).await;
    let got = stage.send(Request::get("/one").header("authorization", basic("anna", "pässwörd")));
    assert_eq!(got.await.status, 200);
    let carl = || Request::get("/carl").header("authorization", basic("carl", "pw"));
    let got = stage.send(carl()).await;
    check_error(&got, 503, &json!("credentials cannot be checked now; try again"));
    assert_eq!(got.header("retry-after"), Some("1"));
    // Once the store is back, nothing else has to happen.
    stage.store.put_secret("carl", "pw");
    stage.store.set_secrets_away(false);
    artest::wait_for("the secret to be read", Duration::from_secs(10), async || {
        match stage.send(carl()).await.status.as_u16() {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

// Rows 8 to 12: errors of services.

fn failing() -> Setting {
    let fail = |status: u16, kind: &'static str, details: Value| {
        move |_call| {
            let outcome = failed(status, kind, details.clone());
            async move { outcome }
        }
    };
    let mut setting = setting()
        .service("bad-request", fail(400, "BadRequest", json!("Bad request")))
        .service("forbidden", fail(403, "Forbidden", Value::Null))
        .service("missing", fail(404, "NotFound", json!("no such photo")))
        .service("often", fail(429, "TooManyRequests", Value::Null))
        .service("exception", fail(500, "ValueError", json!(["a", 1])));
    for name in ["bad-request", "forbidden", "missing", "often", "exception"] {
        setting = setting
            .channel(
                &format!("{name}-j"),
                &format!("/json/{name}"),
                name,
                json!({"data_format": "json"}),
            )
            .channel(&format!("{name}-n"), &format!("/none/{name}"), name, json!({}));
    }
    setting
}

#[tokio::test]
async fn errors_have_the_shape_of_the_channels_data_format() {
    let stage = failing().start().await;
    for (name, status, details, text) in [
        ("bad-request", 400, json!("Bad request"), "Bad request"),
        ("forbidden", 403, Value::Null, ""),
        ("missing", 404, json!("no such photo"), "no such photo"),
        ("often", 429, Value::Null, ""),
        ("exception", 500, json!(["a", 1]), "[\"a\",1]"),
    ] {
        check_error(&stage.get(&format!("/json/{name}")).await, status, &details);
        let got = stage.get(&format!("/none/{name}")).await;
        assert_eq!((got.status.as_u16(), got.text()), (status, text));
        assert_eq!(got.header("content-type"), Some("text/plain"));
    }
}

#[tokio::test]
async fn without_return_tracebacks_an_exception_is_not_shown() {
    let mut setting = failing();
    setting.config.return_tracebacks = false;
    let stage = setting.start().await;
    check_error(&stage.get("/json/exception").await, 500, &json!("An error has occurred"));
    assert_eq!(stage.get("/none/exception").await.text(), "An error has occurred");
    check_error(&stage.get("/json/missing").await, 404, &json!("no such photo"));
}

#[tokio::test]
async fn headers_set_before_a_failure_are_sent() {
    let stage = setting()
        .service("late", async |_| {
            Outcome::Failed(Failure {
                status: 503,
                headers: vec![
                    ("X-Step".to_owned(), "3".to_owned()),
                    ("Content-Type".to_owned(), "image/png".to_owned()),
                ],
                details: Value::Null,
                kind: "busy".to_owned(),
                message: "busy".to_owned(),
                retry_after: Some(Duration::from_millis(1500)),
            })
        })
        .channel("late", "/late", "late", json!({"data_format": "json"}))
        .start()
        .await;
    let got = stage.get("/late").await;
    check_error(&got, 503, &json!("the service cannot be run now; try again"));
    assert_eq!(got.header("x-step"), Some("3"));
    assert_eq!(got.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_504() {
    let stage = setting()
        .service("slow", async |_| std::future::pending().await)
        .channel("slow", "/slow", "slow", json!({"data_format": "json", "timeout_ms": 50}))
        .start()
        .await;
    let got = stage.get("/slow").await;
    check_error(&got, 504, &json!("the service did not answer in time"));
}

// What goes in.

#[tokio::test]
async fn a_worker_gets_the_whole_request() {
    let stage = setting()
        .channel("photos", "/photos/{id}/{rest}", "mirror", json!({"data_format": "json"}))
        .start()
        .await;
    let request = Request::put("/photos/a%2Fb/c%20d/e?size=big&size=x%20y")
        .header("X-Zato-CID", "0123456789abcdef")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("X-Forwarded-For", "192.0.2.7:50112, 10.0.0.1")
        .header("X-Odd", "a \"quoted\" \\ value")
        .header("x-odd", "again");
    let got = stage.send_body(request, "{\"a\": [1, 2]}").await;
    assert_eq!(got.cid(), "0123456789abcdef");
    assert_eq!(got.header("content-type"), Some("application/json"));
    let mut seen = got.json();
    let headers = seen["http"]["headers"].take();
    assert_eq!(
        headers,
        json!([
            ["x-zato-cid", "0123456789abcdef"],
            ["traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            ["x-forwarded-for", "192.0.2.7:50112, 10.0.0.1"],
            ["x-odd", "a \"quoted\" \\ value"],
            ["x-odd", "again"],
            ["host", "box:11223"],
            ["content-length", "13"],
        ])
    );
    let id = seen["http"]["channel"]["id"].take();
    assert!(id.as_u64().is_some_and(|id| id > 0));
    assert_eq!(
        seen,
        json!({
            "service": "mirror",
            "cid": "0123456789abcdef",
            "channel": "http-soap",
            "data_format": "json",
            "method": "PUT",
            "body": "{\"a\": [1, 2]}",
            "is_idempotent": true,
            "http": {
                "path": "/photos/a/b/c d/e",
                "query": "size=big&size=x%20y",
                "headers": null,
                // Slashes are admitted by default and the first parameter takes the most.
                "params": {"id": "a/b/c d", "rest": "e"},
                "remote": "192.0.2.7:50112",
                "scheme": "http",
                "host": "box:11223",
                "channel": {
                    "id": null, "name": "photos", "type": "http-soap", "data_format": "json",
                    "is_internal": false, "match_target": ":::.*:::*/*:::/photos/{id}/{rest}",
                    "security": null,
                },
                "url_params_pri": "qs-over-path",
                "params_pri": "channel-params-over-msg",
                "merge_url_params_req": true,
            },
        })
    );
}

#[tokio::test]
async fn priorities_of_parameters_go_to_the_worker() {
    let stage = setting()
        .channel(
            "p",
            "/p/{a}",
            "mirror",
            json!({"match_slash": false, "url_params_pri": "path-over-qs",
                   "params_pri": "msg-over-channel-params", "merge_url_params_req": false}),
        )
        .start()
        .await;
    let seen = stage.post("/p/x%2Fy", "text").await.json();
    assert_eq!(seen["http"]["params"], json!({"a": "x/y"}));
    assert_eq!(seen["http"]["url_params_pri"], "path-over-qs");
    assert_eq!(seen["http"]["params_pri"], "msg-over-channel-params");
    assert_eq!(seen["http"]["merge_url_params_req"], false);
    assert_eq!(seen["is_idempotent"], false);
    check_not_found(&stage.get("/p/x/y").await);
}

#[tokio::test]
async fn a_request_without_a_cid_gets_one() {
    let stage = setting().channel("echo", "/echo", "echo", json!({})).start().await;
    let one = stage.get("/echo").await;
    let other = stage.send(Request::get("/echo").header("x-zato-cid", "not a cid!")).await;
    assert_eq!(one.cid().len(), 24);
    assert_eq!(other.cid().len(), 24);
    assert_ne!(one.cid(), other.cid());
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_with_its_place_before_the_service_runs() {
    let ran = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ran);
    let stage = setting()
        .service("flag", move |_| {
            flag.store(true, Ordering::Relaxed);
            async { done(200, "") }
        })
        .channel("flag", "/flag", "flag", json!({"data_format": "json"}))
        .channel("any", "/any", "echo", json!({}))
        .start()
        .await;
    for (body, fault) in [
        (
            &b"{\"a\": 1,}"[..],
            "the request body is not JSON: key must be a string at line 1 column 9",
        ),
        (b"{\n\"a\" 1}", "the request body is not JSON: expected `:` at line 2 column 5"),
        (b"{} {}", "the request body is not JSON: trailing characters at line 1 column 4"),
        (b"NaN", "the request body is not JSON: expected value at line 1 column 1"),
        (b" ", "the request body is not JSON: EOF while parsing a value at line 1 column 1"),
        (b"\"\xff\"", "the request body is not UTF-8 at byte 1, and JSON has to be"),
    ] {
        check_error(&stage.post("/flag", body).await, 400, &json!(fault));
    }
    assert!(!ran.load(Ordering::Relaxed));
    // An empty body is no body, and other channels take anything.
    assert_eq!(stage.post("/flag", "").await.status, 200);
    assert!(ran.load(Ordering::Relaxed));
    assert_eq!(stage.post("/any", "{").await.text(), "{");
}

#[tokio::test]
async fn a_large_json_body_is_checked_too() {
    let mut setting = setting();
    setting.config.max_body_bytes = 10_000_000;
    let stage =
        setting.channel("echo", "/echo", "echo", json!({"data_format": "json"})).start().await;
    let good = format!("[{}1]", "1,".repeat(1_000_000));
    let got = stage.post("/echo", good.clone()).await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, good.len()));
    assert_eq!(stage.post("/echo", format!("{good}x")).await.status, 400);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413() {
    let stage = setting()
        .channel("small", "/small", "echo", json!({"data_format": "json", "max_body_bytes": 10}))
        .channel("default", "/default", "echo", json!({}))
        .start()
        .await;
    assert_eq!(stage.post("/small", "1234567890").await.status, 200);
    let got = stage.post("/small", "12345678901").await;
    check_error(
        &got,
        413,
        &json!("the request body is larger than the 10 bytes this channel takes"),
    );
    assert_eq!(stage.post("/default", "x".repeat(100_000)).await.status, 200);
    assert_eq!(stage.post("/default", "x".repeat(100_001)).await.status, 413);
    // A body of unknown length is cut off where it goes too far.
    let head = "POST /small HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = stage.raw(format!("{head}5\r\n12345\r\n6\r\n678901\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_in_a_coding_that_is_not_known_is_415() {
    let stage =
        setting().channel("echo", "/echo", "echo", json!({"data_format": "json"})).start().await;
    let got = stage.send_body(Request::post("/echo").header("content-encoding", "br"), "x").await;
    let sentence =
        "the request body is encoded as `br`; send it with gzip or without Content-Encoding";
    check_error(&got, 415, &json!(sentence));
    let identity = Request::post("/echo").header("content-encoding", "identity");
    assert_eq!(stage.send_body(identity, "1").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_and_frees_the_connection() {
    let stage = setting()
        .channel("echo", "/echo", "echo", json!({"timeout_ms": 50, "data_format": "json"}))
        .start()
        .await;
    let half = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345";
    let answer = stage.raw(half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("the request body did not arrive within 50ms"), "{answer}");
}

#[tokio::test]
async fn large_bodies_wait_for_one_another_so_that_memory_is_bounded() {
    const LARGE: usize = 2 * 1024 * 1024;
    let begun = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let (count, gate) = (Arc::clone(&begun), Arc::clone(&open));
    let mut setting = setting()
        .service("hold", move |call| {
            count.fetch_add(1, Ordering::Relaxed);
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await.unwrap());
                done(200, call.body.len().to_string())
            }
        })
        .channel("hold", "/hold", "hold", json!({}))
        .channel("hasty", "/hasty", "hold", json!({"timeout_ms": 50, "data_format": "json"}));
    setting.config.max_body_bytes = LARGE as u64;
    let stage = setting.start().await;
    // Two fit; the others are not read before those are done, whether they say their size or not.
    let large = || stage.post("/hold", "x".repeat(LARGE));
    let chunked = async || {
        let head = "POST /hold HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        let body = format!("{LARGE:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(LARGE));
        stage.raw(format!("{head}transfer-encoding: chunked\r\n\r\n{body}").as_bytes()).await
    };
    let all = async { tokio::join!(large(), large(), large(), large(), chunked(), chunked()) };
    let watch = async {
        artest::wait_for("two to begin", Duration::from_secs(5), async || {
            let begun = begun.load(Ordering::Relaxed);
            if begun == 2 { Ok(()) } else { Err(begun) }
        })
        .await;
        // Small ones pass, and who cannot wait is told so.
        let small = stage.post("/hasty", "1").await;
        assert_eq!(small.status, 504);
        let got = stage.post("/hasty", "1".repeat(LARGE)).await;
        let sentence = "the request body cannot be taken now: other large requests fill the memory for them; try again";
        check_error(&got, 503, &json!(sentence));
        assert_eq!(got.header("retry-after"), Some("1"));
        assert_eq!(begun.load(Ordering::Relaxed), 3, "two large ones and the small one");
        open.add_permits(100);
    };
    let ((a, b, c, d, e, f), ()) = tokio::join!(all, watch);
    for got in [a, b, c, d] {
        assert_eq!((got.status.as_u16(), got.text()), (200, LARGE.to_string().as_str()));
    }
    for answer in [e, f] {
        assert!(answer.ends_with(&LARGE.to_string()), "{answer}");
    }
}

// What comes out.

fn replying(reply: Reply) -> Setting {
    setting()
        .service("say", move |_| {
            let reply = reply.clone();
            async { Outcome::Done(reply) }
        })
        .channel("none", "/none", "say", json!({}))
        .channel("json", "/json", "say", json!({"data_format": "json"}))
        .channel("own", "/own", "say", json!({"data_format": "json", "content_type": "text/csv"}))
}

fn reply(status: u16, content_type: Option<&str>, headers: &[(&str, &str)], body: &str) -> Reply {
    Reply {
        status,
        content_type: content_type.map(str::to_owned),
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        body: body.to_owned().into(),
    }
}

#[tokio::test]
async fn the_content_type_is_the_services_then_the_channels_then_the_formats() {
    let content_type = async |stage: &Stage, path: &str| {
        let got = stage.get(path).await;
        got.header("content-type").map(str::to_owned)
    };
    let stage = replying(reply(200, None, &[], "x")).start().await;
    assert_eq!(content_type(&stage, "/none").await.as_deref(), Some("text/plain"));
    assert_eq!(content_type(&stage, "/json").await.as_deref(), Some("application/json"));
    assert_eq!(content_type(&stage, "/own").await.as_deref(), Some("text/csv"));
    let stage = replying(reply(200, Some("image/png"), &[], "x")).start().await;
    assert_eq!(content_type(&stage, "/own").await.as_deref(), Some("image/png"));
    let stage = replying(reply(200, None, &[("content-type", "text/html")], "x")).start().await;
    assert_eq!(content_type(&stage, "/own").await.as_deref(), Some("text/html"));
}

#[tokio::test]
async fn headers_of_services_are_sent_but_the_connections_own_are_not_theirs() {
    let headers = [
        ("X-A", "1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Name", "żółw"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "999"),
        ("X-Zato-CID", "forged-forged"),
    ];
    let stage = replying(reply(201, None, &headers, "made")).start().await;
    let mut connection = Connection::open(&stage).await;
    for _ in 0..2 {
        let got = connection.send(Request::get("/none"), "").await;
        assert_eq!((got.status.as_u16(), got.text()), (201, "made"));
        assert_eq!(got.header("x-a"), Some("1"));
        let cookies: Vec<_> = got.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(got.headers["x-name"].as_bytes(), "żółw".as_bytes());
        assert_eq!(got.header("content-length"), Some("4"));
        assert_eq!(got.header("connection"), None);
        assert_eq!(got.header("transfer-encoding"), None);
        assert_ne!(got.cid(), "forged-forged");
    }
}

#[tokio::test]
async fn a_header_that_would_split_the_response_is_never_sent() {
    let details = json!("the service's answer cannot be sent; the log says why");
    for bad in [("X-A", "1\r\nSet-Cookie: stolen=1"), ("X A", "1"), ("", "1"), ("X-A", "a\u{0}b")] {
        let stage = replying(reply(200, None, &[bad], "x")).start().await;
        let got = stage.get("/json").await;
        check_error(&got, 500, &details);
        assert_eq!(got.header("set-cookie"), None);
    }
    for (status, content_type) in [(99, None), (101, None), (1000, None), (200, Some("a\nb"))] {
        let stage = replying(reply(status, content_type, &[], "x")).start().await;
        check_error(&stage.get("/json").await, 500, &details);
    }
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let stage = replying(reply(200, None, &[], "four")).start().await;
    let mut connection = Connection::open(&stage).await;
    for _ in 0..2 {
        let got = connection.send(Request::head("/none"), "").await;
        assert_eq!((got.body.len(), got.header("content-length")), (0, Some("4")));
    }
    for status in [204, 304] {
        let stage = replying(reply(status, None, &[], "four")).start().await;
        let mut connection = Connection::open(&stage).await;
        for _ in 0..2 {
            let got = connection.send(Request::get("/none"), "").await;
            assert_eq!((got.status.as_u16(), got.body.len()), (status, 0));
            assert_eq!(got.header("content-type"), None);
        }
    }
}

// The connection.

#[tokio::test]
async fn a_client_that_goes_away_gives_its_call_up() {
    struct Dropped(tokio::sync::mpsc::UnboundedSender<&'static str>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send("dropped").ok();
        }
    }
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let stage = setting()
        .service("hang", move |_| {
            let guard = Dropped(tx.clone());
            async move {
                guard.0.send("begun").ok();
                std::future::pending::<()>().await;
                drop(guard);
                done(200, "")
            }
        })
        .channel("hang", "/hang", "hang", json!({}))
        .start()
        .await;
    use tokio::io::AsyncWriteExt as _;
    let socket = stage.socket("arsrv-http.sock");
    let mut client = tokio::net::UnixStream::connect(socket).await.unwrap();
    client
        .write_all(b"POST /hang HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        .await
        .unwrap();
    assert_eq!(rx.recv().await, Some("begun"));
    drop(client);
    let given_up = tokio::time::timeout(Duration::from_secs(5), rx.recv()).await;
    assert_eq!(given_up.unwrap(), Some("dropped"));
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let stage = setting().channel("echo", "/echo/{n}", "mirror", json!({})).start().await;
    let mut requests = String::new();
    for n in 0..50 {
        let last = if n == 49 { "connection: close\r\n" } else { "" };
        requests.push_str(&format!("GET /echo/{n} HTTP/1.1\r\nhost: x\r\n{last}\r\n"));
    }
    let answer = stage.raw(requests.as_bytes()).await;
    let found: Vec<&str> = answer.split("\"params\":{\"n\":\"").skip(1).collect();
    assert_eq!(found.len(), 50);
    for (n, text) in found.iter().enumerate() {
        assert!(text.starts_with(&format!("{n}\"")), "{n}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_400() {
    let stage = setting().start().await;
    for garbage in
        ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "\u{1}\u{2}\u{3}\r\n\r\n"]
    {
        let answer = stage.raw(garbage.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer}");
    }
}

// The paths of our own.

#[tokio::test]
async fn ping_answers_as_in_3_2() {
    let stage = setting().start().await;
    let got = stage.get("/zato/ping").await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), Some("application/json"));
    let expected = format!(
        "{{\"pong\":\"zato\",\"zato_env\":{{\"result\":\"ZATO_OK\",\"cid\":\"{}\",\"details\":\"\"}}}}",
        got.cid()
    );
    assert_eq!(got.text(), expected);
    check_not_found(&stage.post("/zato/ping", "").await);
}

#[tokio::test]
async fn a_channel_cannot_take_a_path_of_ours() {
    let stage = setting().channel("all", "/{x}", "echo", json!({})).start().await;
    assert!(stage.get("/zato/ping").await.text().contains("pong"));
    assert_eq!(stage.get("/arint/health").await.json(), json!({"ready": true}));
}
