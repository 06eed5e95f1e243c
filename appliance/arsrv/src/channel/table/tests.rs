use serde_json::{Value, json};

use super::*;
use crate::channel::path::decode;

const DEFAULTS: Defaults = Defaults { timeout: Duration::from_secs(60), max_body_bytes: 100 };

fn world(channels: &[(&str, Value)]) -> World {
    let mut objects = vec![
        (Kind::Service, "s", json!({"module": "m", "class": "S"})),
        (Kind::Service, "off", json!({"module": "m", "class": "O", "is_active": false})),
        (Kind::Service, "slow", json!({"module": "m", "class": "L", "timeout_ms": 5000})),
    ];
    for (name, extra) in channels {
        let mut spec = json!({"url_path": "/", "service": "s"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        objects.push((Kind::Channel, *name, spec));
    }
    World::of(9, &objects)
}

fn table(channels: &[(&str, Value)]) -> Table {
    Table::plan(
        &world(channels),
        |_| None,
        &Table::default(),
        DEFAULTS,
        &Shared::default(),
        SystemTime::UNIX_EPOCH,
    )
}

#[track_caller]
fn check(
    table: &Table,
    method: HttpMethod,
    path: &str,
    accept: Option<&str>,
    expected: Option<&str>,
) {
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(http::header::ACCEPT, HeaderValue::from_str(accept).unwrap());
    }
    let found = table.find(&decode(path).unwrap(), method, &headers);
    let found = found.map(|found| found.channel.name.to_string());
    assert_eq!(found.as_deref(), expected, "{method:?} {path} {accept:?}");
}

#[test]
fn an_exact_path_comes_before_a_pattern_and_the_most_literal_pattern_first() {
    let table = table(&[
        ("a-any", json!({"url_path": "/{x}"})),
        ("b-photos", json!({"url_path": "/photos/{id}"})),
        ("c-big", json!({"url_path": "/photos/{id}/big"})),
        ("d-new", json!({"url_path": "/photos/new"})),
    ]);
    check(&table, HttpMethod::Get, "/photos/new", None, Some("d-new"));
    check(&table, HttpMethod::Get, "/photos/7", None, Some("b-photos"));
    check(&table, HttpMethod::Get, "/photos/7/big", None, Some("c-big"));
    check(&table, HttpMethod::Get, "/videos/7", None, Some("a-any"));
    check(&table, HttpMethod::Get, "/", None, None);
}

#[test]
fn the_method_is_part_of_the_match() {
    let table = table(&[
        ("any", json!({"url_path": "/a"})),
        ("get", json!({"url_path": "/a", "method": "GET"})),
        ("post", json!({"url_path": "/b", "method": "POST"})),
        ("pattern", json!({"url_path": "/{x}", "method": "PUT"})),
    ]);
    check(&table, HttpMethod::Get, "/a", None, Some("get"));
    check(&table, HttpMethod::Post, "/a", None, Some("any"));
    check(&table, HttpMethod::Get, "/b", None, None);
    // An exact path whose channels do not fit leaves the request to patterns.
    check(&table, HttpMethod::Put, "/b", None, Some("pattern"));
}

#[test]
fn the_client_gets_what_it_accepts() {
    let table = table(&[
        ("csv", json!({"url_path": "/a", "http_accept": "text/csv"})),
        ("json", json!({"url_path": "/a", "http_accept": "application/json"})),
        ("rest", json!({"url_path": "/b"})),
        ("xml", json!({"url_path": "/b", "http_accept": "*/*+xml"})),
        ("text", json!({"url_path": "/b", "http_accept": "text/*"})),
    ]);
    check(&table, HttpMethod::Get, "/a", Some("application/json"), Some("json"));
    check(
        &table,
        HttpMethod::Get,
        "/a",
        Some("text/csv;q=0.2, application/json;q=0.1"),
        Some("csv"),
    );
    check(&table, HttpMethod::Get, "/a", Some("text/html"), None);
    check(&table, HttpMethod::Get, "/a", Some("application/json;q=0"), None);
    check(&table, HttpMethod::Get, "/a", None, Some("csv"));
    check(&table, HttpMethod::Get, "/b", Some("text/html"), Some("text"));
    check(&table, HttpMethod::Get, "/b", Some("image/png"), Some("rest"));
}

#[test]
fn parameters_come_with_their_names() {
    let table = table(&[("a", json!({"url_path": "/u/{user}/f/{file}"}))]);
    let found = table.find(b"/u/anna/f/x/y", HttpMethod::Get, &HeaderMap::new()).unwrap();
    assert_eq!(found.params, [("user", "anna".to_owned()), ("file", "x/y".to_owned())]);
}

#[test]
fn an_inactive_channel_is_not_there() {
    let table = table(&[
        ("off", json!({"url_path": "/a", "is_active": false})),
        ("on", json!({"url_path": "/{x}"})),
    ]);
    check(&table, HttpMethod::Get, "/a", None, Some("on"));
}

#[track_caller]
fn state(table: &Table, name: &str) -> String {
    table.channel(&ObjectName::parse(name).unwrap()).unwrap().status().state
}

#[test]
fn each_channel_says_how_it_is() {
    let table = table(&[
        ("a", json!({"url_path": "/a"})),
        ("b", json!({"url_path": "/a"})),
        ("off", json!({"url_path": "/off", "is_active": false})),
        ("soon", json!({"url_path": "/soon", "service": "new"})),
        ("svc-off", json!({"url_path": "/svc-off", "service": "off"})),
        ("bad", json!({"url_path": "/%ff"})),
        ("shut", json!({"url_path": "/shut", "security": ["gone"]})),
    ]);
    assert_eq!(state(&table, "a"), "serving");
    assert_eq!(
        state(&table, "b"),
        "hidden by channel `a`, which has the same path, method and Accept"
    );
    assert_eq!(state(&table, "off"), "inactive");
    assert_eq!(state(&table, "soon"), "service not deployed");
    assert_eq!(state(&table, "svc-off"), "service inactive");
    assert_eq!(state(&table, "bad"), "path `/%ff` is not UTF-8 once it is decoded");
    assert_eq!(state(&table, "shut"), "nobody can pass: security `gone` does not exist");
    // None of which keeps the others from serving.
    check(&table, HttpMethod::Get, "/a", None, Some("a"));
}

#[test]
fn the_time_limit_is_the_channels_then_the_services_then_the_cores() {
    let table = table(&[
        ("own", json!({"url_path": "/1", "service": "slow", "timeout_ms": 7})),
        ("services", json!({"url_path": "/2", "service": "slow"})),
        ("cores", json!({"url_path": "/3"})),
    ]);
    let timeout = |name| table.channel(&ObjectName::parse(name).unwrap()).unwrap().timeout;
    assert_eq!(timeout("own"), Duration::from_millis(7));
    assert_eq!(timeout("services"), Duration::from_secs(5));
    assert_eq!(timeout("cores"), Duration::from_secs(60));
}

#[test]
fn counts_go_on_when_a_channel_is_changed() {
    let before = table(&[("a", json!({"url_path": "/a"}))]);
    let name = ObjectName::parse("a").unwrap();
    before.channel(&name).unwrap().counts.calls.fetch_add(3, Ordering::Relaxed);
    let world = world(&[("a", json!({"url_path": "/b"}))]);
    let after = Table::plan(
        &world,
        |_| None,
        &before,
        DEFAULTS,
        &Shared::default(),
        SystemTime::UNIX_EPOCH,
    );
    assert_eq!(after.channel(&name).unwrap().status().calls, 3);
}

#[test]
fn the_document_of_a_channel_is_json_whatever_its_name() {
    let table = table(&[("a \"quoted\" name", json!({"url_path": "/a", "data_format": "json"}))]);
    let channel = table.all().next().unwrap();
    let (before, behind) = &channel.document;
    let text = [b"{", before.as_ref(), b"null", behind.as_ref()].concat();
    let document: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        document,
        json!({
            "channel": {
                "id": stable_id(Kind::Channel, &channel.name),
                "name": "a \"quoted\" name",
                "type": "http-soap",
                "data_format": "json",
                "is_internal": false,
                "match_target": ":::.*:::*/*:::/a",
                "security": null,
            },
            "url_params_pri": "qs-over-path",
            "params_pri": "channel-params-over-msg",
            "merge_url_params_req": true,
        })
    );
}
