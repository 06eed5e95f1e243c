//! The calls of the operating system unit, passed on: `/v1/system/…` here is `/v1/…` on `aros.sock`.
//!
//! Who may call is the gate's matter and what it means is `aros`'s; here a change is written down before it is
//! answered, and bodies stream through, so that an update of hundreds of megabytes needs no memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arapi::error::ErrorCode;
use arapi::{ClientError, UnixClient, aros};
use arbase::http::{ApiError, current_cid};
use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::sync::mpsc;

use crate::gate::Caller;
use crate::remote::passed_on;
use crate::routes::Route;
use crate::server::App;

/// What a caller is told where there is no such unit.
const NO_UNIT: &str = "this installation has no operating system unit: updates, network and power exist on an image only";
/// Longest wait for the head of an answer; a support bundle is made meanwhile.
const LIMIT: Duration = Duration::from_secs(150);
/// The head of an upload goes so much before its body: what is refused by its head alone is refused in words.
const HEAD_START: Duration = Duration::from_millis(200);
/// Longest silence of someone who uploads.
const SILENCE: Duration = Duration::from_secs(60);
/// Downloads of the bundle at one time; neighbours ask for it in many small ranges.
pub(crate) const DOWNLOADS: usize = 8;

/// The headers of a request that `aros` needs.
const UP: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::RANGE, header::IF_RANGE];
/// The headers of an answer that the caller needs.
const DOWN: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
];

impl App {
    /// The operating system unit, called as part of this request.
    pub(crate) fn aros(&self) -> aros::Client {
        let client = aros::Client::in_runtime_dir(&self.config.runtime_dir);
        aros::Client(client.0.with_cid(current_cid().to_string()))
    }

    /// Whether a failed call means that there is no operating system unit here.  On an image there is one: what
    /// cannot be reached there is not up yet, or starts anew.
    pub(crate) fn has_no_system(&self, err: &ClientError) -> bool {
        !self.config.operating_system
            && matches!(err, ClientError::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Passes a call on.
pub(crate) async fn pass(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(route): Extension<&'static Route>,
    request: Request,
) -> Result<Response, ApiError> {
    let client = app.aros().0.with_who(caller.who.clone());
    let (parts, body) = request.into_parts();
    let mut onward = http::Request::builder().method(parts.method.clone()).uri(path_of(&parts.uri));
    if let Some(headers) = onward.headers_mut() {
        copy(&parts.headers, headers, &UP);
    }
    let doing = "call the operating system unit";
    let failed = |err: ClientError| {
        if app.has_no_system(&err) { ApiError::not_found(NO_UNIT) } else { passed_on(doing, &err) }
    };
    let built = |err: http::Error| ApiError::internal(doing, &err);
    if route.is_streamed() {
        let overrun = Arc::new(AtomicBool::new(false));
        let body = limited(body, route.limit, Arc::clone(&overrun));
        let answer = client.exchange(onward.body(body).map_err(built)?).await;
        let answer = answer.map_err(|err| match err {
            ClientError::Broken { .. } if overrun.load(Ordering::Relaxed) => too_large(route.limit),
            ClientError::Broken { .. } => ApiError::invalid(
                "the upload broke off; if the box is still up, send the whole file again",
            ),
            err => failed(err),
        })?;
        let answer = checked(&client, answer).await.map_err(failed)?;
        return noted(&app, &caller, route, answer).await;
    }
    let body = to_bytes(body, route.limit).await.unwrap_or_default();
    let asked: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    // After these the box may be gone before anything else is written.
    let ends_the_box = matches!(route.name, "power" | "factory_reset");
    if ends_the_box {
        note(&app, &caller, route, asked.clone()).await?;
    }
    let onward = onward.body(Body::from(body)).map_err(built)?;
    let answer = tokio::time::timeout(LIMIT, client.exchange(onward)).await.map_err(|_| {
        ApiError::new(
            ErrorCode::Timeout,
            format!("the operating system unit did not answer within {LIMIT:?}"),
        )
    })?;
    let answer = checked(&client, answer.map_err(failed)?).await.map_err(failed)?;
    if route.is_change() && !ends_the_box {
        note(&app, &caller, route, asked).await?;
    }
    Ok(to_caller(answer))
}

/// The bundle for neighbours: it is signed and carries no secret, so it needs no log-in; only so many at a time.
pub(crate) async fn download(
    state: State<App>,
    caller: Extension<Caller>,
    route: Extension<&'static Route>,
    request: Request,
) -> Result<Response, ApiError> {
    let State(app) = &state;
    let Ok(permit) = Arc::clone(&app.downloads).try_acquire_owned() else {
        return Err(ApiError::unavailable(format!(
            "{DOWNLOADS} others are loading the bundle from this box; try again"
        )));
    };
    let answer = pass(state, caller, route, request).await?;
    Ok(answer.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            // Given back when the stream is dropped.
            let _held = &permit;
        }))
    }))
}

