//! Who may pass: the securities of channels, and where their secrets are kept.
//!
//! [`gate`] decides, credentials in and caller out, whatever they came by; beside names, passwords and keys it takes
//! tokens of our own ([`tokens`]) and of issuers ([`issuer`], both on [`jwt`]), certificates ([`certificate`]) and tokens of
//! WS-Security ([`wss`]).  [`grants`] says who may invoke what.  [`secrets`] reads the secrets from the object store;
//! [`slowing`] makes guessing slow, and [`attempts`] keeps a storm of failed attempts from becoming one of log lines.
//!
//! **Invariant:** what cannot be checked does not open.  A security that is inactive, of a type that
//! channels cannot ask for, or whose secret is unknown lets nobody in.
//!
//! **Invariant:** a secret is in memory only, and in no log line and no `Debug`.

pub mod attempts;
pub mod certificate;
pub mod credentials;
pub mod explain;
pub mod gate;
pub mod grants;
pub mod issuer;
pub mod jwt;
pub mod secrets;
pub mod slowing;
pub mod tokens;
pub mod wss;

pub use gate::{Gate, Keys, Passed, Presented, Refusal, Scheme, Shared};
pub use secrets::Secrets;
