//! The object store as the other services meet it: through its socket, and through power cuts.

mod support;
mod transactions;
