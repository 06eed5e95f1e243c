//! The journal, line by line, through `journalctl`.
//!
//! **Invariant:** the child ends when the caller goes.

use std::process::Stdio;
use std::time::Duration;

use arapi::aros::{JournalLine, JournalQuery};
use arbase::http::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Lines where the caller says nothing, and at most.
const LINES: u32 = 500;
const MOST_LINES: u32 = 100_000;
/// How often an empty line says that the stream is alive; it also finds out that the caller is gone.
const ALIVE: Duration = Duration::from_secs(10);

/// The arguments of journalctl for a query.
pub(super) fn arguments(query: &JournalQuery) -> Result<Vec<String>, ApiError> {
    let mut arguments: Vec<String> = [
        "--quiet",
        "--no-pager",
        "--output=json",
        "--all",
        "--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER,_COMM",
    ]
    .map(ToOwned::to_owned)
    .into();
    let boot = query.boot.unwrap_or(0);
    if boot > 0 {
        return Err(ApiError::invalid(format!(
            "boot {boot} is above 0: 0 is the present one, -1 the one before"
        )));
    }
    arguments.push(format!("--boot={boot}"));
    let lines = query.lines.unwrap_or(LINES);
    if lines > MOST_LINES {
        return Err(ApiError::invalid(format!(
            "{lines} lines are more than the {MOST_LINES} that are allowed"
        )));
    }
    arguments.push(format!("--lines={lines}"));
    if let Some(unit) = &query.unit {
        let fits = |c: char| c.is_ascii_alphanumeric() || "@:_.-\\*".contains(c);
        if unit.is_empty() || unit.len() > 256 || !unit.chars().all(fits) {
            return Err(ApiError::invalid(format!(
                "`{}` is not the name of a unit",
                unit.escape_debug()
            )));
        }
        arguments.push(format!("--unit={unit}"));
    }
    if let Some(priority) = query.priority {
        if priority > 7 {
            return Err(ApiError::invalid(format!(
                "priority {priority} is above 7: 0 (emergency) to 7 (debug) was expected"
            )));
        }
        arguments.push(format!("--priority={priority}"));
    }
    if query.follow {
        arguments.push("--follow".to_owned());
    }
    Ok(arguments)
}

/// `GET /v1/journal`: lines of JSON, the oldest first.
pub(super) async fn journal_read(
    query: Result<Query<JournalQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|refused| ApiError::invalid(refused.body_text()))?;
    let arguments = arguments(&query)?;
    let mut child = Command::new("journalctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|err| ApiError::internal("start journalctl", &err))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(ApiError::unavailable("the journal cannot be read now; try again"));
    };
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(pass_on(child, BufReader::new(stdout), sender));
    let lines = futures_util::stream::unfold(receiver, async |mut receiver| {
        let line: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), receiver))
    });
    let kind = [(http::header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Passes lines on until the journal ends or nobody listens; dropping the child kills it.
async fn pass_on(
    mut child: Child,
    mut stdout: BufReader<tokio::process::ChildStdout>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut line = Vec::new();
    loop {
        // What was read of a line stays in `line` where the wait is cut.
        let read = tokio::select! {
            read = stdout.read_until(b'\n', &mut line) => read,
            () = sender.closed() => break,
            () = tokio::time::sleep(ALIVE) => {
                if sender.send(Bytes::from_static(b"\n")).await.is_err() {
                    break;
                }
                continue;
            }
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if let Some(told) = told(&line)
                    && sender.send(told.into()).await.is_err()
                {
                    break;
                }
                line.clear();
            }
        }
    }
    child.kill().await.ok();
}

/// A line as journalctl writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: String,
    #[serde(rename = "PRIORITY")]
    priority: Option<String>,
    #[serde(rename = "MESSAGE")]
    message: Message,
    #[serde(rename = "UNIT")]
    about: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Option<String>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<String>,
    #[serde(rename = "_COMM")]
    program: Option<String>,
}

/// A text, or its bytes where they are no text, or several texts.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
    Several(Vec<String>),
    #[default]
    None,
}

/// The line that is sent for one that was read; none for what cannot be read.
fn told(line: &[u8]) -> Option<Vec<u8>> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let time_us: u64 = entry.time.parse().ok()?;
    let message = match entry.message {
        Message::Text(text) => text,
        Message::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Message::Several(texts) => texts.join(" "),
        Message::None => String::new(),
    };
    let unit = entry.about.or(entry.unit).or(entry.identifier).or(entry.program);
    let priority = entry.priority.and_then(|text| text.parse().ok()).unwrap_or(6);
    let told =
        JournalLine { time_ms: time_us / 1000, priority, unit: unit.unwrap_or_default(), message };
    let mut text = serde_json::to_vec(&told).ok()?;
    text.push(b'\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_journal_has_time_priority_unit_and_text() {
        let line = br#"{"__REALTIME_TIMESTAMP":"1795219669001234","PRIORITY":"4","_SYSTEMD_UNIT":"arsrv.service","SYSLOG_IDENTIFIER":"arsrv","MESSAGE":"x","__CURSOR":"c"}"#;
        let told: JournalLine = serde_json::from_slice(&told(line).unwrap()).unwrap();
        let expected = JournalLine {
            time_ms: 1_795_219_669_001,
            priority: 4,
            unit: "arsrv.service".into(),
            message: "x".into(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn bytes_that_are_no_text_and_lines_of_the_kernel_are_told_as_well() {
        let told = |line: &[u8]| {
            let text = told(line).unwrap();
            serde_json::from_slice::<JournalLine>(&text).unwrap()
        };
        let bytes =
            told(br#"{"__REALTIME_TIMESTAMP":"1000","MESSAGE":[104,105,255],"_COMM":"sh"}"#);
        assert_eq!((bytes.message.as_str(), bytes.unit.as_str()), ("hi\u{fffd}", "sh"));
        let kernel = told(br#"{"__REALTIME_TIMESTAMP":"1000","PRIORITY":"6","SYSLOG_IDENTIFIER":"kernel","MESSAGE":null}"#);
        assert_eq!((kernel.message.as_str(), kernel.unit.as_str()), ("", "kernel"));
        assert!(super::told(b"half a li").is_none());
    }

    #[track_caller]
    fn refused(query: JournalQuery, sentence: &str) {
        assert_eq!(arguments(&query).unwrap_err().message(), sentence);
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused() {
        refused(
            JournalQuery { boot: Some(1), ..JournalQuery::default() },
            "boot 1 is above 0: 0 is the present one, -1 the one before",
        );
        refused(
            JournalQuery { lines: Some(100_001), ..JournalQuery::default() },
            "100001 lines are more than the 100000 that are allowed",
        );
        refused(
            JournalQuery { unit: Some("a b".into()), ..JournalQuery::default() },
            "`a b` is not the name of a unit",
        );
        refused(
            JournalQuery { priority: Some(8), ..JournalQuery::default() },
            "priority 8 is above 7: 0 (emergency) to 7 (debug) was expected",
        );
    }
}
