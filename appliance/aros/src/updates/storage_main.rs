//! What `arint os storage` does around [`Storage`]: finds the disk, tells the black box, and falls to recovery where
//! there is nothing to run on.

use std::path::{Path, PathBuf};

use arbase::Chain;
use arboot::{Event, Mode};

use super::itself;
use super::program;
use super::reset;
use super::ring::{self, Ring};
use super::started::{self, Started};
use super::storage::{Storage, StorageError, in_memory};
use arboot::gpt::{self, Gpt};

/// Where the links `state` and `data` are made.
const LINKS: &str = "/run/arint-storage";
/// The file beside them that says why this start fell to recovery.
const REASON: &str = "failed";

/// Why this start has no storage; none where it has.
pub(crate) fn failed() -> Option<String> {
    std::fs::read_to_string(Path::new(LINKS).join(REASON)).ok()
}

/// `arint os storage`.
#[derive(Debug, clap::Args)]
pub(crate) struct StorageArgs {
    /// The disk; default: the one the box started from.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// The definitions for systemd-repart.
    #[arg(long, default_value = "/usr/lib/arint/repart.d")]
    definitions: PathBuf,
    /// Where the links `state` and `data` are made.
    #[arg(long, default_value = LINKS)]
    links: PathBuf,
}

/// Why neither storage nor recovery could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageMainError {
    /// No disk with an image.
    #[error("no disk of this machine has a partition `blackbox`; write the image to it again")]
    NoDisk,
    /// Not even memory.
    #[error(transparent)]
    Memory(#[from] StorageError),
}

/// Runs it.
pub(crate) fn storage_main(args: &StorageArgs) -> Result<(), StorageMainError> {
    let started = Started::read(Path::new(started::PATH))
        .inspect_err(
            |err| log::warn!(error:% = Chain(err); "how this system was started is not known"),
        )
        .ok();
    let in_recovery = started.as_ref().is_some_and(Started::in_memory);
    if started.as_ref().is_some_and(|started| started.mode == Mode::Install) {
        return Ok(in_memory(Path::new("/"))?);
    }
    let disk = args
        .disk
        .clone()
        .or_else(|| started.and_then(|started| started.disk))
        .or_else(boot_disk)
        .ok_or(StorageMainError::NoDisk)?;
    let ring = Ring::new(&black_box(&disk));
    let storage = Storage {
        disk,
        definitions: args.definitions.clone(),
        links: args.links.clone(),
        tpm: "/dev/tpmrm0".into(),
        tpm_table: "/sys/firmware/acpi/tables/TPM2".into(),
        finish_reset: ring.records().is_ok_and(|records| reset::is_begun(&records)),
    };
    if in_recovery {
        // Where both slots are exhausted, no other start would finish a reset.
        if storage.finish_reset {
            if let Err(err) = prepare(&storage, &ring) {
                log::error!(error:% = Chain(&err); "the factory reset is not finished");
            }
            storage.forget_links();
        }
        in_memory(Path::new("/"))?;
        be_itself(&storage, &ring);
        return Ok(());
    }
    match prepare(&storage, &ring) {
        Ok(()) => Ok(()),
        Err(err) => fall_to_recovery(&storage, &ring, &err),
    }
}

/// Makes, unlocks and checks; the black box keeps what was done, or why it was not.
fn prepare(storage: &Storage, ring: &Ring) -> Result<(), StorageError> {
    let outcome = storage.prepare().inspect_err(|err| {
        ring.note(Event::Note { text: format!("no storage, so recovery: {}", Chain(err)) });
    })?;
    for text in outcome.notes {
        log::warn!(reason = text.as_str(); "storage");
        ring.note(Event::Note { text });
    }
    if !outcome.made.is_empty() {
        let text = format!("partitions made: {}", outcome.made.join(", "));
        log::info!(reason = text.as_str(); "storage");
        ring.note(Event::Note { text });
    }
    if storage.finish_reset {
        ring.note(Event::Note { text: reset::FINISHED.to_owned() });
    }
    Ok(())
}

/// With `/var` in memory the box still has its own key and name, where they can be read.
fn be_itself(storage: &Storage, ring: &Ring) {
    let Some(text) = itself::bring(storage, Path::new("/var")) else { return };
    log::warn!(reason = text.as_str(); "storage");
    ring.note(Event::Note { text });
}

/// The black box's partition; udev has not made its link yet.
fn black_box(disk: &Path) -> PathBuf {
    let table = Gpt::read(disk).ok();
    let partition = table.and_then(|table| table.labelled("blackbox").cloned());
    partition.map_or_else(|| PathBuf::from(ring::DEVICE), |partition| partition.device)
}

/// The disk with a partition `blackbox`: the one the box started from, if the first stage did not say.
fn boot_disk() -> Option<PathBuf> {
    gpt::disks()
        .into_iter()
        .find(|disk| Gpt::read(disk).is_ok_and(|gpt| gpt.labelled("blackbox").is_some()))
}

/// Goes on with `/var` in memory, in the recovery target, and says why.
fn fall_to_recovery(
    storage: &Storage,
    ring: &Ring,
    err: &StorageError,
) -> Result<(), StorageMainError> {
    let reason = Chain(err).to_string();
    log::error!(error = reason.as_str(); "no storage; falling to recovery");
    std::fs::create_dir_all(&storage.links).ok();
    let path = storage.links.join(REASON);
    if let Err(err) = std::fs::write(&path, &reason) {
        log::warn!(path:% = path.display(), error:% = err; "the reason cannot be kept");
    }
    in_memory(Path::new("/"))?;
    be_itself(storage, ring);
    if let Err(err) = program::run("systemctl", ["--no-block", "isolate", "arint-recovery.target"])
    {
        log::error!(error:% = Chain(&err); "the recovery target cannot be started");
    }
    Ok(())
}
