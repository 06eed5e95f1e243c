//! The first stage: the kernel's first program, in the initial RAM file system of the unified kernel image.
//!
//! It opens the root that the signed command line names, and starts the system in it.  It never asks anything, has no
//! shell, and touches neither `state` nor `data`.
//!
//! **Invariant:** what it starts has the root hash of the command line; anything else ends in a reset.

mod cmdline;
mod disks;
mod dm;
mod efi;
mod kernel;
mod log;
mod stage;
mod verity;

use std::process::ExitCode;

fn main() -> ExitCode {
    // It mounts, moves and resets: nothing for a system that runs.
    if std::process::id() != 1 {
        log::err("arinit is the kernel's first program and nothing else");
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|info| {
        stage::give_up(&format!("the first stage panicked: {info}"))
    }));
    stage::run()
}
