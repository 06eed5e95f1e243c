//! Schemas of a document as JSON Schema of a channel: 2020-12, with everything they refer to in `$defs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document::{Document, target};

/// Largest schema that a channel may have, bytes.
const LARGEST: usize = 256 * 1024;
/// What says nothing about a document that is checked.
const IDLE: &[&str] = &[
    "example",
    "examples",
    "xml",
    "externalDocs",
    "discriminator",
    "deprecated",
    "nullable",
    "$comment",
    "description",
    "title",
    "default",
    "readOnly",
    "writeOnly",
];
/// What holds schemas by name.
const BY_NAME: &[&str] =
    &["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// What holds data.
const DATA: &[&str] = &["enum", "const", "type", "dependentRequired"];

/// What is made of a schema: None where there is nothing to check, or no way to; and what is otherwise in it.
type Made = (Option<Value>, Vec<String>);

/// Schemas for channels, each made once.
#[derive(Debug)]
pub(super) struct JsonSchemas<'d> {
    doc: &'d Document,
    made: BTreeMap<(String, &'static str), Made>,
}

impl<'d> JsonSchemas<'d> {
    pub(super) fn of(doc: &'d Document) -> Self {
        Self { doc, made: BTreeMap::new() }
    }

    /// The schema at a place, or where the reference there leads.
    ///
    /// `not_sent` is the word of properties that do not come this way, `readOnly` for requests: they need not be there.
    pub(super) fn schema(&mut self, place: &str, not_sent: &'static str) -> Made {
        let written = self.doc.value.pointer(place).and_then(Value::as_object);
        let is_reference =
            written.is_some_and(|fields| fields.len() == 1 && fields.contains_key("$ref"));
        let place = match self.doc.resolve(place) {
            Ok((to, _)) if is_reference => to,
            _ => place.to_owned(),
        };
        let doc = self.doc;
        let key = (place, not_sent);
        self.made.entry(key).or_insert_with_key(|(place, _)| schema(doc, place, not_sent)).clone()
    }
}

fn schema(doc: &Document, place: &str, not_sent: &'static str) -> Made {
    let mut maker = Maker {
        doc,
        not_sent,
        names: BTreeMap::new(),
        used: BTreeSet::new(),
        open: Vec::new(),
        notes: BTreeSet::new(),
    };
    let Some(written) = doc.value.pointer(place) else { return (None, Vec::new()) };
    let mut made = maker.convert(written);
    let mut definitions = Map::new();
    let mut length = 0;
    while let Some((place, name)) = maker.open.pop() {
        // What is too large already need not be made to its end.
        if length > LARGEST {
            break;
        }
        let definition =
            doc.value.pointer(&place).map_or(Value::Bool(true), |found| maker.convert(found));
        length += definition.to_string().len();
        definitions.insert(name, definition);
    }
    let mut notes: Vec<String> = maker.notes.into_iter().collect();
    if let (Some(fields), false) = (made.as_object_mut(), definitions.is_empty()) {
        fields.insert("$defs".to_owned(), definitions.into());
    }
    let is_open = made.as_object().is_some_and(Map::is_empty) || made == Value::Bool(true);
    if is_open {
        return (None, notes);
    }
    if made.to_string().len() > LARGEST {
        notes = vec![format!(
            "its schema has more than the {LARGEST} bytes that a channel takes, and is left out"
        )];
        return (None, notes);
    }
    (Some(made), notes)
}

struct Maker<'d> {
    doc: &'d Document,
    not_sent: &'static str,
    /// Names of definitions by place.
    names: BTreeMap<String, String>,
    used: BTreeSet<String>,
    /// Those that are to be made yet.
    open: Vec<(String, String)>,
    notes: BTreeSet<String>,
}

