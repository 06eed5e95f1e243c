//! Asks one backend again and again how it is.
//!
//! While it is up: each interval, and at once when a request failed.  While it is down: often, so that a
//! restarted core gets requests within a tenth of a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};

use crate::backend::{Backend, BackendSettings};
use crate::body::Outgoing;
use crate::link::Link;

/// Between two probes of a backend that went down just now.
const SOON: Duration = Duration::from_millis(50);
/// Between two probes of a backend that has been down for longer than [`RESTARTS_TAKE`].
const LATER: Duration = Duration::from_millis(500);
const RESTARTS_TAKE: Duration = Duration::from_secs(10);

/// Probes until it is aborted.
pub(crate) async fn run(backend: Arc<Backend>, settings: Arc<BackendSettings>) {
    let mut down_since = Some(Instant::now());
    loop {
        let answered = backend.answered();
        let begun = Instant::now();
        match tokio::time::timeout(settings.health_timeout, ask(&backend, &settings)).await {
            Ok(Ok(())) => backend.probe_succeeded(begun.elapsed()),
            Ok(Err(Ailment::Gone(err))) => backend.is_gone(&err),
            Ok(Err(Ailment::Ill(error))) => backend.probe_failed(&error),
            // Busy is not ill: it answered others meanwhile.
            Err(_) if backend.answered() != answered => {}
            Err(_) => {
                let waited = settings.health_timeout;
                backend.probe_failed(&format!("no answer to the health check within {waited:?}"));
            }
        }
        backend.close_idle(settings.idle_timeout, Instant::now());
        let pause = if backend.is_up() {
            down_since = None;
            settings.health_interval
        } else if down_since.get_or_insert_with(Instant::now).elapsed() < RESTARTS_TAKE {
            SOON
        } else {
            LATER
        };
        if backend.is_up() {
            // A failed request is a reason to look, but not more often than a down backend is looked at.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = async {
                    backend.nudge.notified().await;
                    tokio::time::sleep(SOON.min(pause)).await;
                } => {}
            }
        } else {
            tokio::time::sleep(pause.min(settings.health_interval)).await;
        }
    }
}

enum Ailment {
    /// Nobody listens.
    Gone(std::io::Error),
    /// It says no, or makes no sense.
    Ill(String),
}

async fn ask(backend: &Backend, settings: &BackendSettings) -> Result<(), Ailment> {
    let mut link = Link::open(backend.address()).await.map_err(Ailment::Gone)?;
    let mut request = Request::new(Outgoing::Whole(bytes::Bytes::new()));
    *request.uri_mut() = http::Uri::from(settings.health_path.clone());
    let headers = request.headers_mut();
    headers.insert(header::HOST, http::HeaderValue::from_static("arldb"));
    headers.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    let answer = link
        .exchange(request)
        .await
        .map_err(|fault| Ailment::Ill(format!("the health check broke off: {}", fault.source)))?;
    if answer.status() != StatusCode::OK {
        return Err(Ailment::Ill(format!("the health check answered {}", answer.status())));
    }
    Ok(())
}
