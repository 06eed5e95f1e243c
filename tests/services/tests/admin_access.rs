//! Who may call what: every call of the admin API, without credentials and with a role that lacks the permission;
//! and the document that describes them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests end the test")]

use std::path::Path;
use std::process::Command;

use artest::Node;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The validator of OpenAPI documents.
const VALIDATOR: &str = "openapi-spec-validator==0.9.0";
const PASSWORD: &str = "twelve and more";

#[tokio::test]
async fn every_call_is_refused_to_strangers_and_to_who_lacks_the_permission() {
    let node = Node::start().await;
    let document = node.api(Method::GET, "/openapi.json", None).await;
    node.put("Role", "idle", json!({"permissions": []})).await;
    let idle = user_with_role(&node, "ida", "idle").await;
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let access = operation["x-access"].as_str().unwrap();
            let method: Method = method.to_uppercase().parse().unwrap();
            let call = format!("{method} {path}");
            if access == "public" {
                continue;
            }
            let (status, answer) = call_as(&node, None, &method, path).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{call}: {answer}");
            assert_eq!(answer["code"], "unauthorized", "{call}: {answer}");
            let (status, answer) = call_as(&node, Some("arint_x"), &method, path).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{call}: {answer}");
            if access != "logged in" {
                let (status, answer) = call_as(&node, Some(&idle), &method, path).await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{call}: {answer}");
                assert_eq!(answer["code"], "forbidden", "{call}: {answer}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 25, "only {checked} calls were checked");
    let (_, answer) = call_as(&node, None, &Method::GET, "/v1/status").await;
    assert_eq!(
        answer["message"],
        "nobody is logged in here; send `Authorization: Bearer <token>` (`arctl login` gets one)"
    );
    let (_, answer) = call_as(&node, Some(&idle), &Method::GET, "/v1/status").await;
    assert_eq!(
        answer["message"],
        "`user:ida` may not do this: permission `read` is needed; ask an admin for a role that has it"
    );
    // Every one of those attempts is written down.
    let page =
        node.api(Method::GET, "/v1/audit?who=user%3Aida&outcome=refused&most=1000", None).await;
    let refused: Vec<&str> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    for action in ["object_put", "deploy", "audit_list", "ide_deploy", "password_set"] {
        assert!(refused.contains(&action), "{action} is not in {refused:?}");
    }
}

#[tokio::test]
async fn the_document_of_the_api_is_valid_openapi() {
    let node = Node::start().await;
    let document = node.api(Method::GET, "/openapi.json", None).await;
    assert_eq!(document["openapi"], "3.1.0");
    let dir = artest::temp_dir();
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let validator = validator();
    let output = Command::new(validator).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
}

#[tokio::test]
async fn an_unclaimed_box_answers_nothing_but_the_claim() {
    let node = Node::builder().unclaimed().start().await;
    let refused =
        "this box is not claimed yet; claim it with `arctl claim` and the code that the box shows";
    for (method, path) in [
        (Method::GET, "/v1/status"),
        (Method::GET, "/openapi.json"),
        (Method::POST, "/v1/login"),
        (Method::POST, "/v1/deployments"),
    ] {
        let (status, answer) = call_as(&node, None, &method, path).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(answer["message"], refused, "{path}");
    }
    let info = node.api(Method::GET, "/v1/claim", None).await;
    assert_eq!(info["claimed"], false);
    let claim = |code: &str, password: &str| {
        let body = json!({"code": code, "user": "anna", "password": password});
        node.try_api(Method::POST, "/v1/claim", Some(body))
    };
    let code = node.code.clone().unwrap();
    for _ in 0..4 {
        let (status, answer) = claim("AAAA-AAAA", PASSWORD).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    }
    let (status, answer) = claim(&code.to_lowercase().replace('-', ""), "short").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(answer["message"], "the password has 5 characters, at least 12 are needed");
    // A right code clears the count; five wrong ones then make the next wait, even with the right code.
    for _ in 0..5 {
        assert_eq!(claim("AAAA-AAAA", PASSWORD).await.0, StatusCode::FORBIDDEN);
    }
    let (status, answer) = claim(&code, PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    assert_eq!(answer["message"], "too many wrong attempts; wait 1 s and try again");
    let token =
        artest::wait_for("the wait to end", std::time::Duration::from_secs(10), async || {
            let (status, answer) = claim(&code, PASSWORD).await;
            if status.is_success() {
                Ok(answer["token"].as_str().unwrap().to_owned())
            } else {
                Err(answer)
            }
        })
        .await;
    let (status, me) = call_as(&node, Some(&token), &Method::GET, "/v1/whoami").await;
    assert_eq!((status, &me["user"]), (StatusCode::OK, &json!("anna")));
    assert!(!node.runtime_dir.join("first-run-code").try_exists().unwrap());
    let (status, answer) = claim(&code, PASSWORD).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["message"], "this box is claimed already; log in with `arctl login`");
}

#[tokio::test]
async fn malformed_and_oversize_requests_get_one_clear_sentence() {
    let node = Node::start().await;
    let send = async |method: Method, path: &str, body: Vec<u8>| {
        let request = node.http().request(method, format!("{}{path}", node.admin));
        let answer = request.bearer_auth(&node.token).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let cid = answer.headers()["x-zato-cid"].to_str().unwrap().to_owned();
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["request_id"], cid);
        (status, document["message"].as_str().unwrap().to_owned())
    };
    let check = async |method: Method, path: &str, body: &str, status: u16, message: &str| {
        let (found, told) = send(method, path, body.as_bytes().to_vec()).await;
        assert_eq!((found, told.as_str()), (status, message), "{path}");
    };
    let transactions = "/v1/transactions";
    check(
        Method::POST,
        transactions,
        "{",
        400,
        "request body: EOF while parsing an object at line 1 column 1",
    )
    .await;
    check(Method::POST, transactions, r#"{"changes": [{"do": "put", "kind": "Chanel"}]}"#, 400,
        "request body: field `changes[0]`: unknown variant `Chanel`, expected one of `Node`, `Role`, `User`, `Token`, `QuotaTier`, `Security`, `SecurityGroup`, `Grant`, `Module`, `Service`, `Channel`, `Outgoing`, `UserConfig`, `System`, `Network` at line 1 column 45").await;
    check(
        Method::PUT,
        "/v1/objects/Channel/x",
        r#"{"spec": {"url_path": "x", "service": "y"}}"#,
        400,
        "Channel `x`: field `url_path`: `x` does not start with `/`",
    )
    .await;
    check(Method::PUT, "/v1/objects/Chanel/x", r#"{"spec": {}}"#, 404,
        "kind `Chanel` is unknown; known kinds are Node, Role, User, Token, QuotaTier, Security, SecurityGroup, Grant, Module, Service, Channel, Outgoing, UserConfig, System, Network").await;
    check(
        Method::GET,
        "/v1/nothing",
        "",
        404,
        "there is no such path; the API is described in `/openapi.json`",
    )
    .await;
    check(Method::GET, "/v1/login", "", 405, "this path does not take this method").await;
    check(Method::GET, "/v1/audit?whom=x", "", 400,
        "query: unknown field `whom`, expected one of `who`, `action`, `target`, `outcome`, `cid`, `since_ms`, `until_ms`, `before`, `most`").await;
    let (status, message) = send(Method::POST, "/v1/login", vec![b' '; 70_000]).await;
    assert_eq!(
        (status, message.as_str()),
        (413, "the request body is larger than the 65536 bytes allowed here")
    );
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down_and_written_down() {
    let node = Node::start().await;
    let login = async |user: &str, password: &str| {
        let body = json!({"user": user, "password": password});
        let url = format!("{}/v1/login", node.admin);
        let answer = node.http().post(url).json(&body).send().await.unwrap();
        let wait = answer.headers().get("retry-after").is_some();
        let status = answer.status();
        (status, wait, answer.json::<Value>().await.unwrap())
    };
    for _ in 0..5 {
        let (status, _, answer) = login("admin", "wrong password").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer["message"], "user or password is wrong");
    }
    let (status, wait, answer) = login("admin", artest::node::ADMIN_PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
    assert!(wait, "there is no Retry-After");
    // Another name from the same address is not locked yet, and gets the same answer as a known one.
    let (status, _, answer) = login("nobody", "wrong password").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer["message"], "user or password is wrong");
    let page = node.api(Method::GET, "/v1/audit?action=login&outcome=refused", None).await;
    let targets: Vec<&str> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["target"].as_str().unwrap())
        .collect();
    assert_eq!(targets.iter().filter(|target| **target == "User/admin").count(), 6);
    assert!(targets.contains(&"User/nobody"));
    assert!(!page.to_string().contains("wrong password"));
}

