//! `/v1/system/…`: what is passed on, what is written down, what streams; log-ins of browsers; the recovery system.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::stand_in::StandIn;

const NO_UNIT: &str = "this installation has no operating system unit: updates, network and power exist on an image only";

#[tokio::test]
async fn without_an_operating_system_unit_every_call_says_so_and_the_box_is_well() {
    let node = Node::start().await;
    for (method, path) in [
        (Method::GET, "/v1/system/status"),
        (Method::GET, "/v1/system/journal"),
        (Method::POST, "/v1/system/power"),
        (Method::PUT, "/v1/system/update/bundle"),
    ] {
        let (status, answer) = node.try_api(method, path, None).await;
        assert_eq!(
            (status, &answer["message"]),
            (StatusCode::NOT_FOUND, &json!(NO_UNIT)),
            "{path}"
        );
    }
    let status = node.api(Method::GET, "/v1/status", None).await;
    assert!(status.get("aros").is_none(), "{status}");
    assert!(!status["problems"].to_string().contains("aros"), "{status}");
}

#[tokio::test]
async fn on_an_image_a_unit_that_is_not_up_is_not_said_to_be_missing() {
    let node = Node::builder().config("[arwadm]\noperating_system = true\n").start().await;
    let (status, answer) = node.try_api(Method::GET, "/v1/system/status", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    let sentence = answer["message"].as_str().unwrap();
    assert!(sentence.starts_with("cannot reach `aros` at "), "{sentence}");
    let whole = node.api(Method::GET, "/v1/status", None).await;
    assert!(whole["problems"].to_string().contains("cannot reach `aros`"), "{whole}");
    StandIn::start(&node.runtime_dir);
    let status = node.api(Method::GET, "/v1/system/status", None).await;
    assert_eq!(status["hostname"], "arsrv-k7qf2mxd");
}

#[tokio::test]
async fn calls_are_passed_on_with_who_asks_and_changes_are_written_down() {
    let node = Node::start().await;
    let aros = StandIn::start(&node.runtime_dir);
    let status = node.api(Method::GET, "/v1/system/status", None).await;
    assert_eq!(status["hostname"], "arsrv-k7qf2mxd");
    let lines = node.api(Method::GET, "/v1/system/journal?boot=-1&unit=a.service", None).await;
    assert_eq!((&lines["unit"], &lines["message"]), (&json!("a.service"), &json!("of boot -1")));
    let reboot = json!({"action": "reboot"});
    node.api(Method::POST, "/v1/system/power", Some(reboot.clone())).await;
    node.api(Method::POST, "/v1/system/network/confirm", Some(json!({}))).await;
    let opened = node.api(Method::POST, "/v1/system/support", Some(json!({"minutes": 5}))).await;
    assert_eq!(opened["password"], "seven small words");
    node.api(Method::DELETE, "/v1/system/support", None).await;
    let (refused, answer) = node
        .try_api(Method::POST, "/v1/system/factory-reset", Some(json!({"hostname": "other"})))
        .await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer["message"],
        "the host name is `arsrv-k7qf2mxd`, not `other`; nothing was reset"
    );
    assert!(aros.was_asked("POST /v1/power user:admin"), "{:?}", aros.with(|w| w.asked.clone()));
    let page = node.api(Method::GET, "/v1/audit?target=system%2F", None).await;
    let entries = page["entries"].as_array().unwrap();
    let find = |action: &str, outcome: &str| {
        let fits = |entry: &&Value| entry["action"] == action && entry["outcome"] == outcome;
        entries.iter().find(fits).unwrap_or_else(|| panic!("no {outcome} {action}: {page}"))
    };
    assert_eq!(find("power", "done")["after"], reboot);
    assert_eq!(find("network_confirm", "done")["who"], "user:admin");
    assert_eq!(find("support_open", "done")["target"], "system/support");
    find("factory_reset", "refused");
    assert!(!page.to_string().contains("seven small words"), "{page}");
    // What is wrong with the system is wrong with the box.
    aros.with(|world| world.status.boot.fell_back = Some("1.5.0 was undone".to_owned()));
    let status = node.api(Method::GET, "/v1/status", None).await;
    assert_eq!(status["aros"]["boot"]["slot"], "a");
    assert!(status["problems"].to_string().contains("1.5.0 was undone"), "{status}");
}

