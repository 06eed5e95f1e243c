//! The fields of one item, read with the looseness of what wrote them.
//!
//! Exports have `"True"` for a truth value, `"10"` for a number, and texts that name a variable of the environment.
//! Each field that is read is remembered, so that at the end the ones are known that nobody asked for: those have no
//! counterpart here, and the report says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Variables that texts may name.
pub type Env = BTreeMap<String, String>;

/// How texts name a variable.
const REFERENCES: &[&str] = &["Zato_Enmasse_Env.", "ZatoEnmasseEnv."];
/// Fields that say how Zato keeps an item, and nothing about what it does.
const OF_NO_MEANING: &[&str] = &[
    "name",
    "id",
    "cluster_id",
    "cluster",
    "is_internal",
    "connection",
    "transport",
    "type_",
    "opaque",
    "opaque1",
    "opaque_attr",
    "service_id",
    "security_id",
    "sec_type",
    "cache_id",
    "cache_name",
    "cache_type",
    "cluster_name",
    "engine_display_name",
    "has_security",
    "security_groups_member_count",
    "security_group_count",
    "member_count",
    "service_name_list",
    "source",
];

/// Why an item is not taken, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) instead: String,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { why: why.into(), instead: instead.into() }
    }

    /// What is wrong with the export itself.
    pub(super) fn fault(why: impl Into<String>) -> Self {
        Self::new(why, "correct it in the export and import it again")
    }
}

/// A secret as an export has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// Its value.
    Given(String),
    /// It is not there; why.
    Missing(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given",
            Self::Missing(_) => "Missing",
        })
    }
}

/// The fields of an item.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    env: &'a Env,
    asked: BTreeSet<&'static str>,
    /// What is otherwise than in the export, one sentence each.
    pub(super) notes: Vec<String>,
}

/// Whether there is anything in a value.
fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !matches!(text.trim(), "" | "null" | "None"),
        Value::Array(items) => items.iter().any(is_something),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether a value is this text, or a number that is written so.
pub(super) fn is_same(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(number) => number.to_string() == text,
        _ => false,
    }
}

