//! The key-value store of one node, for everything that speaks the Redis protocol.
//!
//! A [`Server`] listens on the socket `arkvd.sock` and, by default, on 127.0.0.1:6379; every client
//! has to know the password.  The keys live in memory; each change goes to a log on disk, and now
//! and then the whole keyspace to a snapshot.
//!
//! It does not replicate (a later engine feeds [`Keyspace::apply`] instead), does not evict, and
//! knows nothing of Python or of services.
//!
//! One thread has a runtime of its own with a task per connection, one that brings the log to disk
//! and one that sweeps and makes snapshots; they share the engine, which belongs to that thread.
//!
//! **Invariant:** a write that was answered (durability `sync`) survives the death of the process
//! and a power cut, and no reply shows a change that would not.

mod channel;
mod command;
mod config;
mod connection;
mod engine;
mod gauges;
mod glob;
mod journal;
mod keyspace;
mod number;
mod resp;
mod script;
mod server;
mod session;
mod snapshot;
mod value;
mod waiting;

pub use config::{Config, Durability};
pub use glob::matches as glob_matches;
pub use journal::{
    Log, LogError, NoRecords, Progress, Record, SCHEMA, Seq, decode_groups, encode_group,
};
pub use keyspace::{Change, Command, DATABASES, Keyspace};
pub use resp::{
    Limits, ProtocolError, Reply, Request, RequestParser, Version, decode_reply, encode_request,
    parse_request,
};
pub use server::{Server, StartError};
pub use snapshot::SnapshotError;
