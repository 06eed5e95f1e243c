//! The skeleton of every process: log, config file, signals, readiness, error chain, and the form
//! of HTTP answers.
//!
//! A process of ARINT is a call of [`run_service`].  It installs the log, loads the config and
//! exits with 2 if that is bad, before any port is opened; builds the runtime, turns SIGTERM and
//! SIGINT into [`Stop`], prints an error's chain once, and exits with 0 or 1.

#![warn(missing_docs)]

pub mod chain;
pub mod config;
pub mod host;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod notify;
mod open_files;
mod run;
mod stop;
pub mod time;

pub use chain::Chain;
pub use config::ConfigError;
pub use notify::notify_ready;
pub use open_files::raise_open_files;
pub use run::{EXIT_FAILED, EXIT_USAGE, ServiceArgs, run_service};
pub use stop::{Stop, Stopper};
