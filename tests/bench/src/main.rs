//! Figures beside the named peers: `make bench`, or `make bench ONLY=echo`.
//!
//! Each figure runs our part and its peer in one run on one machine, after a warm-up, in turns, and prints the
//! median of the ratios.  Nothing here passes or fails: docs/performance.md says what the targets are
//! and what limits each.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for people that ends where it cannot go on"
)]

mod deploy;
mod echo;
mod idle;
mod leaks;
mod load;
mod many;
mod outgoing;
mod passing;
mod peers;
mod processes;
mod soak;
mod soap;
mod start;

#[tokio::main]
async fn main() {
    artest::use_ring();
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let known =
        ["echo", "soap", "outgoing", "passing", "idle", "start", "deploy", "many", "leaks", "soak"];
    if let Some(only) = &only
        && !known.contains(&only.as_str())
    {
        panic!("figure `{only}` is unknown; there are {}", known.join(", "));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("ARINT {}, {cores} processors\n", env!("CARGO_PKG_VERSION"));
    if wanted("echo") {
        echo::run().await;
    }
    if wanted("soap") {
        soap::run().await;
    }
    if wanted("outgoing") {
        outgoing::run().await;
    }
    if wanted("passing") {
        passing::run().await;
    }
    if wanted("idle") {
        idle::run().await;
    }
    if wanted("start") {
        start::run().await;
    }
    if wanted("deploy") {
        deploy::run().await;
    }
    if wanted("many") {
        many::run().await;
    }
    if wanted("leaks") {
        leaks::run().await;
    }
    if wanted("soak") {
        soak::run().await;
    }
}

/// The median of some figures.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted.get(middle).copied().unwrap_or(f64::NAN),
        _ => {
            sorted.get(middle - 1..=middle).map_or(f64::NAN, |pair| pair.iter().sum::<f64>() / 2.0)
        }
    }
}
