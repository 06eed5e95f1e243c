//! Objects as YAML: read with the place of every field, written so that they can be read again.
//!
//! [`read`] is a pure function over text.  Each document is `kind`, `name` and `spec`; a spec is checked with the
//! same rules as in the box, so that most mistakes are told with file and line before anything is sent.

use std::collections::BTreeMap;

use arapi::names::{Kind, NameError, ObjectName};
use arapi::objects::{Spec, SpecError};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// An object as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: ObjectName,
    /// The spec as written.
    pub spec: Value,
    /// The file.
    pub file: String,
    /// Where it begins, counted from 1.
    pub line: u64,
}

/// Why a text is no list of objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// No YAML.
    #[error("{file} line {line}: {fault}")]
    Form {
        /// The file.
        file: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        fault: String,
    },
    /// An object twice.
    #[error("{file} line {line}: {kind} `{name}` is there already, at {first}")]
    Twice {
        /// The file of the second.
        file: String,
        /// The line of the second.
        line: u64,
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// Where the first is.
        first: String,
    },
    /// No object at all.
    #[error("there is no object in {files}")]
    Empty {
        /// The files.
        files: String,
    },
}

/// A value with the places of what is in it.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Plain(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number was expected"))?;
        Ok(Node::Plain(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}

impl Node {
    /// The value, and into `lines` the line of everything in it by its path.
    fn into_value(self, path: &str, lines: &mut BTreeMap<String, u64>) -> Value {
        match self {
            Self::Plain(value) => value,
            Self::List(items) => {
                let each = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), item.referenced.line());
                    item.value.into_value(&path, lines)
                });
                Value::Array(each.collect())
            }
            Self::Map(fields) => {
                let each = fields.into_iter().map(|(key, item)| {
                    let path = join(path, &key.value);
                    lines.insert(path.clone(), key.referenced.line());
                    let value = item.value.into_value(&path, lines);
                    (key.value, value)
                });
                Value::Object(each.collect::<Map<_, _>>())
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A YAML document with the line of everything in it by its path.
#[derive(Debug)]
pub(crate) struct Whole {
    /// What it says.
    pub(crate) value: Value,
    /// The lines, counted from 1, by paths such as `spec.retry[0]`.
    pub(crate) lines: BTreeMap<String, u64>,
    /// Where it begins.
    pub(crate) line: u64,
}

/// Reads a text as YAML; what is wrong is told with its line.
pub(crate) fn nodes(
    file: &str,
    text: &str,
    options: serde_saphyr::Options,
) -> Result<Vec<Spanned<Node>>, YamlError> {
    serde_saphyr::from_multiple_with_options(text, options).map_err(|err| {
        let line = err.location().map_or(1, |location| location.line());
        let told = err.without_snippet().to_string();
        // The place is told by us, in the same form for every mistake.
        let told = told.lines().next().unwrap_or_default();
        let told = told.split(" at line ").next().unwrap_or_default();
        let told = told.strip_prefix("error: ").unwrap_or(told);
        let told = told
            .split_once(": ")
            .filter(|(place, _)| is_place(place))
            .map_or(told, |(_, rest)| rest);
        YamlError::Form { file: file.to_owned(), line, fault: told.to_owned() }
    })
}

/// Reads the documents of a text, whatever they say; `file` is for the messages.
pub(crate) fn wholes(file: &str, text: &str) -> Result<Vec<Whole>, YamlError> {
    let mut all = Vec::new();
    for Spanned { value, referenced, .. } in nodes(file, text, serde_saphyr::Options::default())? {
        if matches!(value, Node::Plain(Value::Null)) {
            continue;
        }
        let mut lines = BTreeMap::new();
        let value = value.into_value("", &mut lines);
        // The first field tells better where it begins than the marker before it.
        let line = lines.values().min().copied().unwrap_or(referenced.line());
        all.push(Whole { value, lines, line });
    }
    Ok(all)
}

/// Reads the objects of a text; `file` is for the messages.
pub fn read(file: &str, text: &str) -> Result<Vec<Document>, YamlError> {
    let mut all: Vec<Document> = Vec::new();
    for Whole { value, lines, line } in wholes(file, text)? {
        let document = one(file, line, value, &lines)?;
        if let Some(first) =
            all.iter().find(|first| first.kind == document.kind && first.name == document.name)
        {
            return Err(twice(first, &document));
        }
        all.push(document);
    }
    Ok(all)
}

fn is_place(text: &str) -> bool {
    text.starts_with("line ")
}

/// The error of an object that is there a second time.
pub(crate) fn twice(first: &Document, second: &Document) -> YamlError {
    let first_at = if first.file == second.file {
        format!("line {}", first.line)
    } else {
        format!("{} line {}", first.file, first.line)
    };
    YamlError::Twice {
        file: second.file.clone(),
        line: second.line,
        kind: second.kind,
        name: second.name.clone(),
        first: first_at,
    }
}

fn one(
    file: &str,
    line: u64,
    whole: Value,
    lines: &BTreeMap<String, u64>,
) -> Result<Document, YamlError> {
    let at = |path: &str| lines.get(path).copied().unwrap_or(line);
    let fault = |line: u64, fault: String| YamlError::Form { file: file.to_owned(), line, fault };
    let Value::Object(mut fields) = whole else {
        return Err(fault(
            line,
            "an object with `kind`, `name` and `spec` was expected".to_owned(),
        ));
    };
    let mut text = |field: &str| match fields.remove(field) {
        Some(Value::String(text)) => Ok(text),
        // A name may look like a number or a yes.
        Some(other @ (Value::Number(_) | Value::Bool(_))) => Ok(other.to_string()),
        Some(_) => Err(fault(at(field), format!("`{field}` is no text"))),
        None => Err(fault(line, format!("`{field}` is missing"))),
    };
    let name_fault = |field: &str, err: NameError| fault(at(field), err.to_string());
    let kind: Kind = text("kind")?.parse().map_err(|err| name_fault("kind", err))?;
    let name = ObjectName::parse(&text("name")?).map_err(|err| name_fault("name", err))?;
    let spec = match fields.remove("spec") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(spec) => spec,
    };
    if let Some(unknown) = fields.keys().next() {
        return Err(fault(
            at(unknown),
            format!("unknown field `{unknown}`; an object has `kind`, `name` and `spec`"),
        ));
    }
    let document = Document { kind, name, spec, file: file.to_owned(), line };
    check(&document).map_err(|err| {
        let (told, line) = located(&err, lines, line);
        fault(line, told)
    })?;
    Ok(document)
}

