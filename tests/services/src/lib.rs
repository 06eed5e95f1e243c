//! Real binaries on loopback, several services: one file per behaviour in `tests/`.
