//! Writes the system of a stick to a disk, and reads back what it wrote.
//!
//! **Invariant:** the partition table comes last; a disk on which an installation was cut off has none, and does not
//! start half a system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::table::{SECTOR, Table, TableError};

const MIB: u64 = 1 << 20;
/// What `state` needs behind the image's partitions, and a little for `data`.
const ROOM_BEHIND: u64 = 1280 * MIB;
/// Partitions that are written; of the others only the first part is emptied.
const WRITTEN: [&str; 3] = ["esp", "boot-a", "slot-a"];
const EMPTIED: [&str; 4] = ["boot-b", "slot-b", "recovery", "blackbox"];
/// The black box is emptied whole: it keeps the machine's identity.
const EMPTIED_BYTES: u64 = 8 * MIB;

/// Why a disk was not written, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The stick's table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Too small.
    #[error("the disk has {has} MiB, and {needs} MiB are needed")]
    Small {
        /// MiB there are.
        has: u64,
        /// MiB that are needed.
        needs: u64,
    },
    /// The stick cannot be read.
    #[error("cannot read `{part}` of the stick; write the installer to another one")]
    Read {
        /// The partition.
        part: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The disk cannot be written.
    #[error("cannot write `{part}` to the disk; it is broken, use another one")]
    Write {
        /// The partition.
        part: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The disk did not keep it.
    #[error("the disk did not keep what was written to `{part}`; it is broken, use another one")]
    NotKept {
        /// The partition.
        part: &'static str,
    },
}

/// Names that the disk gets, so that it is told from the stick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) disk: [u8; 16],
    pub(super) esp: [u8; 16],
}

/// MiB that a disk must have for this stick's image.
pub(super) fn needed_bytes(stick: &File) -> Result<u64, WriteError> {
    Ok(table(stick)?.end() + ROOM_BEHIND)
}

fn table(stick: &File) -> Result<Table, WriteError> {
    let mut sectors = vec![0; 34 * 512];
    stick
        .read_exact_at(&mut sectors, 0)
        .map_err(|source| WriteError::Read { part: "the partition table", source })?;
    Ok(Table::parse(&sectors)?)
}

/// Writes it.  `slot_bytes` is how much of `slot-a` is image; `flush` empties what the kernel remembers of the disk.
pub(super) fn write(
    stick: &File,
    disk: &File,
    disk_bytes: u64,
    slot_bytes: Option<u64>,
    names: Names,
    flush: impl Fn() -> io::Result<()>,
    mut progress: impl FnMut(&str, u64),
) -> Result<(), WriteError> {
    let table = table(stick)?;
    let needs = table.end() + ROOM_BEHIND;
    if disk_bytes < needs {
        return Err(WriteError::Small { has: disk_bytes / MIB, needs: needs.div_ceil(MIB) });
    }
    let mut written = Vec::new();
    for part in WRITTEN {
        let place = table.place(part)?;
        let bytes = if part == "slot-a" { slot_bytes.unwrap_or(place.bytes) } else { place.bytes };
        written.push((part, place.start, bytes.min(place.bytes)));
    }
    let all: u64 = written.iter().map(|(_, _, bytes)| bytes).sum::<u64>().max(1);
    let table_failed = |source| WriteError::Write { part: "the partition table", source };

    // Nothing that was there may start, or be found again behind the image.
    let sectors = disk_bytes / SECTOR;
    zero(disk, 0, MIB).map_err(table_failed)?;
    zero(disk, disk_bytes - MIB, MIB).map_err(table_failed)?;
    zero(disk, table.end(), 16 * MIB).map_err(table_failed)?;
    for part in EMPTIED {
        let place = table.place(part)?;
        zero(disk, place.start, place.bytes.min(EMPTIED_BYTES))
            .map_err(|source| WriteError::Write { part, source })?;
    }
    disk.sync_all().map_err(table_failed)?;

    let mut done = 0;
    for (part, start, bytes) in &written {
        for_chunks(*start, *bytes, |at, chunk| {
            stick.read_exact_at(chunk, at).map_err(|source| WriteError::Read { part, source })?;
            disk.write_all_at(chunk, at).map_err(|source| WriteError::Write { part, source })?;
            done += u64::try_from(chunk.len()).unwrap_or_default();
            progress("writing", done * 100 / all);
            Ok::<(), WriteError>(())
        })?;
    }
    disk.sync_all().map_err(|source| WriteError::Write { part: "slot-a", source })?;

    flush().map_err(table_failed)?;
    done = 0;
    let mut kept = Vec::new();
    for (part, start, bytes) in &written {
        for_chunks(*start, *bytes, |at, chunk| {
            kept.resize(chunk.len(), 0);
            disk.read_exact_at(&mut kept, at).map_err(|_| WriteError::NotKept { part })?;
            stick.read_exact_at(chunk, at).map_err(|source| WriteError::Read { part, source })?;
            if kept != chunk {
                return Err(WriteError::NotKept { part });
            }
            done += u64::try_from(chunk.len()).unwrap_or_default();
            progress("checking", done * 100 / all);
            Ok(())
        })?;
    }

    let (front, back) = table.fitted(sectors, names.disk, names.esp);
    let back_at = (sectors - 33) * SECTOR;
    disk.write_all_at(&back, back_at).map_err(table_failed)?;
    disk.sync_all().map_err(table_failed)?;
    disk.write_all_at(&front, 0).map_err(table_failed)?;
    disk.sync_all().map_err(table_failed)
}

