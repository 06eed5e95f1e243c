//! Commands about the operating system: status, units, journal, power, black box, support, factory reset.

use std::io::Write as _;
use std::path::Path;

use arapi::aros::{
    BlackBoxView, IdentifyRequest, Identifying, JournalLine, PowerAction, PowerRequest, Probe,
    ResetAnswer, ResetRequest, Status, SupportRequest, SupportSession, Unit,
};
use arapi::client::path_part;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{SupportCommand, SystemCommand};
use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};
use crate::prompt;

/// Writes what happened: the box's own sentence where it gave one.
pub(crate) fn told<T: Serialize>(json: bool, answer: &T, otherwise: &str) -> Result<(), Failure> {
    if json {
        return out::json(answer);
    }
    let document = serde_json::to_value(answer).unwrap_or_default();
    out::line(document.get("message").and_then(Value::as_str).unwrap_or(otherwise))
}

/// `arctl system …`.
pub(crate) async fn system(api: &Api, command: SystemCommand, json: bool) -> Result<(), Failure> {
    match command {
        SystemCommand::Status => status(api, json).await,
        SystemCommand::Units => units(api, json).await,
        SystemCommand::Journal { follow, unit, boot, priority, lines } => {
            let mut path = format!("/v1/system/journal?follow={follow}&lines={lines}");
            if let Some(unit) = unit {
                path.push_str(&format!("&unit={}", path_part(&unit)));
            }
            if let Some(boot) = boot {
                path.push_str(&format!("&boot={boot}"));
            }
            if let Some(priority) = priority {
                path.push_str(&format!("&priority={priority}"));
            }
            journal(api, &path, json).await
        }
        SystemCommand::Reboot => power(api, PowerAction::Reboot, "the box restarts", json).await,
        SystemCommand::PowerOff => {
            power(api, PowerAction::PowerOff, "the box switches itself off", json).await
        }
        SystemCommand::Recovery => {
            let text = "the box restarts into its recovery system";
            power(api, PowerAction::Recovery, text, json).await
        }
        SystemCommand::Identify { seconds } => {
            let request = IdentifyRequest { seconds: Some(seconds) };
            let shown: Identifying = api.post("/v1/system/identify", &request).await?;
            let by = shown.by.join(", ");
            told(json, &shown, &format!("the box shows itself for {} s: {by}", shown.seconds))
        }
        SystemCommand::Probes => probes(api, json).await,
        SystemCommand::Why => {
            let view: BlackBoxView = api.get("/v1/system/blackbox").await?;
            if json {
                return out::json(&json!({ "why": view.why }));
            }
            let well = "the box is in the slot that was chosen last";
            out::line(view.why.as_deref().unwrap_or(well))
        }
        SystemCommand::Blackbox { most } => {
            let mut view: BlackBoxView = api.get("/v1/system/blackbox").await?;
            view.entries.truncate(most);
            if json {
                return out::json(&view);
            }
            let mut table = Table::new(&["SEQ", "TIME", "EVENT", "TEXT"]);
            for entry in &view.entries {
                table.row([
                    entry.seq.to_string(),
                    moment(entry.time_ms),
                    entry.event.clone(),
                    entry.text.clone(),
                ]);
            }
            table.print("the black box is empty")
        }
    }
}

async fn power(api: &Api, action: PowerAction, text: &str, json: bool) -> Result<(), Failure> {
    let done: Value = api.post("/v1/system/power", &PowerRequest { action }).await?;
    told(json, &done, text)
}

async fn status(api: &Api, json: bool) -> Result<(), Failure> {
    let status: Status = api.get("/v1/system/status").await?;
    if json {
        out::json(&status)?;
    } else {
        for line in summary(&status) {
            out::line(&line)?;
        }
    }
    let is_well = status.problems.is_empty() && status.boot.fell_back.is_none();
    if is_well { Ok(()) } else { Err(Failure::No) }
}

/// What lies in a slot, in one phrase.
pub(crate) fn slot_phrase(status: &Status) -> String {
    let boot = &status.boot;
    match (boot.confirmed, boot.tries_left) {
        (true, _) => format!("slot {}, confirmed", boot.slot),
        (false, Some(left)) => format!("slot {}, on trial, {left} tries left", boot.slot),
        (false, None) if boot.slot == "recovery" => "the recovery system".to_owned(),
        (false, None) => format!("slot {}, on trial", boot.slot),
    }
}

