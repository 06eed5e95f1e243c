//! The admin API: the only door for changes.
//!
//! People, `arctl` and the console come over HTTPS (port 8183), the services of the same box over
//! `arwadm.sock`.  Every call is a row of [`ROUTES`], which says who may make it; a change is checked, planned
//! without I/O (`plan`, `deployment`), committed by `arclst` in one transaction, and written to the
//! audit log before it is answered.  What lies in the pickup folder is deployed the same way.
//!
//! It keeps no objects of its own and runs no user's code: objects are `arclst`'s, and a source is
//! tried by `arsrv` in a fresh worker; the operating system is `aros`'s.  Its own pages (`/`) are the claim page and
//! the status page; the pages call the same API as everybody else.
//!
//! Tasks: the listeners with one task per connection; `people` mirrors users, roles and tokens;
//! `pickup` watches the folders; `recovery` asks whether this is the recovery system; `tls` follows the host name;
//! one task removes ended tokens and old audit entries.
//!
//! **Invariant:** until the first user exists, nothing but the claim and its page is answered.

mod api;
mod audit;
mod claim;
mod config;
mod deploy;
mod deployment;
mod gate;
mod guard;
mod listen;
mod lockout;
mod logs;
mod metrics;
mod objects;
mod openapi;
mod packages;
mod pages;
mod password;
mod people;
mod pickup;
mod plan;
mod recovery;
mod remote;
mod routes;
mod server;
mod session;
mod status;
mod system;
mod tls;
mod tokens;
mod traces;

pub use audit::SCHEMA;
pub use config::{Config, Listen, TlsMode};
pub use openapi::document as openapi_document;
pub use routes::{Access, ROUTES, Route};
pub use server::{Server, StartError};
pub use tls::TlsError;