/// Checks the spec with the box's rules, as far as they need nothing but the spec.
fn check(document: &Document) -> Result<(), SpecError> {
    let mut spec = document.spec.clone();
    if let (Kind::Service, Some(fields)) = (document.kind, spec.as_object_mut()) {
        // The box fills these in from what is deployed.
        for field in ["module", "class"] {
            fields.entry(field).or_insert_with(|| "".into());
        }
    }
    Spec::parse(document.kind, document.name.as_str(), spec).map(drop)
}

/// What is said about a spec that breaks a rule, and on which line.
fn located(err: &SpecError, lines: &BTreeMap<String, u64>, of_object: u64) -> (String, u64) {
    let (path, fault) = match err {
        SpecError::Form { path, fault, .. } => (path.as_str(), fault.as_str()),
        SpecError::Rule { field, .. } => (*field, ""),
        SpecError::Name { .. } => ("", ""),
    };
    let plain = if path == "." { "" } else { path };
    let full = if plain.is_empty() { "spec".to_owned() } else { join("spec", plain) };
    // Where a part is tagged by its `type`, the path ends above the field that is named in the message.
    let unknown = fault.split('`').nth(1).filter(|_| fault.contains("unknown field"));
    let named = unknown.and_then(|field| {
        let below = join(&full, field);
        let ending = format!(".{field}");
        let anywhere = || lines.iter().find(|(path, _)| path.ends_with(&ending));
        lines.get(&below).copied().or_else(|| anywhere().map(|(_, line)| *line))
    });
    let mut above = full.as_str();
    let line = named.unwrap_or_else(|| {
        loop {
            if let Some(line) = lines.get(above) {
                return *line;
            }
            match above.rfind(['.', '[']) {
                Some(end) => above = above.get(..end).unwrap_or_default(),
                None => return of_object,
            }
        }
    });
    (err.to_string().replace("field `.`: ", ""), line)
}

/// One object as it is written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    kind: Kind,
    name: &'a str,
    spec: &'a Value,
}

