//! The balancer: the port of the channels (11223), in front of the integrator core.
//!
//! It is a process of its own so that a box whose core is down, or starts anew, still answers.  It takes
//! HTTP/1.1 and HTTP/2 from clients, with TLS where it is told to, guards the limits, gives each request its correlation id, and sends it to
//! the core of this box; what it is made of is [`arproxy`].
//!
//! It looks into no body and knows no channel: security, rate limits and schemas are the core's.
//!
//! **Invariant:** what it refuses it answers with one sentence, a fitting status and the correlation id.

mod api;
pub mod config;
mod server;
pub mod tls;
mod trace;

pub use config::Config;
pub use server::{Server, StartError};
