//! Documents as people write them, and what becomes of each: `golden/openapi` has them beside what is planned and written.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::enmasse::Outcome;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/openapi").join(name)
}

fn doc(name: &str) -> Document {
    Document::read(name, &std::fs::read_to_string(golden(name)).unwrap()).unwrap()
}

/// Compares with a file; with `ARINT_GOLDEN=write` in the environment it is written anew.
#[track_caller]
fn same(name: &str, found: &str) {
    if std::env::var_os("ARINT_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(golden(name), found).unwrap();
    }
    let expected = std::fs::read_to_string(golden(name)).unwrap();
    for (index, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name} line {}", index + 1);
    }
    assert_eq!(found, expected, "{name}");
}

/// Compares plan and module.
#[track_caller]
fn check(name: &str, word: &str, plan: &Plan) {
    let stem = name.split('.').next().unwrap();
    let objects = plan
        .objects
        .iter()
        .map(|planned| json!({"kind": planned.kind, "name": planned.name, "spec": planned.spec}));
    let told = json!({
        "objects": objects.collect::<Vec<_>>(), "told": plan.told, "missing": plan.missing,
        "warnings": plan.warnings,
    });
    same(
        &format!("{stem}.{word}.json"),
        &format!("{}\n", serde_json::to_string_pretty(&told).unwrap()),
    );
    same(&format!("{stem}_{word}.py"), &plan.module);
}

fn said(name: &str) -> Outgoing {
    Outgoing { name: name.to_owned(), ..Outgoing::default() }
}

fn planned(text: &str) -> Plan {
    let doc = Document::read("d.yaml", text).unwrap();
    let said = Outgoing { host: Some("https://h".to_owned()), ..said("api") };
    outgoing::outgoing(&doc, &said, &Present::new()).unwrap()
}

#[test]
fn a_document_of_3_0_becomes_a_connection_and_a_client() {
    let plan =
        outgoing::outgoing(&doc("petstore.yaml"), &said("petstore"), &Present::new()).unwrap();
    check("petstore.yaml", "client", &plan);
}

#[test]
fn a_document_of_3_1_becomes_a_connection_and_a_client() {
    let said = Outgoing {
        username: Some("anna".to_owned()),
        secret: Some("hunter2".to_owned()),
        ..said("parcels")
    };
    let plan = outgoing::outgoing(&doc("parcels.json"), &said, &Present::new()).unwrap();
    check("parcels.json", "client", &plan);
}

fn served(name: &str) -> Channels {
    Channels { module: name.to_owned(), ..Channels::default() }
}

#[test]
fn a_document_of_3_0_becomes_channels_and_services() {
    let plan = channels::channels(&doc("petstore.yaml"), &served("petstore"), &Present::new());
    check("petstore.yaml", "channels", &plan);
}

#[test]
fn a_document_of_3_1_becomes_channels_and_services() {
    let plan = channels::channels(&doc("parcels.json"), &served("parcels"), &Present::new());
    check("parcels.json", "channels", &plan);
}

#[test]
fn a_channel_without_its_credentials_is_not_made() {
    let text = "openapi: 3.0.0\nsecurity: [{o: []}]\npaths:\n  /a:\n    get: {responses: {}}\n  /b:\n    get: {security: [{}], responses: {}}\ncomponents:\n  securitySchemes:\n    o: {type: openIdConnect}\n";
    let doc = Document::read("d.yaml", text).unwrap();
    let plan = channels::channels(&doc, &served("m"), &Present::new());
    let names: Vec<&str> = plan.objects.iter().map(|planned| planned.name.as_str()).collect();
    assert_eq!(names, ["m.get-b"]);
    assert_eq!(
        plan.told[0].why.as_deref(),
        Some("it asks for `o`, which was not taken, and without it would be open to all")
    );
    assert_eq!(
        plan.warnings,
        ["open to all is `m.get-b`, because the document asks for no credentials there"]
    );
    let said = Channels { security: Some("partners".to_owned()), ..served("m") };
    let plan = channels::channels(&doc, &said, &Present::new());
    assert_eq!(plan.objects[0].spec["security"], json!(["partners"]));
    assert_eq!(plan.objects[1].spec["security"], json!([]));
}

