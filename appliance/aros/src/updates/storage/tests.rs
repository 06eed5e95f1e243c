use super::*;
use crate::updates::program::{run, run_with_input};

/// A disk in a file with the partitions an image brings, attached as a loop device.
struct Disk {
    dir: tempfile::TempDir,
    device: PathBuf,
}

impl Disk {
    fn with_image() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(2 << 30).unwrap();
        let table = "label: gpt\nsize=16M, name=esp, type=U\nsize=8M, name=blackbox\n";
        run_with_input("sfdisk", ["-q", file.to_str().unwrap()], table.as_bytes())
            .expect("sfdisk is needed (Debian package fdisk)");
        // As after flashing: the disk is larger than the image.
        File::options().write(true).open(&file).unwrap().set_len(4 << 30).unwrap();
        let device = attach(&file);
        Self { dir, device }
    }

    fn storage(&self) -> Storage {
        let definitions =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../buildroot-overlay/usr/lib/arint/repart.d");
        Storage {
            disk: self.device.clone(),
            definitions: definitions.into(),
            links: self.dir.path().join("links"),
            tpm: self.dir.path().join("no-tpm"),
            tpm_table: self.dir.path().join("no-table"),
            finish_reset: false,
        }
    }

    /// Off and on again: the kernel reads the table anew.
    fn restart(&mut self) {
        run("losetup", ["-d".as_ref(), self.device.as_os_str()]).unwrap();
        self.device = attach(&self.dir.path().join("disk"));
    }

    fn partition(&self, label: &str) -> Partition {
        Gpt::read(&self.device).unwrap().labelled(label).unwrap().clone()
    }

    fn with_mounted<T>(&self, label: &str, work: impl FnOnce(&Path) -> T) -> T {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let device = std::fs::read_link(self.dir.path().join("links").join(label)).unwrap();
        mount(Some(&device), &at, Some("xfs"), MsFlags::empty(), None::<&str>).unwrap();
        let result = work(&at);
        umount2(&at, MntFlags::empty()).unwrap();
        result
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("losetup", ["-d".as_ref(), self.device.as_os_str()]).ok();
    }
}

fn attach(file: &Path) -> PathBuf {
    let name = run("losetup", ["-f", "-P", "--show", file.to_str().unwrap()])
        .expect("loop devices are needed, and root");
    let device = PathBuf::from(name.trim());
    // The kernel of the machine that tests may not read GPTs by itself.
    run("partx", ["-a".as_ref(), device.as_os_str()]).unwrap();
    device
}

#[test]
fn the_first_start_makes_state_and_data_up_to_the_disks_end_and_the_second_keeps_them() {
    let mut disk = Disk::with_image();
    let esp = disk.partition("esp").id;
    let first = disk.storage().prepare().unwrap();
    assert_eq!(first.made, ["state", "data"]);
    assert_eq!((first.encrypted, first.notes.as_slice()), (false, [].as_slice()));
    assert_ne!(disk.partition("esp").id, esp, "the image's own identifier stays on no box");
    let esp = disk.partition("esp").id;
    let gpt = Gpt::read(&disk.device).unwrap();
    assert!(gpt.reaches_end);
    assert_eq!(gpt.labelled("state").unwrap().bytes, 1 << 30);
    assert!(gpt.labelled("data").unwrap().bytes > 2 << 30);
    disk.with_mounted("state", |at| std::fs::write(at.join("kept"), "x").unwrap());
    disk.restart();
    assert_eq!(disk.storage().prepare().unwrap(), Outcome::default());
    assert_eq!(disk.partition("esp").id, esp);
    disk.with_mounted("state", |at| assert!(at.join("kept").is_file()));
}

#[test]
fn a_partition_that_holds_anything_is_never_formatted() {
    let disk = Disk::with_image();
    disk.storage().prepare().unwrap();
    let state = disk.partition("state");
    let file = File::options().write(true).open(&state.device).unwrap();
    // No superblock is left, neither the first nor a copy; only what looks like somebody's data.
    for at in 0..64 {
        file.write_all_at(&vec![0x5a; 16 << 20], at * (16 << 20)).unwrap();
    }
    file.sync_all().unwrap();
    let refused = disk.storage().prepare().unwrap_err();
    assert!(matches!(refused, StorageError::Damaged { label: "state", .. }), "{refused}");
    assert!(starts_with(&state.device, &[0x5a; 512]).unwrap());
}

#[test]
fn a_damaged_superblock_is_repaired_from_its_copy() {
    let disk = Disk::with_image();
    disk.storage().prepare().unwrap();
    disk.with_mounted("data", |at| std::fs::write(at.join("kept"), "x").unwrap());
    let data = disk.partition("data");
    let file = File::options().write(true).open(&data.device).unwrap();
    file.write_all_at(&[0xff; 512], 0).unwrap();
    file.sync_all().unwrap();
    let outcome = disk.storage().prepare().unwrap();
    assert_eq!(outcome.notes, ["`data` was damaged and has been repaired"]);
    disk.with_mounted("data", |at| assert!(at.join("kept").is_file()));
}

#[test]
fn a_torn_copy_of_the_partition_table_is_mended_at_the_next_start() {
    let mut disk = Disk::with_image();
    disk.storage().prepare().unwrap();
    let whole = Gpt::read(&disk.device).unwrap();
    let file = File::options().write(true).open(&disk.device).unwrap();
    file.write_all_at(&[0xff; 512], 512).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let outcome = disk.storage().prepare().unwrap();
    assert_eq!(
        outcome.notes,
        ["a copy of the partition table was torn and has been mended from the other"]
    );
    assert_eq!(Gpt::read(&disk.device).unwrap(), whole);
    disk.restart();
    assert_eq!(disk.storage().prepare().unwrap(), Outcome::default());
}

#[test]
fn a_reset_that_has_begun_is_finished_and_leaves_nothing() {
    let disk = Disk::with_image();
    disk.storage().prepare().unwrap();
    disk.with_mounted("state", |at| std::fs::write(at.join("secret"), "x").unwrap());
    let outcome = Storage { finish_reset: true, ..disk.storage() }.prepare().unwrap();
    assert_eq!(outcome.made, ["state", "data"]);
    disk.with_mounted("state", |at| assert!(!at.join("secret").try_exists().unwrap()));
}

#[test]
fn a_reset_that_was_cut_after_wiping_is_finished_without_its_record() {
    let disk = Disk::with_image();
    disk.storage().prepare().unwrap();
    disk.with_mounted("data", |at| std::fs::write(at.join("kept"), "x").unwrap());
    wipe(&disk.partition("state")).unwrap();
    let outcome = disk.storage().prepare().unwrap();
    assert_eq!(outcome.made, ["state"]);
    disk.with_mounted("data", |at| assert!(at.join("kept").is_file()));
}
