//! Exports as Zato writes them, and what becomes of each: `golden/enmasse/*.yaml` and `.json` beside what is planned.

use std::path::{Path, PathBuf};

use arapi::Kind;
use serde_json::{Value, json};

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/enmasse").join(name)
}

fn entries(text: &str) -> Vec<Entry> {
    read("e.yaml", text, &mut |_| Err("there are no others".to_owned())).unwrap()
}

fn made(text: &str, present: &Present) -> Plan {
    plan(&entries(text), &Env::new(), present)
}

/// Compares with `<name>.plan.json`; with `ARINT_GOLDEN=write` in the environment that file is written anew.
#[track_caller]
fn check(name: &str, env: &[(&str, &str)]) {
    let text = std::fs::read_to_string(golden(name)).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let entries = read(name, &text, &mut |_| Err("there are no others".to_owned())).unwrap();
    let plan = plan(&entries, &env, &Present::new());
    assert_eq!(plan.told.len(), entries.len());
    let objects = plan
        .objects
        .iter()
        .map(|planned| json!({"kind": planned.kind, "name": planned.name, "spec": planned.spec}));
    let found = json!({
        "objects": objects.collect::<Vec<_>>(), "told": plan.told, "missing": plan.missing,
    });
    let stem = name.split_once(".json").or_else(|| name.split_once(".yaml")).unwrap().0;
    let file = golden(&format!("{stem}.plan.json"));
    if std::env::var_os("ARINT_GOLDEN").is_some_and(|what| what == "write") {
        let text = serde_json::to_string_pretty(&found).unwrap();
        std::fs::write(&file, format!("{text}\n")).unwrap();
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for part in ["objects", "told", "missing"] {
        let (found, expected) =
            (found[part].as_array().unwrap(), expected[part].as_array().unwrap());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "{part} of {name}");
        }
        assert_eq!(found.len(), expected.len(), "{part} of {name}");
    }
}

#[test]
fn a_web_shop_of_3_2_becomes_objects() {
    check("webshop-3.2.yaml", &[("SHOP_FRONTEND_PASSWORD", "front-secret")]);
}

#[test]
fn an_export_of_4_1_becomes_objects() {
    check("partner-4.1.yaml", &[("PARTNER_PASSWORD", "partner-secret")]);
}

#[test]
fn an_old_export_in_json_becomes_objects() {
    check("old-3.0.json", &[]);
}

#[test]
fn channels_and_connections_of_other_protocols_become_objects() {
    check("protocols-3.2.yaml", &[]);
}

#[test]
fn a_channel_without_its_credentials_is_not_made() {
    let plan = made(
        "def_sec:\n- {name: s, type: aws}\nchannel_rest:\n- {name: c, url_path: /c, service: c, security: s}\n",
        &Present::new(),
    );
    assert_eq!(plan.objects, []);
    assert_eq!(
        plan.told[1].why.as_deref(),
        Some("it needs the Security `s`, which was not taken and is not on the box")
    );
    let on_box = Present::from([(
        (Kind::Security, "s".to_owned()),
        json!({"type": "basic", "username": "s"}),
    )]);
    let plan = made("channel_rest:\n- {name: c, url_path: /c, service: c, security: s}\n", &on_box);
    assert_eq!(plan.told[0].outcome, Outcome::Taken);
}

#[test]
fn a_missing_secret_of_ours_is_made_and_one_of_others_switches_off() {
    let text = "def_sec:\n- {name: ours, type: basic_auth, username: u}\n- {name: theirs, type: ntlm, username: u}\n";
    let plan = made(text, &Present::new());
    assert_eq!(plan.objects[0].spec, json!({"type": "basic", "username": "u"}));
    assert_eq!(
        plan.objects[1].spec,
        json!({"type": "ntlm", "username": "u", "password": {"generate": "uuid4"}, "is_active": false})
    );
    let why: Vec<&str> = plan.missing.iter().map(|missing| missing.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "the export has none; a new one is made, which callers have to be given",
            "the export has none; the definition is switched off until the right one is set"
        ]
    );
    // Once an admin has set it, another import leaves it alone.
    let there =
        json!({"type": "ntlm", "username": "u", "password": {"secret": "x"}, "is_active": true});
    let plan = made(text, &Present::from([((Kind::Security, "theirs".to_owned()), there)]));
    assert_eq!(plan.objects[1].spec, json!({"type": "ntlm", "username": "u", "is_active": true}));
}

#[test]
fn no_secret_is_in_what_is_told_or_printed() {
    let text = "def_sec:\n- {name: s, type: basic_auth, username: u, password: hunter2}\n\
                outconn_sql:\n- {name: d, engine: postgresql, host: h, db_name: d, username: u, password: hunter2}\n\
                - {name: e, engine: oracle, host: h, db_name: d, username: u, password: hunter2}\n";
    let plan = made(text, &Present::new());
    assert_eq!(plan.objects.len(), 2);
    let told = serde_json::to_string(&plan.told).unwrap();
    assert!(!told.contains("hunter2") && !format!("{plan:?}").contains("hunter2"), "{told}");
}

#[test]
fn a_name_is_taken_once() {
    let plan = made(
        "outconn_plain_http:\n- {name: CRM, host: 'http://x'}\noutconn_sql:\n- {name: CRM, engine: sqlite, db_name: x}\n",
        &Present::new(),
    );
    assert_eq!(
        plan.told[1].why.as_deref(),
        Some(
            "two of the kind Outgoing cannot have the same name, and this one has outconn_plain_http of e.yaml line 2"
        )
    );
}

#[test]
fn no_text_makes_it_panic_or_lose_an_entry() {
    let parts = [
        "def_sec:\n",
        "channel_rest:\n",
        "outconn_sql:\n",
        "rbac_client_role:\n",
        "groups:\n",
        "channel_soap:\n",
        "json_rpc:\n",
        "web_socket:\n",
        "outconn_soap:\n",
        "  address: ws://h/p\n",
        "  service_whitelist: [y]\n",
        "- ",
        "name: ",
        "a\n",
        "  type: basic_auth\n",
        "  url_path: /x\n",
        "  service: y\n",
        "  security: a\n",
        "  members: [a]\n",
        "  client_def: sec_def:::basic_auth:::a\n",
        "  role_name: r\n",
        "include: [",
        "]\n",
        "{",
        "}",
        "\"",
        "e.yaml",
        "  host: http://x/y\n",
        "  engine: sqlite\n",
        "  rate_limit_def: '*=1/m'\n",
        "\n",
        "null\n",
        "é",
    ];
    let mut state = 11u64;
    for _ in 0..5000 {
        let mut text = String::new();
        for _ in 0..14 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(parts[usize::try_from(state >> 33).unwrap() % parts.len()]);
        }
        fuzz(&text);
    }
}