/// The path on `aros`' socket.
fn path_of(uri: &http::Uri) -> String {
    let path = uri.path().strip_prefix("/v1/system").unwrap_or_default();
    match uri.query() {
        Some(query) => format!("/v1{path}?{query}"),
        None => format!("/v1{path}"),
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}

pub(crate) fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        ErrorCode::TooLarge,
        format!("the upload is larger than the {limit} bytes allowed here"),
    )
}

/// A body that breaks off after `limit` bytes or a long silence.
///
/// The caller's bytes are read to their end even where the other side has refused them long ago: a client that is
/// still sending when its connection is closed never sees why.
pub(crate) fn limited(body: Body, limit: usize, overrun: Arc<AtomicBool>) -> Body {
    let (tx, rx) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::spawn(async move {
        let mut stream = body.into_data_stream();
        let mut sum = 0usize;
        loop {
            let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
                Ok(None) => return,
                Ok(Some(Err(err))) => Err(io::Error::other(err)),
                Ok(Some(Ok(chunk))) => Ok(chunk),
            };
            sum = sum.saturating_add(chunk.as_ref().map_or(0, Bytes::len));
            let chunk = if sum > limit {
                overrun.store(true, Ordering::Relaxed);
                Err(io::Error::from(io::ErrorKind::FileTooLarge))
            } else {
                chunk
            };
            let is_last = chunk.is_err();
            // Nobody takes it where it was refused: it is read all the same.
            tx.send(chunk).await.ok();
            if is_last {
                return;
            }
        }
    });
    let chunks = futures_util::stream::unfold((rx, true), async |(mut rx, is_first)| {
        if is_first {
            tokio::time::sleep(HEAD_START).await;
        }
        rx.recv().await.map(|chunk| (chunk, (rx, false)))
    });
    Body::from_stream(chunks)
}

type Onward = http::Response<hyper::body::Incoming>;

/// An answer that is passed on as it is, or the error it stands for.
pub(crate) async fn checked(client: &UnixClient, answer: Onward) -> Result<Onward, ClientError> {
    let status = answer.status();
    let is_passed = status.is_success()
        || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE);
    if is_passed { Ok(answer) } else { Err(client.refusal(answer).await) }
}

fn to_caller(answer: Onward) -> Response {
    let (parts, body) = answer.into_parts();
    let mut passed = Response::new(Body::new(body));
    *passed.status_mut() = parts.status;
    copy(&parts.headers, passed.headers_mut(), &DOWN);
    passed
}

async fn note(
    app: &App,
    caller: &Caller,
    route: &Route,
    after: Option<serde_json::Value>,
) -> Result<(), ApiError> {
    let target = route.path.trim_start_matches("/v1/").to_owned();
    log::info!(cid:% = current_cid(), who = caller.who, action = route.name; "operating system changed");
    let mut entry = app.entry(caller, target);
    entry.after = after;
    app.note(vec![entry]).await
}

/// Writes an upload down with what `aros` found in it, and answers.
async fn noted(
    app: &App,
    caller: &Caller,
    route: &Route,
    answer: Onward,
) -> Result<Response, ApiError> {
    let (parts, body) = to_caller(answer).into_parts();
    let body = to_bytes(body, 64 * 1024).await.unwrap_or_default();
    note(app, caller, route, serde_json::from_slice(&body).ok()).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_on_the_socket() {
        let check = |from: &'static str, to: &str| {
            assert_eq!(path_of(&http::Uri::from_static(from)), to);
        };
        check("/v1/system/status", "/v1/status");
        check("/v1/system/journal?unit=a&lines=3", "/v1/journal?unit=a&lines=3");
        check("https://box/v1/system/update/bundle", "/v1/update/bundle");
    }

    #[tokio::test]
    async fn an_upload_ends_at_its_limit_however_it_was_announced() {
        let overrun = Arc::new(AtomicBool::new(false));
        let chunks = (0..3).map(|_| Ok::<_, io::Error>(Bytes::from_static(b"12345")));
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let read = to_bytes(limited(body, 12, Arc::clone(&overrun)), usize::MAX).await;
        assert!(read.is_err() && overrun.load(Ordering::Relaxed));
        let read = to_bytes(limited(Body::from("12345"), 5, overrun), usize::MAX).await;
        assert_eq!(read.unwrap(), "12345");
    }
}
