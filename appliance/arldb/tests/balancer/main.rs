//! The balancer against the real thing: sockets, a backend that really dies, clients that misbehave.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test ends at the first thing that is not as it must be"
)]

mod backend;
mod client;
mod faults;
mod fixture;
mod limits;
mod malformed;
mod multiplexed;
mod passing;
mod stopping;
mod tls;