fn for_chunks<E>(
    start: u64,
    bytes: u64,
    mut work: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; usize::try_from(MIB).unwrap_or(1 << 20)];
    let mut at = start;
    let end = start + bytes;
    while at < end {
        let len = usize::try_from((end - at).min(MIB)).unwrap_or(buffer.len());
        let Some(chunk) = buffer.get_mut(..len) else { break };
        work(at, chunk)?;
        at += u64::try_from(len).unwrap_or(MIB);
    }
    Ok(())
}

fn zero(disk: &File, start: u64, bytes: u64) -> io::Result<()> {
    for_chunks(start, bytes, |at, chunk| {
        chunk.fill(0);
        disk.write_all_at(chunk, at)
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use super::*;

    const NAMES: Names = Names { disk: [7; 16], esp: [9; 16] };

    /// A stick with the contract's partitions, small ones, and something in each.
    fn stick(dir: &Path) -> PathBuf {
        let path = dir.join("stick");
        let file = File::create_new(&path).unwrap();
        file.set_len(48 * MIB).unwrap();
        let sizes =
            ["esp 8", "boot-a 2", "boot-b 2", "slot-a 8", "slot-b 8", "recovery 8", "blackbox 8"];
        let mut lines = "label: gpt\nfirst-lba: 2048\n".to_owned();
        for size in sizes {
            let (name, mib) = size.split_once(' ').unwrap();
            lines += &format!("size={mib}M, name={name}\n");
        }
        sfdisk(&path, &lines);
        for (index, at) in (1..45_u8).enumerate() {
            let fill = vec![at; 1 << 20];
            file.write_all_at(&fill, (u64::try_from(index).unwrap() + 1) * MIB).unwrap();
        }
        path
    }

    fn sfdisk(path: &Path, script: &str) {
        use std::io::Write as _;
        let mut child = Command::new("/usr/sbin/sfdisk")
            .args(["-q", path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk is missing: install the Debian package fdisk");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn disk(dir: &Path, mib: u64) -> PathBuf {
        let path = dir.join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(mib * MIB).unwrap();
        // What an earlier system left.
        file.write_all_at(&vec![0xee; 60 << 20], 0).unwrap();
        file.write_all_at(&vec![0xee; 1 << 20], (mib - 1) * MIB).unwrap();
        path
    }

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn install(
        stick: &Path,
        disk: &Path,
        slot_bytes: Option<u64>,
    ) -> Result<Vec<String>, WriteError> {
        let bytes = std::fs::metadata(disk).unwrap().len();
        let mut said = Vec::new();
        write(
            &open(stick),
            &open(disk),
            bytes,
            slot_bytes,
            NAMES,
            || Ok(()),
            |word, percent| {
                said.push(format!("{word} {percent}"));
            },
        )?;
        Ok(said)
    }

    fn byte(file: &File, at: u64) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        let [byte] = byte;
        byte
    }

    #[test]
    fn a_disk_gets_the_sticks_system_and_a_table_that_other_programs_accept() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, disk) = (stick(dir.path()), disk(dir.path(), 1400));
        let said = install(&stick, &disk, Some(3 * MIB)).unwrap();
        assert_eq!(said.last().map(String::as_str), Some("checking 100"));
        let (from, to) = (open(&stick), open(&disk));
        for at in [1, 8, 9, 10, 13, 15] {
            assert_eq!(byte(&to, at * MIB), byte(&from, at * MIB), "at {at} MiB");
        }
        // boot-b, slot-b, recovery, the black box, and what lay behind the image are empty.
        for at in [11, 21, 29, 37, 44, 46, 60] {
            assert_eq!(byte(&to, at * MIB), 0, "at {at} MiB");
        }
        let listed = Command::new("/usr/sbin/sfdisk")
            .args(["--verify", disk.to_str().unwrap()])
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("No errors detected"), "{listed}");
        let dump =
            Command::new("/usr/sbin/sfdisk").args(["-d", disk.to_str().unwrap()]).output().unwrap();
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        assert!(dump.contains("label-id: 07070707-0707-0707-0707-070707070707"), "{dump}");
        assert!(dump.contains("uuid=09090909-0909-0909-0909-090909090909, name=\"esp\""), "{dump}");
        assert!(dump.contains(&format!("last-lba: {}", 1400 * 2048 - 34)), "{dump}");
        assert!(dump.contains("name=\"blackbox\""), "{dump}");
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, disk) = (stick(dir.path()), disk(dir.path(), 200));
        let refused = install(&stick, &disk, None).unwrap_err().to_string();
        assert_eq!(refused, "the disk has 200 MiB, and 1325 MiB are needed");
        assert_eq!(byte(&open(&disk), 0), 0xee);
    }

    #[test]
    fn a_disk_that_does_not_keep_what_was_written_gets_no_table_and_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, disk) = (stick(dir.path()), disk(dir.path(), 1400));
        let broken = open(&disk);
        let refused = write(
            &open(&stick),
            &open(&disk),
            1400 * MIB,
            None,
            NAMES,
            || broken.write_all_at(b"x", 14 * MIB + 5),
            |_, _| {},
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            refused,
            "the disk did not keep what was written to `slot-a`; it is broken, use another one"
        );
        assert!((0..2048).step_by(8).all(|at| byte(&broken, at) == 0));
    }

    #[test]
    fn a_stick_without_table_or_with_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, disk) = (stick(dir.path()), disk(dir.path(), 1400));
        open(&stick).write_all_at(b"x", 1024 + 60).unwrap();
        assert_eq!(
            install(&stick, &disk, None).unwrap_err().to_string(),
            "the stick's partition table is damaged; write the installer to it again"
        );
        open(&stick).write_all_at(&[0; 512], 512).unwrap();
        assert_eq!(
            install(&stick, &disk, None).unwrap_err().to_string(),
            "the stick has no GUID partition table; write the installer to it again"
        );
        assert_eq!(byte(&open(&disk), 0), 0xee);
    }
}
