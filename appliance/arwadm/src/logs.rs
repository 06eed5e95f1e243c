//! Log lines of every part of the box in one stream.

use std::time::Duration;

use arapi::UnixClient;
use arapi::logs::{LogLine, LogQuery};
use arbase::Chain;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use crate::server::App;

/// The parts that have a log of their own, besides this one.
const UNITS: &[&str] = &["arclst", "arsrv", "arldb", "aros"];
/// Longest wait for a part's old lines.
const LIMIT: Duration = Duration::from_secs(3);
/// Old lines given where the query names no number.
const DEFAULT_TAIL: usize = 100;
/// Lines that wait for a slow reader before it is cut off.
const FOLLOW_LAG: usize = 1000;

/// An answer of documents, one a line.
pub(crate) fn lines(body: Body) -> Response {
    ([(http::header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The lines that fit a query: old ones in order of time, then, if asked for, new ones as they come.
pub(crate) async fn merged(app: &App, query: LogQuery) -> Response {
    let tail = query.tail.unwrap_or(DEFAULT_TAIL);
    let old = LogQuery { follow: false, tail: Some(tail), ..query.clone() };
    let path = path_of(&old);
    let parts = UNITS.iter().map(|unit| old_lines(app, unit, &path));
    let (of_parts, own) = tokio::join!(futures_util::future::join_all(parts), own_lines(&path));
    let mut all: Vec<LogLine> = of_parts.into_iter().flatten().chain(own).collect();
    all.sort_by(|a, b| (a.time_ms, &a.unit, a.seq).cmp(&(b.time_ms, &b.unit, b.seq)));
    let first = all.len().saturating_sub(tail);
    let old: String = all.iter().skip(first).map(document).collect();
    if !query.follow {
        return lines(Body::from(old));
    }
    let last = |unit: &str| {
        all.iter().filter(|line| line.unit == unit).map(|line| line.seq).max().unwrap_or(0)
    };
    let (tx, rx) = mpsc::channel::<Bytes>(FOLLOW_LAG);
    // A few old lines again, so that none is lost between the two questions; known ones are passed over.
    let path = path_of(&LogQuery { tail: Some(200), ..query });
    for unit in UNITS {
        let client = client(app, unit);
        tokio::spawn(follow(client, path.clone(), last(unit), tx.clone()));
    }
    tokio::spawn(follow_own(path, last("arwadm"), tx));
    let first =
        futures_util::stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(old)) });
    let rest = futures_util::stream::unfold(rx, |mut rx| async {
        // An empty line now and then shows a vanished reader.
        let line = match tokio::time::timeout(Duration::from_secs(15), rx.recv()).await {
            Ok(line) => line?,
            Err(_) => Bytes::from_static(b"\n"),
        };
        Some((Ok(line), rx))
    });
    lines(Body::from_stream(first.chain(rest)))
}

fn client(app: &App, unit: &'static str) -> UnixClient {
    let socket = app.config.runtime_dir.join(format!("{unit}.sock"));
    UnixClient::new(unit, socket).with_limit(LIMIT)
}

fn path_of(query: &LogQuery) -> String {
    let mut path = format!("/v1/logs?follow={}", query.follow);
    let texts = [("cid", &query.cid), ("unit", &query.unit), ("level", &query.level)];
    for (key, value) in texts {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", arapi::client::path_part(value)));
        }
    }
    if let Some(tail) = query.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    path
}

async fn old_lines(app: &App, unit: &'static str, path: &str) -> Vec<LogLine> {
    let read = async {
        let mut lines = client(app, unit).stream::<LogLine>(path).await?;
        let mut all = Vec::new();
        while let Some(line) = lines.next().await? {
            all.push(line);
        }
        Ok::<_, arapi::ClientError>(all)
    };
    match tokio::time::timeout(LIMIT, read).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(err)) => {
            log::debug!(unit, error:% = Chain(&err); "a part gives no log lines");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

async fn own(path: &str) -> Option<Body> {
    let request = http::Request::get(path).body(Body::empty()).ok()?;
    let answer = arbase::logging::router::<()>().oneshot(request).await;
    answer.ok().map(Response::into_body)
}

async fn own_lines(path: &str) -> Vec<LogLine> {
    let Some(body) = own(path).await else { return Vec::new() };
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Passes on new lines of a part until the reader goes or is too slow; a part that goes away is asked again.
async fn follow(client: UnixClient, path: String, mut last: u64, tx: mpsc::Sender<Bytes>) {
    loop {
        if let Ok(mut lines) = client.stream::<LogLine>(&path).await {
            let mut first = true;
            loop {
                let line = tokio::select! {
                    line = lines.next() => line,
                    () = tx.closed() => return,
                };
                let Ok(Some(line)) = line else { break };
                // A part that was started anew counts from 1 again.
                if first && line.seq + 200 < last {
                    last = 0;
                }
                first = false;
                if line.seq > last {
                    last = line.seq;
                    if tx.try_send(Bytes::from(document(&line))).is_err() {
                        return;
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = tx.closed() => return,
        }
    }
}

async fn follow_own(path: String, mut last: u64, tx: mpsc::Sender<Bytes>) {
    let Some(body) = own(&path).await else { return };
    let mut stream = body.into_data_stream();
    let mut buffer = Vec::new();
    loop {
        let chunk = tokio::select! {
            chunk = stream.next() => chunk,
            () = tx.closed() => return,
        };
        let Some(Ok(chunk)) = chunk else { return };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = buffer.drain(..=end).collect();
            let Ok(line) = serde_json::from_slice::<LogLine>(&text) else { continue };
            if line.seq > last {
                last = line.seq;
                if tx.try_send(Bytes::from(text)).is_err() {
                    return;
                }
            }
        }
    }
}

fn document(line: &LogLine) -> String {
    // A LogLine is plain texts and numbers: this cannot fail.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_passed_on_as_it_came() {
        let query = LogQuery {
            cid: Some("abc-1".to_owned()),
            unit: Some("a b".to_owned()),
            level: None,
            tail: Some(7),
            follow: true,
        };
        assert_eq!(path_of(&query), "/v1/logs?follow=true&cid=abc%2D1&unit=a%20b&tail=7");
    }
}
