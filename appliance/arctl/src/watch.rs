//! Commands that look: log, status, audit.

use std::time::{SystemTime, UNIX_EPOCH};

use arapi::arwadm::{AuditPage, AuditQuery, NodeStatus};
use arapi::client::path_part;
use arapi::logs::{LogLine, LogQuery};

use crate::cli::AuditFilter;
use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};

/// `arctl logs`.
pub(crate) async fn logs(api: &Api, query: &LogQuery, json: bool) -> Result<(), Failure> {
    let mut path = format!("/v1/logs?follow={}", query.follow);
    let texts = [("cid", &query.cid), ("unit", &query.unit), ("level", &query.level)];
    for (key, value) in texts {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", path_part(value)));
        }
    }
    path.push_str(&format!("&tail={}", query.tail.unwrap_or(100)));
    let mut stream = api.stream(&path).await?;
    while let Some(line) = stream.next().await? {
        if json {
            out::bytes(&line)?;
        } else if let Ok(line) = serde_json::from_slice::<LogLine>(&line) {
            out::line(&human(&line))?;
        }
    }
    Ok(())
}

/// A log line for people.
pub(crate) fn human(line: &LogLine) -> String {
    let ms = line.time_ms % 1000;
    let mut text = format!(
        "{}.{ms:03} {:<5} {}: {}",
        moment(line.time_ms),
        line.level.to_ascii_uppercase(),
        line.unit,
        line.message
    );
    if !line.target.starts_with(&line.unit) {
        text.push_str(&format!(" from={}", line.target));
    }
    if let Some(cid) = &line.cid {
        text.push_str(&format!(" cid={cid}"));
    }
    for (key, value) in &line.fields {
        if value.is_empty() || value.contains([' ', '"', '=']) {
            text.push_str(&format!(" {key}={value:?}"));
        } else {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    text
}

/// `arctl status`.
pub(crate) async fn status(api: &Api, json: bool) -> Result<(), Failure> {
    let status: NodeStatus = api.get("/v1/status").await?;
    if json {
        out::json(&status)?;
    } else {
        for line in summary(&status) {
            out::line(&line)?;
        }
    }
    if status.health == "ok" { Ok(()) } else { Err(Failure::No) }
}

fn summary(status: &NodeStatus) -> Vec<String> {
    let mut lines = vec![format!("{}: {} (ARINT {})", status.node, status.health, status.version)];
    lines.extend(status.problems.iter().map(|problem| format!("  problem: {problem}")));
    if let Some(store) = &status.arclst {
        lines.push(format!("store:     revision {}, {} objects", store.revision, store.objects));
    }
    if let Some(core) = &status.arsrv {
        let memory: u64 = core.workers.iter().map(|worker| worker.memory_bytes).sum();
        lines.push(format!(
            "core:      revision {}, {} workers with {} MB, {} services, {} channels, {} connections",
            core.revision,
            core.workers.len(),
            memory / 1_000_000,
            core.services.len(),
            core.channels.len(),
            core.outgoing.len()
        ));
        let not_serving = core.channels.iter().filter(|channel| channel.state != "serving");
        lines.extend(
            not_serving.map(|channel| format!("  channel {}: {}", channel.name, channel.state)),
        );
        let down = core.outgoing.iter().filter(|outgoing| outgoing.health == "down");
        lines.extend(down.map(|outgoing| {
            let why = outgoing.last_error.as_deref().unwrap_or("no reason is given");
            format!("  connection {} is down: {why}", outgoing.name)
        }));
        lines.extend(core.outgoing.iter().filter_map(|outgoing| {
            let pool = outgoing.pool.filter(|pool| pool.workers > 0)?;
            Some(format!(
                "  database {}: {}, {} of {} connections in use, {} waiting, {} errors",
                outgoing.name, outgoing.health, pool.in_use, pool.size, pool.waiting, pool.errors
            ))
        }));
    }
    if let Some(balancer) = &status.arldb {
        let healthy = balancer.backends.iter().filter(|backend| backend.healthy).count();
        lines.push(format!(
            "balancer:  {}, {} requests, {} of {} backends healthy",
            balancer.listen,
            balancer.requests,
            healthy,
            balancer.backends.len()
        ));
    }
    lines
}

/// `arctl audit`.
pub(crate) async fn audit(api: &Api, filter: &AuditFilter, json: bool) -> Result<(), Failure> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let since_ms =
        filter.since.map(|minutes| now_ms.saturating_sub(minutes.saturating_mul(60_000)));
    let query = AuditQuery {
        who: filter.who.clone(),
        action: filter.action.clone(),
        target: filter.target.clone(),
        outcome: filter.outcome.clone(),
        cid: filter.cid.clone(),
        since_ms,
        until_ms: None,
        before: None,
        most: Some(filter.most),
    };
    if filter.export {
        let path = audit_path("/v1/audit/export", &AuditQuery { most: None, ..query });
        let mut stream = api.stream(&path).await?;
        while let Some(line) = stream.next().await? {
            out::bytes(&line)?;
        }
        return Ok(());
    }
    let page: AuditPage = api.get(&audit_path("/v1/audit", &query)).await?;
    if json {
        return out::json(&page);
    }
    let mut table = Table::new(&["TIME", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME", "REASON"]);
    for entry in page.entries {
        table.row([
            moment(entry.time_ms),
            entry.who,
            entry.remote,
            entry.action,
            entry.target,
            entry.outcome,
            entry.reason.unwrap_or_default(),
        ]);
    }
    table.print("there is no entry")
}

fn audit_path(path: &str, query: &AuditQuery) -> String {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let fields = [
        ("who", query.who.clone()),
        ("action", query.action.clone()),
        ("target", query.target.clone()),
        ("outcome", query.outcome.clone()),
        ("cid", query.cid.clone()),
        ("since_ms", number(query.since_ms)),
        ("most", number(query.most.map(u64::from))),
    ];
    let parts: Vec<String> = fields
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", path_part(&value?))))
        .collect();
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_log_line_is_written_for_people() {
        let line: LogLine = serde_json::from_value(json!({
            "seq": 1, "time_ms": 1_795_219_669_001u64, "level": "info", "unit": "arsrv",
            "target": "photos.get", "message": "photo stored", "cid": "abcdefgh",
            "fields": {"name": "a b", "size": "5"},
        }))
        .unwrap();
        assert_eq!(
            human(&line),
            "2026-11-21 00:07:49.001 INFO  arsrv: photo stored from=photos.get cid=abcdefgh \
             name=\"a b\" size=5"
        );
    }

    #[test]
    fn a_filter_becomes_a_query() {
        let query = AuditQuery {
            who: Some("user:anna".to_owned()),
            most: Some(5),
            ..AuditQuery::default()
        };
        assert_eq!(audit_path("/v1/audit", &query), "/v1/audit?who=user%3Aanna&most=5");
        assert_eq!(audit_path("/v1/audit", &AuditQuery::default()), "/v1/audit");
    }

    #[test]
    fn a_status_tells_what_is_wrong_first() {
        let status: NodeStatus = serde_json::from_value(json!({
            "node": "box", "version": "0.1.0", "health": "degraded", "problems": ["no disk"],
            "arclst": {"cluster": "c", "node": "box", "revision": 7, "objects": 3, "writable": true},
            "arsrv": null, "arldb": null,
        }))
        .unwrap();
        assert_eq!(
            summary(&status),
            [
                "box: degraded (ARINT 0.1.0)",
                "  problem: no disk",
                "store:     revision 7, 3 objects"
            ]
        );
    }
}
