//! Sends steps of requests and log lines to a collector, by OTLP over HTTP with protobuf.
//!
//! The collector is an outgoing REST connection, so its credentials, certificates and circuit breaker are those of any
//! other.  What is to be sent waits in two bounded queues; a batch that cannot be delivered is tried again for a while.
//!
//! **Invariant:** nobody waits for a collector.  What does not fit into a queue, or is not taken in [`GIVE_UP`], is dropped
//! and counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arapi::logs::LogLine;
use arbase::metrics::{Page, Type};
use arbase::{Chain, Stop};
use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::{broadcast, mpsc};

use super::proto::{
    AnyValue, ExportLogs, ExportTraces, Exported, KeyValue, LogRecord, Resource, ResourceLogs,
    ResourceSpans, Scope, ScopeLogs, ScopeSpans, Span, Status, Value,
};
use super::trace::{self, Exporter, What};
use crate::outgoing::Outgoing;

/// Steps that may wait.
const QUEUE: usize = 8192;
/// Steps or lines in one request.
const BATCH: usize = 512;
/// How long a batch waits for more.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for one request.
const LIMIT: Duration = Duration::from_secs(10);
/// A batch that was not taken for this long is dropped.
const GIVE_UP: Duration = Duration::from_secs(120);
/// Pauses between two attempts: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the last batch may take when the core stops.
const LAST: Duration = Duration::from_secs(2);

/// The table `[otlp]` of the core's config file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// The outgoing REST connection that leads to the collector, for example to `http://collector:4318`.
    pub connection: String,
    /// Whether steps of requests are sent; default true.
    #[serde(default = "yes")]
    pub traces: bool,
    /// Whether log lines are sent; default true.
    #[serde(default = "yes")]
    pub logs: bool,
    /// The share of requests whose steps are sent, 0 to 1, where the caller did not decide it; default 1.
    #[serde(default = "all")]
    pub share: f64,
    /// Lines of this level and graver ones are sent: error, warn, info, debug; default info.
    #[serde(default = "info", deserialize_with = "level")]
    pub log_level: log::LevelFilter,
}

fn yes() -> bool {
    true
}

fn all() -> f64 {
    1.0
}

fn info() -> log::LevelFilter {
    log::LevelFilter::Info
}