#[test]
fn what_an_admin_has_set_on_a_channel_stays_and_what_the_document_drops_goes() {
    let there = json!({
        "url_path": "/old", "service": "x", "data_format": "json", "security": ["mine"],
        "timeout_ms": 5, "response_schema": {"type": "object"},
    });
    let present =
        Present::from([((arapi::Kind::Channel, "petstore.delete-pet".to_owned()), there)]);
    let plan = channels::channels(&doc("petstore.yaml"), &served("petstore"), &present);
    let one = plan.objects.iter().find(|planned| planned.name.as_str() == "petstore.delete-pet");
    assert_eq!(
        one.unwrap().spec,
        json!({
            "url_path": "/api/v3/pet/{petId}", "method": "DELETE", "service": "petstore.delete-pet",
            "data_format": "json", "match_slash": false, "security": ["mine"], "timeout_ms": 5,
        })
    );
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(Document::read("d.yaml", text).unwrap_err().to_string(), expected);
}

#[test]
fn what_is_no_document_of_3_0_or_3_1_is_refused_with_what_to_do() {
    refused(
        "\nswagger: '2.0'\npaths: {}\n",
        "d.yaml line 2: this is Swagger 2.0, and OpenAPI 3.0 or 3.1 was expected; convert it (https://editor.swagger.io does, and so does `swagger2openapi`) and import that",
    );
    refused("a: 1\n", "d.yaml line 1: this is no OpenAPI document: its field `openapi` is missing");
    refused(
        "openapi: 4.0.0\n",
        "d.yaml line 1: OpenAPI `4.0.0` is not known; 3.0 or 3.1 was expected",
    );
    refused("openapi: 3.0.0\npaths: []\n", "d.yaml line 2: `paths` is no map of names");
    refused(
        "openapi: 3.0.0\n---\nopenapi: 3.0.0\n",
        "d.yaml line 1: one OpenAPI document was expected",
    );
    refused(
        "openapi: 3.1.0\ncomponents:\n  schemas:\n    A:\n      $ref: 'other.yaml#/B'\n",
        "d.yaml line 5: `$ref` leads to `other.yaml#/B`, which is another document, and nothing is fetched; put all of it into one document (`redocly bundle` does) and import that",
    );
    refused(
        "{\"openapi\": \"3.0.0\",\n \"paths\": {}, \"paths\": {}}",
        "d.yaml line 2: duplicate key `paths`",
    );
    let many: String = (0..5001).map(|number| format!("  /{number}: {{get: {{}}}}\n")).collect();
    refused(
        &format!("openapi: 3.0.0\npaths:\n{many}"),
        "d.yaml line 2: it has 5001 operations, and 5000 are the most; import a part of it",
    );
    let long = format!("openapi: 3.0.0\n# {}\n", "x".repeat(16 * 1024 * 1024));
    refused(&long, "d.yaml line 1: it is longer than the 16777216 bytes that are read");
}

