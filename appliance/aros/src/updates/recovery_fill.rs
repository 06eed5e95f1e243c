//! `arint os recovery-fill`: copies the running root to the partition `recovery`, once.
//!
//! The recovery system's kernel image lies on the ESP from the start and starts only the root that its signed command
//! line names; so only the slot with that very root is copied, and a copy that was cut short is not started but made
//! again.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use arboot::uki::{self, UkiError};
use arboot::{Entries, EntriesError, Esp, Event, Slot};

use super::ring::Ring;
use super::started::{self, Started, StartedError};

/// Bytes of a block of data and tree.
const BLOCK: u64 = 4096;
/// Hashes in a block of the tree: SHA-256.
const HASHES: u64 = 128;
/// Copied at once.
const CHUNK: usize = 1 << 20;

/// `arint os recovery-fill`.
#[derive(Debug, clap::Args)]
pub(crate) struct RecoveryFillArgs {
    /// Where the ESP is mounted.
    #[arg(long, default_value = "/efi")]
    esp: PathBuf,
    /// The folder with the partitions by label.
    #[arg(long, default_value = "/dev/disk/by-partlabel")]
    partitions: PathBuf,
    /// Keeps which root was copied.
    #[arg(long, default_value = "/var/lib/arint/aros/recovery")]
    done: PathBuf,
    /// What the first stage left.
    #[arg(long, default_value = started::PATH)]
    started: PathBuf,
}

/// Why there is no recovery system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryFillError {
    /// What runs.
    #[error(transparent)]
    Started(#[from] StartedError),
    /// The entries.
    #[error(transparent)]
    Entries(#[from] EntriesError),
    /// The kernel image of the recovery system.
    #[error("cannot read the kernel image `{0}` of the recovery system")]
    Image(String, #[source] UkiError),
    /// A command line without what is needed.
    #[error(
        "the kernel image of the recovery system names no root: write the image to the disk again"
    )]
    NoRoot,
    /// Reading or writing.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was written reads back different.
    #[error("the copy on `{}` reads back different from what was written: the disk is failing", .0.display())]
    Differs(PathBuf),
}

/// Runs it.
pub(crate) fn recovery_fill_main(args: &RecoveryFillArgs) -> Result<(), RecoveryFillError> {
    let started = Started::read(&args.started)?;
    let entries = Entries::new(Esp::new(&args.esp)).list()?;
    let Some(entry) = entries.iter().find(|entry| entry.name.slot == Slot::Recovery) else {
        log::info!("this image has no recovery system");
        return Ok(());
    };
    let path = args.esp.join(&entry.image);
    let mut image = File::open(&path).map_err(io("open", &path))?;
    let uki = uki::inspect(&mut image)
        .map_err(|err| RecoveryFillError::Image(entry.image.clone(), err))?;
    let cmdline = uki.cmdline.unwrap_or_default();
    let (root, blocks) = wanted(&cmdline).ok_or(RecoveryFillError::NoRoot)?;
    if std::fs::read_to_string(&args.done).is_ok_and(|done| done.trim() == root) {
        return Ok(());
    }
    let running = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let runs = started.root_hash.clone().or_else(|| wanted(&running).map(|(root, _)| root));
    if started.in_memory() || runs.as_deref() != Some(root.as_str()) {
        log::info!("the running root is not the one of the recovery system; nothing to copy");
        return Ok(());
    }
    let from = args.partitions.join(started.slot.root_label());
    let to = args.partitions.join(Slot::Recovery.root_label());
    let bytes = (blocks + tree_blocks(blocks)) * BLOCK;
    copy(&from, &to, bytes)?;
    keep(&args.done, &root).map_err(io("write", &args.done))?;
    let text =
        format!("recovery system filled from slot {} (version {})", started.slot, started.version);
    log::info!(bytes; "recovery system filled");
    Ring::new(&args.partitions.join("blackbox")).note(Event::Note { text });
    Ok(())
}

/// Root hash and number of data blocks in a command line.
fn wanted(cmdline: &str) -> Option<(String, u64)> {
    let value = |key: &str| cmdline.split_whitespace().find_map(|word| word.strip_prefix(key));
    let root = value("arint.root=")?;
    let blocks = value("arint.verity=")?.split(':').next()?.parse().ok()?;
    Some((root.to_owned(), blocks))
}

/// Blocks of the hash tree over so many blocks of data.
fn tree_blocks(mut blocks: u64) -> u64 {
    let mut all = 0;
    while blocks > 1 {
        blocks = blocks.div_ceil(HASHES);
        all += blocks;
    }
    all.max(1)
}

fn copy(from: &Path, to: &Path, bytes: u64) -> Result<(), RecoveryFillError> {
    let source = File::open(from).map_err(io("open", from))?;
    let target = File::options().read(true).write(true).open(to).map_err(io("open", to))?;
    let mut source = source.take(bytes);
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let got = fill(&mut source, &mut chunk).map_err(io("read", from))?;
        let part = chunk.get(..got).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        target.write_all_at(part, at).map_err(io("write", to))?;
        at += part.len() as u64;
    }
    target.sync_all().map_err(io("write", to))?;
    // Read back from the disk, not from memory.
    nix::fcntl::posix_fadvise(&target, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .ok();
    let mut source = File::open(from).map_err(io("open", from))?.take(bytes);
    let mut target = File::open(to).map_err(io("open", to))?.take(bytes);
    let mut other = vec![0; CHUNK];
    loop {
        let one = fill(&mut source, &mut chunk).map_err(io("read", from))?;
        let two = fill(&mut target, &mut other).map_err(io("read", to))?;
        if chunk.get(..one) != other.get(..two) {
            return Err(RecoveryFillError::Differs(to.to_owned()));
        }
        if one == 0 {
            return Ok(());
        }
    }
}

fn fill(source: &mut impl Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = chunk.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

fn keep(path: &Path, root: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = File::create(path)?;
    file.write_all(root.as_bytes())?;
    file.sync_all()
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RecoveryFillError + use<> {
    let path = path.to_owned();
    move |source| RecoveryFillError::Io { what, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_as_many_blocks_as_veritysetup_makes() {
        assert_eq!(tree_blocks(1), 1);
        assert_eq!(tree_blocks(128), 1);
        assert_eq!(tree_blocks(129), 3);
        assert_eq!(tree_blocks(128 * 128), 129);
        assert_eq!(tree_blocks(20_000), 157 + 2 + 1);
    }

    #[test]
    fn what_is_wanted_stands_in_the_signed_command_line() {
        let found =
            wanted("ro quiet arint.root=ab12 arint.verity=77:00ff arint.version=1").unwrap();
        assert_eq!(found, ("ab12".to_owned(), 77));
        assert_eq!(wanted("ro quiet"), None);
    }

    #[test]
    fn a_copy_is_whole_and_nothing_behind_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("slot-a"), dir.path().join("recovery"));
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&from, &bytes).unwrap();
        std::fs::write(&to, vec![7; 3_000_000]).unwrap();
        copy(&from, &to, 2_000_000).unwrap();
        let copied = std::fs::read(&to).unwrap();
        assert_eq!(copied[..2_000_000], bytes[..2_000_000]);
        assert!(copied[2_000_000..].iter().all(|byte| *byte == 7));
    }
}
