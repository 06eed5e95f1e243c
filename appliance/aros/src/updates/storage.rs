//! `arint os storage`: `state` and `data` are there before `/var` is mounted.
//!
//! At the first start it makes them (systemd-repart, which writes the table last, so that a partition that is in the
//! table is complete), at every other one it unlocks what is encrypted and sees that they can be mounted.
//!
//! **Invariant:** a partition that holds anything is never formatted, except to finish a factory reset.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::identifiers;
use super::program::{self, ProgramError};
use arboot::gpt::{Gpt, GptError, Partition};

/// The two partitions, by label; each has a definition `<label>.conf` for systemd-repart.
const LABELS: [&str; 2] = ["state", "data"];
/// If this much at the start of a partition is zero, nothing was ever written to it.
const HEAD: usize = 1 << 20;
/// Seconds for one repair.  Where no superblock is left it looks through the whole disk for a copy, which may take
/// hours; a start that outlasts its unit's limit would end in a restart, over and over.
const REPAIR_LIMIT: &str = "100";
/// How long a TPM that the firmware announces may take to appear.
const TPM_LIMIT: Duration = Duration::from_secs(20);

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// The disk the box started from.
    pub(crate) disk: PathBuf,
    /// Definitions for systemd-repart: folders `plain` and `tpm`.
    pub(crate) definitions: PathBuf,
    /// Where links to the devices are made.
    pub(crate) links: PathBuf,
    /// The TPM's device.
    pub(crate) tpm: PathBuf,
    /// There if the firmware announces a TPM.
    pub(crate) tpm_table: PathBuf,
    /// Whether a factory reset has begun and must be finished.
    pub(crate) finish_reset: bool,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The partitions that were made.
    pub(crate) made: Vec<String>,
    /// Whether they are encrypted.
    pub(crate) encrypted: bool,
    /// What a person should know, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// Why there is no storage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The partition table.
    #[error(transparent)]
    Table(#[from] GptError),
    /// A partition is missing after it was made.
    #[error("partition `{label}` is missing on `{}` although it was just made", disk.display())]
    Missing {
        /// Which.
        label: &'static str,
        /// Where.
        disk: PathBuf,
    },
    /// A box that was never started has none.
    #[error("`{}` has no partition `{label}` yet", disk.display())]
    Unmade {
        /// Which.
        label: &'static str,
        /// Where.
        disk: PathBuf,
    },
    /// What is there cannot be read as it is.
    #[error("`{label}` cannot be mounted to read it")]
    Unreadable {
        /// Which.
        label: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A partition cannot be made.
    #[error("cannot make the partitions `state` and `data` on `{}`", disk.display())]
    Make {
        /// Where.
        disk: PathBuf,
        /// Why.
        source: ProgramError,
    },
    /// The definitions cannot be prepared, or a device cannot be read.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TPM does not give the key.
    #[error(
        "cannot unlock `{label}`: the TPM does not give its key, as it does only on the box and with the Secure Boot state it was made with; undo what was changed there, or reset the box"
    )]
    Unlock {
        /// Which.
        label: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The TPM is gone.
    #[error(
        "cannot unlock `{label}`: it is sealed to a TPM, and there is none; switch the TPM on in the firmware or put the disk back into its box, or reset the box"
    )]
    NoTpm {
        /// Which.
        label: &'static str,
    },
    /// What is there cannot be mounted, not even repaired.
    #[error(
        "`{label}` cannot be mounted, and repairing it failed ({repair}); reset the box, or let somebody save what is on the disk first"
    )]
    Damaged {
        /// Which.
        label: &'static str,
        /// What the repair said.
        repair: String,
        /// What the mount said.
        source: std::io::Error,
    },
}

impl Storage {
    /// Makes, unlocks and checks; ends with the links `state` and `data`.
    pub(crate) fn prepare(&self) -> Result<Outcome, StorageError> {
        let mut outcome = Outcome::default();
        let mut gpt = Gpt::read(&self.disk)?;
        if !gpt.is_whole {
            outcome.notes.push(match Gpt::mend(&self.disk) {
                Ok(()) => {
                    "a copy of the partition table was torn and has been mended from the other"
                        .to_owned()
                }
                // The other copy serves.
                Err(err) => arbase::Chain(&err).to_string(),
            });
        }
        let anew = self.to_make(&gpt)?;
        if !anew.is_empty() || !gpt.reaches_end {
            if self.finish_reset {
                for label in LABELS {
                    if let Some(partition) = gpt.labelled(label) {
                        wipe(partition)?;
                    }
                }
            }
            // Before anything is made, so that a power cut in between leaves it to the next start.
            if anew.contains(&"state")
                && let Err(err) = identifiers::renew(&self.disk)
            {
                outcome.notes.push(format!(
                    "the disk keeps the identifiers of its image ({}); do not plug in another disk with the same image",
                    arbase::Chain(&err)
                ));
            }
            self.make(&anew, &mut outcome)?;
            gpt = Gpt::read(&self.disk)?;
            outcome.made = anew.iter().map(|label| (*label).to_owned()).collect();
        }
        std::fs::create_dir_all(&self.links).map_err(io("make the folder", &self.links))?;
        for label in LABELS {
            let partition = gpt
                .labelled(label)
                .ok_or_else(|| StorageError::Missing { label, disk: self.disk.clone() })?;
            let (device, encrypted) = self.unlocked(label, partition, true)?;
            outcome.encrypted |= encrypted;
            self.check(label, &device, &mut outcome)?;
            let link = self.links.join(label);
            match std::fs::remove_file(&link) {
                Err(err) if err.kind() != ErrorKind::NotFound => {
                    return Err(io("replace the link", &link)(err));
                }
                Ok(()) | Err(_) => {}
            }
            std::os::unix::fs::symlink(&device, &link).map_err(io("make the link", &link))?;
        }
        Ok(outcome)
    }

