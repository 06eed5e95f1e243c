//! The box from image to image: slots, installation, confirmation, storage, reset, seed, black box.

use std::sync::Arc;

use crate::server::App;

/// The calls of this half.
pub(crate) fn router() -> axum::Router<Arc<App>> {
    axum::Router::new()
}
