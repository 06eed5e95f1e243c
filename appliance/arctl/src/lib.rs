//! The operator's command line.
//!
//! Every command is one or a few calls of the admin API, and shows what came back; rules live in the box.  Answers
//! go to stdout, everything else to stderr.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the answer is no (`diff` found differences, `status` found
//! the box or a probe not well, an import did not take everything).

#![expect(clippy::print_stderr, reason = "a program for people: what went wrong is told on stderr")]

mod cli;
mod client;
mod commands;
mod config;
mod dev;
pub mod enmasse;
mod failure;
mod messages;
mod network;
mod new;
mod once;
pub mod openapi;
mod out;
mod packages;
mod people;
mod pin;
mod profile;
mod progress;
mod prompt;
mod python;
mod services;
mod states;
mod system;
mod trace;
mod update;
mod watch;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::Cli;
use crate::failure::Failure;

pub use yaml::{Document, YamlError, read as read_yaml};

/// Runs one command; `args` are those after the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let all = std::iter::once(OsString::from("arctl")).chain(args);
    let cli = match Cli::try_parse_from(all) {
        Ok(cli) => cli,
        Err(err) => {
            let failed = err.use_stderr();
            // Nothing can be said where printing fails.
            err.print().ok();
            return ExitCode::from(if failed { failure::USAGE } else { 0 });
        }
    };
    if let cli::Command::Completion { shell } = &cli.command {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "arctl", &mut text);
        return end(out::bytes(&text));
    }
    // One TLS provider for the whole program; it may be installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    end(runtime.map_err(Failure::Runtime).and_then(|runtime| runtime.block_on(commands::run(cli))))
}

fn end(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                eprintln!("{text}");
            }
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_guide_names_every_command() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/user/admin/arctl.md");
        let guide = std::fs::read_to_string(path).unwrap();
        fn check(command: &clap::Command, called: &str, guide: &str) {
            for sub in command.get_subcommands() {
                let called = format!("{called} {}", sub.get_name());
                assert!(guide.contains(&called), "`{called}` is not in docs/user/admin/arctl.md");
                check(sub, &called, guide);
            }
        }
        check(&Cli::command(), "arctl", &guide);
    }
}