    /// Takes the links away again, so that nothing is mounted by them.
    pub(crate) fn forget_links(&self) {
        for label in LABELS {
            std::fs::remove_file(self.links.join(label)).ok();
        }
    }

    /// The partitions that are missing or hold nothing, or all of them to finish a reset.
    fn to_make(&self, gpt: &Gpt) -> Result<Vec<&'static str>, StorageError> {
        let mut anew = Vec::new();
        for label in LABELS {
            let make = match gpt.labelled(label) {
                None => true,
                Some(_) if self.finish_reset => true,
                Some(partition) => is_blank(&partition.device)
                    .map_err(io("read the partition", &partition.device))?,
            };
            if make {
                anew.push(label);
            }
        }
        Ok(anew)
    }

    /// Has systemd-repart make the partitions `anew`, and grow the table to the disk's end.
    fn make(&self, anew: &[&'static str], outcome: &mut Outcome) -> Result<(), StorageError> {
        if !anew.is_empty() && self.tpm_is_there() {
            match self.repart("tpm", anew) {
                Ok(()) => return Ok(()),
                Err(StorageError::Make { source, .. }) => outcome.notes.push(format!(
                    "state and data are not encrypted: the TPM could not be used ({source})"
                )),
                Err(other) => return Err(other),
            }
        }
        self.repart("plain", anew)
    }

    fn repart(&self, kind: &str, anew: &[&str]) -> Result<(), StorageError> {
        let from = self.definitions.join(kind);
        let to = self.links.join("repart.d");
        std::fs::create_dir_all(&to).map_err(io("make the folder", &to))?;
        for label in LABELS {
            let path = from.join(format!("{label}.conf"));
            let mut text =
                std::fs::read_to_string(&path).map_err(io("read the definition", &path))?;
            // systemd-repart takes a partition with this mark out of the table first, and makes it again.
            if anew.contains(&label) {
                text.push_str("\nFactoryReset=yes\n");
            }
            let path = to.join(format!("{label}.conf"));
            std::fs::write(&path, text).map_err(io("write the definition", &path))?;
        }
        let mut args: Vec<String> =
            ["--dry-run=no", "--empty=refuse", "--seed=random", "--pretty=no"]
                .map(str::to_owned)
                .to_vec();
        args.push(format!("--definitions={}", to.display()));
        if !anew.is_empty() {
            args.push("--factory-reset=yes".to_owned());
        }
        if kind == "tpm" {
            args.push("--tpm2-device=auto".to_owned());
            args.push("--tpm2-pcrs=7".to_owned());
        }
        args.push(self.disk.display().to_string());
        program::run("systemd-repart", &args)
            .map(drop)
            .map_err(|source| StorageError::Make { disk: self.disk.clone(), source })
    }

    /// Waits for a TPM where the firmware announces one: its driver may still be loading.
    fn tpm_is_there(&self) -> bool {
        let since = Instant::now();
        loop {
            if self.tpm.try_exists().unwrap_or(false) {
                return true;
            }
            if !self.tpm_table.try_exists().unwrap_or(false) || since.elapsed() > TPM_LIMIT {
                return false;
            }
            pause();
        }
    }

    /// Lets `work` read what `state` holds; not a byte of it changes, and it is closed again afterwards.
    pub(crate) fn with_state_read<T>(
        &self,
        work: impl FnOnce(&Path) -> T,
    ) -> Result<T, StorageError> {
        let label = "state";
        let gpt = Gpt::read(&self.disk)?;
        let partition = gpt
            .labelled(label)
            .ok_or_else(|| StorageError::Unmade { label, disk: self.disk.clone() })?;
        let (device, encrypted) = self.unlocked(label, partition, false)?;
        let at = self.links.join("state.read");
        let read = std::fs::create_dir_all(&at).and_then(|()| {
            let flags =
                MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            // Its log stays as it is, too: what was written last before a power cut may be missing here.
            mount(Some(&device), &at, Some("xfs"), flags, Some("norecovery"))?;
            let done = work(&at);
            umount2(&at, MntFlags::empty())?;
            Ok(done)
        });
        if encrypted && let Err(err) = cryptsetup(&["detach".to_owned(), label.to_owned()]) {
            log::warn!(error:% = err; "`state` stays unlocked");
        }
        read.map_err(|source| StorageError::Unreadable { label, source })
    }

    /// The device with the file system: the partition, or what LUKS makes of it; and whether that is so.
    fn unlocked(
        &self,
        label: &'static str,
        partition: &Partition,
        is_writable: bool,
    ) -> Result<(PathBuf, bool), StorageError> {
        let luks = starts_with(&partition.device, b"LUKS\xba\xbe")
            .map_err(io("read the partition", &partition.device))?;
        if !luks {
            return Ok((partition.device.clone(), false));
        }
        let mapped = Path::new("/dev/mapper").join(label);
        if mapped.try_exists().unwrap_or(false) {
            return Ok((mapped, true));
        }
        if !self.tpm_is_there() {
            return Err(StorageError::NoTpm { label });
        }
        let args = [
            "attach".to_owned(),
            label.to_owned(),
            partition.device.display().to_string(),
            "-".to_owned(),
            format!(
                "tpm2-device=auto,headless=true,tries=1,{}",
                if is_writable { "discard" } else { "read-only" }
            ),
        ];
        cryptsetup(&args).map_err(|source| StorageError::Unlock { label, source })?;
        Ok((mapped, true))
    }

    /// Mounts it once: that replays its log and shows whether it can be used; repairs it where it cannot.
    fn check(
        &self,
        label: &'static str,
        device: &Path,
        outcome: &mut Outcome,
    ) -> Result<(), StorageError> {
        let at = self.links.join(format!("{label}.check"));
        std::fs::create_dir_all(&at).map_err(io("make the folder", &at))?;
        let Err(source) = mount_once(device, &at) else { return Ok(()) };
        let shown = device.display().to_string();
        // Without -L it refuses while the log cannot be replayed, and then the log is what is broken.
        let limited =
            |args: &[&str]| program::run("timeout", [&[REPAIR_LIMIT, "xfs_repair"], args].concat());
        let repaired = limited(&[&shown]).or_else(|_| limited(&["-L", &shown]));
        let repair = match &repaired {
            Ok(_) => "it ended well".to_owned(),
            // While it looks for another superblock it prints dots, hundreds of them.
            Err(err) => err.to_string().replace("..", ""),
        };
        mount_once(device, &at).map_err(|_| StorageError::Damaged { label, repair, source })?;
        outcome.notes.push(format!("`{label}` was damaged and has been repaired"));
        Ok(())
    }
}

