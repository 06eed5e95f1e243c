//! An OpenAPI document as a value with the line of everything in it by its JSON Pointer (RFC 6901).
//!
//! YAML is read as of 1.2 (`no` is a text), JSON as YAML or, where that does not fit, as JSON, then without lines.
//!
//! **Invariant:** what is read is not longer, deeper or larger than the limits, anchors followed; nothing is fetched.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::once;
use crate::yaml::{Node, YamlError, nodes};

/// Longest document, bytes.
const LONGEST: usize = 16 * 1024 * 1024;
/// Most operations in one document.
const MOST_OPERATIONS: usize = 5000;
/// Most references that lead to one another.
const MOST_HOPS: usize = 32;
/// Where everything else is told of in one sentence.
const BUNDLE: &str = "put all of it into one document (`redocly bundle` does) and import that";

/// Why a text cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenApiError {
    /// It is neither YAML nor JSON.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// It is not an OpenAPI document that is known here.
    #[error("{file} line {line}: {fault}")]
    Form {
        /// The file.
        file: String,
        /// Counted from 1.
        line: u64,
        /// What was expected.
        fault: String,
    },
}

/// Why a part is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) instead: String,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { why: why.into(), instead: instead.into() }
    }
}

/// An OpenAPI document.
#[derive(Debug)]
pub struct Document {
    pub(super) file: String,
    pub(super) value: Value,
    /// Whether it is 3.0, whose schemas are not JSON Schema in every respect.
    pub(super) is_3_0: bool,
    lines: BTreeMap<String, u64>,
}

impl Document {
    /// Reads one; `file` is for the messages.
    pub fn read(file: &str, text: &str) -> Result<Self, OpenApiError> {
        let fault = |line: u64, fault: String| OpenApiError::Form {
            file: file.to_owned(),
            line: line.max(1),
            fault,
        };
        if text.len() > LONGEST {
            return Err(fault(1, format!("it is longer than the {LONGEST} bytes that are read")));
        }
        let (value, lines) = parse(file, text)?;
        let line = |field: &str| lines.get(field).copied().unwrap_or(1);
        if value.get("swagger").is_some() {
            return Err(fault(
                line("/swagger"),
                "this is Swagger 2.0, and OpenAPI 3.0 or 3.1 was expected; convert it (https://editor.swagger.io does, and so does `swagger2openapi`) and import that".to_owned(),
            ));
        }
        let version = match value.get("openapi") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => {
                return Err(fault(
                    1,
                    "this is no OpenAPI document: its field `openapi` is missing".to_owned(),
                ));
            }
        };
        let is = |known: &str| version == known || version.starts_with(&format!("{known}."));
        if !is("3.0") && !is("3.1") {
            let told = format!(
                "OpenAPI `{}` is not known; 3.0 or 3.1 was expected",
                version.escape_debug()
            );
            return Err(fault(line("/openapi"), told));
        }
        for field in ["paths", "components", "webhooks", "info"] {
            if value.get(field).is_some_and(|part| !part.is_object()) {
                let told = format!("`{field}` is no map of names");
                return Err(fault(line(&format!("/{field}")), told));
            }
        }
        let document = Self { file: file.to_owned(), is_3_0: is("3.0"), lines, value };
        let paths = document.value.get("paths").and_then(Value::as_object);
        let count: usize =
            paths.into_iter().flatten().filter_map(|(_, path)| Some(path.as_object()?.len())).sum();
        if count > MOST_OPERATIONS {
            let told = format!(
                "it has {count} operations, and {MOST_OPERATIONS} are the most; import a part of it"
            );
            return Err(fault(document.line("/paths"), told));
        }
        if let Some((pointer, to)) = foreign(&document.value, String::new()) {
            let told = format!(
                "`$ref` leads to `{}`, which is another document, and nothing is fetched; {BUNDLE}",
                to.escape_debug()
            );
            return Err(fault(document.line(&pointer), told));
        }
        Ok(document)
    }

    /// The line of a place; of what is around it where it has none of its own.
    pub(super) fn line(&self, pointer: &str) -> u64 {
        let mut place = pointer;
        loop {
            if let Some(line) = self.lines.get(place) {
                return *line;
            }
            match place.rfind('/') {
                Some(end) => place = place.get(..end).unwrap_or_default(),
                None => return 1,
            }
        }
    }

    /// The fields of a map in the order in which they are written.
    pub(super) fn fields<'a>(&'a self, pointer: &str) -> Vec<(&'a String, &'a Value)> {
        let fields = self.value.pointer(pointer).and_then(Value::as_object);
        let mut fields: Vec<_> = fields.into_iter().flatten().collect();
        fields.sort_by_key(|(name, _)| self.line(&join(pointer, name)));
        fields
    }

    /// What stands at a place, with where that is: references are followed.
    pub(super) fn resolve(&self, pointer: &str) -> Result<(String, &Value), Refused> {
        let mut place = pointer.to_owned();
        for _ in 0..MOST_HOPS {
            let value = self.value.pointer(&place).ok_or_else(|| {
                let told = format!("`$ref` leads to `#{}`, where nothing is", place.escape_debug());
                Refused::new(told, "mend the reference in the document")
            })?;
            match value.get("$ref").and_then(Value::as_str) {
                None => return Ok((place, value)),
                Some(to) => place = target(to)?,
            }
        }
        Err(Refused::new(
            format!("the references from `#{}` lead in a circle", pointer.escape_debug()),
            "mend the references in the document",
        ))
    }

    /// A text of the document's, trimmed.
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        let text = self.value.pointer(pointer).and_then(Value::as_str)?.trim();
        (!text.is_empty()).then_some(text)
    }
}

