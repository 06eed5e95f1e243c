//! What the parts of ARINT say to each other: names, object kinds, wire types, and one client per service.
//!
//! Services never depend on each other's crates; they call each other through the clients
//! here, over Unix sockets in the runtime folder.  This crate never logs, reads no file but
//! the token beside a socket, and holds no server code.
//!
//! **Invariant:** every value that came from outside is parsed into a checked type here,
//! once; behind that nothing has to be checked again.

#![warn(missing_docs)]

pub mod arclst;
pub mod arldb;
pub mod aros;
pub mod arsrv;
pub mod arwadm;
pub mod client;
pub mod error;
pub mod ini;
pub mod limits;
pub mod logs;
pub mod messages;
pub mod names;
pub mod objects;
mod profile;
pub mod trace;

pub use client::{ClientError, UnixClient};
pub use error::{ErrorBody, ErrorCode};
pub use names::{Cid, Kind, ObjectName};
pub use objects::{Object, Spec};
