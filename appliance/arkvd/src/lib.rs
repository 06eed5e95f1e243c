//! The key-value store: RESP server.
