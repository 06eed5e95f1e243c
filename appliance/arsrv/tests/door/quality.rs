//! What channels do beside invoking their service: packing, keeping, checking.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arapi::messages::{Direction, MessagePage, MessageQuery};
use arapi::names::Kind;
use arsrv::call::{Call, Outcome, Reply};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Request;
use serde_json::{Value, json};

use super::{Got, Setting, Stage, done};

fn packed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    GzDecoder::new(body).read_to_end(&mut whole).unwrap();
    whole
}

#[track_caller]
fn check_error(got: &Got, status: u16, details: &str) {
    let expected = json!({"result": "Error", "cid": got.cid(), "details": details});
    assert_eq!((got.status.as_u16(), got.json()), (status, expected));
}

async fn echo(call: Call) -> Outcome {
    done(200, call.body)
}

/// Answers with the headers that services see, and the length of the body.
async fn seen(call: Call) -> Outcome {
    let http: Value = serde_json::from_slice(&call.http).unwrap();
    done(200, json!({"headers": http["headers"], "length": call.body.len()}).to_string())
}

async fn post_packed(stage: &Stage, path: &str, body: impl Into<Bytes>) -> Got {
    stage.send_body(Request::post(path).header("content-encoding", "gzip"), body).await
}

// gzip.

#[tokio::test]
async fn a_packed_request_reaches_its_service_unpacked() {
    let stage = Setting::new()
        .service("seen", seen)
        .service("echo", echo)
        .channel("seen", "/seen", "seen", json!({"data_format": "json"}))
        .channel("echo", "/echo", "echo", json!({"data_format": "json"}))
        .start()
        .await;
    let text = json!({"photos": "x".repeat(500)}).to_string();
    let got = post_packed(&stage, "/seen", packed(text.as_bytes())).await;
    assert_eq!(got.json()["length"], text.len());
    let headers = got.json()["headers"].to_string();
    assert!(
        !headers.contains("content-encoding") && !headers.contains("content-length"),
        "{headers}"
    );
    assert_eq!(post_packed(&stage, "/echo", packed(text.as_bytes())).await.text(), text);
    // What is inside is checked like any other body.
    let got = post_packed(&stage, "/echo", packed(b"{1}")).await;
    check_error(&got, 400, "the request body is not JSON: key must be a string at line 1 column 2");
}

#[tokio::test]
async fn packed_requests_that_are_broken_too_large_or_bombs_are_refused() {
    let stage = Setting::new()
        .service("seen", seen)
        .channel("seen", "/seen", "seen", json!({"data_format": "json"}))
        .channel(
            "large",
            "/large",
            "seen",
            json!({"max_body_bytes": 100_000_000_u64, "data_format": "json"}),
        )
        .start()
        .await;
    let not_gzip =
        "the request body is not gzip, though its Content-Encoding says so, or it is not complete";
    check_error(&post_packed(&stage, "/seen", "plain").await, 400, not_gzip);
    let whole = packed(b"{}");
    check_error(
        &post_packed(&stage, "/seen", whole[..whole.len() - 1].to_vec()).await,
        400,
        not_gzip,
    );
    let got = post_packed(&stage, "/seen", packed(&[b' '; 100_001])).await;
    check_error(
        &got,
        413,
        "the request body is larger than the 100000 bytes this channel takes once it is unpacked",
    );
    let bomb = packed(&vec![b' '; 50_000_000]);
    assert!(bomb.len() < 100_000);
    let swells =
        "the request body swells too much by being unpacked; send it without Content-Encoding";
    check_error(&post_packed(&stage, "/large", bomb).await, 413, swells);
    let got = stage.send_body(Request::post("/seen").header("content-encoding", "br"), "x").await;
    check_error(
        &got,
        415,
        "the request body is encoded as `br`; send it with gzip or without Content-Encoding",
    );
}

