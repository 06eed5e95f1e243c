//! What `arint os migrate` does around [`Store`]: every store, and a word in the black box.

use std::path::{Path, PathBuf};

use arbase::Chain;
use arboot::Event;

use super::migrations::{Done, MigrateError, Store};
use super::ring::{self, Ring};

/// `arint os migrate`.
#[derive(Debug, clap::Args)]
pub(crate) struct MigrateArgs {
    /// Remove what was kept for falling back: the slot is confirmed.
    #[arg(long)]
    forget: bool,
    /// The partition of the black box.
    #[arg(long, default_value = ring::DEVICE)]
    blackbox: PathBuf,
}

/// Brings every store to this version; a store that cannot be brought keeps no other from it.
pub(crate) fn migrate_main(args: &MigrateArgs, stores: &[Store]) -> Result<(), MigrateError> {
    let ring = Ring::new(&args.blackbox);
    let mut first_fault = None;
    for store in stores {
        let done = if args.forget {
            store.forget().map(|()| Done::Shared)
        } else {
            store.bring(
                &mut |step| log::debug!(path:% = store.dir.display(), reason = step; "migration"),
            )
        };
        let text = match &done {
            Ok(Done::Shared) => continue,
            Ok(Done::Migrated { from }) => format!(
                "store `{}` brought from schema {from} to {}; the one from before is kept until the slot is confirmed",
                shown(&store.dir),
                store.schema.version()
            ),
            Ok(Done::Restored { aside }) => format!(
                "store `{}` is as it was before the update; what the version that was left wrote (schema {aside}) is set aside",
                shown(&store.dir)
            ),
            Err(err) => {
                format!("store `{}` could not be migrated: {}", shown(&store.dir), Chain(err))
            }
        };
        match done {
            Ok(_) => {
                log::info!(path:% = store.dir.display(), reason = text.as_str(); "store migrated")
            }
            Err(err) => {
                log::error!(path:% = store.dir.display(), error:% = Chain(&err); "store not migrated");
                first_fault.get_or_insert(err);
            }
        }
        ring.note(Event::Note { text });
    }
    first_fault.map_or(Ok(()), Err)
}

fn shown(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
