use serde_json::json;

use super::*;

#[track_caller]
fn refused(kind: Kind, written: serde_json::Value, sentence: &str) {
    let err = Spec::parse(kind, "x", written).unwrap_err();
    assert_eq!(err.to_string(), sentence);
}

#[test]
fn an_unknown_field_is_named_with_the_fields_there_are() {
    refused(
        Kind::SecurityGroup,
        json!({"members": [], "member": 1}),
        "SecurityGroup `x`: field `member`: unknown field `member`, expected `members`",
    );
}

#[test]
fn a_wrong_type_is_named_with_its_path() {
    refused(
        Kind::Outgoing,
        json!({"type": "rest", "host": "http://a", "retry": {"attempts": "three"}}),
        "Outgoing `x`: field `.`: invalid type: string \"three\", expected u32",
    );
    refused(
        Kind::Channel,
        json!({"url_path": "/a", "service": "a", "timeout_ms": "long"}),
        "Channel `x`: field `timeout_ms`: invalid type: string \"long\", expected u64",
    );
}

#[test]
fn broken_rules_give_the_rule_and_the_value() {
    refused(
        Kind::Channel,
        json!({"url_path": "orders", "service": "a"}),
        "Channel `x`: field `url_path`: `orders` does not start with `/`",
    );
    refused(
        Kind::Channel,
        json!({"url_path": "/a/{b}/{b}", "service": "a"}),
        "Channel `x`: field `url_path`: `/a/{b}/{b}` has the parameter `b` twice",
    );
    refused(
        Kind::Security,
        json!({"type": "basic", "username": "a:b"}),
        "Security `x`: field `username`: `a:b` is empty or has a colon",
    );
    refused(
        Kind::Module,
        json!({"file_name": "a-b.py", "source": "", "sha256": "", "version": 1, "origin": "api"}),
        "Module `x`: field `file_name`: `a-b.py` is not the name of a Python module: letters, digits and `_`, then `.py`, were expected",
    );
}

#[test]
fn a_channel_has_the_fields_of_its_protocol_and_no_others() {
    for (spec, sentence) in [
        (
            json!({}),
            "field `service`: it is missing; the name of the service that requests invoke was expected",
        ),
        (
            json!({"service": "a", "service_whitelist": ["b"]}),
            "field `service`: `service` and `service_whitelist` exclude each other: requests name the service, or do not",
        ),
        (
            json!({"service": "a", "pass_through": {"outgoing": "b"}}),
            "field `pass_through`: a channel leads to an outgoing connection or to services, not to both; leave out `service` and `service_whitelist`",
        ),
        (
            json!({"type": "soap", "pass_through": {"outgoing": "b"}}),
            "field `pass_through`: only channels of type `rest` have it, and this is `soap`",
        ),
        (
            json!({"priority": "batch", "pass_through": {"outgoing": "b"}}),
            "field `priority`: requests that are passed through wait for no worker; leave it out",
        ),
        (
            json!({"pass_through": {"outgoing": "b", "request_headers": ["X-*", "a b"]}}),
            "field `pass_through.request_headers`: `a b` is neither the name of a header nor a pattern such as `X-Acme-*`",
        ),
        (
            json!({"service_whitelist": ["b"]}),
            "field `url_path`: `/a` has no `{service_name}`, by which a request names one of `service_whitelist`",
        ),
        (
            json!({"type": "json_rpc", "service": "a"}),
            "field `service`: requests of JSON-RPC name the service; list those they may name in `service_whitelist`",
        ),
        (
            json!({"type": "json_rpc"}),
            "field `service_whitelist`: it is empty; the services that requests may name were expected",
        ),
        (
            json!({"type": "json_rpc", "service_whitelist": [""]}),
            "field `service_whitelist`: `` is no pattern: 1 to 400 bytes were expected",
        ),
        (
            json!({"type": "json_rpc", "service_whitelist": ["*"], "method": "GET"}),
            "field `method`: a channel of type `json_rpc` takes POST only",
        ),
        (
            json!({"type": "web_socket", "service": "a", "data_format": "xml"}),
            "field `data_format`: a channel of type `web_socket` has a format of its own; leave it out",
        ),
        (
            json!({"type": "soap", "service_whitelist": ["a"]}),
            "field `service_whitelist`: a channel of type `soap` has one `service`",
        ),
        (
            json!({"type": "soap", "service": "a", "soap_action": "a\"b"}),
            "field `soap_action`: `a\\\"b` is no action: text without quotes was expected",
        ),
        (
            json!({"service": "a", "soap_action": "urn:a"}),
            "field `soap_action`: only channels of type `soap` have it, and this is `rest`",
        ),
        (
            json!({"type": "soap", "service": "a", "ping_interval": 5}),
            "field `ping_interval`: only channels of type `web_socket` have it, and this is `soap`",
        ),
        (
            json!({"type": "web_socket", "service": "a", "ping_interval": 0}),
            "field `ping_interval`: 0 is not between 1 and 240",
        ),
        (
            json!({"type": "soap", "service": "a", "soap_version": 1.3}),
            "field `soap_version`: `1.3` is neither 1.1 nor 1.2",
        ),
    ] {
        let mut spec = spec;
        spec["url_path"] = json!("/a");
        refused(Kind::Channel, spec, &format!("Channel `x`: {sentence}"));
    }
}

