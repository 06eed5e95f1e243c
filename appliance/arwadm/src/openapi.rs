//! The OpenAPI document, made from [`ROUTES`] and the types of `arapi`.

use arapi::Kind;
use arapi::objects::spec_schema;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::guard::word;
use crate::routes::{Access, Out, ROUTES, Route};

/// The document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<arapi::ErrorBody>();
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(operations) = operations.as_object_mut() {
            let method = route.method.as_str().to_ascii_lowercase();
            operations.insert(method, operation(route, &mut generator, &error));
        }
    }
    let mut schemas: Map<String, Value> = generator.take_definitions(true);
    for kind in Kind::ALL {
        add_spec(*kind, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ARINT admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The only door for changes to a box.  Every answer carries `X-Zato-CID`; every error has the form `ErrorBody`.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `POST /v1/login` or `POST /v1/tokens`.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-arint",
                    "description": "A browser's log-in (`POST /v1/session`); a change needs `X-ARINT-CSRF` as well.",
                },
                "service": {
                    "type": "apiKey",
                    "in": "header",
                    "name": arapi::client::SERVICE_HEADER,
                    "description": "Only on the Unix socket, from a process of the same user.",
                },
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &Schema) -> Value {
    let logged_in = json!([{"bearer": []}, {"session": []}]);
    let (access, security) = match route.access {
        Access::Public => ("public", json!([])),
        Access::LoggedIn => ("logged in", logged_in),
        Access::Needs(permission) => (word(permission), logged_in),
        Access::ByKind => ("by kind", logged_in),
        Access::Service => ("service", json!([{"service": []}])),
    };
    let (media, answer) = match route.form.answer {
        Out::Json(make) => ("application/json", make(generator)),
        Out::Lines(make) => ("application/x-ndjson", make(generator)),
        Out::Figures => ("text/plain", json_schema!({"type": "string"})),
        Out::File => ("application/octet-stream", Schema::default()),
    };
    let mut parameters = path_parameters(route.path);
    parameters.extend(query_parameters(route, generator));
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "x-access": access,
        "security": security,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": {media: {"schema": answer}}},
            "default": {
                "description": "Refused or failed; `message` says why and what to do.",
                "content": {"application/json": {"schema": error}},
            },
        },
    });
    if let (Some(make), Some(operation)) = (route.form.body, operation.as_object_mut()) {
        let content = json!({"application/json": {"schema": make(generator)}});
        operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    if let (true, Some(operation)) = (route.form.is_upload, operation.as_object_mut()) {
        let content = json!({"application/octet-stream": {}});
        operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "kind" => json!({"$ref": "#/components/schemas/Kind"}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    names.map(parameter).collect()
}

fn query_parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let Some(make) = route.form.query else { return Vec::new() };
    let mut schema = make(generator);
    // The fields of the query's type are the parameters; the type itself is not in the document.
    let name = schema
        .as_value()
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.rsplit('/').next())
        .map(ToOwned::to_owned);
    if let Some(found) = name.and_then(|name| generator.definitions_mut().remove(&name)) {
        schema = found.try_into().unwrap_or_default();
    }
    let fields = schema.as_value().get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| json!({"name": name, "in": "query", "required": false, "schema": schema});
    fields.into_iter().flatten().map(parameter).collect()
}

/// Adds the schema of a kind's spec as `<Kind>Spec`, its own definitions beside it.
fn add_spec(kind: Kind, schemas: &mut Map<String, Value>) {
    let mut schema = spec_schema(kind).to_value();
    rename_references(&mut schema);
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
        if let Some(Value::Object(definitions)) = fields.remove("$defs") {
            for (name, definition) in definitions {
                schemas.entry(name).or_insert(definition);
            }
        }
    }
    schemas.insert(format!("{kind}Spec"), schema);
}

fn rename_references(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/components/schemas/{name}");
            }
            fields.values_mut().for_each(rename_references);
        }
        Value::Array(items) => items.iter_mut().for_each(rename_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, whole: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(whole.pointer(pointer).is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| check(value, whole));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, whole)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }

    #[test]
    fn the_document_in_docs_is_the_one_that_is_served() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/arwadm.json");
        let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let is_same = kept == document();
        assert!(
            is_same,
            "write it anew: cargo run -p arwadm --example openapi > docs/api/arwadm.json"
        );
    }

    #[test]
    fn every_kinds_spec_is_described() {
        let document = document();
        for kind in Kind::ALL {
            let spec = document.pointer(&format!("/components/schemas/{kind}Spec"));
            assert!(spec.is_some(), "{kind}");
        }
    }
}
