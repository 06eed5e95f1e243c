//! Which disk this box was started from, and its partitions, as the kernel lists them in sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arboot::gpt::Gpt;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// `vda2`.
    pub(crate) name: String,
    /// `254:2`.
    pub(crate) device: String,
    pub(crate) label: String,
    /// From the disk itself: the kernel tells it in sysfs only since 6.14.
    pub(crate) uuid: Option<String>,
    /// `vda`.
    disk: String,
}

impl Partition {
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// The partitions of one disk, by label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) partitions: BTreeMap<String, Partition>,
    /// Whether it hangs on USB, or can be taken out otherwise: a stick or a card.
    pub(crate) is_plugged: bool,
}

impl Disk {
    pub(crate) fn get(&self, label: &str) -> Option<&Partition> {
        self.partitions.get(label)
    }
}

/// The disks that have a partition for a root and one for the boot loader; the one the boot loader came from first.
///
/// `loader` is the boot loader's partition, where it says so.
pub(crate) fn find(sys: &Path, dev: &Path, loader: Option<&str>) -> io::Result<Vec<Disk>> {
    let mut disks: BTreeMap<String, Disk> = BTreeMap::new();
    for device in fs::read_dir(sys.join("class/block"))? {
        // One that vanishes while it is looked at is not the one we were started from.
        let Some(partition) = device.ok().and_then(|device| read(&device.path())) else { continue };
        let disk = disks.entry(partition.disk.clone()).or_default();
        disk.name.clone_from(&partition.disk);
        disk.is_plugged = is_plugged(&sys.join("class/block").join(&partition.name));
        disk.partitions.insert(partition.label.clone(), partition);
    }
    let mut disks: Vec<Disk> = disks
        .into_values()
        .filter(|d| d.get("slot-a").is_some() && d.get("esp").is_some())
        .collect();
    for disk in &mut disks {
        // A disk whose table cannot be read may still have a readable root.
        let Ok(table) = Gpt::read(&dev.join(&disk.name)) else { continue };
        for partition in disk.partitions.values_mut() {
            let node = dev.join(&partition.name);
            let entry = table.partitions.iter().find(|entry| entry.device == node);
            partition.uuid = entry.map(|entry| entry.id.clone());
        }
    }
    // A copy of this box's disk that somebody plugged in has the same identifiers: it is not what is meant.
    disks.sort_by_key(|disk| (!is_loaders(disk, loader), disk.is_plugged));
    Ok(disks)
}

/// Whether the boot loader came from this disk.
pub(crate) fn is_loaders(disk: &Disk, loader: Option<&str>) -> bool {
    let mut uuids = disk.partitions.values().filter_map(|partition| partition.uuid.as_deref());
    loader.is_some_and(|loader| uuids.any(|uuid| uuid.eq_ignore_ascii_case(loader)))
}

/// Whether the disk of this partition can be taken out by hand.
fn is_plugged(partition: &Path) -> bool {
    let Ok(real) = fs::canonicalize(partition) else { return false };
    let removable = real.parent().map(|disk| disk.join("removable"));
    real.to_string_lossy().contains("/usb")
        || removable
            .and_then(|path| fs::read_to_string(path).ok())
            .is_some_and(|text| text.trim() == "1")
}

/// What udev is told: of several disks with partitions of our names, only this one's are linked by their labels.
///
/// Without it `/dev/disk/by-partlabel/slot-b` may lead to a stick with the installer, or to another box's disk.
pub(crate) fn link_rules(disk: &str) -> String {
    format!(
        "# Written by arinit: the partitions of other disks are not this box's, whatever they are called.\n\
         SUBSYSTEM!=\"block\", GOTO=\"arint_end\"\n\
         ENV{{DEVTYPE}}!=\"partition\", GOTO=\"arint_end\"\n\
         KERNELS==\"{disk}\", GOTO=\"arint_end\"\n\
         ENV{{PARTNAME}}==\"esp|boot-?|slot-?|recovery|blackbox|state|data\", \
         ENV{{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}}=\"1\"\n\
         LABEL=\"arint_end\"\n"
    )
}

