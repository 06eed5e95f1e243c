//! The log: to the journal under systemd, to stderr otherwise, and always into a ring in memory that
//! the admin API reads.
//!
//! Messages are constants; values are fields.  The field `cid` is the correlation id.  A line of
//! a user's service has the service's name as its target.
//!
//! **Invariant:** logging never blocks on a reader of the ring and never fails its caller.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use arapi::logs::{LogLine, LogQuery};
use arapi::names::COMPONENTS;
use axum::extract::Query;
use axum::response::IntoResponse;
use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use tokio::sync::broadcast;

use crate::time::{now_ms, rfc3339};

/// Lines kept in memory.
const RING_LINES: usize = 4000;
/// Lines a slow follower may lag before it misses some.
const FOLLOW_LAG: usize = 2000;
/// Lines given where the query names no number.
const DEFAULT_TAIL: usize = 100;

struct Logger {
    unit: &'static str,
    level: LevelFilter,
    journal: Option<systemd_journal_logger::JournalLog>,
    ring: Mutex<Ring>,
    new_lines: broadcast::Sender<LogLine>,
}

#[derive(Default)]
struct Ring {
    last_seq: u64,
    lines: VecDeque<LogLine>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Installs the log of this process.  A second call changes nothing.
pub fn install(unit: &'static str, level: LevelFilter) {
    let journal = systemd_journal_logger::connected_to_journal()
        .then(|| systemd_journal_logger::JournalLog::new().ok())
        .flatten()
        .map(|journal| journal.with_syslog_identifier(unit.to_owned()));
    let (new_lines, _) = broadcast::channel(FOLLOW_LAG);
    let logger = Logger { unit, level, journal, ring: Mutex::default(), new_lines };
    if LOGGER.set(logger).is_ok()
        && let Some(logger) = LOGGER.get()
        && log::set_logger(logger).is_ok()
    {
        log::set_max_level(level);
    }
}

/// New lines of this process as they come; a reader that lags misses some.  None before [`install`].
pub fn subscribe() -> Option<broadcast::Receiver<LogLine>> {
    LOGGER.get().map(|logger| logger.new_lines.subscribe())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Third-party crates tell a debugger's story at debug and trace; ours are what is wanted there.
        let ours = metadata.target().starts_with("ar") || metadata.target().starts_with("service:");
        metadata.level() <= self.level && (ours || metadata.level() <= Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if let Some(journal) = &self.journal {
            journal.log(record);
        }
        let mut fields = Fields::default();
        // Our visitor does not fail.
        record.key_values().visit(&mut fields).ok();
        let mut line = LogLine {
            seq: 0,
            time_ms: now_ms(),
            level: record.level().as_str().to_ascii_lowercase(),
            unit: self.unit.to_owned(),
            target: record.target().trim_start_matches("service:").to_owned(),
            message: record.args().to_string(),
            cid: fields.0.remove("cid"),
            fields: fields.0,
        };
        if self.journal.is_none() {
            let mut text = human(&line);
            text.push('\n');
            // One write per line keeps lines of several processes apart; if stderr is gone, so is its reader.
            std::io::stderr().lock().write_all(text.as_bytes()).ok();
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last_seq += 1;
        line.seq = ring.last_seq;
        if ring.lines.len() == RING_LINES {
            ring.lines.pop_front();
        }
        ring.lines.push_back(line.clone());
        // Sent under the lock, so that followers see lines in order; fails only when nobody follows.
        self.new_lines.send(line).ok();
    }

    fn flush(&self) {}
}

/// A log line for people: `2026-11-21T00:07:49.123Z INFO  arsrv: channel made cid=… name=orders`.
pub fn human(line: &LogLine) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{} {:<5} {}: {}",
        rfc3339(line.time_ms),
        line.level.to_ascii_uppercase(),
        line.unit,
        line.message
    );
    // A part's own lines have a module path as target, a service's the service's name.
    let is_own = line.target.contains("::") || COMPONENTS.contains(&line.target.as_str());
    // Writing to a String cannot fail.
    if !is_own {
        write!(text, " service={}", line.target).ok();
    }
    if let Some(cid) = &line.cid {
        write!(text, " cid={cid}").ok();
    }
    for (key, value) in &line.fields {
        if value.is_empty() || value.contains([' ', '"', '=']) {
            write!(text, " {key}={value:?}").ok();
        } else {
            write!(text, " {key}={value}").ok();
        }
    }
    text
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        self.0.insert(key.as_str().to_owned(), value.to_string());
        Ok(())
    }
}

fn wanted(line: &LogLine, query: &LogQuery) -> bool {
    let grave = |level: &str| level.parse::<LevelFilter>().unwrap_or(LevelFilter::Info);
    query.cid.as_ref().is_none_or(|cid| line.cid.as_ref() == Some(cid))
        && query.unit.as_ref().is_none_or(|unit| line.unit == *unit || line.target == *unit)
        && query.level.as_ref().is_none_or(|level| grave(&line.level) <= grave(level))
}

/// `GET /v1/logs`: log lines of this process as documents, one a line.  See [`LogQuery`].
pub fn router<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
    axum::Router::new().route("/v1/logs", axum::routing::get(log_list))
}

async fn log_list(Query(query): Query<LogQuery>) -> axum::response::Response {
    let Some(logger) = LOGGER.get() else {
        return ([(http::header::CONTENT_TYPE, "application/x-ndjson")], String::new())
            .into_response();
    };
    let (old, new_lines) = {
        let ring = logger.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = query.tail.unwrap_or(DEFAULT_TAIL);
        let mut old: Vec<LogLine> = ring
            .lines
            .iter()
            .rev()
            .filter(|line| wanted(line, &query))
            .take(tail)
            .cloned()
            .collect();
        old.reverse();
        // Subscribed under the lock: no line is missed or given twice.
        (old, query.follow.then(|| logger.new_lines.subscribe()))
    };
    let old = old.iter().map(document).collect::<String>();
    let body = match new_lines {
        None => axum::body::Body::from(old),
        Some(new_lines) => {
            let first = futures_util::stream::once(async move { Ok::<_, std::io::Error>(old) });
            let rest = futures_util::stream::unfold((new_lines, query), |(mut rx, query)| async {
                loop {
                    // An empty line now and then shows a vanished reader.
                    let wait = std::time::Duration::from_secs(15);
                    match tokio::time::timeout(wait, rx.recv()).await {
                        Err(_) => return Some((Ok("\n".to_owned()), (rx, query))),
                        Ok(Ok(line)) if wanted(&line, &query) => {
                            return Some((Ok(document(&line)), (rx, query)));
                        }
                        Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                        Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                    }
                }
            });
            use futures_util::StreamExt as _;
            axum::body::Body::from_stream(first.chain(rest))
        }
    };
    ([(http::header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn document(line: &LogLine) -> String {
    // A LogLine is plain texts and numbers: this cannot fail.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}
