//! What the core tells of itself: figures for Prometheus ([`figures`]), counted where calls out pass ([`outside`]), what
//! happened to each request ([`trace`]), and both steps and log lines to a collector ([`otlp`], in the form of [`proto`]).
//!
//! **Invariant:** nothing here holds up a request, and nothing here grows with the number of requests.

pub mod figures;
pub mod otlp;
pub mod outside;
pub mod proto;
pub mod trace;