#[tokio::test]
async fn answers_are_packed_where_channel_and_client_say_so() {
    let stage = Setting::new()
        .service("echo", echo)
        .service("own", async |_| {
            let headers = vec![
                ("ETag".to_owned(), "\"1\"".to_owned()),
                ("Content-Encoding".to_owned(), "br".to_owned()),
            ];
            Outcome::Done(Reply {
                status: 200,
                content_type: None,
                headers,
                body: vec![7; 1000].into(),
            })
        })
        .channel("packs", "/packs", "echo", json!({"content_encoding": "gzip"}))
        .channel("own", "/own", "own", json!({"content_encoding": "gzip"}))
        .channel("plain", "/plain", "echo", json!({}))
        .start()
        .await;
    for size in [1000, 100_000] {
        let text = "abcdefghij".repeat(size / 10);
        let ask = |path: &str| Request::post(path).header("accept-encoding", "br, gzip");
        let got = stage.send_body(ask("/packs"), text.clone()).await;
        assert_eq!(got.header("content-encoding"), Some("gzip"));
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()));
        assert!(got.body.len() < size / 4);
        assert_eq!(unpacked(&got.body), text.as_bytes());
        let got = stage.post("/packs", text.clone()).await;
        assert_eq!((got.header("content-encoding"), got.text()), (None, text.as_str()));
        assert_eq!(got.header("vary"), Some("Accept-Encoding"));
        let got = stage.send_body(ask("/plain"), text.clone()).await;
        assert_eq!((got.header("content-encoding"), got.header("vary")), (None, None));
    }
    let ask = |path: &str| Request::post(path).header("accept-encoding", "gzip");
    // Small, or already packed by the service.
    assert_eq!(stage.send_body(ask("/packs"), "small").await.header("content-encoding"), None);
    let got = stage.send(ask("/own")).await;
    assert_eq!((got.header("content-encoding"), got.header("etag")), (Some("br"), Some("\"1\"")));
}

// The response cache.

/// Counts its calls, and answers with the number.
fn counting(setting: Setting, name: &str, headers: &[(&str, &str)]) -> Setting {
    let calls = Arc::new(AtomicU32::new(0));
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    setting.service(name, move |call: Call| {
        let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!("{} {number}", call.method.unwrap()).into();
        let reply = Reply { status: 200, content_type: None, headers: headers.clone(), body };
        async move { Outcome::Done(reply) }
    })
}

async fn text_of(stage: &Stage, request: http::request::Builder) -> String {
    stage.send(request).await.text().to_owned()
}

#[tokio::test]
async fn an_answer_is_kept_for_those_that_ask_the_same() {
    let stage = counting(Setting::new(), "count", &[])
        .channel(
            "kept",
            "/kept/{id}",
            "count",
            json!({"response_cache": {
                "ttl": 60, "vary_by_headers": ["X-Lang"], "ignored_query_parameters": ["_"],
            }}),
        )
        .start()
        .await;
    let get = |path: &str| Request::get(path.to_owned());
    let first = stage.get("/kept/1?a=1&_=5").await;
    assert_eq!((first.status.as_u16(), first.text()), (200, "GET 1"));
    assert_eq!(first.header("cache-control"), Some("private, max-age=60"));
    assert_eq!((first.header("vary"), first.header("age")), (Some("x-lang"), None));
    let tag = first.header("etag").unwrap().to_owned();
    let again = stage.get("/kept/1?_=6&a=1").await;
    assert_eq!((again.text(), again.header("age")), ("GET 1", Some("0")));
    assert_eq!(again.header("etag"), Some(tag.as_str()));
    assert_ne!(again.cid(), first.cid());
    // Whoever has it already gets no body.
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let got = stage.send(get("/kept/1?a=1").header("if-none-match", known)).await;
        assert_eq!((got.status.as_u16(), got.text()), (304, ""));
        assert_eq!(got.header("etag"), Some(tag.as_str()));
        assert_eq!(got.header("cache-control"), Some("private, max-age=60"));
    }
    let got = stage.send(get("/kept/1?a=1").header("if-none-match", "\"other\"")).await;
    assert_eq!((got.status.as_u16(), got.text()), (200, "GET 1"));
    // What makes a difference: path, query, headers named, method.
    assert_eq!(text_of(&stage, get("/kept/2?a=1")).await, "GET 2");
    assert_eq!(text_of(&stage, get("/kept/1?a=2")).await, "GET 3");
    assert_eq!(text_of(&stage, get("/kept/1?a=1").header("x-lang", "fr")).await, "GET 4");
    assert_eq!(text_of(&stage, get("/kept/1?a=1").header("x-lang", "fr")).await, "GET 4");
    assert_eq!(text_of(&stage, Request::post("/kept/1?a=1")).await, "POST 5");
    assert_eq!(text_of(&stage, Request::post("/kept/1?a=1")).await, "POST 6");
    assert_eq!(stage.send(Request::head("/kept/1?a=1")).await.header("content-length"), Some("6"));
    // A body makes the request one of its own.
    assert_eq!(stage.send_body(get("/kept/1?a=1"), "x").await.text(), "GET 8");
    // The client decides for itself.
    assert_eq!(
        text_of(&stage, get("/kept/1?a=1").header("cache-control", "no-cache")).await,
        "GET 9"
    );
    assert_eq!(text_of(&stage, get("/kept/1?a=1")).await, "GET 9");
    assert_eq!(
        text_of(&stage, get("/kept/1?a=1").header("cache-control", "no-store")).await,
        "GET 10"
    );
    assert_eq!(text_of(&stage, get("/kept/1?a=1")).await, "GET 9");
}

