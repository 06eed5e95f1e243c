//! ARSRV, the integrator core: channels in, Python workers, connections out.
//!
//! A request comes from the balancer on `arsrv-http.sock`, is matched to a channel, checked,
//! run in a worker and answered.  What is configured comes from the object store by a watch; the core
//! reconciles and never restarts for it.
//!
//! It does not know what MQTT, SMTP or WireGuard are, stores nothing of its own but caches, uploaded wheels and what
//! channels keep of requests, and changes no object: the admin API is the only door for changes.
//!
//! **Invariant:** nothing on the data path waits for the object store.

pub mod audit;
pub mod call;
pub mod channel;
pub mod config;
pub mod control;
pub mod crypto;
pub mod http;
mod interpreter;
pub mod limits;
mod modules;
pub mod openapi;
pub mod outgoing;
mod packages;
pub mod pool;
pub mod sandbox;
pub mod security;
pub mod server;
pub mod telemetry;
pub mod worker;
pub mod world;

pub use config::Config;
pub use interpreter::write_sdk;
pub use server::{Server, StartError};
