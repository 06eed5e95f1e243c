//! `arint os …`: the commands that the image's own units and RAUC call; people use `arctl`.

use std::process::ExitCode;

use arbase::{Chain, EXIT_FAILED};
use clap::{Args, Subcommand};

use crate::{boot, install, system, updates};

/// Commands of the image's own units.
#[derive(Debug, Args)]
pub struct OsArgs {
    #[command(subcommand)]
    command: OsCommand,
}

#[derive(Debug, Subcommand)]
enum OsCommand {
    /// Which slot is started next, as RAUC asks and tells it.
    Boot(boot::BootArgs),
    /// Write the system of this stick to the box's own disk.
    Install(install::InstallArgs),
    /// Make, unlock and check `state` and `data`, before `/var` is mounted.
    Storage(updates::StorageArgs),
    /// Give the box its own name, before anything asks for it.
    Name(system::NameArgs),
    /// Tell the time to the LAN, and find out who there knows it better.
    Time(system::TimeArgs),
    /// Bring every store to this version on a copy, or find again what falling back needs.
    Migrate(updates::MigrateArgs),
    /// Copy the running root to the recovery partition, once.
    RecoveryFill(updates::RecoveryFillArgs),
    /// Take a seed file from a stick or a partition, once.
    Seed(updates::SeedArgs),
}

/// Runs one; `stores` are those of all units.
pub fn main(args: &OsArgs, stores: &[updates::Store]) -> ExitCode {
    arbase::logging::install("aros", log::LevelFilter::Info);
    let ended: Result<(), Box<dyn std::error::Error>> = match &args.command {
        OsCommand::Boot(args) => boot::main(args).map_err(Into::into),
        OsCommand::Install(args) => install::install_main(args).map_err(Into::into),
        OsCommand::Storage(args) => updates::storage_main(args).map_err(Into::into),
        OsCommand::Name(args) => system::name_main(args).map_err(Into::into),
        OsCommand::Time(args) => system::time_main(args).map_err(Into::into),
        OsCommand::Migrate(args) => updates::migrate_main(args, stores).map_err(Into::into),
        OsCommand::RecoveryFill(args) => updates::recovery_fill_main(args).map_err(Into::into),
        OsCommand::Seed(args) => updates::seed_main(args).map_err(Into::into),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            log::error!(error:% = Chain(err.as_ref()); "failed");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