/// The variable that a text names.
fn reference(text: &str) -> Option<&str> {
    let text = text.trim();
    let named = REFERENCES.iter().find_map(|prefix| text.strip_prefix(prefix));
    named.or_else(|| text.strip_prefix("${")?.strip_suffix('}')).filter(|name| !name.is_empty())
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, env: &'a Env) -> Self {
        Self { map, env, asked: BTreeSet::new(), notes: Vec::new() }
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The first of the fields with something in it, with its name.
    fn find(&mut self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        self.asked.extend(names);
        let mut all = names.iter().filter_map(|name| Some((*name, self.map.get(*name)?)));
        all.find(|(_, value)| is_something(value))
    }

    /// The field as it stands.
    pub(super) fn raw(&mut self, names: &[&'static str]) -> Option<&'a Value> {
        self.find(names).map(|(_, value)| value)
    }

    /// Whether one of the fields is there at all, empty or not.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.map.contains_key(*name))
    }

    /// These fields mean nothing here, and nothing is lost with them.
    pub(super) fn pass_over(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
    }

    /// A text; numbers and truth values count as their texts.
    pub(super) fn text(&mut self, names: &[&'static str]) -> Result<Option<String>, Refused> {
        let Some((name, value)) = self.find(names) else { return Ok(None) };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(Refused::fault(format!("field `{name}` is no text"))),
        };
        let Some(variable) = reference(&text) else { return Ok(Some(text)) };
        match self.env.get(variable) {
            Some(value) => Ok(Some(value.clone()).filter(|value| !value.is_empty())),
            None => Err(Refused::new(
                format!("field `{name}` stands in the variable `{variable}`, which is not set"),
                format!(
                    "set `{variable}`, or name a file that sets it with `--env-file`, and import it again"
                ),
            )),
        }
    }

    /// A text that has to be there.
    pub(super) fn needed(&mut self, names: &[&'static str]) -> Result<String, Refused> {
        let first = names.first().copied().unwrap_or_default();
        let found = self.text(names)?;
        found.ok_or_else(|| Refused::fault(format!("field `{first}` is missing")))
    }

    /// A truth value.
    pub(super) fn flag(&mut self, names: &[&'static str]) -> Result<Option<bool>, Refused> {
        let Some(text) = self.text(names)? else { return Ok(None) };
        let first = names.first().copied().unwrap_or_default();
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" | "t" | "y" => Ok(Some(true)),
            "false" | "no" | "off" | "0" | "f" | "n" => Ok(Some(false)),
            _ => Err(Refused::fault(format!(
                "field `{first}` is `{}`, and `true` or `false` was expected",
                text.escape_debug()
            ))),
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, names: &[&'static str]) -> Result<Option<u64>, Refused> {
        let Some(text) = self.text(names)? else { return Ok(None) };
        let first = names.first().copied().unwrap_or_default();
        let plain = text.trim().strip_suffix(".0").unwrap_or(text.trim());
        plain.parse().map(Some).map_err(|_| {
            Refused::fault(format!(
                "field `{first}` is `{}`, and a whole number was expected",
                text.escape_debug()
            ))
        })
    }

    /// Texts: a list, or one text with commas, blanks or line ends between them.
    pub(super) fn texts(&mut self, names: &[&'static str]) -> Result<Vec<String>, Refused> {
        match self.find(names) {
            None => Ok(Vec::new()),
            Some((name, Value::Array(items))) => {
                let each = items.iter().filter(|item| is_something(item)).map(|item| match item {
                    Value::String(text) => Ok(text.trim().to_owned()),
                    Value::Number(_) | Value::Bool(_) => Ok(item.to_string()),
                    Value::Object(fields) => match fields.get("name").and_then(Value::as_str) {
                        Some(name) => Ok(name.to_owned()),
                        None => Err(Refused::fault(format!(
                            "field `{name}` has an item without a name"
                        ))),
                    },
                    _ => Err(Refused::fault(format!("field `{name}` is no list of texts"))),
                });
                each.collect()
            }
            Some((_, Value::String(_))) => {
                let text = self.text(names)?.unwrap_or_default();
                let parts = text.split([',', '\n', ' ']).map(str::trim);
                Ok(parts.filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect())
            }
            Some((_, Value::Number(_))) => Ok(self.text(names)?.into_iter().collect()),
            Some((name, _)) => Err(Refused::fault(format!("field `{name}` is no list of texts"))),
        }
    }

    /// A secret.
    pub(super) fn secret(&mut self, names: &[&'static str]) -> Result<Secret, Refused> {
        let Some((name, value)) = self.find(names) else {
            return Ok(Secret::Missing("the export has none".to_owned()));
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) => value.to_string(),
            _ => return Err(Refused::fault(format!("field `{name}` is no text"))),
        };
        match reference(&text) {
            None => Ok(Secret::Given(text)),
            Some(variable) => match self.env.get(variable) {
                Some(value) if !value.is_empty() => Ok(Secret::Given(value.clone())),
                _ => Ok(Secret::Missing(format!("the variable `{variable}` is not set"))),
            },
        }
    }

    /// Notes every field with something in it that was not asked for.
    pub(super) fn note_the_rest(&mut self) {
        let left: Vec<&String> = self
            .map
            .iter()
            .filter(|(name, value)| {
                !self.asked.contains(name.as_str())
                    && !OF_NO_MEANING.contains(&name.as_str())
                    && is_something(value)
                    && **value != Value::Bool(false)
                    && value.as_str().is_none_or(|text| !text.eq_ignore_ascii_case("false"))
            })
            .map(|(name, _)| name)
            .collect();
        for name in left {
            self.notes.push(format!("field `{name}` has no counterpart and is left out"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(value: Value, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let map = json!({"x": value});
        let env = Env::from([("A".to_owned(), "7".to_owned()), ("E".to_owned(), String::new())]);
        read(&mut Fields::new(map.as_object().unwrap(), &env))
    }

    #[track_caller]
    fn text(value: Value, expected: Result<Option<&str>, &str>) {
        let found = with(value, |fields| fields.text(&["x"])).map_err(|refused| refused.why);
        assert_eq!(
            found,
            expected.map(|text| text.map(ToOwned::to_owned)).map_err(ToOwned::to_owned)
        );
    }

    #[test]
    fn texts_may_be_numbers_and_may_name_a_variable() {
        text(json!("a"), Ok(Some("a")));
        text(json!(5), Ok(Some("5")));
        text(json!(" "), Ok(None));
        text(json!(null), Ok(None));
        text(json!("Zato_Enmasse_Env.A"), Ok(Some("7")));
        text(json!("ZatoEnmasseEnv.A"), Ok(Some("7")));
        text(json!("${A}"), Ok(Some("7")));
        text(json!("${A}/b"), Ok(Some("${A}/b")));
        text(json!([]), Ok(None));
        text(json!([1]), Err("field `x` is no text"));
        text(
            json!("Zato_Enmasse_Env.B"),
            Err("field `x` stands in the variable `B`, which is not set"),
        );
    }

    #[test]
    fn truth_values_and_numbers_may_be_texts() {
        let flag = |value| with(value, |fields| fields.flag(&["x"])).map_err(|refused| refused.why);
        assert_eq!(flag(json!("True")), Ok(Some(true)));
        assert_eq!(flag(json!(false)), Ok(Some(false)));
        assert_eq!(flag(json!("")), Ok(None));
        assert_eq!(
            flag(json!("maybe")),
            Err("field `x` is `maybe`, and `true` or `false` was expected".to_owned())
        );
        let number =
            |value| with(value, |fields| fields.number(&["x"])).map_err(|refused| refused.why);
        assert_eq!(number(json!("10")), Ok(Some(10)));
        assert_eq!(number(json!(10.0)), Ok(Some(10)));
        assert_eq!(number(json!("${A}")), Ok(Some(7)));
        assert_eq!(
            number(json!(-1)),
            Err("field `x` is `-1`, and a whole number was expected".to_owned())
        );
    }

    #[test]
    fn lists_may_be_one_text() {
        let texts =
            |value| with(value, |fields| fields.texts(&["x"])).map_err(|refused| refused.why);
        let two = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(texts(json!(["a", "b"])), Ok(two.clone()));
        assert_eq!(texts(json!("a, b")), Ok(two.clone()));
        assert_eq!(texts(json!("a\nb\n")), Ok(two.clone()));
        assert_eq!(texts(json!([{"name": "a"}, {"name": "b"}])), Ok(two));
        assert_eq!(texts(json!([[1]])), Err("field `x` is no list of texts".to_owned()));
    }

    #[test]
    fn a_secret_is_given_or_missing_and_never_printed() {
        let secret = |value| with(value, |fields| fields.secret(&["x"])).unwrap();
        assert_eq!(secret(json!("s3cret")), Secret::Given("s3cret".to_owned()));
        assert_eq!(secret(json!("${A}")), Secret::Given("7".to_owned()));
        assert_eq!(
            secret(json!("${E}")),
            Secret::Missing("the variable `E` is not set".to_owned())
        );
        assert_eq!(secret(json!("")), Secret::Missing("the export has none".to_owned()));
        assert!(!format!("{:?}", secret(json!("s3cret"))).contains("s3cret"));
    }

    #[test]
    fn fields_that_nobody_asked_for_are_noted() {
        let map = json!({"name": "a", "id": 5, "asked": 1, "color": "red", "empty": "", "off": false, "none": null});
        let env = Env::new();
        let mut fields = Fields::new(map.as_object().unwrap(), &env);
        fields.number(&["asked"]).unwrap();
        fields.note_the_rest();
        assert_eq!(fields.notes, ["field `color` has no counterpart and is left out"]);
    }
}
