//! `arint os …`: the commands that the image's own units and RAUC call; people use `arctl`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Commands of the image's own units.
#[derive(Debug, Args)]
pub struct OsArgs {
    #[command(subcommand)]
    command: OsCommand,
}

#[derive(Debug, Subcommand)]
enum OsCommand {}

/// Runs one.
pub fn main(args: &OsArgs) -> ExitCode {
    match args.command {}
}
