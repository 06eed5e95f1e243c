//! Who may come in, through a whole node: tokens of our own, tokens of an issuer signed by PyJWT, groups, grants, and what
//! becomes of those who guess.

#![expect(clippy::unwrap_used, reason = "helpers of tests end the test")]

mod peer;

use std::time::{SystemTime, UNIX_EPOCH};

use artest::Node;
use peer::Peer;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const SERVICE: &str = "\
from zato.server.service import Service

class Who(Service):
    name = 'gates.who'
    def handle(self):
        security = self.channel.security
        self.response.payload = {'name': security.name, 'type': security.type, 'username': security.username}

class Other(Service):
    name = 'gates.other'
    def handle(self):
        self.response.payload = {'other': True}
";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn channel(path: &str, security: &[&str]) -> Value {
    json!({"url_path": path, "service": "gates.who", "data_format": "json", "security": security})
}

async fn with_token(node: &Node, path: &str, token: &str) -> Response {
    node.http().get(format!("{}{path}", node.channels)).bearer_auth(token).send().await.unwrap()
}

async fn status(node: &Node, path: &str, token: &str) -> u16 {
    with_token(node, path, token).await.status().as_u16()
}

async fn log_in(node: &Node, password: &str) -> Response {
    let url = format!("{}/zato/jwt/log-in", node.channels);
    let body = json!({"username": "anna", "password": password});
    node.http().post(url).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn a_token_of_our_own_is_logged_in_used_refreshed_and_logged_out_for_good() {
    let dir = artest::temp_dir();
    let node = Node::builder().data_dir(dir.path()).start().await;
    node.deploy("gates.py", SERVICE).await;
    let spec =
        json!({"type": "jwt", "username": "anna", "password": {"value": "s3cret"}, "ttl_s": 600});
    node.put("Security", "people", spec.clone()).await;
    node.put("Channel", "who", channel("/who", &["people"])).await;
    node.settled().await;

    let refused = log_in(&node, "wrong").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let made = log_in(&node, "s3cret").await;
    assert_eq!(made.status(), StatusCode::OK);
    let header = made.headers()["authorization"].to_str().unwrap().to_owned();
    let document: Value = made.json().await.unwrap();
    let token = document["response"]["token"].as_str().unwrap().to_owned();
    assert_eq!(header, token);

    let answer = with_token(&node, "/who", &token).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let who: Value = answer.json().await.unwrap();
    assert_eq!(who, json!({"name": "people", "type": "jwt", "username": "anna"}));
    assert_eq!(status(&node, "/who", &format!("{token}x")).await, 401);
    assert_eq!(status(&node, "/who", "a.b.c").await, 401);

    let url = format!("{}/zato/jwt/refresh", node.channels);
    let refreshed = node.http().post(url).bearer_auth(&token).send().await.unwrap();
    let document: Value = refreshed.json().await.unwrap();
    let second = document["response"]["token"].as_str().unwrap().to_owned();
    assert_ne!(second, token);
    assert_eq!(status(&node, "/who", &second).await, 200);

    // A new key: tokens of the old one hold on until they end.
    let mut rotated = spec.clone();
    rotated["signing_key"] = json!({"generate": "uuid4"});
    node.put("Security", "people", rotated).await;
    node.settled().await;
    assert_eq!(status(&node, "/who", &token).await, 200);
    let third: Value = log_in(&node, "s3cret").await.json().await.unwrap();
    let third = third["response"]["token"].as_str().unwrap().to_owned();
    assert_eq!(status(&node, "/who", &third).await, 200);

    let log_out = async |node: &Node, token: &str| {
        let url = format!("{}/zato/jwt/log-out", node.channels);
        node.http().post(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(log_out(&node, &third).await, 200);
    assert_eq!(status(&node, "/who", &third).await, 401);
    assert_eq!(log_out(&node, &third).await, 400);
    assert_eq!(status(&node, "/who", &second).await, 200);
    let fourth: Value = log_in(&node, "s3cret").await.json().await.unwrap();
    let fourth = fourth["response"]["token"].as_str().unwrap().to_owned();

    // Nothing of it is in the log; a logged-out token stays out after a restart, and others hold.
    let log = node.log();
    for secret in [&token, &third, &"s3cret".to_owned()] {
        assert!(!log.contains(secret.as_str()));
    }
    drop(node);
    let node = Node::builder().data_dir(dir.path()).start().await;
    node.settled().await;
    assert_eq!(status(&node, "/who", &third).await, 401);
    assert_eq!(status(&node, "/who", &fourth).await, 200);
}

#[tokio::test]
async fn tokens_of_an_issuer_are_checked_with_its_keys_as_they_change() {
    let peer = Peer::start();
    let node = Node::start().await;
    node.deploy("gates.py", SERVICE).await;
    let issuer = |more: Value| {
        let mut spec = json!({"type": "jwt_issuer", "issuer": "https://login.example.com", "audience": ["orders"],
                              "algorithms": ["RS256", "ES256"], "username_claim": "email",
                              "claims": {"roles": "clerk"}, "leeway_s": 5});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    node.put("Security", "company", issuer(json!({"jwks_url": format!("{}/jwks", peer.url)})))
        .await;
    node.put("Channel", "who", channel("/who", &["company"])).await;
    node.settled().await;

    let claims = json!({"iss": "https://login.example.com", "aud": ["orders", "mail"], "sub": "4711",
                        "email": "anna@example.com", "roles": ["clerk", "x"], "exp": now() + 600});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let token = peer.sign("rsa-1", &claims).await;
    let answer = with_token(&node, "/who", &token).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", node.log());
    let who: Value = answer.json().await.unwrap();
    assert_eq!(who, json!({"name": "company", "type": "jwt", "username": "anna@example.com"}));

    for wrong in [
        with("iss", json!("https://evil.example.com")),
        with("aud", json!("mail")),
        with("roles", json!(["boss"])),
        with("exp", json!(now() - 60)),
        with("nbf", json!(now() + 60)),
    ] {
        let token = peer.sign("rsa-1", &wrong).await;
        assert_eq!(status(&node, "/who", &token).await, 401, "{wrong}");
    }
    let mut forever = claims.clone();
    forever.as_object_mut().unwrap().remove("exp");
    assert_eq!(status(&node, "/who", &peer.sign("rsa-1", &forever).await).await, 401);
    // The key of somebody else, under the right name.
    let other = Peer::start();
    assert_eq!(status(&node, "/who", &other.sign("rsa-1", &claims).await).await, 401);

    // Keys were read once; a token with a new one has them read again, tokens with unknown ones do not more than that.
    assert_eq!(peer.control(json!({})).await["jwks"], 1);
    peer.control(json!({"add_key": ["ec-2", "ES256"]})).await;
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let token = peer.sign("ec-2", &claims).await;
    assert_eq!(status(&node, "/who", &token).await, 200);
    other.control(json!({"add_key": ["unknown", "RS256"]})).await;
    let unknown = other.sign("unknown", &claims).await;
    for _ in 0..5 {
        assert_eq!(status(&node, "/who", &unknown).await, 401);
    }
    assert_eq!(peer.control(json!({})).await["jwks"], 2);

    // With the issuer away its keys stay in force.
    drop(peer);
    assert_eq!(status(&node, "/who", &token).await, 200);
}

#[tokio::test]
async fn grants_say_who_may_invoke_what_and_members_change_without_a_restart() {
    let node = Node::start().await;
    node.deploy("gates.py", SERVICE).await;
    for user in ["anna", "bert"] {
        let spec = json!({"type": "basic", "username": user, "password": {"value": "pw"}});
        node.put("Security", user, spec).await;
    }
    let key = json!({"type": "api_key", "key": {"value": "k-1"}});
    node.put("Security", "key", key).await;
    node.put("SecurityGroup", "staff", json!({"members": ["anna", "key"]})).await;
    let spec = |path: &str, service: &str| {
        json!({"url_path": path, "service": service, "data_format": "json",
               "security_groups": ["staff"], "use_rbac": true})
    };
    node.put("Channel", "who", spec("/who", "gates.who")).await;
    node.put("Channel", "other", spec("/other", "gates.other")).await;
    let grant = json!({"securities": ["anna"], "services": ["gates.w*"], "methods": ["GET"]});
    node.put("Grant", "anna-reads", grant).await;
    node.settled().await;

    let ask = async |method: Method, path: &str, user: &str| {
        let request = node.http().request(method, format!("{}{path}", node.channels));
        request.basic_auth(user, Some("pw")).send().await.unwrap()
    };
    assert_eq!(ask(Method::GET, "/who", "anna").await.status(), StatusCode::OK);
    let refused = ask(Method::POST, "/who", "anna").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let document: Value = refused.json().await.unwrap();
    assert_eq!(document["details"], "this caller may not invoke this service");
    assert_eq!(ask(Method::GET, "/other", "anna").await.status(), StatusCode::FORBIDDEN);
    // Not a member: as in 3.2, 403 where there are groups; both kinds at once: 400.
    assert_eq!(ask(Method::GET, "/who", "bert").await.status(), StatusCode::FORBIDDEN);
    let both = node.http().get(format!("{}/who", node.channels)).basic_auth("anna", Some("pw"));
    let both = both.header("X-API-Key", "k-1").send().await.unwrap();
    assert_eq!(both.status(), StatusCode::BAD_REQUEST);

    node.put("SecurityGroup", "staff", json!({"members": ["bert"]})).await;
    node.put("Grant", "staff", json!({"groups": ["staff"]})).await;
    node.settled().await;
    assert_eq!(ask(Method::GET, "/who", "anna").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::POST, "/other", "bert").await.status(), StatusCode::OK);

    // The same question, without credentials.
    let may = async |query: &str| node.api(Method::GET, &format!("/v1/access?{query}"), None).await;
    let answer = may("caller=bert&channel=other&method=POST").await;
    assert_eq!((&answer["allowed"], &answer["grant"]), (&json!(true), &json!("staff")));
    let answer = may("caller=anna&channel=other&method=GET").await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["reason"], "channel `other` does not ask for security `anna`");
    let answer = may("caller=anna&service=gates.other").await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(
        answer["reason"],
        "no channel that invokes service `gates.other` lets security `anna` do so"
    );
    let answer = may("caller=bert&service=gates.other").await;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["reason"], "by channel `other`, granted by `staff`");
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_who_knows_is_not() {
    let node = Node::start().await;
    node.deploy("gates.py", SERVICE).await;
    for user in ["anna", "bert"] {
        let spec = json!({"type": "basic", "username": user, "password": {"value": "pw"}});
        node.put("Security", user, spec).await;
    }
    node.put("Channel", "who", channel("/who", &["anna", "bert"])).await;
    node.settled().await;
    let ask = async |user: &str, password: &str| {
        let request = node.http().get(format!("{}/who", node.channels));
        request.basic_auth(user, Some(password)).send().await.unwrap()
    };
    assert_eq!(ask("anna", "pw").await.status(), StatusCode::OK);
    let mut statuses = Vec::new();
    for n in 0..14 {
        statuses.push(ask("anna", &format!("wrong{n}")).await.status().as_u16());
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert!(statuses.contains(&429), "{statuses:?}");
    // What has opened from here before opens still, and others are not concerned.
    assert_eq!(ask("anna", "pw").await.status(), StatusCode::OK);
    assert_eq!(ask("bert", "pw").await.status(), StatusCode::OK);
    let mut slowed = ask("anna", "again").await;
    for _ in 0..20 {
        if slowed.status() == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        slowed = ask("anna", "again").await;
    }
    assert_eq!(slowed.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(slowed.headers().contains_key("retry-after"));
}