/// Writes an object as a YAML document that begins with `---`.
pub(crate) fn write(kind: Kind, name: &str, spec: &Value) -> String {
    let written = Written { kind, name, spec };
    // A spec is plain JSON: this cannot fail.
    let text = serde_saphyr::to_string(&written).unwrap_or_default();
    format!("---\n{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TWO: &str = "\
# doors
kind: Channel
name: orders
spec:
  url_path: /orders/{id}
  service: orders.get
  security:
  - crm
---
kind: security
name: crm
spec:
  type: basic
  username: crm
  password:
    generate: uuid4
";

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(read("x.yaml", text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn documents_are_read_with_their_lines() {
        let documents = read("x.yaml", TWO).unwrap();
        let found: Vec<(Kind, &str, u64)> = documents
            .iter()
            .map(|document| (document.kind, document.name.as_str(), document.line))
            .collect();
        assert_eq!(found, [(Kind::Channel, "orders", 2), (Kind::Security, "crm", 10)]);
        let spec =
            json!({"url_path": "/orders/{id}", "service": "orders.get", "security": ["crm"]});
        assert_eq!(documents[0].spec, spec);
    }

    #[test]
    fn empty_documents_are_passed_over() {
        assert_eq!(read("x.yaml", "---\n---\n# nothing\n"), Ok(Vec::new()));
        assert_eq!(read("x.yaml", ""), Ok(Vec::new()));
    }

    #[test]
    fn an_unknown_field_is_named_with_file_and_line() {
        let misspelled = TWO.replace("service: orders.get", "service: orders.get\n  urlpath: /x");
        let told = read("x.yaml", &misspelled).unwrap_err().to_string();
        let (what, fields) = told.split_once(", expected one of ").unwrap();
        assert_eq!(
            what,
            "x.yaml line 7: Channel `orders`: field `urlpath`: unknown field `urlpath`"
        );
        // Channels get new fields with every release.
        for field in ["`type`, `url_path`, `service`", "`rate_limit`", "`cors`"] {
            assert!(fields.contains(field), "{field}: {fields}");
        }
        refused(
            "kind: Node\nname: x\nspecs: {}\n",
            "x.yaml line 3: unknown field `specs`; an object has `kind`, `name` and `spec`",
        );
        let tagged =
            "kind: Outgoing\nname: crm\nspec:\n  type: rest\n  host: http://x\n  pool: 3\n";
        let told = read("x.yaml", tagged).unwrap_err().to_string();
        assert!(told.starts_with("x.yaml line 6: Outgoing `crm`: unknown field `pool`"), "{told}");
        let nested = "kind: Outgoing\nname: crm\nspec:\n  type: rest\n  host: http://x\n  retry:\n    attempt: 3\n";
        let told = read("x.yaml", nested).unwrap_err().to_string();
        assert!(
            told.starts_with("x.yaml line 7: Outgoing `crm`: unknown field `attempt`"),
            "{told}"
        );
    }

    #[test]
    fn a_broken_rule_is_told_on_the_line_of_its_field() {
        refused(
            &TWO.replace("/orders/{id}", "orders"),
            "x.yaml line 5: Channel `orders`: field `url_path`: `orders` does not start with `/`",
        );
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_line() {
        refused("- 1\n", "x.yaml line 1: an object with `kind`, `name` and `spec` was expected");
        refused("kind: Channel\n", "x.yaml line 1: `name` is missing");
        refused("\nkind: [1]\nname: x\n", "x.yaml line 2: `kind` is no text");
        let told = read("x.yaml", "kind: Chanel\nname: x\n").unwrap_err().to_string();
        assert!(
            told.starts_with("x.yaml line 1: kind `Chanel` is unknown; known kinds are"),
            "{told}"
        );
    }

    #[test]
    fn broken_yaml_is_refused_with_its_line() {
        let told = read("x.yaml", "kind: Channel\nname: [x\n").unwrap_err();
        assert!(matches!(&told, YamlError::Form { line: 2.., .. }), "{told}");
        let told = read("x.yaml", "kind: Channel\nkind: Channel\nname: x\n").unwrap_err();
        assert!(matches!(&told, YamlError::Form { line: 2, .. }), "{told}");
        assert!(told.to_string().contains("duplicate"), "{told}");
    }

    #[test]
    fn an_object_twice_is_refused_with_both_places() {
        let text = "kind: Node\nname: a\n---\nkind: Node\nname: a\n";
        refused(text, "x.yaml line 4: Node `a` is there already, at line 1");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let specs = [
            (Kind::Channel, "a: b", json!({"url_path": "/x", "service": "yes", "timeout_ms": 5})),
            (
                Kind::UserConfig,
                "007",
                json!({"sections": {"a": {"k": "1.0", "no": "null", "l": "x\ny\n"}}}),
            ),
            (Kind::SecurityGroup, "ünï", json!({"members": ["true", "- x", "#"]})),
            (Kind::SecurityGroup, "empty", json!({"members": []})),
        ];
        let text: String =
            specs.iter().map(|(kind, name, spec)| write(*kind, name, spec)).collect();
        let read = read("x.yaml", &text).unwrap();
        for ((kind, name, spec), document) in specs.iter().zip(&read) {
            assert_eq!((*kind, *name), (document.kind, document.name.as_str()), "{text}");
            assert_eq!(*spec, document.spec, "{text}");
        }
        assert_eq!(read.len(), specs.len());
    }

    #[test]
    fn no_text_makes_it_panic() {
        let alphabet = [
            "kind", ": ", "Node", "\n", "name", "  ", "- ", "---\n", "[", "}", "&a ", "*a", "'",
            "é",
        ];
        let mut state = 7u64;
        for _ in 0..3000 {
            let mut text = String::new();
            for _ in 0..16 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]);
            }
            drop(read("x.yaml", &text));
        }
    }
}
