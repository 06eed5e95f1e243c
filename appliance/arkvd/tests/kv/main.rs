//! The key-value store as its clients see it: over real sockets, beside a real redis-server, killed
//! in the middle of writing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do, and print the seed"
)]

mod bad_clients;
mod clients;
mod differential;
mod durability;
mod scripts;
mod support;
mod transactions;
