//! The integrator core: channels, Python workers, outgoing connections.
