use base64::Engine as _;
use serde_json::json;

use super::*;

const SECRETS: &[(&str, &str)] =
    &[("anna", "pw-a"), ("bert", "pw-b"), ("key", "k-1"), ("bear", "t")];

fn world() -> World {
    let basic = |user: &str, is_active: bool| json!({"type": "basic", "username": user, "password": {"secret": user}, "is_active": is_active});
    World::of(
        5,
        &[
            (Kind::Security, "anna", basic("anna", true)),
            (Kind::Security, "bert", basic("bert", true)),
            (Kind::Security, "sleeper", basic("anna", false)),
            (Kind::Security, "lost", basic("lost", true)),
            (Kind::Security, "key", json!({"type": "api_key", "key": {"secret": "key"}})),
            (Kind::Security, "bear", json!({"type": "bearer", "token": {"secret": "bear"}})),
            (
                Kind::Security,
                "out",
                json!({"type": "ntlm", "username": "x", "password": {"secret": "key"}}),
            ),
            (Kind::SecurityGroup, "both", json!({"members": ["anna", "key"]})),
        ],
    )
}

fn gate(security: &[&str], groups: &[&str]) -> Gate {
    let spec =
        json!({"url_path": "/x", "service": "s", "security": security, "security_groups": groups});
    let Ok(Spec::Channel(spec)) = Spec::parse(Kind::Channel, "c", spec) else { panic!() };
    let secret = |name: &str| {
        let (_, value) = SECRETS.iter().find(|(known, _)| *known == name)?;
        Some(SecretText((*value).to_owned()))
    };
    let (world, limits, shared) = (world(), Limits::default(), Shared::default());
    Gate::of(&spec, &world, &Keys::plan(&world, &limits, secret, &shared, UNIX_EPOCH))
}

fn basic(user: &str, password: &str) -> (&'static str, String) {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    ("authorization", format!("Basic {pair}"))
}

fn key(value: &str) -> (&'static str, String) {
    ("x-api-key", value.to_owned())
}

#[track_caller]
fn check(gate: &Gate, sent: &[(&'static str, String)], expected: Result<Option<&str>, Refusal>) {
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let found = gate.check(&Presented::of_headers(&headers, None, UNIX_EPOCH));
    let found = found.map(|passed| passed.map(|passed| passed.name.to_string()));
    assert_eq!(found, expected.map(|name| name.map(ToOwned::to_owned)), "{sent:?}");
}

#[test]
fn a_channel_without_securities_is_open_to_all() {
    let gate = gate(&[], &[]);
    check(&gate, &[], Ok(None));
    check(&gate, &[basic("anyone", "x")], Ok(None));
}

#[test]
fn any_one_of_the_securities_suffices() {
    let gate = gate(&["anna", "bert", "key"], &[]);
    check(&gate, &[basic("anna", "pw-a")], Ok(Some("anna")));
    check(&gate, &[basic("bert", "pw-b")], Ok(Some("bert")));
    check(&gate, &[key("k-1")], Ok(Some("key")));
    check(&gate, &[basic("anna", "pw-b"), key("k-1")], Ok(Some("key")));
}

#[test]
fn missing_and_wrong_credentials_are_unauthorized() {
    let gate = gate(&["anna", "key"], &[]);
    for sent in [
        vec![],
        vec![basic("anna", "pw-b")],
        vec![basic("anna", "")],
        vec![basic("nobody", "pw-a")],
        vec![key("k-2")],
        vec![key("")],
        vec![("authorization", "Bearer pw-a".to_owned())],
        vec![("authorization", "Basic ???".to_owned())],
    ] {
        check(&gate, &sent, Err(Refusal::Unauthorized));
    }
}

#[test]
fn a_group_opens_for_each_member_and_takes_one_kind_of_credentials() {
    let gate = gate(&[], &["both"]);
    check(&gate, &[basic("anna", "pw-a")], Ok(Some("anna")));
    check(&gate, &[key("k-1")], Ok(Some("key")));
    check(&gate, &[basic("anna", "pw-a"), key("k-1")], Err(Refusal::Both));
    check(&gate, &[basic("anna", "wrong")], Err(Refusal::Forbidden));
    check(&gate, &[key("wrong")], Err(Refusal::Forbidden));
    check(&gate, &[], Err(Refusal::Unauthorized));
}

#[test]
fn an_inactive_security_opens_nothing() {
    let gate = gate(&["sleeper"], &[]);
    check(&gate, &[basic("anna", "pw-a")], Err(Refusal::Unauthorized));
    assert!(gate.is_shut());
    assert_eq!(gate.faults(), ["security `sleeper` is inactive"]);
}

#[test]
fn a_fixed_bearer_token_opens() {
    let gate = gate(&["bear"], &[]);
    check(&gate, &[("authorization", "Bearer t".to_owned())], Ok(Some("bear")));
    check(&gate, &[("authorization", "bearer  t".to_owned())], Ok(Some("bear")));
    check(&gate, &[("authorization", "Bearer u".to_owned())], Err(Refusal::Unauthorized));
    assert_eq!(gate.challenges(), ["Bearer realm=\"bear\""]);
}

#[test]
fn what_only_connections_present_opens_nothing() {
    let gate = gate(&["out"], &[]);
    assert!(gate.is_shut());
    assert_eq!(
        gate.faults(),
        ["security `out` is of type `ntlm`, which only outgoing connections use"]
    );
}

#[test]
fn an_unknown_secret_opens_nothing_and_says_so_to_who_might_have_it() {
    let gate = gate(&["anna", "lost"], &[]);
    check(&gate, &[basic("lost", "x")], Err(Refusal::Unknown(ObjectName::parse("lost").unwrap())));
    check(&gate, &[basic("anna", "pw-a")], Ok(Some("anna")));
    check(&gate, &[basic("anna", "x")], Err(Refusal::Unauthorized));
    check(&gate, &[], Err(Refusal::Unauthorized));
    assert_eq!(gate.faults(), ["the secret of security `lost` is not known"]);
}

#[test]
fn a_security_that_is_gone_shuts_the_gate() {
    let gate = gate(&["gone"], &["gone"]);
    assert!(gate.is_shut());
    assert_eq!(
        gate.faults(),
        ["security `gone` does not exist", "security group `gone` does not exist"]
    );
    check(&gate, &[], Err(Refusal::Unauthorized));
}

#[test]
fn the_challenges_say_what_is_asked_for_once_each() {
    assert_eq!(
        gate(&["anna", "bert", "key"], &[]).challenges(),
        ["Basic realm=\"ARINT\", charset=\"UTF-8\"", "ApiKey header=\"X-API-Key\""]
    );
}

#[test]
fn a_service_sees_which_security_let_the_request_in() {
    let gate = gate(&["anna"], &[]);
    let mut headers = HeaderMap::new();
    let (name, value) = basic("anna", "pw-a");
    headers.insert(name, HeaderValue::from_str(&value).unwrap());
    let presented = Presented::of_headers(&headers, None, UNIX_EPOCH);
    let document = gate.check(&presented).unwrap().unwrap().document;
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["name"], "anna");
    assert_eq!(document["type"], "basic_auth");
    assert_eq!(document["username"], "anna");
    assert!(document["id"].as_u64().is_some_and(|id| id > 0));
}