#[tokio::test]
async fn kept_answers_end_with_their_time_and_with_changes_of_channel_and_service() {
    let channel = json!({"url_path": "/a", "service": "count", "response_cache": {"ttl": 3600}});
    let stage = counting(Setting::new(), "count", &[])
        .channel("a", "/a", "count", json!({"response_cache": {"ttl": 3600}}))
        .channel("short", "/short", "count", json!({"response_cache": {"ttl": 1}}))
        .channel("off", "/off", "count", json!({"response_cache": {"is_enabled": false}}))
        .start()
        .await;
    assert_eq!(stage.get("/a").await.text(), "GET 1");
    assert_eq!(stage.get("/a").await.text(), "GET 1");
    stage.put(Kind::Channel, "a", channel).await;
    assert_eq!(stage.get("/a").await.text(), "GET 2");
    stage.put(Kind::Service, "count", json!({"module": "m", "class": "D"})).await;
    assert_eq!(stage.get("/a").await.text(), "GET 3");
    assert_eq!(stage.get("/off").await.text(), "GET 4");
    assert_eq!(stage.get("/off").await.text(), "GET 5");
    assert_eq!(stage.get("/short").await.text(), "GET 6");
    let limit = std::time::Duration::from_secs(10);
    let is_old = async || match stage.get("/short").await.text() {
        "GET 6" => Err("GET 6"),
        _ => Ok(()),
    };
    artest::wait_for("the answer to grow old", limit, is_old).await;
}

#[tokio::test]
async fn callers_get_one_anothers_answers_only_where_the_channel_shares_them() {
    let stage = counting(Setting::new(), "own", &[]);
    let stage = counting(stage, "shared", &[])
        .object(
            Kind::Security,
            "a",
            json!({"type": "basic", "username": "a", "password": {"secret": "a"}}),
        )
        .object(
            Kind::Security,
            "b",
            json!({"type": "basic", "username": "b", "password": {"secret": "b"}}),
        )
        .secret("a", "a")
        .secret("b", "b")
        .channel("own", "/own", "own", json!({"security": ["a", "b"], "response_cache": {}}))
        .channel("open", "/open", "own", json!({"response_cache": {}}))
        .channel(
            "shared",
            "/shared",
            "shared",
            json!({"security": ["a", "b"], "response_cache": {"is_shared_across_callers": true}}),
        )
        .start()
        .await;
    let by = |path: &str, who: &str| {
        Request::get(path.to_owned()).header("authorization", format!("Basic {who}"))
    };
    let (a, b) = ("YTph", "Yjpi");
    assert_eq!(text_of(&stage, by("/own", a)).await, "GET 1");
    assert_eq!(text_of(&stage, by("/own", b)).await, "GET 2");
    assert_eq!(text_of(&stage, by("/own", a)).await, "GET 1");
    // Who may not pass gets nothing that is kept.
    assert_eq!(stage.get("/own").await.status, 401);
    assert_eq!(text_of(&stage, by("/shared", a)).await, "GET 1");
    let got = stage.send(by("/shared", b)).await;
    assert_eq!((got.text(), got.header("cache-control")), ("GET 1", Some("private, max-age=60")));
    assert_eq!(stage.get("/shared").await.status, 401);
    // A channel that is open to all may have callers of its service's own.
    assert_eq!(text_of(&stage, Request::get("/open").header("cookie", "s=1")).await, "GET 3");
    assert_eq!(text_of(&stage, Request::get("/open").header("cookie", "s=2")).await, "GET 4");
    assert_eq!(text_of(&stage, Request::get("/open").header("cookie", "s=1")).await, "GET 3");
}