#[tokio::test]
async fn an_upload_of_hundreds_of_megabytes_needs_no_memory() {
    let node = Node::start().await;
    let aros = StandIn::start(&node.runtime_dir);
    let before = memory_of_arwadm(&node);
    let size: u64 = 400 * 1024 * 1024;
    let chunk = bytes::Bytes::from(vec![3u8; 1024 * 1024]);
    let chunks = (0..400).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = node.http().put(format!("{}/v1/system/update/bundle", node.admin));
    let answer = request.bearer_auth(&node.token).body(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let info: Value = answer.json().await.unwrap();
    assert_eq!(info["bytes"], size);
    assert_eq!(aros.with(|world| world.uploaded), size);
    let after = memory_of_arwadm(&node);
    assert!(after < before + 16 * 1024, "arwadm took {before} KiB before and {after} KiB at most");
    let page = node.api(Method::GET, "/v1/audit?action=update_upload", None).await;
    assert_eq!(page["entries"][0]["after"]["version"], "1.5.0", "{page}");
    // More than there may be is refused before it is sent.
    let head = format!(
        "PUT /v1/system/update/bundle HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 3000000000\r\n\r\n",
        node.token
    );
    let mut stream =
        std::net::TcpStream::connect(node.admin.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_bundle_goes_to_neighbours_in_ranges_without_a_log_in() {
    let node = Node::start().await;
    let _aros = StandIn::start(&node.runtime_dir);
    let get = async |range: Option<&str>| {
        let mut request = node.http().get(format!("{}/v1/system/update/bundle", node.admin));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let range = answer.headers().get("content-range").map(|v| v.to_str().unwrap().to_owned());
        (status, range, answer.text().await.unwrap())
    };
    assert_eq!(get(None).await, (200, None, "abcdefghijklmnopqrst".to_owned()));
    let part = get(Some("bytes=3-5")).await;
    assert_eq!(part, (206, Some("bytes 3-5/20".to_owned()), "def".to_owned()));
    assert_eq!(get(Some("bytes=3-50")).await.0, 416);
}

#[tokio::test]
async fn a_browser_logs_in_with_a_cookie_and_changes_need_its_second_secret() {
    let node = Node::start().await;
    let aros = StandIn::start(&node.runtime_dir);
    let url = |path: &str| format!("{}{path}", node.admin);
    let nobody: Value =
        node.http().get(url("/v1/session")).send().await.unwrap().json().await.unwrap();
    assert_eq!(nobody, Value::Null);
    let body = json!({"user": "admin", "password": artest::node::ADMIN_PASSWORD});
    let login = node.http().post(url("/v1/session")).json(&body);
    let refused = login.try_clone().unwrap().header("sec-fetch-site", "cross-site").send().await;
    assert_eq!(refused.unwrap().status(), StatusCode::FORBIDDEN);
    let answer = login.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict;"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let session: Value = answer.json().await.unwrap();
    assert!(session["permissions"].to_string().contains("\"system\""), "{session}");
    assert!(!session.to_string().contains("arint_"), "the token is not for scripts: {session}");
    let reading = node.http().get(url("/v1/status")).header("cookie", &pair).send().await.unwrap();
    assert_eq!(reading.status(), StatusCode::OK);
    let change =
        || node.http().post(url("/v1/system/identify")).header("cookie", &pair).json(&json!({}));
    let refused = change().send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        refused.json::<Value>().await.unwrap()["message"],
        "`X-ARINT-CSRF` is missing or wrong: a change with a browser's log-in needs the value of `GET /v1/session`"
    );
    assert!(!aros.was_asked("POST /v1/identify user:admin"));
    let csrf = session["csrf"].as_str().unwrap();
    let done = change().header("x-arint-csrf", csrf).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    assert!(aros.was_asked("POST /v1/identify user:admin"));
    let out = node.http().delete(url("/v1/session")).header("cookie", &pair);
    let out = out.header("x-arint-csrf", csrf).send().await.unwrap();
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let after = node.http().get(url("/v1/status")).header("cookie", &pair).send().await.unwrap();
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn in_recovery_the_code_on_the_screen_opens_the_operating_system_and_nothing_else() {
    let node = Node::builder().unclaimed().start().await;
    let aros = StandIn::start_in(&node.runtime_dir, "recovery");
    let why = "both slots failed: probe `channel` failed";
    aros.with(|world| world.status.boot.fell_back = Some(why.to_owned()));
    let info = artest::wait_for("the recovery system", Duration::from_secs(20), async || {
        let info = node.api(Method::GET, "/v1/claim", None).await;
        if info["recovery"].is_string() { Ok(info) } else { Err(info) }
    })
    .await;
    assert_eq!((&info["recovery"], &info["claimed"]), (&json!(why), &json!(true)));
    let code = std::fs::read_to_string(node.runtime_dir.join("first-run-code")).unwrap();
    let claim = json!({"code": code.trim(), "user": "eve", "password": "twelve and more"});
    let (status, answer) = node.try_api(Method::POST, "/v1/claim", Some(claim)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    let login = async |user: &str, password: &str| {
        let body = json!({"user": user, "password": password});
        node.try_api(Method::POST, "/v1/login", Some(body)).await
    };
    let (status, answer) = login("recovery", "AAAA-AAAA").await;
    assert_eq!(
        (status, &answer["message"]),
        (
            StatusCode::UNAUTHORIZED,
            &json!(
                "this is the recovery system: log in as `recovery` with the code that the box shows on its screen and serial console"
            )
        )
    );
    let (status, answer) = login("recovery", code.trim()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let token = answer["token"].as_str().unwrap().to_owned();
    let call = async |method: Method, path: &str, body: Value| {
        let request = node.http().request(method, format!("{}{path}", node.admin));
        let answer = request.bearer_auth(&token).json(&body).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = call(Method::GET, "/v1/status", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["problems"][0], format!("this is the recovery system: {why}"));
    let reset = json!({"hostname": "arsrv-k7qf2mxd"});
    let (status, answer) = call(Method::POST, "/v1/system/factory-reset", reset).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(aros.was_asked("POST /v1/factory-reset user:recovery"));
    let (status, answer) = call(Method::GET, "/v1/objects", Value::Null).await;
    assert_eq!(
        (status, &answer["message"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &json!(
                "this is the recovery system: it installs a bundle, resets the box and shows why it runs, and nothing else"
            )
        )
    );
    call(Method::POST, "/v1/logout", Value::Null).await;
    assert_eq!(call(Method::GET, "/v1/status", Value::Null).await.0, StatusCode::UNAUTHORIZED);
}

/// The most memory that the admin API has had so far, KiB.
fn memory_of_arwadm(node: &Node) -> u64 {
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.pid())).unwrap();
    let is_arwadm = |pid: &&str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"arwadm")
    };
    let pid = children.split_whitespace().find(is_arwadm).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
