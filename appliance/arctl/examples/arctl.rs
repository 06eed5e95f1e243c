//! `arctl` by itself, without the services that the `arint` executable holds.

use std::process::ExitCode;

fn main() -> ExitCode {
    arctl::main(std::env::args_os().skip(1).collect())
}
