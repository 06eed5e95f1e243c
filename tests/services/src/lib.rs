//! Real binaries on loopback, several services.