/// Since systemd 256 it is a program for everyone; before it was an internal one.
fn cryptsetup(args: &[String]) -> Result<(), ProgramError> {
    match program::run("systemd-cryptsetup", args) {
        Err(ProgramError::Start { .. }) => {
            program::run("/usr/lib/systemd/systemd-cryptsetup", args).map(drop)
        }
        other => other.map(drop),
    }
}

/// Puts `/var` and `/data` into memory: recovery and installation leave the disk alone.
pub(crate) fn in_memory(root: &Path) -> Result<(), StorageError> {
    for (folder, size) in [("var", "50%"), ("data", "70%")] {
        let at = root.join(folder);
        let options = format!("mode=0755,size={size}");
        mount(
            Some("tmpfs"),
            &at,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .map_err(|err| io("put a memory file system on", &at)(err.into()))?;
    }
    Ok(())
}

fn mount_once(device: &Path, at: &Path) -> std::io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some(device), at, Some("xfs"), flags, None::<&str>)?;
    umount2(at, MntFlags::empty())?;
    Ok(())
}

/// Overwrites where keys, superblock and log lie, and tells the disk that nothing there is needed any more.
pub(crate) fn wipe(partition: &Partition) -> Result<(), StorageError> {
    let failed = io("overwrite", &partition.device);
    let file = File::options().write(true).open(&partition.device).map_err(&failed)?;
    let zeros = vec![0; 1 << 20];
    // LUKS2 keeps its keys in the first 16 MiB.  What is not encrypted may lie anywhere, and `state`, with every key
    // in it, is small enough to be overwritten whole.
    let most = if partition.bytes <= 1 << 30 { partition.bytes } else { 64 << 20 };
    let mut at = 0;
    while at < most {
        let rest = usize::try_from(most - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..rest).unwrap_or(&zeros), at).map_err(&failed)?;
        at += zeros.len() as u64;
    }
    file.sync_all().map_err(&failed)?;
    drop(file);
    // Not every disk can; the keys are gone either way.
    if let Err(err) = program::run("blkdiscard", ["-f".as_ref(), partition.device.as_os_str()]) {
        log::info!(path:% = partition.device.display(), reason:% = err; "not discarded");
    }
    Ok(())
}

fn is_blank(device: &Path) -> std::io::Result<bool> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(device)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head.iter().all(|byte| *byte == 0))
}

fn starts_with(device: &Path, magic: &[u8]) -> std::io::Result<bool> {
    let mut start = vec![0; magic.len()];
    File::open(device)?.read_exact(&mut start)?;
    Ok(start == magic)
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> StorageError + use<> {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path: path.clone(), source }
}

#[expect(clippy::disallowed_methods, reason = "a oneshot without a runtime waits for a device")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests;
