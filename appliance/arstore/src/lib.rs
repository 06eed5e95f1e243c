//! Keeping things on disk: SQLite databases with group commit, numbered migrations and versioned
//! documents, and small files that are there whole or not at all.
//!
//! This is the only crate that names rusqlite, and none of its types show.  A user opens a
//! [`Database`] with a [`Schema`], changes it with [`Database::transaction`] and reads it with
//! [`Database::read`]; SQL runs on a [`Tx`] or a [`View`].  It knows nothing of what is stored.
//!
//! ```
//! use arstore::{Database, Schema, StoreError, params};
//!
//! const SCHEMA: Schema =
//!     Schema { name: "example", migrations: &["CREATE TABLE word (text TEXT PRIMARY KEY) STRICT"] };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("example.sqlite");
//! let db = Database::open(&path, &SCHEMA)?;
//! db.transaction_blocking(|tx| tx.execute("INSERT INTO word VALUES (?)", params!["hello"]))?;
//! let words: Vec<String> = db.read_blocking(|view| {
//!     view.query_rows("SELECT text FROM word", params![], |row| row.get(0))
//! })?;
//! assert_eq!(words, ["hello"]);
//! # Ok::<(), StoreError>(())?; Ok(()) }
//! ```
//!
//! Threads: one writer per database, which owns the only connection that writes; readers run on the
//! blocking threads of the runtime, a few at a time.
//!
//! **Invariant:** what [`Database::transaction`] has answered with `Ok` is on disk
//! (`synchronous=FULL`): it survives the death of the process and a power cut.

#![warn(missing_docs)]

mod database;
mod document;
mod error;
pub mod file;
mod schema;
mod sql;
mod writer;

pub use database::{Check, Database, OpenError, Options, schema_at};
pub use document::{DocumentError, Migrate, Oldest, decode, encode};
pub use error::{Cause, StoreError};
pub use schema::Schema;
pub use sql::{FromColumn, Row, Tx, Value, View};
