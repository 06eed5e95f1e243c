//! Partitions by their label, read from the disk's GUID partition table (UEFI 2.10, section 5.3).
//!
//! Read from the disk, not from the kernel's or udev's lists: early in a start udev has not run, the kernel keeps no
//! labels of partitions that were added while it ran, and before Linux 6.14 it tells no identifiers at all.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The longest table that is read: 1024 entries of 128 bytes.
const MOST_ENTRIES: u32 = 1024;
/// Bytes of a header; it may grow in a later revision, which nobody has written yet.
const HEADER: usize = 92;

/// Why a partition table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk cannot be read.
    #[error("cannot read the partition table of `{}`", disk.display())]
    Read {
        /// The disk.
        disk: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A copy cannot be mended.
    #[error("cannot mend the partition table of `{}`", disk.display())]
    Mend {
        /// The disk.
        disk: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such table.
    #[error("`{}` has no GUID partition table; write the image to it again", disk.display())]
    NoTable {
        /// The disk.
        disk: PathBuf,
    },
}

/// A disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// Whether the table reaches the disk's end; it does not when an image was written to a larger disk.
    pub reaches_end: bool,
    /// Whether the first copy and the backup are both there; one of them is enough to go on.
    pub is_whole: bool,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its label.
    pub label: String,
    /// Its unique identifier, in lower case with dashes, as the kernel and the boot loader write it.
    pub id: String,
    /// The device.
    pub device: PathBuf,
    /// Bytes.
    pub bytes: u64,
}

impl Gpt {
    /// Reads the table of a disk.
    pub fn read(disk: &Path) -> Result<Self, GptError> {
        let failed = |source| GptError::Read { disk: disk.to_owned(), source };
        let file = File::open(disk).map_err(failed)?;
        let end = {
            use std::io::Seek as _;
            (&file).seek(std::io::SeekFrom::End(0)).map_err(failed)?
        };
        for sector in [512, 4096] {
            if let Some(gpt) = Self::read_with(&file, disk, end, sector).map_err(failed)? {
                return Ok(gpt);
            }
        }
        Err(GptError::NoTable { disk: disk.to_owned() })
    }

    fn read_with(file: &File, disk: &Path, end: u64, sector: u64) -> std::io::Result<Option<Self>> {
        // The backup at the end serves where the first copy was torn by a power cut.
        for at in [sector, end.saturating_sub(sector)] {
            let Some(Copy { header, entries }) = Copy::read(file, at, sector)? else { continue };
            let (Some(other), Some(size)) = (u64_at(&header, 32), u32_at(&header, 84)) else {
                continue;
            };
            let is_whole = Copy::read(file, other.saturating_mul(sector), sector)?.is_some();
            let partitions = entries
                .chunks(usize::try_from(size).unwrap_or(128))
                .zip(1..)
                .filter_map(|(entry, number)| partition(entry, number, disk, sector))
                .collect();
            let last = other.max(at / sector);
            let reaches_end = last.saturating_add(1).saturating_mul(sector) >= end;
            return Ok(Some(Self { partitions, reaches_end, is_whole }));
        }
        Ok(None)
    }

    /// Writes the copy of the table that is torn anew, from the other one.
    ///
    /// **Invariant:** the copy that is whole is not touched.
    pub fn mend(disk: &Path) -> Result<(), GptError> {
        let failed = |source| GptError::Mend { disk: disk.to_owned(), source };
        let file = File::options().read(true).write(true).open(disk).map_err(failed)?;
        let end = {
            use std::io::Seek as _;
            (&file).seek(std::io::SeekFrom::End(0)).map_err(failed)?
        };
        for sector in [512, 4096] {
            for at in [sector, end.saturating_sub(sector)] {
                if let Some(copy) = Copy::read(&file, at, sector).map_err(failed)? {
                    return copy.write_other(&file, sector, end).map_err(failed);
                }
            }
        }
        Err(GptError::NoTable { disk: disk.to_owned() })
    }

    /// The partition with this label.
    pub fn labelled(&self, label: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.label == label)
    }
}

/// One of the two copies of a table.
struct Copy {
    header: [u8; HEADER],
    entries: Vec<u8>,
}

impl Copy {
    /// The copy whose header is at `at`, if header and entries fit their checksums, as firmware and kernel demand.
    fn read(file: &File, at: u64, sector: u64) -> std::io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if file.read_exact_at(&mut header, at).is_err() || !header.starts_with(b"EFI PART") {
            return Ok(None);
        }
        let fits = u32_at(&header, 12) == u32::try_from(HEADER).ok()
            && u32_at(&header, 16) == Some(sum(header))
            && u64_at(&header, 24) == Some(at / sector);
        let (Some(table), Some(count), Some(size), Some(expected)) =
            (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84), u32_at(&header, 88))
        else {
            return Ok(None);
        };
        if !fits || !(128..=4096).contains(&size) || count > MOST_ENTRIES {
            return Ok(None);
        }
        let mut entries = vec![0; usize::try_from(count * size).unwrap_or_default()];
        match file.read_exact_at(&mut entries, table.saturating_mul(sector)) {
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok((crc32fast::hash(&entries) == expected).then_some(Self { header, entries }))
    }

    /// Writes the copy that this one names as the other: first its entries, then the header that makes them count.
    fn write_other(&self, file: &File, sector: u64, end: u64) -> std::io::Result<()> {
        let unfit = || std::io::Error::other("it names no place for its other copy");
        let own = u64_at(&self.header, 24).ok_or_else(unfit)?;
        let other = u64_at(&self.header, 32).ok_or_else(unfit)?;
        let room = u64::try_from(self.entries.len()).unwrap_or_default().div_ceil(sector);
        // Behind the header of the first copy, before that of the backup.
        let table = if other == 1 { Some(2) } else { other.checked_sub(room) }.ok_or_else(unfit)?;
        if other == own || other.saturating_add(1).saturating_mul(sector) > end {
            return Err(unfit());
        }
        let mut header = self.header;
        for (at, value) in [(24, other), (32, own), (72, table)] {
            put(&mut header, at, &value.to_le_bytes());
        }
        let sum = sum(header);
        put(&mut header, 16, &sum.to_le_bytes());
        file.write_all_at(&self.entries, table.saturating_mul(sector))?;
        file.sync_all()?;
        file.write_all_at(&header, other.saturating_mul(sector))?;
        file.sync_all()
    }
}

