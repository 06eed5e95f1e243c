//! `cjson` of scripts: values to JSON and back, with limits.

use mlua::{Lua, Value};
use serde_json::{Map, Number};

use crate::number::float;

/// Deepest nesting either way.
const DEPTH: usize = 100;

fn fault(text: String) -> mlua::Error {
    mlua::Error::RuntimeError(text)
}

/// A value as JSON.
pub(super) fn encode(value: &Value) -> mlua::Result<String> {
    let json = to_json(value, DEPTH)?;
    serde_json::to_string(&json).map_err(|err| fault(format!("Cannot serialise: {err}")))
}

fn to_json(value: &Value, depth: usize) -> mlua::Result<serde_json::Value> {
    use serde_json::Value as Json;
    if depth == 0 {
        return Err(fault(format!("Cannot serialise, excessive depth ({DEPTH})")));
    }
    Ok(match value {
        Value::Nil => Json::Null,
        Value::LightUserData(_) => Json::Null,
        Value::Boolean(value) => Json::Bool(*value),
        Value::Integer(number) => Json::Number((*number).into()),
        Value::Number(number) => {
            let whole = crate::number::truncate(*number);
            if float(whole) == *number && whole.unsigned_abs() < 100_000_000_000_000 {
                Json::Number(whole.into())
            } else {
                let number = Number::from_f64(*number).ok_or_else(|| {
                    fault("Cannot serialise number: must not be NaN or Inf".into())
                })?;
                Json::Number(number)
            }
        }
        Value::String(text) => Json::String(text.to_string_lossy()),
        Value::Table(table) => {
            let mut count = 0_usize;
            let mut highest = 0_usize;
            let mut is_list = true;
            for pair in table.pairs::<Value, Value>() {
                let (key, _) = pair?;
                count += 1;
                let index = match key {
                    Value::Integer(index) => usize::try_from(index).ok(),
                    Value::Number(index) => {
                        let whole = crate::number::truncate(index);
                        usize::try_from(whole).ok().filter(|_| float(whole) == index)
                    }
                    _ => None,
                };
                match index.filter(|index| *index > 0) {
                    Some(index) => highest = highest.max(index),
                    None => is_list = false,
                }
            }
            if is_list && count > 0 {
                if highest > count * 2 + 10 {
                    return Err(fault("Cannot serialise table: excessively sparse array".into()));
                }
                let mut items = Vec::with_capacity(highest);
                for index in 1..=highest {
                    items.push(to_json(&table.raw_get(index)?, depth - 1)?);
                }
                return Ok(Json::Array(items));
            }
            let mut object = Map::new();
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                let key = match key {
                    Value::String(text) => text.to_string_lossy(),
                    Value::Integer(number) => number.to_string(),
                    Value::Number(number) => crate::number::format_float(number),
                    _ => {
                        return Err(fault(
                            "Cannot serialise table: table key must be a number or string".into(),
                        ));
                    }
                };
                object.insert(key, to_json(&value, depth - 1)?);
            }
            Json::Object(object)
        }
        other => {
            let kind = other.type_name();
            return Err(fault(format!("Cannot serialise {kind}: type not supported")));
        }
    })
}

/// JSON as a value.
pub(super) fn decode(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    let json: serde_json::Value = serde_json::from_slice(text)
        .map_err(|err| fault(format!("Expected value but found invalid token: {err}")))?;
    from_json(lua, json)
}

fn from_json(lua: &Lua, json: serde_json::Value) -> mlua::Result<Value> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Null => Value::NULL,
        Json::Bool(value) => Value::Boolean(value),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.into_iter().enumerate() {
                table.raw_set(index + 1, from_json(lua, item)?)?;
            }
            Value::Table(table)
        }
        Json::Object(object) => {
            let table = lua.create_table()?;
            for (name, value) in object {
                table.raw_set(name, from_json(lua, value)?)?;
            }
            Value::Table(table)
        }
    })
}