fn level<'de, D: serde::Deserializer<'de>>(from: D) -> Result<log::LevelFilter, D::Error> {
    let text = String::deserialize(from)?;
    let level = text.parse::<log::Level>().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{}` is not a level: error, warn, info or debug was expected",
            text.escape_debug()
        ))
    })?;
    Ok(level.to_level_filter())
}

/// What became of what was to be sent.
#[derive(Debug, Default)]
pub struct Figures {
    traces: Signal,
    logs: Signal,
}

#[derive(Debug, Default)]
struct Signal {
    sent: AtomicU64,
    dropped: Arc<AtomicU64>,
    failures: AtomicU64,
}

impl Figures {
    /// Writes them.
    pub fn write(&self, page: &mut Page) {
        type Of = fn(&Signal) -> &AtomicU64;
        let families: [(&str, &str, Of); 3] = [
            ("arsrv_otlp_sent_total", "Steps and lines the collector took.", |it| &it.sent),
            ("arsrv_otlp_dropped_total", "Steps and lines it did not get.", |it| &it.dropped),
            ("arsrv_otlp_failures_total", "Requests to it that failed.", |it| &it.failures),
        ];
        for (name, help, of) in families {
            page.family(name, Type::Counter, help);
            for (signal, figures) in [("logs", &self.logs), ("traces", &self.traces)] {
                page.sample(name, &[("signal", signal)], of(figures).load(Ordering::Relaxed));
            }
        }
    }
}

/// Sends until told to stop.
pub async fn run(config: OtlpConfig, outgoing: Outgoing, figures: Arc<Figures>, stop: Stop) {
    log::info!(connection = config.connection.as_str(), traces = config.traces, logs = config.logs, share = config.share; "collector in use");
    let traces = async {
        if config.traces {
            let sender = sender(&config, &outgoing, "traces", &figures.traces);
            traces(sender, config.share, stop.clone()).await;
        }
    };
    let logs = async {
        if config.logs
            && let Some(lines) = arbase::logging::subscribe()
        {
            let sender = sender(&config, &outgoing, "logs", &figures.logs);
            logs(sender, lines, config.log_level, stop.clone()).await;
        }
    };
    tokio::join!(traces, logs);
}

fn sender<'a>(
    config: &'a OtlpConfig,
    outgoing: &'a Outgoing,
    signal: &'static str,
    figures: &'a Signal,
) -> Sender<'a> {
    Sender { connection: &config.connection, outgoing, signal, figures }
}

async fn traces(sender: Sender<'_>, share: f64, stop: Stop) {
    let (queue, mut steps) = mpsc::channel(QUEUE);
    let dropped = Arc::clone(&sender.figures.dropped);
    trace::export_to(Some(Exporter { queue, dropped }), share);
    let mut batch = Vec::with_capacity(BATCH);
    while !stop.is_stopped() {
        tokio::select! {
            () = stop.wait() => break,
            _ = steps.recv_many(&mut batch, BATCH) => {}
        }
        let more = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if steps.recv_many(&mut batch, room).await == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(PAUSE, more).await.ok();
        sender.deliver(spans(&batch), batch.len(), &stop).await;
        batch.clear();
    }
    trace::export_to(None, 0.0);
    while let Ok(step) = steps.try_recv() {
        batch.push(step);
    }
    sender.last(spans(&batch), batch.len()).await;
}

async fn logs(
    sender: Sender<'_>,
    mut lines: broadcast::Receiver<LogLine>,
    level: log::LevelFilter,
    stop: Stop,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while !stop.is_stopped() {
        let fill = async {
            loop {
                match lines.recv().await {
                    Ok(line) => {
                        if line.level.parse::<log::LevelFilter>().is_ok_and(|it| it <= level) {
                            batch.push(line);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        sender.figures.dropped.fetch_add(missed, Ordering::Relaxed);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
                if batch.len() >= BATCH {
                    return;
                }
            }
        };
        tokio::select! {
            () = stop.wait() => {}
            ended = tokio::time::timeout(PAUSE, fill) => drop(ended),
        }
        if !batch.is_empty() && !stop.is_stopped() {
            sender.deliver(records(&batch), batch.len(), &stop).await;
            batch.clear();
        }
    }
    sender.last(records(&batch), batch.len()).await;
}

/// Sends batches of one signal.
struct Sender<'a> {
    connection: &'a str,
    outgoing: &'a Outgoing,
    signal: &'static str,
    figures: &'a Signal,
}

/// What came of one attempt.
enum Attempt {
    Taken {
        rejected: u64,
    },
    /// To be tried again, after so long where the collector said so.
    Again(String, Option<Duration>),
    /// It will never be taken.
    Never(String),
}

impl Sender<'_> {
    /// Delivers a batch, or drops it.
    async fn deliver(&self, body: Vec<u8>, count: usize, stop: &Stop) {
        let body = Bytes::from(body);
        let begun = Instant::now();
        let mut pause = BACKOFF.0;
        let why = loop {
            let again = match self.attempt(body.clone(), LIMIT).await {
                Attempt::Taken { rejected } => return self.taken(count, rejected),
                Attempt::Never(why) => break why,
                Attempt::Again(why, after) => {
                    if begun.elapsed() >= GIVE_UP {
                        break why;
                    }
                    after.unwrap_or(pause).min(GIVE_UP)
                }
            };
            pause = (pause * 2).min(BACKOFF.1);
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = stop.wait() => break "the core is stopping".to_owned(),
            }
        };
        self.dropped(count);
        log::warn!(connection = self.connection, signal = self.signal, count, error = why.as_str(); "collector does not take what is sent; dropped");
    }

    /// One attempt at the last batch.
    async fn last(&self, body: Vec<u8>, count: usize) {
        if count == 0 {
            return;
        }
        match self.attempt(body.into(), LAST).await {
            Attempt::Taken { rejected } => self.taken(count, rejected),
            Attempt::Again(..) | Attempt::Never(_) => self.dropped(count),
        }
    }

    fn taken(&self, count: usize, rejected: u64) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.figures.sent.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
        self.figures.dropped.fetch_add(rejected.min(count), Ordering::Relaxed);
    }

    fn dropped(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.figures.dropped.fetch_add(count, Ordering::Relaxed);
    }

    async fn attempt(&self, body: Bytes, limit: Duration) -> Attempt {
        let path = format!("v1/{}", self.signal);
        let sent =
            self.outgoing.post(self.connection, &path, "application/x-protobuf", body, limit);
        let attempt = match sent.await {
            Err(err) => Attempt::Again(Chain(&err).to_string(), None),
            Ok(reply) => judge(&reply.meta, &reply.body),
        };
        if !matches!(attempt, Attempt::Taken { .. }) {
            self.figures.failures.fetch_add(1, Ordering::Relaxed);
        }
        attempt
    }
}

/// What an answer means (OTLP 1.x, "OTLP/HTTP Response").
fn judge(meta: &Json, body: &[u8]) -> Attempt {
    let status = meta.get("status").and_then(Json::as_u64).unwrap_or_default();
    match status {
        200..=299 => {
            // An answer that is no message says no more than its status.
            let partial = Exported::decode(body).ok().and_then(|answer| answer.partial_success);
            let rejected = partial.map_or(0, |partial| partial.rejected);
            Attempt::Taken { rejected: u64::try_from(rejected).unwrap_or(0) }
        }
        429 | 502 | 503 | 504 => {
            Attempt::Again(format!("it answered with status {status}"), retry_after(meta))
        }
        status => Attempt::Never(format!("it answered with status {status}")),
    }
}

/// `Retry-After` in seconds.
fn retry_after(meta: &Json) -> Option<Duration> {
    let headers = meta.get("headers")?.as_array()?;
    headers.iter().find_map(|pair| {
        let name = pair.get(0)?.as_str()?;
        let value = pair.get(1)?.as_str()?;
        let seconds = value.parse().ok()?;
        name.eq_ignore_ascii_case("retry-after").then(|| Duration::from_secs(seconds))
    })
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::Text(value.into())) });
    KeyValue { key: key.to_owned(), value }
}

fn resource() -> Option<Resource> {
    let host = arbase::host::name();
    Some(Resource {
        attributes: vec![
            text("service.name", "arint"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", host.as_str()),
            text("host.name", host.as_str()),
        ],
    })
}

fn scope() -> Option<Scope> {
    Some(Scope { name: "arsrv".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

fn spans(batch: &[trace::Exported]) -> Vec<u8> {
    let spans = batch.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: scope(), spans }];
    let resource_spans = vec![ResourceSpans { resource: resource(), scope_spans }];
    ExportTraces { resource_spans }.encode_to_vec()
}

fn span(exported: &trace::Exported) -> Span {
    let step = &exported.step;
    // Names that queries group by: never a path or an id.
    let (kind, key) = match step.what {
        What::Request => (2, "arint.channel"),
        What::Outgoing => (3, "arint.connection"),
        What::Later => (4, "arint.service"),
        What::Gate => (1, "arint.security"),
        What::Service | What::Queue => (1, "arint.service"),
        What::Body => (1, "arint.part"),
    };
    let mut attributes = vec![text("arint.cid", exported.cid.as_str())];
    if !step.name.is_empty() {
        attributes.push(text(key, step.name.as_ref()));
    }
    if step.status != 0 {
        let value = Some(AnyValue { value: Some(Value::Number(step.status.into())) });
        attributes.push(KeyValue { key: "http.response.status_code".to_owned(), value });
    }
    for (key, value) in &step.notes {
        let key = match *key {
            "method" => "http.request.method".to_owned(),
            "path" => "url.path".to_owned(),
            other => format!("arint.{other}"),
        };
        attributes.push(text(&key, value.as_ref()));
    }
    let start = step.at_us.saturating_mul(1000);
    let took = u64::try_from(step.took.as_nanos()).unwrap_or(u64::MAX);
    let name = match step.name.as_ref() {
        "" => step.what.as_str().to_owned(),
        name => format!("{} {name}", step.what.as_str()),
    };
    Span {
        trace_id: exported.trace_id.to_be_bytes().to_vec(),
        span_id: step.id.to_be_bytes().to_vec(),
        parent_span_id: match step.parent {
            0 => Vec::new(),
            parent => parent.to_be_bytes().to_vec(),
        },
        name,
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(took),
        attributes,
        status: Some(Status { code: if step.failed { 2 } else { 0 } }),
    }
}

fn records(batch: &[LogLine]) -> Vec<u8> {
    let cids: BTreeSet<&str> = batch.iter().filter_map(|line| line.cid.as_deref()).collect();
    let traces = trace::ids_of(&cids);
    let log_records = batch.iter().map(|line| record(line, &traces)).collect();
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records }];
    let resource_logs = vec![ResourceLogs { resource: resource(), scope_logs }];
    ExportLogs { resource_logs }.encode_to_vec()
}

fn record(line: &LogLine, traces: &HashMap<String, u128>) -> LogRecord {
    let mut attributes = vec![text("arint.unit", line.unit.as_str())];
    attributes.push(text("arint.target", line.target.as_str()));
    attributes.extend(line.cid.iter().map(|cid| text("arint.cid", cid.as_str())));
    attributes.extend(line.fields.iter().map(|(key, value)| text(key, value.as_str())));
    let id = line.cid.as_ref().and_then(|cid| traces.get(cid));
    let time = line.time_ms.saturating_mul(1_000_000);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: match line.level.as_str() {
            "error" => 17,
            "warn" => 13,
            "info" => 9,
            "debug" => 5,
            _ => 1,
        },
        severity_text: line.level.to_ascii_uppercase(),
        body: Some(AnyValue { value: Some(Value::Text(line.message.clone())) }),
        attributes,
        trace_id: id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(meta: &Json, body: &[u8]) -> String {
        match judge(meta, body) {
            Attempt::Taken { rejected } => format!("taken but {rejected}"),
            Attempt::Again(why, after) => format!("again after {after:?}: {why}"),
            Attempt::Never(why) => format!("never: {why}"),
        }
    }

    #[test]
    fn an_answer_says_whether_it_is_worth_another_attempt() {
        assert_eq!(verdict(&json!({"status": 200}), b""), "taken but 0");
        let partial = Exported {
            partial_success: Some(super::super::proto::PartialSuccess {
                rejected: 3,
                error_message: "too old".to_owned(),
            }),
        };
        assert_eq!(verdict(&json!({"status": 200}), &partial.encode_to_vec()), "taken but 3");
        let busy = json!({"status": 503, "headers": [["Retry-After", "7"]]});
        assert_eq!(verdict(&busy, b""), "again after Some(7s): it answered with status 503");
        assert_eq!(verdict(&json!({"status": 400}), b""), "never: it answered with status 400");
    }
}
