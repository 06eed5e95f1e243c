//! The core's doors, tested through the sockets of a running core.

mod door;
