//! The balancer's control interface, `arldb.sock`: `GET /v1/status` and `GET /v1/logs`.

use std::sync::Arc;

use arapi::arldb::{BackendStatus, Status};
use arproxy::{BackendSet, Forward, Front};
use axum::extract::State;
use axum::routing::get;

/// What the handlers look at.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) listen: String,
    pub(crate) front: Front,
    pub(crate) forward: Forward,
    pub(crate) backends: Arc<BackendSet>,
}

pub(crate) fn router(view: View) -> axum::Router {
    axum::Router::new()
        .route("/v1/status", get(status))
        .with_state(view)
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