#[tokio::test]
async fn a_service_says_what_is_not_to_be_kept() {
    let mut setting = Setting::new();
    type Case = (&'static str, &'static [(&'static str, &'static str)], bool);
    let own: [Case; 7] = [
        ("store", &[("Cache-Control", "no-store")], false),
        ("cookie", &[("Set-Cookie", "a=1")], false),
        ("star", &[("Vary", "*")], false),
        ("vary", &[("Vary", "Accept-Language")], false),
        ("private", &[("Cache-Control", "private")], false),
        ("age", &[("Cache-Control", "max-age=30")], true),
        ("tag", &[("ETag", "W/\"7\""), ("Vary", "Accept-Encoding")], true),
    ];
    for (name, headers, _) in own {
        setting = counting(setting, name, headers).channel(
            name,
            &format!("/{name}"),
            name,
            json!({"response_cache": {"is_shared_across_callers": true}, "content_encoding": "gzip"}),
        );
    }
    let stage = setting
        .service("fails", async |_| done(404, "no"))
        .channel("fails", "/fails", "fails", json!({"response_cache": {}}))
        .start()
        .await;
    for (name, _, is_kept) in own {
        let path = format!("/{name}");
        assert_eq!(stage.get(&path).await.text(), "GET 1", "{name}");
        let second = stage.get(&path).await;
        assert_eq!(second.text() == "GET 1", is_kept, "{name}");
    }
    assert_eq!(stage.get("/age").await.header("cache-control"), Some("max-age=30"));
    let got = stage.send(Request::get("/tag").header("if-none-match", "\"7\"")).await;
    assert_eq!((got.status.as_u16(), got.header("etag")), (304, Some("W/\"7\"")));
    let got = stage.get("/fails").await;
    assert_eq!(
        (got.status.as_u16(), got.header("etag"), got.header("cache-control")),
        (404, None, None)
    );
}

// CORS.

