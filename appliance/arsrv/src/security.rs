//! Who may pass: the securities of channels, and where their secrets are kept.
//!
//! [`gate`] decides, without I/O; [`secrets`] reads the secrets from the object store; [`attempts`] keeps a
//! storm of failed attempts from becoming a storm of log lines.
//!
//! **Invariant:** what cannot be checked does not open.  A security that is inactive, of a type that
//! channels cannot ask for, or whose secret is unknown lets nobody in.
//!
//! **Invariant:** a secret is in memory only, and in no log line and no `Debug`.

pub mod attempts;
pub mod credentials;
pub mod gate;
pub mod secrets;

pub use gate::{Gate, Passed, Refusal, Sought};
pub use secrets::Secrets;