#[tokio::test]
async fn users_get_no_further_than_their_roles_and_tokens_end() {
    let mut node = Node::start().await;
    node.put("Role", "doorkeeper", json!({"permissions": ["read", "access"]})).await;
    let dora = user_with_role(&node, "dora", "doorkeeper").await;
    let admin = std::mem::replace(&mut node.token, dora);
    let put = |kind: &str, name: &str, spec: Value| {
        let change = json!({"do": "put", "kind": kind, "name": name, "spec": spec});
        node.try_api(Method::POST, "/v1/transactions", Some(json!({"changes": [change]})))
    };
    let (status, answer) = put("User", "dora", json!({"roles": ["admin"]})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    let (status, answer) =
        put("Role", "doorkeeper", json!({"permissions": ["read", "access", "audit"]})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    let (status, answer) = put("Security", "x", json!({"type": "api_key"})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    assert_eq!(
        answer["message"],
        "Security `x`: to change a Security the permission `configure` is needed"
    );
    let body = json!({"password": PASSWORD});
    let (status, answer) = node.try_api(Method::POST, "/v1/users/admin/password", Some(body)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "user `admin` may do more than you; only someone who may as much sets his password"
    );
    // Her own password: the old one is needed, and her other tokens end.
    let other = log_in(&node, "dora", PASSWORD).await;
    let change = |old: &str| json!({"old": old, "password": "another twelve"});
    let (status, answer) =
        node.try_api(Method::POST, "/v1/password", Some(change("wrong password"))).await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::FORBIDDEN, &json!("the present password is wrong"))
    );
    node.api(Method::POST, "/v1/password", Some(change(PASSWORD))).await;
    assert_eq!(
        call_as(&node, Some(&other), &Method::GET, "/v1/whoami").await.0,
        StatusCode::UNAUTHORIZED
    );
    node.api(Method::GET, "/v1/whoami", None).await;
    let listed = node.api(Method::GET, "/v1/objects/User", None).await;
    assert!(!listed.to_string().contains("argon2id"), "{listed}");

    let dora = std::mem::replace(&mut node.token, admin);
    let (status, answer) = node.try_api(Method::DELETE, "/v1/objects/User/admin", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "nobody who may do everything would remain: at least one active user needs all permissions \
         (role `admin`); give them to another user first"
    );
    // A disabled user's tokens open nothing; a removed user's are gone.
    node.put("User", "dora", json!({"roles": ["doorkeeper"], "is_active": false})).await;
    assert_eq!(
        call_as(&node, Some(&dora), &Method::GET, "/v1/whoami").await.0,
        StatusCode::UNAUTHORIZED
    );
    node.api(Method::DELETE, "/v1/objects/User/dora", None).await;
    let tokens = node.api(Method::GET, "/v1/tokens", None).await;
    assert!(!tokens.to_string().contains("dora"), "{tokens}");
    // A token of one's own, and its end.
    let made = node
        .api(Method::POST, "/v1/tokens", Some(json!({"description": "ci", "ttl_s": 3600})))
        .await;
    let token = made["token"].as_str().unwrap().to_owned();
    assert_eq!(call_as(&node, Some(&token), &Method::GET, "/v1/whoami").await.0, StatusCode::OK);
    node.api(Method::DELETE, &format!("/v1/tokens/{}", made["name"].as_str().unwrap()), None).await;
    assert_eq!(
        call_as(&node, Some(&token), &Method::GET, "/v1/whoami").await.0,
        StatusCode::UNAUTHORIZED
    );
    node.api(Method::POST, "/v1/logout", None).await;
    assert_eq!(node.try_api(Method::GET, "/v1/whoami", None).await.0, StatusCode::UNAUTHORIZED);
}

async fn call_as(
    node: &Node,
    token: Option<&str>,
    method: &Method,
    path: &str,
) -> (StatusCode, Value) {
    let path = path.replace("{kind}", "Channel").replace("{name}", "x").replace("{module}", "x");
    let mut request = node.http().request(method.clone(), format!("{}{path}", node.admin));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or_default())
}

async fn user_with_role(node: &Node, user: &str, role: &str) -> String {
    node.put("User", user, json!({"roles": [role]})).await;
    let body = json!({"password": PASSWORD});
    node.api(Method::POST, &format!("/v1/users/{user}/password"), Some(body)).await;
    log_in(node, user, PASSWORD).await
}

async fn log_in(node: &Node, user: &str, password: &str) -> String {
    let body = json!({"user": user, "password": password});
    let answer = node.api(Method::POST, "/v1/login", Some(body)).await;
    answer["token"].as_str().unwrap().to_owned()
}

/// The validator, in an environment of its own that later runs find again.
fn validator() -> std::path::PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi-validator-0.9.0");
    let program = venv.join("bin/openapi-spec-validator");
    if !program.is_file() {
        let made = Command::new(artest::tool("python3", "python3"))
            .args(["-m", "venv", "--clear"])
            .arg(&venv)
            .status()
            .unwrap();
        assert!(
            made.success(),
            "this test needs `python3 -m venv`: install the Debian package `python3-venv`"
        );
        let installed = Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", VALIDATOR])
            .status()
            .unwrap();
        assert!(installed.success(), "pip cannot install `{VALIDATOR}`");
    }
    program
}
