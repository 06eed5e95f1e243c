//! The balancer's control interface, `arldb.sock`: `GET /v1/status`, `GET /v1/traces/{cid}`,
//! `GET /v1/metrics` and `GET /v1/logs`.

use std::sync::Arc;

use arapi::arldb::{BackendStatus, Status};
use arapi::trace::TraceStep;
use arbase::metrics::{Page, Type};
use arproxy::{BackendSet, Forward, Front};
use axum::extract::{Path, State};
use axum::routing::get;

use crate::trace::Traces;

/// What the handlers look at.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) listen: String,
    pub(crate) front: Front,
    pub(crate) forward: Forward,
    pub(crate) backends: Arc<BackendSet>,
    pub(crate) traces: Traces,
}

pub(crate) fn router(view: View) -> axum::Router {
    let metered = view.clone();
    axum::Router::new()
        .route("/v1/status", get(status))
        .route("/v1/traces/{cid}", get(trace_show))
        .with_state(view)
        .merge(arbase::metrics::router("arldb", move || {
            let page = metrics(&metered);
            async { page }
        }))
        .merge(arbase::logging::router())
}

async fn status(State(view): State<View>) -> axum::Json<Status> {
    let front = view.front.view();
    let backends = view.backends.view().into_iter().map(|backend| BackendStatus {
        name: backend.name,
        address: backend.address.to_string(),
        healthy: backend.is_healthy,
        in_flight: backend.in_flight,
        requests: backend.requests,
        failures: backend.failures,
        rtt_ms: backend.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        last_error: backend.last_error,
    });
    axum::Json(Status {
        listen: view.listen,
        connections: front.connections,
        requests: front.requests,
        retried: view.forward.retried(),
        refused: front.refused,
        backends: backends.collect(),
    })
}

/// The steps of a request; none where nothing is known of it.
async fn trace_show(
    State(view): State<View>,
    Path(cid): Path<String>,
) -> axum::Json<Vec<TraceStep>> {
    axum::Json(view.traces.of(&cid))
}

fn metrics(view: &View) -> Page {
    let mut page = Page::default();
    let front = view.front.view();
    let single = [
        ("arldb_connections", Type::Gauge, "Client connections open now.", front.connections),
        ("arldb_requests_total", Type::Counter, "Requests of clients.", front.requests),
        (
            "arldb_refused_total",
            Type::Counter,
            "Requests that the balancer refused itself.",
            front.refused,
        ),
        (
            "arldb_retried_total",
            Type::Counter,
            "Requests that were given to a backend a second time.",
            view.forward.retried(),
        ),
    ];
    for (name, of, help, value) in single {
        page.single(name, of, help, value);
    }
    let backends = view.backends.view();
    page.family("arldb_backend_up", Type::Gauge, "Whether the backend gets requests.");
    for backend in &backends {
        let up = u8::from(backend.is_healthy);
        page.sample("arldb_backend_up", &[("backend", &backend.name)], up);
    }
    page.family("arldb_backend_in_flight", Type::Gauge, "Requests the backend has now.");
    for backend in &backends {
        page.sample("arldb_backend_in_flight", &[("backend", &backend.name)], backend.in_flight);
    }
    page.family("arldb_backend_requests_total", Type::Counter, "Requests given to the backend.");
    for backend in &backends {
        let labels = [("backend", backend.name.as_str())];
        page.sample("arldb_backend_requests_total", &labels, backend.requests);
    }
    page.family("arldb_backend_failures_total", Type::Counter, "Requests the backend failed.");
    for backend in &backends {
        let labels = [("backend", backend.name.as_str())];
        page.sample("arldb_backend_failures_total", &labels, backend.failures);
    }
    page
}