/// The checksum of a header, for which its own field counts as zero.
fn sum(mut header: [u8; HEADER]) -> u32 {
    put(&mut header, 16, &[0; 4]);
    crc32fast::hash(&header)
}

fn put(header: &mut [u8; HEADER], at: usize, bytes: &[u8]) {
    header.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = *new);
}

fn partition(entry: &[u8], number: u32, disk: &Path, sector: u64) -> Option<Partition> {
    if entry.get(..16)?.iter().all(|byte| *byte == 0) {
        return None;
    }
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let units: Vec<u16> = entry
        .get(56..128)?
        .chunks_exact(2)
        .map(|pair| {
            u16::from_le_bytes([
                pair.first().copied().unwrap_or_default(),
                pair.last().copied().unwrap_or_default(),
            ])
        })
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Partition {
        label: String::from_utf16_lossy(&units),
        id: guid(entry.get(16..32)?),
        device: partition_device(disk, number),
        bytes: last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?,
    })
}

/// The first three groups are little-endian (UEFI 2.10, appendix A).
fn guid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for at in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
        if [5, 7, 8, 10].contains(&at) && !text.ends_with('-') {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(at).copied().unwrap_or_default()));
    }
    text
}

/// `/dev/vda` and 3 are `/dev/vda3`; `/dev/nvme0n1` and 3 are `/dev/nvme0n1p3`.
fn partition_device(disk: &Path, number: u32) -> PathBuf {
    let mut name = disk.as_os_str().to_owned();
    let separator =
        if name.to_string_lossy().ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    name.push(format!("{separator}{number}"));
    PathBuf::from(name)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Every whole disk of this machine that can hold an image.
pub fn disks() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let mut disks: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !["loop", "ram", "zram", "dm-", "sr", "md", "nbd"]
                .iter()
                .any(|other| name.starts_with(other))
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    disks.sort();
    disks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn partitions_are_found_by_label_and_a_larger_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let image = partitioned(dir.path());
        let gpt = Gpt::read(&image).unwrap();
        let labels: Vec<_> = gpt.partitions.iter().map(|p| (p.label.as_str(), p.bytes)).collect();
        assert_eq!(labels, [("esp", 8 << 20), ("blackbox", 4 << 20)]);
        assert_eq!(gpt.partitions[0].id, "33a121c7-2a8a-59ae-be3a-0c01d9e63416");
        assert!(gpt.reaches_end);
        File::options().write(true).open(&image).unwrap().set_len(128 << 20).unwrap();
        assert!(!Gpt::read(&image).unwrap().reaches_end);
    }

    /// A disk of 64 MiB with two partitions, in a file.
    fn partitioned(dir: &Path) -> PathBuf {
        let image = dir.join("disk");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let table = "label: gpt\nsize=8M, name=esp, uuid=33A121C7-2A8A-59AE-BE3A-0C01D9E63416\n\
                     size=4M, name=blackbox, uuid=76FD40C5-4DB5-5327-BB84-0BFCFB2F0A42\n";
        let mut sfdisk = Command::new("sfdisk")
            .arg("-q")
            .arg(&image)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk is needed (Debian package fdisk)");
        sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        image
    }

    /// Changes one byte.
    fn tear(image: &Path, at: u64) {
        let file = File::options().read(true).write(true).open(image).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    #[test]
    fn a_torn_table_is_not_believed_but_its_backup_is() {
        let dir = tempfile::tempdir().unwrap();
        let whole = Gpt::read(&partitioned(dir.path())).unwrap();
        let end = 64 << 20;
        // In the header; in an entry's label; and in the backup, which nobody needs.
        for at in [512 + 40, 1024 + 60, end - 512 + 40] {
            let image = partitioned(dir.path());
            let before = std::fs::read(&image).unwrap();
            tear(&image, at);
            assert_eq!(Gpt::read(&image).unwrap(), Gpt { is_whole: false, ..whole.clone() });
            Gpt::mend(&image).unwrap();
            assert!(before == std::fs::read(&image).unwrap(), "mended it is what it was");
        }
        let image = partitioned(dir.path());
        tear(&image, 1024 + 60);
        tear(&image, end - 512 + 40);
        assert!(matches!(Gpt::read(&image), Err(GptError::NoTable { .. })));
        assert!(matches!(Gpt::mend(&image), Err(GptError::NoTable { .. })));
    }

    #[test]
    fn a_disk_without_a_table_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let refused = Gpt::read(&image).unwrap_err().to_string();
        let expected = format!(
            "`{}` has no GUID partition table; write the image to it again",
            image.display()
        );
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_partition_is_named_as_the_kernel_names_it() {
        assert_eq!(partition_device(Path::new("/dev/vda"), 3), Path::new("/dev/vda3"));
        assert_eq!(partition_device(Path::new("/dev/nvme0n1"), 3), Path::new("/dev/nvme0n1p3"));
    }
}