impl Maker<'_> {
    fn convert(&mut self, written: &Value) -> Value {
        let Some(fields) = written.as_object() else {
            return if written.is_boolean() { written.clone() } else { Value::Bool(true) };
        };
        if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
            let reference = json!({"$ref": self.definition(to)});
            // In 3.0 nothing beside a reference counts.
            let mut beside = fields.clone();
            beside.remove("$ref");
            beside.retain(|name, _| !IDLE.contains(&name.as_str()));
            if self.doc.is_3_0 || beside.is_empty() {
                return reference;
            }
            let others = self.convert(&Value::Object(beside));
            return json!({"allOf": [reference, others]});
        }
        let mut made = Map::new();
        for (name, value) in fields {
            let kept = match (name.as_str(), value) {
                (idle, _) if IDLE.contains(&idle) || idle.starts_with("x-") => None,
                ("exclusiveMinimum" | "exclusiveMaximum", Value::Bool(_)) => None,
                ("pattern", Value::String(pattern)) => self.pattern(pattern),
                ("required", Value::Array(names)) => Some(self.required(fields, names)),
                (data, value) if DATA.contains(&data) => Some(value.clone()),
                (named, Value::Object(all)) if BY_NAME.contains(&named) => {
                    let each = all.iter().map(|(name, value)| (name.clone(), self.convert(value)));
                    Some(Value::Object(each.collect()))
                }
                (_, Value::Object(_)) => Some(self.convert(value)),
                (_, Value::Array(all)) => {
                    Some(all.iter().map(|value| self.convert(value)).collect())
                }
                (_, other) => Some(other.clone()),
            };
            // What a discriminator tells apart may well fit several.
            let is_told_apart = name == "oneOf" && fields.contains_key("discriminator");
            let name = if is_told_apart { "anyOf" } else { name };
            if let Some(kept) = kept {
                made.insert(name.to_owned(), kept);
            }
        }
        if self.doc.is_3_0 {
            exclusive(fields, &mut made);
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                return nullable(made);
            }
        }
        Value::Object(made)
    }

    /// The names of what has to be there and comes this way.
    fn required(&self, fields: &Map<String, Value>, names: &[Value]) -> Value {
        let comes = |name: &&Value| {
            let property = name.as_str().and_then(|name| fields.get("properties")?.get(name));
            let to = property.and_then(|property| property.get("$ref")?.as_str());
            let resolved = to.and_then(|to| self.doc.resolve(&target(to).ok()?).ok());
            let property = resolved.map(|(_, value)| value).or(property);
            property.and_then(|property| property.get(self.not_sent)) != Some(&Value::Bool(true))
        };
        names.iter().filter(comes).cloned().collect()
    }

    /// The definition that takes the place of a reference.
    fn definition(&mut self, to: &str) -> String {
        // Those that lead nowhere are told of where clients are made; here they hold for anything.
        let place = target(to).unwrap_or_default();
        if let Some(name) = self.names.get(&place) {
            return format!("#/$defs/{name}");
        }
        let last = place.rsplit('/').next().unwrap_or_default();
        let fits = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }
        };
        let wanted: String = last.chars().map(fits).collect();
        let mut name = wanted.clone();
        let mut count = 1;
        while !self.used.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        self.names.insert(place.clone(), name.clone());
        self.open.push((place, name.clone()));
        format!("#/$defs/{name}")
    }

    /// A pattern, unless it needs what channels do not do because it may take for ever.
    fn pattern(&mut self, pattern: &str) -> Option<Value> {
        let looks =
            ["(?=", "(?!", "(?<=", "(?<!", "\\k<"].iter().any(|part| pattern.contains(part));
        let refers_back = pattern
            .split('\\')
            .skip(1)
            .any(|rest| rest.starts_with(|c: char| ('1'..='9').contains(&c)));
        if looks || refers_back {
            self.notes.insert(format!(
                "pattern `{}` looks around or back, which channels do not, and is left out",
                pattern.escape_debug()
            ));
            return None;
        }
        Some(pattern.into())
    }
}

/// In 3.0 a limit is exclusive by a word of its own.
fn exclusive(fields: &Map<String, Value>, made: &mut Map<String, Value>) {
    for (limit, word) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if fields.get(word) == Some(&Value::Bool(true))
            && let Some(value) = made.remove(limit)
        {
            made.insert(word.to_owned(), value);
        }
    }
}

fn nullable(mut made: Map<String, Value>) -> Value {
    match made.get("type").cloned() {
        Some(Value::String(word)) if !made.contains_key("enum") => {
            made.insert("type".to_owned(), json!([word, "null"]));
            Value::Object(made)
        }
        _ => json!({"anyOf": [made, {"type": "null"}]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: &str, written: &Value, expected: &Value, notes: &[&str]) {
        let text = json!({"openapi": version, "components": {"schemas": {
            "A": written, "B": {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/A"}, "b": {"$ref": "#/components/schemas/B"}}},
        }}});
        let doc = Document::read("d.yaml", &text.to_string()).unwrap();
        let (made, told) = schema(&doc, "/components/schemas/A", "readOnly");
        assert_eq!(
            (made.unwrap_or(Value::Null), told),
            (expected.clone(), notes.iter().map(|note| (*note).to_owned()).collect())
        );
    }

    #[test]
    fn schemas_of_3_0_become_json_schema() {
        check(
            "3.0.0",
            &json!({"type": "string", "nullable": true, "example": 1, "minLength": 1}),
            &json!({"type": ["string", "null"], "minLength": 1}),
            &[],
        );
        check(
            "3.0.0",
            &json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false}),
            &json!({"type": "integer", "exclusiveMinimum": 1, "maximum": 9}),
            &[],
        );
        check(
            "3.0.0",
            &json!({"nullable": true, "enum": ["a"], "type": "string"}),
            &json!({"anyOf": [{"enum": ["a"], "type": "string"}, {"type": "null"}]}),
            &[],
        );
        check("3.0.0", &json!({"description": "anything"}), &Value::Null, &[]);
    }

    #[test]
    fn references_in_circles_become_definitions() {
        let b = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/B"}}});
        check(
            "3.1.0",
            &json!({"type": "array", "items": {"$ref": "#/components/schemas/B", "minProperties": 1}}),
            &json!({
                "type": "array", "items": {"allOf": [{"$ref": "#/$defs/B"}, {"minProperties": 1}]},
                "$defs": {"B": b, "A": {"type": "array", "items": {"allOf": [{"$ref": "#/$defs/B"}, {"minProperties": 1}]}}},
            }),
            &[],
        );
    }

    #[test]
    fn what_is_named_like_a_word_of_schemas_stays() {
        let written = json!({"type": "object", "properties": {"example": {"type": "string"}, "default": {"type": "integer"}}, "required": ["example"]});
        check("3.1.0", &written, &written, &[]);
    }

    #[test]
    fn what_does_not_come_this_way_need_not_be_there() {
        check(
            "3.1.0",
            &json!({"required": ["id", "name"], "properties": {"id": {"readOnly": true, "type": "integer"}, "name": {"writeOnly": true}}}),
            &json!({"required": ["name"], "properties": {"id": {"type": "integer"}, "name": {}}}),
            &[],
        );
    }

    #[test]
    fn patterns_that_look_around_are_left_out_and_told_of() {
        check(
            "3.1.0",
            &json!({"type": "string", "pattern": "^(?=a)b$"}),
            &json!({"type": "string"}),
            &["pattern `^(?=a)b$` looks around or back, which channels do not, and is left out"],
        );
    }
}
