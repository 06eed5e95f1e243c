//! The box from image to image: slots, installation, confirmation, storage, reset, seed, black box.

mod gpt;
mod program;
pub(crate) mod started;
mod storage;
mod storage_main;

use std::sync::Arc;

pub(crate) use storage_main::{StorageArgs, storage_main};

use crate::server::App;

/// The calls of this half.
pub(crate) fn router() -> axum::Router<Arc<App>> {
    axum::Router::new()
}
