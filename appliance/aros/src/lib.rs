//! The operating system of a box: updates, network, name and time, power, reset, support, black box.
//!
//! The only privileged unit.  It does its work through D-Bus (systemd, hostnamed, timedated, networkd, logind, RAUC),
//! and knows nothing of channels or services; what it must know of other units it asks over their sockets.
//!
//! **Invariant:** a slot is confirmed only after every functional probe has passed.
//! **Invariant:** a change of the network that nobody confirms rolls back, whatever else fails.

#![warn(missing_docs)]

mod boot;
pub mod cli;
pub mod config;
mod install;
mod server;
mod system;
mod updates;

pub use config::Config;
pub use server::{Server, StartError};
pub use updates::Store;
