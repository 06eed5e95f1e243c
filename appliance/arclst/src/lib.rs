//! The object store: what admins configure, with its secrets and its history, changed in whole
//! transactions and watched by every other service.
//!
//! It takes any change that keeps the rules of [`arapi::objects`]; who may change what is decided
//! by `arwadm`, the only door for changes.  It serves `arclst.sock` in the runtime folder to
//! [`arapi::arclst::Client`], and nothing else.
//!
//! From top to bottom: [`Server`] serves; an [`Engine`] gets a [`Command`] committed and tells
//! everybody; a [`StateMachine`] applies it to the tables.  [`LocalEngine`] is the engine of a box
//! on its own.  A replicated engine takes its place without anything above or below noticing: what
//! commands carry is all that a state machine needs, so that the same commands in the same order
//! make the same state on every box.
//!
//! Tasks: one for each connection of the socket.  Channels: [`Engine::subscribe`], a broadcast of
//! what was committed, which never holds up a commit; a watcher that lags gets a new snapshot.
//!
//! **Invariant:** a change is answered once it is on disk, whole; a watcher sees every revision
//! once and in order, or a snapshot that is newer.
//!
//! **Invariant:** no secret's value is in an object, its history, an event, a log line or an error;
//! on disk it is encrypted.

mod api;
mod command;
mod config;
mod engine;
mod first_run;
mod machine;
mod plan;
mod server;
mod state;
mod stored;
mod vault;
mod watch;

pub use command::{Applied, Command, Edit, Rejection, Sealed};
pub use config::Config;
pub use engine::{Answer, Engine, EngineError, Freshness, LocalEngine};
pub use machine::{SCHEMA, StateMachine};
pub use server::{Server, StartError};
pub use state::{State, StateError};
pub use stored::StoredObject;
pub use vault::{Vault, VaultError};