#[tokio::test]
async fn a_preflight_is_answered_without_the_service_and_without_credentials() {
    let stage = counting(Setting::new(), "count", &[])
        .object(
            Kind::Security,
            "a",
            json!({"type": "basic", "username": "a", "password": {"secret": "a"}}),
        )
        .secret("a", "a")
        .channel(
            "api",
            "/api/{id}",
            "count",
            json!({"security": ["a"], "cors": {
                "origins": ["https://app.example.com", "https://*.test.example"],
                "methods": ["GET", "PUT"], "headers": ["Authorization", "X-Request"],
                "expose_headers": ["X-Zato-CID"], "allow_credentials": true, "max_age": 300,
            }}),
        )
        .channel(
            "all",
            "/all",
            "count",
            json!({"cors": {"origins": ["*"], "headers": ["*"]}, "method": "POST"}),
        )
        .channel("none", "/none", "count", json!({}))
        .start()
        .await;
    let ask = |path: &str, origin: &str, method: &str| {
        Request::options(path.to_owned())
            .header("origin", origin)
            .header("access-control-request-method", method)
    };
    let got = stage
        .send(
            ask("/api/7", "https://app.example.com", "PUT")
                .header("access-control-request-headers", "authorization, x-request"),
        )
        .await;
    assert_eq!((got.status.as_u16(), got.text()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.com"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "Authorization, X-Request"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "300"),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    for (request, sentence) in [
        (
            ask("/api/7", "https://evil.example", "PUT"),
            "pages of this origin may not call this channel",
        ),
        (ask("/api/7", "https://x.test.example", "DELETE"), "pages may not use DELETE here"),
        (
            ask("/api/7", "https://x.test.example", "GET")
                .header("access-control-request-headers", "x-other"),
            "pages may not send `x-other` here",
        ),
    ] {
        let got = stage.send(request).await;
        assert_eq!((got.status.as_u16(), got.text()), (403, sentence));
        assert_eq!(got.header("access-control-allow-origin"), None);
    }
    let got = stage
        .send(
            ask("/all", "https://any.example", "POST")
                .header("access-control-request-headers", "x-a,x-b"),
        )
        .await;
    assert_eq!(got.header("access-control-allow-origin"), Some("*"));
    assert_eq!(got.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(got.header("access-control-allow-headers"), Some("x-a,x-b"));
    // Where there are no rules the service answers OPTIONS itself, as any other method.
    assert_eq!(stage.send(ask("/none", "https://any.example", "GET")).await.text(), "OPTIONS 1");
}

#[tokio::test]
async fn every_answer_says_whether_the_page_may_read_it() {
    let stage = counting(Setting::new(), "count", &[("Access-Control-Allow-Origin", "*")])
        .object(Kind::Security, "a", json!({"type": "basic", "username": "a", "password": {"secret": "a"}}))
        .secret("a", "a")
        .channel(
            "api",
            "/api",
            "count",
            json!({"security": ["a"], "response_cache": {}, "cors": {
                "origins": ["https://app.example.com", "https://b.example.com"], "expose_headers": ["X-Zato-CID"],
            }}),
        )
        .start()
        .await;
    let get = |origin: &str| {
        Request::get("/api").header("authorization", "Basic YTph").header("origin", origin)
    };
    // From the cache or not: the headers are those for who asks.
    for (origin, allowed) in [
        ("https://app.example.com", Some("https://app.example.com")),
        ("https://b.example.com", Some("https://b.example.com")),
        ("https://evil.example", None),
    ] {
        let got = stage.send(get(origin)).await;
        assert_eq!((got.text(), got.header("access-control-allow-origin")), ("GET 1", allowed));
        assert_eq!(got.header("access-control-expose-headers"), allowed.map(|_| "X-Zato-CID"));
        assert_eq!(got.header("vary"), Some("Origin"));
    }
    let got = stage.send(Request::get("/api").header("origin", "https://b.example.com")).await;
    assert_eq!(
        (got.status.as_u16(), got.header("access-control-allow-origin")),
        (401, Some("https://b.example.com"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_ends_what_is_kept() {
    let module = |text: &str| {
        let source = format!(
            "from zato.server.service import Service\n\n\
             class A(Service):\n    name = 'a'\n    def handle(self):\n        self.response.payload = '{text}'\n"
        );
        json!({"file_name": "m.py", "source": source, "sha256": text, "version": 1, "origin": "api"})
    };
    let stage = Setting::new()
        .object(Kind::Module, "m", module("one"))
        .object(Kind::Service, "a", json!({"module": "m", "class": "A"}))
        .channel("a", "/a", "a", json!({"response_cache": {"ttl": 3600}}))
        .start_real()
        .await;
    assert_eq!(stage.get("/a").await.text(), "one");
    let again = stage.get("/a").await;
    assert_eq!((again.text(), again.header("age")), ("one", Some("0")));
    // The service's object stays as it is: only its code is another.
    stage.put(Kind::Module, "m", module("two")).await;
    assert_eq!(stage.get("/a").await.text(), "two");
}

// JSON Schema.

#[tokio::test]
async fn requests_and_answers_are_held_against_their_schemas() {
    let order = json!({
        "type": "object", "required": ["id"],
        "properties": {"id": {"type": "integer"}, "note": {"type": "string"}},
    });
    let stage = counting(Setting::new(), "count", &[])
        .service("echo", echo)
        .service("says", async |call: Call| {
            let http: Value = serde_json::from_slice(&call.http).unwrap();
            match http["query"].as_str().unwrap() {
                "good" => done(200, r#"{"id": 1}"#),
                "bad" => done(200, r#"{"id": "s3cret"}"#),
                "none" => done(204, ""),
                "refuses" => done(409, r#"{"why": "taken"}"#),
                other => panic!("{other}"),
            }
        })
        .channel("in", "/in", "echo", json!({"data_format": "json", "request_schema": order}))
        .channel(
            "count",
            "/count",
            "count",
            json!({"data_format": "json", "request_schema": order}),
        )
        .channel("out", "/out", "says", json!({"data_format": "json", "response_schema": order}))
        .start()
        .await;
    assert_eq!(stage.post("/in", r#"{"id": 7}"#).await.text(), r#"{"id": 7}"#);
    let large = json!({"id": 7, "note": "x".repeat(50_000)}).to_string();
    assert_eq!(stage.post("/in", large.clone()).await.text(), large);
    let large = json!({"id": "7", "note": "x".repeat(50_000)}).to_string();
    for (body, fault) in [
        (
            r#"{"id": "s3cret"}"#,
            "`/id`: the value is not of type \"integer\" (rule `/properties/id/type`)",
        ),
        (
            large.as_str(),
            "`/id`: the value is not of type \"integer\" (rule `/properties/id/type`)",
        ),
        ("{}", "`/`: \"id\" is a required property (rule `/required`)"),
        ("", "it is empty"),
    ] {
        let got = stage.post("/count", body.to_owned()).await;
        check_error(&got, 400, &format!("the request breaks the channel's schema: {fault}"));
    }
    // None of them reached the service; a GET needs no document.
    assert_eq!(stage.get("/count").await.text(), "GET 1");
    assert_eq!(stage.post("/count", "{1").await.status, 400);

    assert_eq!(stage.get("/out?good").await.text(), r#"{"id": 1}"#);
    assert_eq!(stage.get("/out?none").await.status, 204);
    assert_eq!(stage.get("/out?refuses").await.text(), r#"{"why": "taken"}"#);
    let sentence = "the service's answer breaks the channel's schema; the log says where";
    check_error(&stage.get("/out?bad").await, 500, sentence);
}

#[tokio::test]
async fn a_channel_whose_schema_is_none_does_not_serve_and_says_why() {
    let stage = Setting::new()
        .service("echo", echo)
        .channel(
            "in",
            "/in",
            "echo",
            json!({"data_format": "json", "request_schema": {"type": "strin"}}),
        )
        .start()
        .await;
    assert_eq!(stage.post("/in", "1").await.status, 404);
    let status = stage.control().status().await.unwrap();
    let state = "`request_schema` is no JSON Schema: `/type`: \"strin\" is not valid under any of the schemas listed in the 'anyOf' keyword";
    assert_eq!(status.channels[0].state, state);
    assert_eq!(status.problems, [format!("channel `in`: {state}")]);
    let spec = json!({"url_path": "/in", "service": "echo", "data_format": "json", "request_schema": {"type": "string"}});
    stage.put(Kind::Channel, "in", spec).await;
    assert_eq!(stage.post("/in", "\"a\"").await.status, 200);
}

// Audit.

#[tokio::test]
async fn requests_and_answers_are_kept_without_what_is_masked() {
    let stage = Setting::new()
        .service("echo", echo)
        .object(Kind::Security, "key", json!({"type": "api_key", "header": "X-Our-Key", "key": {"secret": "k"}}))
        .secret("k", "s3cret")
        .channel(
            "kept",
            "/kept",
            "echo",
            json!({"security": ["key"], "data_format": "json", "content_encoding": "gzip", "audit": {
                "max_bytes_per_message": 30, "masked_fields": ["pin"], "masked_headers": ["X-Session"],
            }}),
        )
        .start()
        .await;
    let request = Request::post("/kept?pin=1234&a=1")
        .header("x-our-key", "s3cret")
        .header("x-session", "s3cret")
        .header("cookie", "s3cret")
        .header("x-plain", "shown")
        .header("accept-encoding", "gzip")
        .header("x-forwarded-for", "192.0.2.7");
    let body = json!({"pin": "s3cret", "text": "x".repeat(300)}).to_string();
    let got = stage.send_body(request, body.clone()).await;
    assert_eq!(got.status, 200);
    let page = stage.control().messages("kept", &MessageQuery::default()).await.unwrap();
    let text = serde_json::to_string(&page).unwrap();
    assert!(!text.contains("s3cret") && !text.contains("1234"), "{text}");
    let [sent, received] = page.messages.as_slice() else { panic!("{page:?}") };
    assert_eq!((sent.direction, received.direction), (Direction::Sent, Direction::Received));
    assert_eq!((sent.status, received.status), (Some(200), None));
    for message in [sent, received] {
        assert_eq!((message.cid.as_str(), message.path.as_str()), (got.cid(), "/kept?pin=***&a=1"));
        assert_eq!(message.body.as_deref(), Some("{\"pin\":\"***\",\"text\":\"xxxxxxxxx"));
        assert_eq!(
            (message.bytes, message.is_truncated),
            (u64::try_from(body.len()).unwrap(), true)
        );
        assert_eq!(
            (message.caller.as_deref(), message.remote.as_str()),
            (Some("key"), "192.0.2.7")
        );
    }
    let header = |name: &str| {
        received.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (header("x-plain"), header("x-our-key"), header("cookie")),
        (Some("shown"), Some("***"), Some("***"))
    );
    // Who was refused is kept as well, and the file has nothing in it either.
    assert_eq!(stage.send(Request::post("/kept").header("x-our-key", "wr0ng")).await.status, 401);
    let page = stage.control().messages("kept", &MessageQuery::default()).await.unwrap();
    assert_eq!((page.messages[0].status, page.messages[1].body.as_deref()), (Some(401), None));
    for name in ["messages.sqlite", "messages.sqlite-wal"] {
        let bytes = std::fs::read(stage.dir.path().join("arsrv").join(name)).unwrap();
        for secret in [b"s3cret".as_slice(), b"wr0ng"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{name}");
        }
    }
}

#[tokio::test]
async fn so_many_messages_are_kept_as_the_channel_says_and_found_by_what_they_are() {
    let channel = |audit: Value| json!({"url_path": "/a", "service": "echo", "audit": audit});
    let setting = Setting::new()
        .service("echo", echo)
        .channel("a", "/a", "echo", json!({"audit": {"max_len_messages": 3}}))
        .channel("b", "/b", "echo", json!({"audit": {"is_sent_active": false}}))
        .channel("c", "/c", "echo", json!({}));
    let stage = setting.start().await;
    let control = stage.control();
    let of = async |name: &str, query: MessageQuery| control.messages(name, &query).await.unwrap();
    let mut cids = Vec::new();
    for number in 0..5 {
        cids.push(stage.post("/a", format!("m{number}")).await.cid().to_owned());
    }
    let bodies = |page: &MessagePage| -> Vec<String> {
        page.messages.iter().map(|message| message.body.clone().unwrap()).collect()
    };
    let page = of("a", MessageQuery::default()).await;
    assert_eq!(bodies(&page), ["m4", "m4", "m3", "m3", "m2", "m2"]);
    let sent =
        MessageQuery { direction: Some(Direction::Sent), most: Some(2), ..MessageQuery::default() };
    let page = of("a", sent.clone()).await;
    assert_eq!(bodies(&page), ["m4", "m3"]);
    let page = of("a", MessageQuery { before: page.next, ..sent }).await;
    assert_eq!((bodies(&page), page.next), (vec!["m2".to_owned()], None));
    let page =
        of("a", MessageQuery { cid: Some(cids[3].clone()), ..MessageQuery::default() }).await;
    assert_eq!(bodies(&page), ["m3", "m3"]);
    stage.send_body(Request::post("/b"), vec![0xff, 0]).await;
    let page = of("b", MessageQuery::default()).await;
    assert_eq!((page.messages.len(), page.messages[0].body_base64.as_deref()), (1, Some("/wA=")));
    // A restart loses nothing.
    let Stage { core, store, dir } = stage;
    core.stop().await;
    let config = arsrv::Config::default();
    let stage = Stage {
        core: super::Core::start(dir.path().to_owned(), config, HashMap::new()).await,
        store,
        dir,
    };
    stage.control().wait_for(1).await.unwrap();
    assert_eq!(
        stage.control().messages("a", &MessageQuery::default()).await.unwrap().messages.len(),
        6
    );
    // A channel without `audit` keeps nothing, not what it had either.
    for (name, sentence) in [
        ("c", "channel `c` keeps nothing of requests and answers; give it an `audit`"),
        ("none", "there is no channel `none`"),
    ] {
        let err = stage.control().messages(name, &MessageQuery::default()).await.unwrap_err();
        assert!(err.to_string().contains(sentence), "{err}");
    }
    stage.put(Kind::Channel, "a", json!({"url_path": "/a", "service": "echo"})).await;
    stage.put(Kind::Channel, "a", channel(json!({}))).await;
    assert_eq!(
        stage.control().messages("a", &MessageQuery::default()).await.unwrap(),
        MessagePage::default()
    );
    assert_eq!(
        stage.control().messages("b", &MessageQuery::default()).await.unwrap().messages.len(),
        1
    );
}

#[tokio::test]
async fn all_messages_together_take_no_more_room_than_they_may() {
    let mut setting = Setting::new().service("echo", echo).channel(
        "a",
        "/a",
        "echo",
        json!({"audit": {"max_len_messages": 10_000, "max_bytes_per_message": 100_000}}),
    );
    setting.config.messages_mib = 1;
    let stage = setting.start().await;
    for number in 0..20 {
        let body = format!("{number:03}{}", "x".repeat(90_000));
        assert_eq!(stage.post("/a", body).await.status, 200);
    }
    let page = stage.control().messages("a", &MessageQuery::default()).await.unwrap();
    assert!((4..12).contains(&page.messages.len()), "{}", page.messages.len());
    assert!(page.messages[0].body.as_ref().unwrap().starts_with("019"));
}