fn summary(status: &Status) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: ARINT {} on {} ({})",
        status.hostname,
        status.version,
        status.board,
        slot_phrase(status)
    )];
    lines.extend(status.boot.fell_back.iter().map(|why| format!("  fell back: {why}")));
    lines.extend(status.problems.iter().map(|problem| format!("  problem: {problem}")));
    let of = |used: u64, total: u64| format!("{} of {} MB", used / 1_000_000, total / 1_000_000);
    let used = status.memory.total.saturating_sub(status.memory.available);
    let [one, five, fifteen] = status.load;
    let up = status.uptime_s;
    lines.push(format!("kernel:    {}, up {} h {} min", status.kernel, up / 3600, up / 60 % 60));
    lines.push(format!(
        "memory:    {} used, load {one:.2} {five:.2} {fifteen:.2}",
        of(used, status.memory.total)
    ));
    for disk in &status.disks {
        let health = disk.health.as_deref().map(|health| format!(", {health}"));
        lines.push(format!(
            "disk:      {} {} free on {} ({}){}",
            disk.label,
            of(disk.free, disk.total),
            disk.device,
            disk.mount,
            health.unwrap_or_default()
        ));
    }
    let clock = match (&status.clock.source, status.clock.synchronized) {
        (Some(source), true) => format!("set by {source}"),
        (_, true) => "set".to_owned(),
        (_, false) => "not set by any source yet".to_owned(),
    };
    lines.push(format!(
        "clock:     {} UTC, {clock}, time zone {}",
        moment(status.clock.now_ms),
        status.clock.timezone
    ));
    let yes_no = |is: bool| if is { "yes" } else { "no" };
    lines.push(format!(
        "security:  secure boot {}, encrypted {}",
        yes_no(status.secure_boot),
        yes_no(status.encrypted)
    ));
    lines.push(format!("key:       {}", status.fingerprint));
    lines
}

async fn units(api: &Api, json: bool) -> Result<(), Failure> {
    let units: Vec<Unit> = api.get("/v1/system/units").await?;
    if json {
        return out::json(&units);
    }
    let mut table = Table::new(&["UNIT", "ACTIVE", "STATE", "MEMORY", "RESTARTS", "ACTIVE AFTER"]);
    for unit in &units {
        table.row([
            unit.name.clone(),
            unit.active.clone(),
            unit.sub.clone(),
            unit.memory.map(|bytes| format!("{} MB", bytes / 1_000_000)).unwrap_or_default(),
            unit.restarts.to_string(),
            unit.active_after_us.map(|us| format!("{} ms", us / 1000)).unwrap_or_default(),
        ]);
    }
    table.print("there is no unit")
}

async fn journal(api: &Api, path: &str, json: bool) -> Result<(), Failure> {
    let mut stream = api.stream(path).await?;
    while let Some(line) = stream.next().await? {
        if json {
            out::bytes(&line)?;
        } else if let Ok(line) = serde_json::from_slice::<JournalLine>(&line) {
            out::line(&human(&line))?;
        }
    }
    Ok(())
}

/// A line of the journal for people.
fn human(line: &JournalLine) -> String {
    let priority = match line.priority {
        0 => "EMERG",
        1 => "ALERT",
        2 => "CRIT",
        3 => "ERROR",
        4 => "WARN",
        5 => "NOTE",
        6 => "INFO",
        _ => "DEBUG",
    };
    let ms = line.time_ms % 1000;
    let unit = line.unit.strip_suffix(".service").unwrap_or(&line.unit);
    format!("{}.{ms:03} {priority:<5} {unit}: {}", moment(line.time_ms), line.message)
}

async fn probes(api: &Api, json: bool) -> Result<(), Failure> {
    let probes: Vec<Probe> = api.get("/v1/system/probes").await?;
    if json {
        out::json(&probes)?;
    } else {
        let mut table = Table::new(&["PROBE", "PASSED", "TIME", "FOUND"]);
        for probe in &probes {
            table.row([
                probe.name.clone(),
                if probe.passed { "yes" } else { "no" }.to_owned(),
                format!("{} ms", probe.elapsed_ms),
                probe.message.clone(),
            ]);
        }
        table.print("no probe has run yet")?;
    }
    if probes.iter().all(|probe| probe.passed) { Ok(()) } else { Err(Failure::No) }
}

/// `arctl support …`.
pub(crate) async fn support(api: &Api, command: SupportCommand, json: bool) -> Result<(), Failure> {
    const PATH: &str = "/v1/system/support";
    match command {
        SupportCommand::Bundle { output } => bundle(api, &output, json).await,
        SupportCommand::Open { minutes } => {
            let session: SupportSession = api.post(PATH, &SupportRequest { minutes }).await?;
            if json {
                return out::json(&session);
            }
            let until = moment(session.until_ms);
            eprintln!(
                "user {} may log in on the box's own screen and serial console until {until} UTC; the password is shown only this time:",
                session.user
            );
            out::line(session.password.as_deref().unwrap_or_default())
        }
        SupportCommand::Close => {
            let done: Value = api.delete(PATH).await?;
            told(json, &done, "the support session has ended")
        }
        SupportCommand::Status => {
            let session: Option<SupportSession> = api.get(PATH).await?;
            if json {
                return out::json(&session);
            }
            out::line(&session.map_or_else(
                || "there is no support session".to_owned(),
                |session| {
                    let until = moment(session.until_ms);
                    format!("user {} may log in until {until} UTC", session.user)
                },
            ))
        }
    }
}