fn read(device: &Path) -> Option<Partition> {
    let text = fs::read_to_string(device.join("uevent")).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let label = value("PARTNAME=")?;
    let real = fs::canonicalize(device).ok()?;
    Some(Partition {
        name: value("DEVNAME=")?,
        device: format!("{}:{}", value("MAJOR=")?, value("MINOR=")?),
        label,
        uuid: None,
        disk: real.parent()?.file_name()?.to_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn partition(sys: &Path, disk: &str, number: u32, label: &str) {
        let name = format!("{disk}{number}");
        let real = sys.join("devices").join(disk).join(&name);
        fs::create_dir_all(&real).unwrap();
        fs::create_dir_all(sys.join("class/block")).unwrap();
        fs::write(
            real.join("uevent"),
            format!("MAJOR=254\nMINOR={number}\nDEVNAME={name}\nDEVTYPE=partition\nPARTN={number}\nPARTNAME={label}\n"),
        )
        .unwrap();
        std::os::unix::fs::symlink(&real, sys.join("class/block").join(&name)).unwrap();
    }

    /// A real table, as `sfdisk` writes it.
    fn table(dev: &Path, disk: &str, uuid: &str) {
        let file = dev.join(disk);
        fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let mut sfdisk = Command::new("sfdisk")
            .arg("-q")
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk is needed (Debian package fdisk)");
        let table = format!("label: gpt\nsize=4M, name=esp, uuid={uuid}\nsize=4M, name=slot-a\n");
        sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
    }

    #[test]
    fn the_disk_the_boot_loader_came_from_is_preferred_to_its_twin() {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        fs::create_dir_all(&dev).unwrap();
        let uuid = |disk| match disk {
            "sda" => "33A121C7-2A8A-59AE-BE3A-0C01D9E63416",
            _ => "D4482E3F-7FEE-5FB9-A486-72E9126B74B7",
        };
        for disk in ["sda", "sdb"] {
            partition(&sys, disk, 1, "esp");
            partition(&sys, disk, 2, "slot-a");
            table(&dev, disk, uuid(disk));
        }
        partition(&sys, "sdc", 1, "slot-a");
        let names = |loader| {
            find(&sys, &dev, loader).unwrap().into_iter().map(|d| d.name).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(uuid("sdb"))), ["sdb", "sda"]);
        assert_eq!(names(None), ["sda", "sdb"]);
        let disk = &find(&sys, &dev, None).unwrap()[0];
        assert_eq!(disk.get("slot-a").unwrap().node(), Path::new("/dev/sda2"));
        assert_eq!(disk.get("slot-a").unwrap().device, "254:2");
        assert!(is_loaders(disk, Some(uuid("sda"))) && !is_loaders(disk, None));
    }

    #[test]
    fn of_two_with_the_same_identifiers_the_one_that_cannot_be_taken_out_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        fs::create_dir_all(&dev).unwrap();
        let uuid = "33A121C7-2A8A-59AE-BE3A-0C01D9E63416";
        for disk in ["sda", "vda"] {
            partition(&sys, disk, 1, "esp");
            partition(&sys, disk, 2, "slot-a");
            table(&dev, disk, uuid);
        }
        fs::write(sys.join("devices/sda/removable"), "1\n").unwrap();
        let found = find(&sys, &dev, Some(uuid)).unwrap();
        assert_eq!(found[0].name, "vda");
        assert!(found.iter().all(|disk| is_loaders(disk, Some(uuid))));
    }

    #[test]
    fn udev_is_told_which_disk_is_meant_in_words_that_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join("10-arint-disk.rules");
        fs::write(&rules, link_rules("nvme0n1")).unwrap();
        let checked = Command::new("udevadm").arg("verify").arg("--no-style").arg(&rules).output();
        let checked = checked.expect("udevadm is needed (Debian package udev)");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        // Debian 12 has no `verify` yet; there the image's own udev is the judge.
        assert!(checked.status.success() || said.contains("verify"), "{said}");
        assert!(link_rules("nvme0n1").contains("KERNELS==\"nvme0n1\", GOTO"));
    }

    #[test]
    fn a_disk_without_a_readable_table_is_still_offered() {
        let dir = tempfile::tempdir().unwrap();
        partition(dir.path(), "sda", 1, "esp");
        partition(dir.path(), "sda", 2, "slot-a");
        let disks = find(dir.path(), &dir.path().join("none"), Some("x")).unwrap();
        assert_eq!(disks.len(), 1);
        assert!(!is_loaders(&disks[0], Some("x")));
    }
}
