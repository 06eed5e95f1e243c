//! The hidden subcommand `worker-exec` as an executable of its own, for tests of this crate, which run in a process
//! that is not `arint`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The core calls `<executable> worker-exec <what to become>`.
    arsrv::sandbox::worker_exec(std::env::args_os().skip(2).collect())
}
