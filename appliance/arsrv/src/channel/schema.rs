//! JSON Schema on what goes in and out by a channel (drafts 4, 6, 7, 2019-09 and 2020-12).
//!
//! Nothing is fetched: a schema that refers to another document is refused when the channel is set up.  Patterns run in
//! time in proportion to the text, so no request can keep the core busy with one.
//!
//! **Invariant:** what is said of a violation never has the value in it: it may be secret, or large.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// A schema, ready to check documents.
#[derive(Debug)]
pub struct Schema(Validator);

/// Where a document breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There is no document, and one was expected.
    #[error("it is empty")]
    Empty,
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// It breaks a rule.
    #[error("`{path}`: {fault} (rule `{rule}`)")]
    Rule {
        /// Where in the document, as a JSON Pointer (RFC 6901).
        path: String,
        /// What is wrong there.
        fault: String,
        /// Which rule of the schema says so.
        rule: String,
    },
}

impl Schema {
    /// Compiles a schema; fails with what is wrong with it.
    pub fn of(written: &Value) -> Result<Self, String> {
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(written)
            .map(Self)
            .map_err(|err| {
                let at = err.instance_path().to_string();
                if at.is_empty() { err.to_string() } else { format!("`{at}`: {err}") }
            })
    }

    /// Checks a document; tells the first rule it breaks.
    pub fn check(&self, document: &[u8]) -> Result<(), Violation> {
        if document.is_empty() {
            return Err(Violation::Empty);
        }
        let document: Value =
            serde_json::from_slice(document).map_err(|err| Violation::NotJson(err.to_string()))?;
        self.0.validate(&document).map_err(|err| {
            let path = err.instance_path().to_string();
            Violation::Rule {
                path: if path.is_empty() { "/".to_owned() } else { path },
                fault: err.masked_with("the value").to_string(),
                rule: err.schema_path().to_string(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: &Value, document: &str, expected: Option<&str>) {
        let found = Schema::of(schema).unwrap().check(document.as_bytes());
        assert_eq!(found.err().map(|violation| violation.to_string()).as_deref(), expected);
    }

    #[test]
    fn a_violation_names_path_and_rule_and_never_the_value() {
        let schema = json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {
                "id": {"type": "integer", "minimum": 1},
                "mail": {"type": "string", "format": "email"},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            },
            "$defs": {"line": {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}},
        });
        check(&schema, r#"{"id": 7, "lines": [{"code": "ABC"}], "mail": "a@b.example"}"#, None);
        check(
            &schema,
            r#"{"id": "s3cret"}"#,
            Some("`/id`: the value is not of type \"integer\" (rule `/properties/id/type`)"),
        );
        check(&schema, r"{}", Some("`/`: \"id\" is a required property (rule `/required`)"));
        check(
            &schema,
            r#"{"id": 1, "lines": [{"code": "ABC"}, {"code": "s3cret"}]}"#,
            Some(
                "`/lines/1/code`: the value does not match \"^[A-Z]{3}$\" (rule `/$defs/line/properties/code/pattern`)",
            ),
        );
        check(
            &schema,
            r#"{"id": 1, "mail": "s3cret"}"#,
            Some("`/mail`: the value is not a \"email\" (rule `/properties/mail/format`)"),
        );
        check(&schema, "", Some("it is empty"));
        check(&schema, "{", Some("it is not JSON: EOF while parsing an object at line 1 column 1"));
    }

    #[test]
    fn every_draft_is_known() {
        for (draft, word) in [
            ("http://json-schema.org/draft-04/schema#", "definitions"),
            ("http://json-schema.org/draft-07/schema#", "definitions"),
            ("https://json-schema.org/draft/2019-09/schema", "$defs"),
            ("https://json-schema.org/draft/2020-12/schema", "$defs"),
        ] {
            let reference = format!("#/{word}/a");
            let schema =
                json!({"$schema": draft, "$ref": reference, word: {"a": {"type": "string"}}});
            assert!(Schema::of(&schema).unwrap().check(b"\"x\"").is_ok(), "{draft}");
            assert!(Schema::of(&schema).unwrap().check(b"1").is_err(), "{draft}");
        }
    }

    #[test]
    fn what_is_no_schema_or_lies_elsewhere_is_refused() {
        let refused = |schema: Value| Schema::of(&schema).unwrap_err();
        assert_eq!(
            refused(json!({"properties": {"a": {"type": "strin"}}})),
            "`/properties/a/type`: \"strin\" is not valid under any of the schemas listed in the 'anyOf' keyword"
        );
        for schema in [
            json!({"$ref": "#/$defs/none"}),
            json!({"pattern": "("}),
            // Needs more than linear time.
            json!({"pattern": "(?=a)b"}),
            json!({"$ref": "http://192.0.2.1/schema.json"}),
            json!({"$schema": "http://192.0.2.1/meta.json"}),
        ] {
            refused(schema);
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let tree = json!({"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"next": {"$ref": "#/$defs/t"}}, "type": "object"}}});
        let deep = format!("{}1{}", "{\"next\":".repeat(100), "}".repeat(100));
        assert!(Schema::of(&tree).unwrap().check(deep.as_bytes()).is_err());
        if let Ok(loop_of_one) = Schema::of(&json!({"$ref": "#"})) {
            loop_of_one.check(b"1").ok();
        }
    }

    #[test]
    fn a_pattern_takes_time_in_proportion_to_the_text() {
        let schema = Schema::of(&json!({"pattern": "^(a+)+$"})).unwrap();
        let text = format!("\"{}b\"", "a".repeat(100_000));
        let begun = std::time::Instant::now();
        assert!(schema.check(text.as_bytes()).is_err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
