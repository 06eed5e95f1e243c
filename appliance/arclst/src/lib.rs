//! The cluster: replicated objects, secrets, watch, history.
