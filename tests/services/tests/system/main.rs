//! The operating system through the admin API, through `arctl` and in a browser; a stand-in plays the unit itself.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "helpers of tests end the test"
)]

mod api;
mod arctl;
mod browser;
mod stand_in;
