//! The proxy core that arldb and ardpx stand on: HTTP/1.1 and HTTP/2 from clients, with and without TLS, through rules
//! and limits, to backends.
//!
//! It has two halves that meet in one tower service:
//!
//! * [`front`] accepts connections, speaks HTTP with the client (hyper), guards every limit of size
//!   and time, gives each request its correlation id, and turns a [`Refusal`] into an answer.
//! * [`forward`] is the service of a balancer: it picks a backend of a [`BackendSet`], sends the
//!   request over a pooled connection, retries what is safe to retry, and gives the answer back; a connection that is to
//!   become a WebSocket leads through a `tunnel`.
//!
//! It decides no routes: who puts a layer between the two halves does.
//!
//! **Tasks:** one accept loop, one task per client connection (of HTTP/2 one more per stream), one prober per backend.  A
//! connection to a backend has no task: the task of the client connection that uses it drives it, so
//! that a request never changes its thread and wakes nobody.
//!
//! **Invariant:** a request is sent a second time only if the first backend cannot have
//! carried it out, or its method says that twice is as good as once (RFC 9110, 9.2.2).

pub mod admission;
pub mod backend;
pub mod body;
pub mod exchange;
pub mod forward;
pub mod front;
pub mod headers;
pub mod health;
pub mod limits;
mod link;
mod probe;
pub mod quiet;
pub mod refusal;
mod socket;
mod streams;
pub mod tls;
pub mod trace;
pub mod trust;
mod tunnel;
mod watch;

pub use backend::{Address, Backend, BackendSet, BackendView};
pub use exchange::{Exchange, Peer};
pub use forward::{Forward, ForwardSettings};
pub use front::{Front, FrontView, ListenError, Listening};
pub use limits::Limits;
pub use refusal::Refusal;
pub use tls::Tls;
