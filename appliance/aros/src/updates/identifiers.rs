//! The disk's own identifiers: an image brings the same ones for every box, and a box gives its disk others before it
//! makes anything on it.
//!
//! The boot loader says by the identifier of its partition which disk it came from.  As long as a stick with the same
//! image has the same one, the first stage cannot tell the two apart.
//!
//! **Invariant:** at every moment one of the two copies of the table is whole; the kernel is told to take either
//! (`gpt` on its command line).

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::install::table::{SECTOR, Table, TableError, fresh};

/// Sectors at each end that the table takes.
const FRONT: usize = 34;
const BACK: u64 = 33;

/// Why a disk keeps the image's identifiers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentifierError {
    /// The table is not the usual one.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The disk is smaller than its table says.
    #[error("the disk ends before its last partition does")]
    Short,
    /// Reading or writing.
    #[error("the partition table cannot be read or written")]
    Disk(#[from] std::io::Error),
}

/// Gives the disk and its ESP new identifiers, and moves the table's copy to the disk's end.
pub(crate) fn renew(disk: &Path) -> Result<(), IdentifierError> {
    let file = File::options().read(true).write(true).open(disk)?;
    let sectors = (&file).seek(SeekFrom::End(0))? / SECTOR;
    let mut front = vec![0; FRONT * 512];
    file.read_exact_at(&mut front, 0)?;
    let table = Table::parse(&front)?;
    if table.end() > sectors.saturating_sub(BACK) * SECTOR {
        return Err(IdentifierError::Short);
    }
    let (front, back) = table.fitted(sectors, fresh(), fresh());
    file.write_all_at(&back, (sectors - BACK) * SECTOR)?;
    file.sync_all()?;
    file.write_all_at(&front, 0)?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::updates::program::{run, run_with_input};
    use arboot::gpt::Gpt;

    const TABLE: &str = "label: gpt\nlabel-id: 2E550940-F638-56F6-A154-C0041DE9FAB9\nfirst-lba: 2048\n\
        size=8M, name=esp, uuid=33A121C7-2A8A-59AE-BE3A-0C01D9E63416\nsize=8M, name=slot-a, uuid=33E6557F-2531-53FF-B907-9411D0F44EFB\n";

    fn image(dir: &Path, mib: u64) -> std::path::PathBuf {
        let path = dir.join("disk");
        File::create_new(&path).unwrap().set_len(20 << 20).unwrap();
        run_with_input("sfdisk", ["-q", path.to_str().unwrap()], TABLE.as_bytes())
            .expect("sfdisk is needed (Debian package fdisk)");
        File::options().write(true).open(&path).unwrap().set_len(mib << 20).unwrap();
        path
    }

    #[test]
    fn two_boxes_of_one_image_have_disks_that_are_told_apart() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disks = [image(one.path(), 64), image(two.path(), 64)];
        let before = Gpt::read(&disks[0]).unwrap();
        let mut seen = vec![before.labelled("esp").unwrap().id.clone()];
        for disk in &disks {
            renew(disk).unwrap();
            let gpt = Gpt::read(disk).unwrap();
            assert!(gpt.reaches_end);
            let slot = |gpt: &Gpt| gpt.labelled("slot-a").map(|part| (part.id.clone(), part.bytes));
            assert_eq!(slot(&gpt), slot(&before));
            seen.push(gpt.labelled("esp").unwrap().id.clone());
            let said = run("sfdisk", ["--verify", disk.to_str().unwrap()]).unwrap();
            assert!(said.contains("No errors detected"), "{said}");
            let dump = run("sfdisk", ["-d", disk.to_str().unwrap()]).unwrap();
            assert!(!dump.contains("2E550940"), "{dump}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3, "{seen:?}");
    }

    #[test]
    fn a_disk_with_another_table_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let disk = image(dir.path(), 20);
        let file = File::options().write(true).open(&disk).unwrap();
        file.write_all_at(b"x", 1024 + 60).unwrap();
        let before = std::fs::read(&disk).unwrap();
        assert!(matches!(renew(&disk), Err(IdentifierError::Table(TableError::Damaged))));
        assert_eq!(std::fs::read(&disk).unwrap(), before);
    }
}
