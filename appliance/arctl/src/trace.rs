//! `arctl trace`: a request step by step, and the list of the last ones.

use std::collections::HashMap;

use arapi::client::path_part;
use arapi::trace::{TraceQuery, TraceStep, TraceSummary, TraceView};

use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};

/// `arctl trace`: the last requests.
pub(crate) async fn list(api: &Api, query: &TraceQuery, json: bool) -> Result<(), Failure> {
    let mut path = format!("/v1/traces?failed={}", query.failed);
    for (key, value) in
        [("slow_ms", query.slow_ms), ("most", query.most.and_then(|it| it.try_into().ok()))]
    {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={value}"));
        }
    }
    let requests: Vec<TraceSummary> = api.get(&path).await?;
    if json {
        return out::json(&requests);
    }
    let mut table = Table::new(&["TIME", "CID", "NAME", "STATUS", "TOOK", "STEPS"]);
    for request in requests {
        table.row([
            moment(request.at_us / 1000),
            request.cid,
            request.name,
            request.status.map(|status| status.to_string()).unwrap_or_default(),
            request.took_us.map_or("under way".to_owned(), ms),
            request.steps.to_string(),
        ]);
    }
    table.print("there is no such request")
}

/// `arctl trace CID`.
pub(crate) async fn show(api: &Api, cid: &str, json: bool) -> Result<(), Failure> {
    let view: TraceView = api.get(&format!("/v1/traces/{}", path_part(cid))).await?;
    if json {
        return out::json(&view);
    }
    for line in lines(&view) {
        out::line(&line)?;
    }
    Ok(())
}

/// Microseconds as milliseconds.
fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

fn lines(view: &TraceView) -> Vec<String> {
    let begin = view.steps.iter().map(|step| step.at_us).min().unwrap_or(0);
    let mut lines = vec![format!("{} at {}", view.cid, moment(begin / 1000))];
    if !view.trace.is_empty() {
        lines.push(format!("trace {}", view.trace));
    }
    let parents: HashMap<&str, &str> = view
        .steps
        .iter()
        .filter(|step| !step.span.is_empty())
        .map(|step| (step.span.as_str(), step.parent.as_str()))
        .collect();
    for step in &view.steps {
        let from = ms(step.at_us.saturating_sub(begin));
        let took = ms(step.took_us);
        let indent = "  ".repeat(depth(step, &parents));
        lines.push(format!("{from:>13} {took:>13}  {indent}{}", said(step)));
    }
    if view.left_out > 0 {
        lines.push(format!("and {} more steps, which were not kept", view.left_out));
    }
    lines
}

/// How many of the known steps a step is part of.
fn depth(step: &TraceStep, parents: &HashMap<&str, &str>) -> usize {
    let mut depth = 0;
    let mut parent = step.parent.as_str();
    // A step that came from a broken store of another version could be part of itself.
    while let Some(above) = parents.get(parent)
        && depth < 32
    {
        depth += 1;
        parent = above;
    }
    depth
}

fn said(step: &TraceStep) -> String {
    let mut text = step.what.clone();
    if !step.name.is_empty() {
        text.push_str(&format!(" {}", step.name));
    }
    if let Some(status) = step.status {
        text.push_str(&format!(" {status}"));
    } else if step.failed {
        text.push_str(" failed");
    }
    for (key, value) in &step.notes {
        text.push_str(&format!(" {key}={value}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_shown_inside_those_they_are_part_of() {
        let step = |what: &str, name: &str, at: u64, span: &str, parent: &str| {
            json!({"unit": "arsrv", "what": what, "name": name, "at_us": 1_795_219_669_001_000u64 + at,
                "took_us": 1500, "status": 200, "span": span, "parent": parent})
        };
        let view: TraceView = serde_json::from_value(
            json!({"cid": "abcdefgh", "trace": "0a", "left_out": 2, "steps": [
                step("request", "orders", 0, "1", ""),
                step("service", "orders.get", 250, "2", "1"),
                step("outgoing", "crm", 12_345, "3", "2"),
            ]}),
        )
        .unwrap();
        assert_eq!(
            lines(&view),
            [
                "abcdefgh at 2026-11-21 00:07:49",
                "trace 0a",
                "     0.000 ms      1.500 ms  request orders 200",
                "     0.250 ms      1.500 ms    service orders.get 200",
                "    12.345 ms      1.500 ms      outgoing crm 200",
                "and 2 more steps, which were not kept",
            ]
        );
    }
}
