//! YAML and JSON alike, whatever they say; in JSON, too, no object may have a key twice: of two, one would be lost.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::yaml::{self, Whole, YamlError};

/// JSON has tabs and escapes that YAML does not: what is no YAML and begins like JSON is read as JSON.
pub(crate) fn wholes(file: &str, text: &str) -> Result<Vec<Whole>, YamlError> {
    let as_yaml = yaml::wholes(file, text);
    if as_yaml.is_ok() || !text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        return as_yaml;
    }
    let value = json(file, text)?;
    Ok(vec![Whole { value, lines: BTreeMap::new(), line: 1 }])
}

/// Reads JSON.
pub(crate) fn json(file: &str, text: &str) -> Result<Value, YamlError> {
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str::<Once>(text).map(|Once(value)| value).map_err(|err| {
        let told = err.to_string();
        let fault = told.split(" at line ").next().unwrap_or_default().to_owned();
        let line = u64::try_from(err.line()).unwrap_or(1).max(1);
        YamlError::Form { file: file.to_owned(), line, fault }
    })
}

/// A JSON value in which no object has a key twice: of two, one would be lost.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Once(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Once(value))) = map.next_entry::<String, Once>()? {
            if fields.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("duplicate key `{key}`")));
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}
