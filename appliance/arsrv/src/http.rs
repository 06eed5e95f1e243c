//! The data path: HTTP/1.1 in, calls of services, answers out.
//!
//! [`listen`] accepts connections and ends them in order; [`door`] matches one request and takes it through the
//! [`steps`] to its call; [`gateway`] and [`jsonrpc`] are for requests that name their service, [`soap`] for messages
//! in envelopes, [`websocket`] for connections that stay; [`body`] reads bodies within bounds, large ones
//! into a [`spool`]; [`document`] writes what a worker learns about a request; [`answer`] turns outcomes into responses, [`value`] into values of JSON; [`gzip`]
//! unpacks and packs, [`cache`] keeps answers, [`cors`] answers to browsers, [`checked`] holds documents against
//! schemas; [`builtin`] holds the paths of our own.
//!
//! Every request costs time here, whatever its service does, so nothing is parsed that nobody looks
//! at, and nothing here waits for anything but the request's body and its call.

pub mod answer;
pub mod body;
pub mod builtin;
pub mod cache;
pub mod checked;
pub mod cors;
pub mod document;
pub mod door;
pub mod gateway;
pub mod gzip;
pub mod jsonrpc;
pub mod listen;
mod pass_through;
pub mod soap;
pub mod spool;
pub mod steps;
pub mod value;
mod viewer;
pub mod websocket;

pub use door::Door;
