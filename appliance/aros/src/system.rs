//! The box as it runs: status, units, journal, network, name and time, power, hardware, support.

use std::sync::Arc;

use crate::server::App;

/// The calls of this half.
pub(crate) fn router() -> axum::Router<Arc<App>> {
    axum::Router::new()
}