#[test]
fn a_version_of_soap_may_be_written_as_a_number() {
    for written in [json!("1.1"), json!(1.1)] {
        let spec =
            json!({"type": "soap", "url_path": "/a", "service": "a", "soap_version": written});
        let spec = Spec::parse(Kind::Channel, "x", spec).unwrap();
        assert_eq!(spec.to_json()["soap_version"], "1.1");
    }
}

#[test]
fn a_security_without_a_password_asks_for_a_generated_one() {
    let mut spec =
        Spec::parse(Kind::Security, "x", json!({"type": "basic", "username": "crm"})).unwrap();
    let secrets = spec.secrets_mut();
    assert_eq!(secrets.len(), 1);
    assert_eq!(*secrets[0].1, SecretField::Generate(Generate::Uuid4));
}

#[test]
fn a_channel_refers_to_its_securities_and_not_to_its_service() {
    let spec = Spec::parse(
        Kind::Channel,
        "x",
        json!({"url_path": "/a", "service": "s", "security": ["b"], "security_groups": ["g"]}),
    )
    .unwrap();
    let names: Vec<String> =
        spec.references().iter().map(|(kind, name)| format!("{kind}/{name}")).collect();
    assert_eq!(names, ["Security/b", "SecurityGroup/g"]);
}

#[test]
fn a_spec_written_and_read_again_is_the_same() {
    for (kind, written) in [
        (Kind::Channel, json!({"url_path": "/a/{b}", "service": "s", "method": "GET"})),
        (
            Kind::Channel,
            json!({"type": "json_rpc", "url_path": "/a", "service_whitelist": ["a.*"]}),
        ),
        (
            Kind::Channel,
            json!({"type": "soap", "url_path": "/a", "service": "s", "soap_version": "1.2", "serve_wsdl": false}),
        ),
        (
            Kind::Channel,
            json!({"type": "web_socket", "url_path": "/a", "service": "s", "token_ttl": 60}),
        ),
        (Kind::Outgoing, json!({"type": "rest", "host": "https://a.example:8443"})),
        (Kind::Outgoing, json!({"type": "sql", "engine": "sqlite", "db_name": "/tmp/x.db"})),
        (Kind::Security, json!({"type": "api_key", "key": {"secret": "s"}})),
        (Kind::Role, json!({"permissions": ["read", "logs"]})),
    ] {
        let spec = Spec::parse(kind, "x", written).unwrap();
        assert_eq!(Spec::parse(kind, "x", spec.to_json()).unwrap(), spec);
    }
}

#[test]
fn a_secret_value_is_not_printed() {
    let field = SecretField::Value(SecretText("hunter2".into()));
    assert!(!format!("{field:?}").contains("hunter2"));
}

#[test]
fn qualities_of_channels_are_checked() {
    let refused = |more: serde_json::Value, sentence: &str| {
        let mut written = json!({"url_path": "/a", "service": "a", "data_format": "json"});
        written.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(Kind::Channel, written, sentence);
    };
    refused(
        json!({"response_cache": {"ttl": 0}}),
        "Channel `x`: field `response_cache.ttl`: 0 is not between 1 and 2592000",
    );
    refused(
        json!({"response_cache": {"vary_by_headers": ["a b"]}}),
        "Channel `x`: field `response_cache.vary_by_headers`: `a b` is not the name of a header",
    );
    refused(
        json!({"cors": {"origins": []}}),
        "Channel `x`: field `cors.origins`: there is no origin in it; `https://app.example.com` or `*` was expected",
    );
    for origin in [
        "app.example.com",
        "https://a.b/",
        "https://*",
        "https://u@a",
        "ftp://a",
        "HTTPS://a",
        "null",
    ] {
        refused(
            json!({"cors": {"origins": [origin]}}),
            &format!(
                "Channel `x`: field `cors.origins`: `{origin}` is no origin; `https://app.example.com`, `https://*.example.com` or `*` was expected"
            ),
        );
    }
    refused(
        json!({"cors": {"origins": ["*"], "allow_credentials": true}}),
        "Channel `x`: field `cors.allow_credentials`: browsers take no credentials from a channel that is for every origin; name the origins",
    );
    refused(
        json!({"audit": {"max_len_messages": 20000}}),
        "Channel `x`: field `audit.max_len_messages`: 20000 is not between 1 and 10000",
    );
    refused(
        json!({"request_schema": {"properties": {"a": {"$ref": "http://example.com/a.json"}}}}),
        "Channel `x`: field `request_schema`: `http://example.com/a.json` refers to another document, and nothing is fetched; put that into `$defs` and refer to `#/$defs/…`",
    );
    refused(
        json!({"response_schema": [1]}),
        "Channel `x`: field `response_schema`: it is no JSON Schema: an object was expected",
    );
    refused(
        json!({"data_format": "xml", "response_schema": {}}),
        "Channel `x`: field `response_schema`: only channels of `data_format: json` have schemas",
    );
    let whole = json!({
        "url_path": "/a", "service": "a", "data_format": "json", "content_encoding": "gzip",
        "response_cache": {"ttl": 5}, "audit": {}, "priority": "batch",
        "cors": {"origins": ["https://app.example.com:8443", "https://*.example.com", "http://localhost:3000"], "headers": ["*"]},
        "request_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [{"$ref": "http://data"}]}}},
    });
    let spec = Spec::parse(Kind::Channel, "x", whole).unwrap();
    assert_eq!(Spec::parse(Kind::Channel, "x", spec.to_json()).unwrap(), spec);
}