#[test]
fn a_document_that_grows_when_it_is_read_is_refused() {
    let mut laughs =
        String::from("openapi: 3.0.0\nx-a: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let items = vec![before; 9].join(", ");
        laughs.push_str(&format!("x-b{level}: &a{level} [{items}]\n"));
    }
    assert!(Document::read("d.yaml", &laughs).is_err());
    let deep = format!("openapi: 3.0.0\nx-a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    assert!(Document::read("d.yaml", &deep).is_err());
    let deep =
        format!("{{\"openapi\": \"3.0.0\", \"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    assert!(Document::read("d.json", &deep).is_err());
}

#[test]
fn references_in_circles_and_explosions_end() {
    // Each level names the one below twice, and none is a component.
    let mut text = String::from(
        "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      responses:\n        '200':\n          content:\n            application/json:\n              schema: {$ref: '#/x-s/n0'}\nx-s:\n",
    );
    for level in 0..200 {
        let below = level + 1;
        text.push_str(&format!("  n{level}: {{anyOf: [{{type: array, items: {{$ref: '#/x-s/n{below}'}}}}, {{additionalProperties: {{$ref: '#/x-s/n{below}'}}}}]}}\n"));
    }
    text.push_str("  n200: {allOf: [{$ref: '#/x-s/n200'}, {$ref: '#/x-s/n0'}]}\n");
    let plan = planned(&text);
    assert_eq!(plan.told.iter().filter(|told| told.outcome == Outcome::NotTaken).count(), 0);
    assert!(plan.module.len() < 20_000, "{}", plan.module.len());
    let circle = "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      parameters: [{$ref: '#/components/parameters/p'}]\ncomponents:\n  parameters:\n    p: {$ref: '#/components/parameters/q'}\n    q: {$ref: '#/components/parameters/p'}\n";
    let plan = planned(circle);
    let told = plan.told.iter().find(|told| told.what == "GET /a").unwrap();
    assert_eq!(told.place, "#/paths/~1a/get");
    assert_eq!(
        told.why.as_deref(),
        Some("the references from `#/paths/~1a/get/parameters/0` lead in a circle")
    );
}

#[test]
fn callbacks_and_servers_of_paths_are_told_of() {
    let plan = planned(
        "openapi: 3.0.0\nservers: [{url: 'https://h/v1'}]\npaths:\n  /a:\n    servers: [{url: 'https://h/v1'}]\n    get: {callbacks: {later: {}}}\n  /b:\n    servers: [{url: 'https://other'}]\n    get: {}\n",
    );
    let told = |what: &str| plan.told.iter().find(|told| told.what == what).unwrap();
    assert_eq!(
        told("GET /a").notes,
        [
            "its callback `later`, a request that comes later, is left out: make a channel or a call for it by hand"
        ]
    );
    assert_eq!(told("GET /b").why.as_deref(), Some("it has `servers` of its own"));
}

#[test]
fn a_server_without_a_host_is_asked_for() {
    let doc = Document::read("d.yaml", "openapi: 3.0.0\nservers:\n- url: /v1\n").unwrap();
    assert_eq!(
        outgoing::outgoing(&doc, &said("api"), &Present::new()).unwrap_err(),
        "d.yaml line 3: the document's server is `/v1`, which has no host; say where it is with `--host https://…`"
    );
    let with = Outgoing { host: Some("http://127.0.0.1:81".to_owned()), ..said("api") };
    let plan = outgoing::outgoing(&doc, &with, &Present::new()).unwrap();
    assert_eq!(
        plan.objects[0].spec,
        json!({"type": "rest", "host": "http://127.0.0.1:81", "url_path": "/v1/{path}", "data_format": "json"})
    );
}

#[test]
fn what_an_admin_has_set_since_stays() {
    let doc = doc("petstore.yaml");
    let first = outgoing::outgoing(&doc, &said("petstore"), &Present::new()).unwrap();
    let mut present: Present = first
        .objects
        .iter()
        .map(|planned| ((planned.kind, planned.name.to_string()), planned.spec.clone()))
        .collect();
    for spec in present.values_mut() {
        if spec["type"] == "rest" {
            spec["timeout_ms"] = 500.into();
            spec["url_path"] = "/api/v2/{path}".into();
        } else {
            spec["key"] = json!({"secret": "kept"});
            spec["is_active"] = true.into();
        }
    }
    let again = outgoing::outgoing(&doc, &said("petstore"), &present).unwrap();
    assert_eq!(again.missing, []);
    let spec = |kind: arapi::Kind| {
        let one = again.objects.iter().find(|planned| planned.kind == kind);
        one.unwrap().spec.clone()
    };
    assert_eq!(spec(arapi::Kind::Security)["key"], json!({"secret": "kept"}));
    assert_eq!(spec(arapi::Kind::Security)["is_active"], Value::Bool(true));
    assert_eq!(spec(arapi::Kind::Outgoing)["timeout_ms"], json!(500));
    assert_eq!(spec(arapi::Kind::Outgoing)["url_path"], json!("/api/v3/{path}"));
}

#[test]
fn no_secret_is_in_what_is_told_written_or_printed() {
    let said = Outgoing { secret: Some("hunter2".to_owned()), ..said("petstore") };
    let plan = outgoing::outgoing(&doc("petstore.yaml"), &said, &Present::new()).unwrap();
    let told = format!("{:?} {:?} {} {:?}", plan.told, plan.objects, plan.module, plan.missing);
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn whatever_things_are_called_what_is_written_is_python() {
    let names = [
        "Pet",
        "pet",
        "class",
        "None",
        "get",
        "list",
        "1st",
        "a b",
        "x-\u{e9}",
        "\"\"\"",
        "'",
        "\\",
        "a\nb",
        "\u{202e}x",
        "__x",
        "_",
        "",
        "datetime",
        "UUID",
        "Literal",
        "self",
        "body",
        "result",
        "dict",
        "type",
        "Element",
        "{x}",
        "/",
        "~1",
        "#",
        "%7Bx%7D",
        "$ref",
    ];
    let mut state = 11u64;
    let mut pick = |from: &[&str]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        from[usize::try_from(state >> 33).unwrap() % from.len()].to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    for round in 0..150 {
        let mut schemas = serde_json::Map::new();
        let mut paths = serde_json::Map::new();
        for _ in 0..6 {
            let mut properties = serde_json::Map::new();
            for _ in 0..4 {
                let kind = match pick(&["ref", "object", "enum", "date", "map", "union"]).as_str() {
                    "ref" => {
                        json!({"$ref": format!("#/components/schemas/{}", pick(&["Pet", "pet", "class", "None"]))})
                    }
                    "object" => {
                        json!({"type": "object", "properties": {pick(&names): {"format": "date", "type": "string"}}})
                    }
                    "enum" => json!({"enum": [pick(&names), 5, null], "description": pick(&names)}),
                    "date" => {
                        json!({"type": ["string", "null"], "format": pick(&["date-time", "uuid", "binary"])})
                    }
                    "map" => {
                        json!({"additionalProperties": {"type": "array", "items": {"type": "boolean"}}})
                    }
                    _ => {
                        json!({"oneOf": [{"$ref": "#/components/schemas/Pet"}, {"type": "integer"}], "discriminator": {"propertyName": pick(&names)}})
                    }
                };
                properties.insert(pick(&names), kind);
            }
            let required = [pick(&names), pick(&names)];
            schemas.insert(pick(&names), json!({"properties": properties, "required": required, "description": pick(&names)}));
            let parameter = |name: String, place: String| json!({"name": name, "in": place, "schema": {"$ref": "#/components/schemas/Pet"}});
            let operation = json!({
                "operationId": pick(&names), "summary": pick(&names), "description": pick(&names),
                "parameters": [parameter("b".to_owned(), "path".to_owned()), parameter(pick(&names), pick(&["query", "header", "cookie"]))],
                "requestBody": {"content": {pick(&["application/json", "multipart/form-data", "text/x'\n"]): {"schema": {"$ref": "#/components/schemas/pet"}}}},
                "responses": {"200": {"content": {"application/json": {"schema": {"properties": {pick(&names): {}}}}}}},
            });
            paths.insert(
                format!("/a/{{b}}/{}", pick(&names).replace(['{', '}'], "")),
                json!({"post": operation}),
            );
        }
        let text = json!({
            "openapi": "3.1.0", "info": {"title": pick(&names), "description": pick(&names)},
            "paths": paths, "components": {"schemas": schemas},
        });
        let doc = Document::read(&pick(&["d.yaml", "\"\"\".yaml", "a\\.yaml"]), &text.to_string())
            .unwrap();
        let said = Outgoing { host: Some("https://h".to_owned()), ..said("api") };
        let client = outgoing::outgoing(&doc, &said, &Present::new()).unwrap().module;
        let services = channels::channels(&doc, &served("api"), &Present::new()).module;
        std::fs::write(folder.path().join(format!("m{round}_client.py")), client).unwrap();
        std::fs::write(folder.path().join(format!("m{round}.py")), services).unwrap();
    }
    let compiled = std::process::Command::new("python3")
        .args(["-W", "error", "-m", "compileall", "-q"])
        .arg(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&compiled.stdout);
    assert!(compiled.status.success(), "{told}{}", String::from_utf8_lossy(&compiled.stderr));
}

#[test]
fn no_document_makes_it_panic() {
    let parts = [
        "$ref",
        ": ",
        "'#/components/schemas/A'",
        "\n",
        "properties",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "type",
        "object",
        "allOf",
        "oneOf",
        "items",
        "\"\"\"",
        "\\",
        "'",
        "enum",
        "paths",
        "/a/{b}",
        "get",
        "responses",
        "'200'",
        "content",
        "application/json",
        "schema",
        "parameters",
        "name",
        "in",
        "query",
        "class",
        "é",
        "#",
    ];
    let head = "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      responses: {'200': {content: {application/json: {schema: {$ref: '#/components/schemas/A'}}}}}\ncomponents:\n  schemas:\n    A: ";
    let mut state = 7u64;
    for _ in 0..4000 {
        let mut text = String::from(head);
        for _ in 0..14 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(parts[usize::try_from(state >> 33).unwrap() % parts.len()]);
        }
        fuzz(&text);
    }
}
