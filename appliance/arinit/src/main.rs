//! The first stage: the kernel's first program, in the initial RAM file system of the unified kernel image.
//!
//! It opens the root that the signed command line names, and starts the system in it.  It never asks anything, has no
//! shell, and touches neither `state` nor `data`.
//!
//! **Invariant:** what it starts has the root hash of the command line; anything else ends in a reset.

fn main() {}
