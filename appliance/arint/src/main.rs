//! The executable: composes components into processes, and nothing else.
//!
//! `arint arsrv` runs one unit, as does the name it is called by (`/usr/bin/arsrv` is a link to it);
//! `arctl` is the same file again.  `arint dev` runs the whole node on a developer's machine.

mod dev;
mod units;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arbase::{EXIT_FAILED, EXIT_USAGE, ServiceArgs};
use clap::{Parser, Subcommand};

/// ARINT: the integration appliance.
#[derive(Debug, Parser)]
#[command(name = "arint", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole node here, without root, systemd or D-Bus.
    Dev(dev::DevArgs),
    /// Run the cluster unit: object store and key-value store.
    Arclst(UnitArgs),
    /// Run the integrator core.
    Arsrv(UnitArgs),
    /// Run the balancer.
    Arldb(UnitArgs),
    /// Run the admin API.
    Arwadm(UnitArgs),
    /// Run the operating system unit; only images have what it needs.
    Aros(UnitArgs),
    /// Write the Python SDK into a folder, for tests and editors: put it into PYTHONPATH.
    Sdk {
        /// The folder; what is in it of an older SDK is replaced.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// What the image's own units and RAUC call; people use `arctl`.
    #[command(hide = true)]
    Os(aros::cli::OsArgs),
    /// Administer a box; the same as calling `arctl`.
    #[command(disable_help_flag = true)]
    Arctl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Confine this process and become a worker; only the core calls this.
    #[command(hide = true, disable_help_flag = true)]
    WorkerExec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// What every unit takes.
#[derive(Debug, Clone, clap::Args)]
struct UnitArgs {
    /// The folder of the config files.
    #[arg(long, value_name = "DIR", default_value = "/etc/arint")]
    config_dir: PathBuf,
    /// Check the config, say the first fault and exit (2 if there is one).
    #[arg(long)]
    check: bool,
    /// The graver levels down to this one are logged: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: log::LevelFilter,
    /// End when the process that started this one ends; `arint dev` says so.
    #[arg(long, hide = true)]
    supervised: bool,
}

fn main() -> ExitCode {
    // One TLS provider for the whole program; a second call cannot happen here.
    rustls::crypto::ring::default_provider().install_default().ok();
    match Args::try_parse_from(with_unit_name(std::env::args_os().collect())) {
        Ok(args) => run(args.command),
        Err(err) => {
            let failed = err.use_stderr();
            // Nothing can be said where printing fails.
            err.print().ok();
            if failed { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Dev(args) => dev::run(&args),
        Command::Arclst(args) => unit(&args, units::arclst),
        Command::Arsrv(args) => unit(&args, units::arsrv),
        Command::Arldb(args) => unit(&args, units::arldb),
        Command::Arwadm(args) => unit(&args, units::arwadm),
        Command::Aros(args) => unit(&args, units::aros),
        Command::Sdk { folder } => sdk(&folder),
        Command::Os(args) => aros::cli::main(&args, &units::stores()),
        Command::Arctl { args } => arctl::main(args),
        Command::WorkerExec { args } => arsrv::sandbox::worker_exec(args),
    }
}

fn sdk(folder: &Path) -> ExitCode {
    match arsrv::write_sdk(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let said = format!("error: cannot write the SDK to `{}`: {err}\n", folder.display());
            // Nothing can be said where stderr is gone.
            std::io::stderr().write_all(said.as_bytes()).ok();
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn unit(args: &UnitArgs, run: fn(&ServiceArgs) -> ExitCode) -> ExitCode {
    if args.supervised && !dies_with_parent() {
        return ExitCode::from(EXIT_FAILED);
    }
    let UnitArgs { config_dir, check, log_level, .. } = args.clone();
    run(&ServiceArgs { config_dir, check, log_level })
}

/// Asks the kernel for SIGTERM when the parent dies.  False if that has happened already.
fn dies_with_parent() -> bool {
    let asked = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
    asked.is_ok() && nix::unistd::getppid().as_raw() != 1
}

/// Called as `arsrv --check`, it is `arint arsrv --check`.
fn with_unit_name(mut args: Vec<OsString>) -> Vec<OsString> {
    let called = args.first().map(PathBuf::from).unwrap_or_default();
    let name = called.file_name().unwrap_or_default().to_owned();
    let units = ["arclst", "arsrv", "arldb", "arwadm", "aros", "arctl"];
    if units.iter().any(|unit| Path::new(unit).as_os_str() == name) {
        args.splice(0..1, ["arint".into(), name]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_it_is_called_by_chooses_the_unit() {
        let called =
            |args: &[&str]| with_unit_name(args.iter().map(Into::into).collect::<Vec<OsString>>());
        assert_eq!(called(&["/usr/bin/arsrv", "--check"]), ["arint", "arsrv", "--check"]);
        assert_eq!(called(&["/usr/bin/arint", "dev"]), ["/usr/bin/arint", "dev"]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