async fn bundle(api: &Api, output: &Path, json: bool) -> Result<(), Failure> {
    let mut download = api.download("/v1/system/support/bundle").await?;
    if output.as_os_str() == "-" {
        while let Some(chunk) = download.next().await? {
            out::bytes(&chunk)?;
        }
        return Ok(());
    }
    let fault = |source| Failure::Write { path: output.to_owned(), source };
    // Half a bundle never has the name of a whole one.
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let mut file = std::fs::File::create(&part).map_err(fault)?;
    let mut bytes = 0;
    while let Some(chunk) = download.next().await? {
        file.write_all(&chunk).map_err(fault)?;
        bytes += chunk.len();
    }
    file.sync_all().map_err(fault)?;
    std::fs::rename(&part, output).map_err(fault)?;
    let path = output.display().to_string();
    if json {
        return out::json(&json!({"file": path, "bytes": bytes}));
    }
    out::line(&format!("{path}: {bytes} bytes; look into it before you pass it on"))
}

/// `arctl factory-reset`.
pub(crate) async fn factory_reset(
    api: &Api,
    hostname: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let hostname = match hostname {
        Some(hostname) => hostname,
        None => {
            let status: Status = api.get("/v1/system/status").await?;
            eprintln!(
                "this destroys the keys of the disks of {}: configuration, services, users and data are gone for good",
                status.hostname
            );
            prompt::visible(&format!("type the host name ({}) to do it", status.hostname))?
        }
    };
    // Whether it is the right name is the box's to say: two boxes are easily mixed up.
    let request = ResetRequest { hostname };
    let answer: ResetAnswer = api.post("/v1/system/factory-reset", &request).await?;
    if json {
        return out::json(&answer);
    }
    out::line(&format!("{}; destroyed key: {}", answer.message, answer.fingerprint))
}

#[cfg(test)]
mod tests {
    use arapi::aros::{BootStatus, Clock, Disk, Memory};

    use super::*;

    #[test]
    fn a_status_says_first_what_runs_and_what_is_wrong() {
        let status = Status {
            hostname: "arsrv-k7qf2mxd".to_owned(),
            board: "generic/x86_64".to_owned(),
            version: "1.4.0".to_owned(),
            kernel: "6.12.48".to_owned(),
            uptime_s: 3725,
            boot: BootStatus {
                slot: "a".to_owned(),
                confirmed: true,
                fell_back: Some("update to 1.5.0 was undone".to_owned()),
                ..Default::default()
            },
            memory: Memory { total: 2_000_000_000, available: 1_500_000_000 },
            load: [0.5, 0.25, 0.0],
            disks: vec![Disk {
                mount: "/var".to_owned(),
                label: "state".to_owned(),
                total: 1_000_000_000,
                free: 900_000_000,
                device: "/dev/vda".to_owned(),
                health: Some("ok".to_owned()),
                ..Default::default()
            }],
            clock: Clock {
                now_ms: 1_795_219_669_001,
                synchronized: true,
                source: Some("192.0.2.1".to_owned()),
                timezone: "UTC".to_owned(),
            },
            problems: vec!["`data` is full".to_owned()],
            fingerprint: "ab".repeat(32),
            ..Default::default()
        };
        assert_eq!(
            summary(&status),
            [
                "arsrv-k7qf2mxd: ARINT 1.4.0 on generic/x86_64 (slot a, confirmed)",
                "  fell back: update to 1.5.0 was undone",
                "  problem: `data` is full",
                "kernel:    6.12.48, up 1 h 2 min",
                "memory:    500 of 2000 MB used, load 0.50 0.25 0.00",
                "disk:      state 900 of 1000 MB free on /dev/vda (/var), ok",
                "clock:     2026-11-21 00:07:49 UTC, set by 192.0.2.1, time zone UTC",
                "security:  secure boot no, encrypted no",
                &format!("key:       {}", "ab".repeat(32)),
            ]
        );
    }

    #[test]
    fn a_line_of_the_journal_looks_like_a_line_of_the_log() {
        let line = JournalLine {
            time_ms: 1_795_219_669_001,
            priority: 4,
            unit: "arldb.service".to_owned(),
            message: "no backend".to_owned(),
        };
        assert_eq!(human(&line), "2026-11-21 00:07:49.001 WARN  arldb: no backend");
    }
}
