//! Rate limits and quota tiers.
//!
//! 3.2 has the lines that ARINT has; 4.1 has rules with networks and times, which become such lines.

use arapi::limits::Definition;
use arapi::names::Kind;
use serde_json::{Map, Value, json};

use super::fields::{Fields, Refused};
use super::plan::{Draft, Made};

/// The fields of 3.2 and 4.1 that say how much may come in.
const ACTIVE: &[&str] = &["is_rate_limit_active"];
const LINES: &[&str] = &["rate_limit_def"];
const PARENT: &[&str] = &["rate_limit_check_parent_def"];
const RULES: &[&str] = &["rate_limiting", "rules"];
const TIER: &[&str] = &["quota_tier"];

/// Quota tiers.
pub(super) fn tiers(draft: &mut Draft<'_>) {
    for (index, entry) in draft.open() {
        if entry.section != "quota_tier" {
            continue;
        }
        draft.each(index, entry, |_, fields| {
            let definition = match rules(fields)? {
                Some(definition) => definition,
                None => fields.needed(&["definition", "rate_limit_def"])?,
            };
            let mut spec = json!({"definition": definition});
            if let (Some(text), Some(map)) = (fields.text(&["description"])?, spec.as_object_mut())
            {
                map.insert("description".to_owned(), text.into());
            }
            Ok(Made::new(Kind::QuotaTier, spec))
        });
    }
}

/// The rate limit of a channel or security; what cannot be read is noted and left out.
pub(super) fn limit(draft: &Draft<'_>, fields: &mut Fields<'_>) -> Result<Option<Value>, Refused> {
    fields.pass_over(&["rate_limit_type"]);
    let is_active = fields.flag(ACTIVE)?;
    let parent = fields.flag(PARENT)?;
    if let Some(tier) = fields.text(TIER)? {
        if draft.is_there(Kind::QuotaTier, &tier) {
            return Ok(Some(json!({"tier": tier})));
        }
        fields.note(format!("quota tier `{tier}` is not there, so its limit is left out"));
    }
    let lines = match rules(fields)? {
        Some(lines) => lines,
        None => match fields.text(LINES)? {
            // A definition that was switched off, and an empty one, limit nothing.
            Some(lines) if is_active != Some(false) || lines.contains('=') => lines,
            _ => return Ok(None),
        },
    };
    if let Err(err) = lines.parse::<Definition>() {
        if is_active != Some(false) {
            fields.note(format!("its rate limit is not understood ({err}), so nothing is limited"));
        }
        return Ok(None);
    }
    let mut limit = Map::from_iter([("definition".to_owned(), lines.into())]);
    // What was switched off stays switched off; with 4.1's rules there is no such field.
    if is_active == Some(false) {
        limit.insert("is_active".to_owned(), false.into());
    }
    if let Some(parent) = parent {
        limit.insert("check_parent".to_owned(), parent.into());
    }
    Ok(Some(limit.into()))
}

/// The rules of 4.1 as lines.
fn rules(fields: &mut Fields<'_>) -> Result<Option<String>, Refused> {
    let Some(rules) = fields.raw(RULES) else { return Ok(None) };
    let fault = || {
        Refused::fault("its rate limiting is not a list of rules with `cidr_list` and `time_range`")
    };
    let mut lines = Vec::new();
    for rule in rules.as_array().ok_or_else(fault)? {
        let text = |value: &Value| value.as_str().map(|text| text.trim().to_owned());
        let from: Vec<String> = match rule.get("cidr_list") {
            Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
            Some(Value::String(text)) => text
                .split([',', '\n', ' '])
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            _ => return Err(fault()),
        };
        // All addresses of both families.
        let is_any = |network: &String| matches!(network.as_str(), "*" | "0.0.0.0/0" | "::/0");
        let from = if from.iter().any(is_any) { "*".to_owned() } else { from.join(", ") };
        for range in rule.get("time_range").and_then(Value::as_array).ok_or_else(fault)? {
            lines.push(line(&from, range).ok_or_else(fault)?);
        }
    }
    Ok(Some(lines.join("\n")))
}

/// One line of a rule.
fn line(from: &str, range: &Value) -> Option<String> {
    let is = |field: &str| range.get(field).and_then(Value::as_bool) == Some(true);
    let text = |field: &str| range.get(field).and_then(Value::as_str);
    let hours = match (text("time_from"), text("time_to")) {
        (Some(begin), Some(end)) if !is("is_all_day") => {
            format!(" {}-{}", begin.get(..5)?, end.get(..5)?)
        }
        _ => String::new(),
    };
    let rate = if is("disallowed") {
        "none".to_owned()
    } else if is("disabled") {
        "*".to_owned()
    } else {
        let limit = match range.get("limit")? {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => return None,
        };
        let unit = match text("limit_unit")?.to_ascii_lowercase().as_str() {
            "s" | "second" | "seconds" => 's',
            "m" | "minute" | "minutes" => 'm',
            "h" | "hour" | "hours" => 'h',
            "d" | "day" | "days" => 'd',
            _ => return None,
        };
        format!("{limit}/{unit}")
    };
    Some(format!("{from}{hours} = {rate}"))
}