/// The pointer that a reference inside of the document names.
pub(super) fn target(reference: &str) -> Result<String, Refused> {
    let pointer = reference.strip_prefix('#').ok_or_else(|| {
        let told = format!("`$ref` leads to `{}`, another document", reference.escape_debug());
        Refused::new(told, BUNDLE)
    })?;
    let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy().into_owned();
    if decoded.is_empty() || decoded.starts_with('/') {
        return Ok(decoded);
    }
    Err(Refused::new(
        format!(
            "`$ref` leads to `{}`; a place such as `#/components/schemas/Pet` was expected",
            reference.escape_debug()
        ),
        "refer to the schema by its place in the document",
    ))
}

/// A pointer one step deeper.
pub(super) fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn parse(file: &str, text: &str) -> Result<(Value, BTreeMap<String, u64>), YamlError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Merge,
    };
    let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    match nodes(file, text, options) {
        Ok(mut documents) => {
            let one = YamlError::Form {
                file: file.to_owned(),
                line: 1,
                fault: "one OpenAPI document was expected".to_owned(),
            };
            let first = documents.pop().filter(|_| documents.is_empty()).ok_or(one)?;
            let mut lines = BTreeMap::new();
            let value = placed(first.value, "", &mut lines);
            Ok((value, lines))
        }
        Err(_) if is_json => Ok((once::json(file, text)?, BTreeMap::new())),
        Err(err) => Err(err),
    }
}

fn placed(node: Node, pointer: &str, lines: &mut BTreeMap<String, u64>) -> Value {
    match node {
        Node::Plain(value) => value,
        Node::List(items) => {
            let each =
                items.into_iter().enumerate().map(|(index, Spanned { value, referenced, .. })| {
                    let pointer = format!("{pointer}/{index}");
                    lines.insert(pointer.clone(), referenced.line());
                    placed(value, &pointer, lines)
                });
            Value::Array(each.collect())
        }
        Node::Map(fields) => {
            let each = fields.into_iter().map(|(key, item)| {
                let pointer = join(pointer, &key.value);
                lines.insert(pointer.clone(), key.referenced.line());
                let value = placed(item.value, &pointer, lines);
                (key.value, value)
            });
            Value::Object(each.collect::<Map<_, _>>())
        }
    }
}

/// The first reference to another document.
fn foreign(value: &Value, pointer: String) -> Option<(String, String)> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let below = join(&pointer, name);
            match (name.as_str(), value) {
                ("$ref", Value::String(to)) if !to.starts_with('#') => Some((below, to.clone())),
                // What stands in these is data.
                ("const" | "enum" | "default" | "example" | "examples", _) => None,
                (_, value) => foreign(value, below),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| foreign(item, format!("{pointer}/{index}"))),
        _ => None,
    }
}
