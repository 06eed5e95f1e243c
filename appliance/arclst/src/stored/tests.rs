use arapi::objects::{Object, Spec};
use serde_json::json;

use super::*;

/// What a release to come may look like: a channel's `url_path` is called `path` in it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NextStored {
    kind: Kind,
    name: ObjectName,
    spec: serde_json::Value,
    made_ms: u64,
    #[serde(default)]
    labels: Vec<String>,
}

impl Migrate for NextStored {
    type Previous = StoredObject;
    const VERSION: u32 = StoredObject::VERSION + 1;
    fn migrate(previous: StoredObject) -> Self {
        let StoredObject { kind, name, mut spec, created_ms, .. } = previous;
        if kind == Kind::Channel
            && let Some(fields) = spec.as_object_mut()
            && let Some(path) = fields.remove("url_path")
        {
            fields.insert("path".to_owned(), path);
        }
        Self { kind, name, spec, made_ms: created_ms, labels: Vec::new() }
    }
}

fn channel() -> Object {
    let written = json!({"url_path": "/orders", "service": "s", "method": "GET"});
    Object {
        kind: Kind::Channel,
        name: ObjectName::parse("orders").unwrap(),
        spec: Spec::parse(Kind::Channel, "orders", written).unwrap(),
        revision: 7,
        created_ms: 1,
        changed_ms: 2,
        changed_by: "user:anna".to_owned(),
    }
}

#[test]
fn an_object_written_and_read_again_is_the_same() {
    let document = encode(&channel()).unwrap();
    assert_eq!(decode("Channel", "orders", 7, document.as_bytes()).unwrap(), channel());
}

#[test]
fn what_this_release_stores_is_read_by_one_in_which_a_field_has_another_name() {
    let document = encode(&channel()).unwrap();
    let next: NextStored = arstore::decode(document.as_bytes()).unwrap();
    assert_eq!(next.spec["path"], json!("/orders"));
    assert_eq!(next.spec.get("url_path"), None);
    assert_eq!((next.made_ms, next.labels.len()), (1, 0));
    // What that one writes is refused by this one, as from a newer release.
    let newer = arstore::encode(&next).unwrap();
    let refused = decode("Channel", "orders", 7, newer.as_bytes()).unwrap_err();
    assert_eq!(refused.to_string(), "the stored Channel `orders` cannot be read");
}

#[test]
fn fields_added_after_an_object_was_stored_have_their_defaults() {
    let old = r#"{"v":1,"d":{"kind":"Outgoing","name":"crm","spec":{"type":"rest","host":"https://crm.example.com"},"created_ms":1,"changed_ms":2,"changed_by":"user:anna"}}"#;
    let object = decode("Outgoing", "crm", 7, old.as_bytes()).unwrap();
    let whole = object.spec.to_json();
    assert_eq!((&whole["timeout_ms"], &whole["retry"]["attempts"]), (&json!(10_000), &json!(3)));
}
