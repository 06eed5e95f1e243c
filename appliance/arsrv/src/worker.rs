//! One Python worker process.
pub mod frame;
