//! Disks: what is mounted, how full it is, and how well the device below is.
//!
//! Health comes from what the kernel shows in sysfs (eMMC), and from `smartctl` where the image has it (NVMe, SATA).  A
//! device that says nothing has no health, rather than a good one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arapi::aros::Disk;
use tokio::process::Command;

/// Longest time for one question to a device.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// The file systems that are mounted from disk, by mount point.
pub(crate) async fn list() -> Vec<Disk> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut disks: Vec<Disk> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (device, mount) in from_disk(&mounts) {
        if seen.contains(&device) {
            // A bind mount of one that is listed: the unit's own sandbox makes some.
            continue;
        }
        seen.push(device.clone());
        let Ok(figures) = nix::sys::statvfs::statvfs(Path::new(&mount)) else { continue };
        let block = figures.fragment_size();
        let name = block_name(Path::new("/sys/class/block"), Path::new(&device));
        let whole = name.as_deref().map(|name| whole_disk(Path::new("/sys/class/block"), name));
        let mut disk = Disk {
            mount,
            label: name.as_deref().map(label).unwrap_or_default(),
            total: figures.blocks() * block,
            free: figures.blocks_available() * block,
            device: device.clone(),
            ..Disk::default()
        };
        if let Some(whole) = whole {
            disk.device = format!("/dev/{whole}");
            let sys = Path::new("/sys/class/block").join(&whole).join("device");
            disk.model = read(&sys.join("model")).or_else(|| read(&sys.join("name")));
            let health = match emmc(&sys) {
                Some(health) => Some(health),
                None => smart(&disk.device).await,
            };
            disk.health = health.map(|health| health.word.to_owned());
            disk.wear_percent = health.and_then(|health| health.wear_percent);
        }
        disks.push(disk);
    }
    disks
}

/// Device and mount point of what is mounted from disk.
fn from_disk(mounts: &str) -> Vec<(String, String)> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
            // The root is read-only and always full; autofs stands for what is not mounted yet.
            let counts = device.starts_with("/dev/") && kind != "erofs" && kind != "squashfs";
            counts.then(|| (device.to_owned(), mount.replace("\\040", " ")))
        })
        .collect()
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The kernel's name of a device, of the partition below it where it is a mapping.
fn block_name(blocks: &Path, device: &Path) -> Option<String> {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
    let mut name = real.file_name()?.to_string_lossy().into_owned();
    // A LUKS mapping lies on one device; deeper than this is nothing we make.
    for _ in 0..4 {
        let below = std::fs::read_dir(blocks.join(&name).join("slaves")).ok();
        match below.and_then(|mut entries| entries.next()?.ok()) {
            Some(entry) => name = entry.file_name().to_string_lossy().into_owned(),
            None => break,
        }
    }
    Some(name)
}

/// The disk that a partition is on; a disk itself.
fn whole_disk(blocks: &Path, name: &str) -> String {
    let link: PathBuf = std::fs::canonicalize(blocks.join(name)).unwrap_or_default();
    if !link.join("partition").is_file() {
        return name.to_owned();
    }
    let parent = link.parent().and_then(Path::file_name);
    parent.map_or_else(|| name.to_owned(), |parent| parent.to_string_lossy().into_owned())
}

/// The partition's label.
fn label(name: &str) -> String {
    let uevent = std::fs::read_to_string(Path::new("/sys/class/block").join(name).join("uevent"));
    let uevent = uevent.unwrap_or_default();
    if let Some(label) = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")) {
        return label.to_owned();
    }
    // The kernel does not know the label of a partition that was made since it started; udev does.
    let links = std::fs::read_dir("/dev/disk/by-partlabel").into_iter().flatten().flatten();
    let device = Path::new("/dev").join(name);
    let found = links
        .into_iter()
        .find(|link| std::fs::canonicalize(link.path()).is_ok_and(|target| target == device));
    found.map(|link| link.file_name().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What a device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Health {
    word: &'static str,
    wear_percent: Option<u8>,
}

/// The health of an eMMC (JESD84-B51: `life_time` counts tenths of the estimated life, 0x0b is past its end).
fn emmc(sys: &Path) -> Option<Health> {
    let life = read(&sys.join("life_time"))?;
    let worst = life
        .split_whitespace()
        .filter_map(|tenths| u8::from_str_radix(tenths.trim_start_matches("0x"), 16).ok())
        .max()
        .filter(|tenths| *tenths > 0)?;
    let spent = read(&sys.join("pre_eol_info"))
        .and_then(|text| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let word = match (worst, spent) {
        (0x0b.., _) | (_, Some(3..)) => "failing",
        (0x09.., _) | (_, Some(2)) => "worn",
        _ => "ok",
    };
    Some(Health { word, wear_percent: Some(worst.saturating_mul(10).min(110)) })
}

/// What smartctl says, where the image has it and the device answers.
async fn smart(device: &str) -> Option<Health> {
    let asked = Command::new("smartctl")
        .args(["--json", "--health", "--attributes", "--nocheck=standby", device])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ASK_LIMIT, asked).await.ok()?.ok()?;
    of_smart(&serde_json::from_slice(&output.stdout).ok()?)
}

fn of_smart(answer: &serde_json::Value) -> Option<Health> {
    let passed = answer.pointer("/smart_status/passed")?.as_bool()?;
    let used = answer.pointer("/nvme_smart_health_information_log/percentage_used");
    let wear_percent = used
        .and_then(serde_json::Value::as_u64)
        .map(|percent| u8::try_from(percent).unwrap_or(u8::MAX));
    let warned = answer
        .pointer("/nvme_smart_health_information_log/critical_warning")
        .and_then(serde_json::Value::as_u64)
        .is_some_and(|bits| bits != 0);
    let word = match (passed && !warned, wear_percent) {
        (false, _) => "failing",
        (true, Some(90..)) => "worn",
        (true, _) => "ok",
    };
    Some(Health { word, wear_percent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_from_disk_and_can_be_written_counts() {
        let mounts = "/dev/dm-0 / erofs ro 0 0\ntmpfs /etc tmpfs rw 0 0\n/dev/vda8 /var xfs rw 0 0\n/dev/vda9 /da\\040ta xfs rw 0 0\n";
        assert_eq!(
            from_disk(mounts),
            [("/dev/vda8".into(), "/var".into()), ("/dev/vda9".into(), "/da ta".into())]
        );
    }

    #[test]
    fn an_emmc_says_how_much_of_its_life_is_used() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(emmc(dir.path()), None);
        for (life, spent, word, percent) in [
            ("0x01 0x02", "0x01", "ok", 20),
            ("0x09 0x01", "0x01", "worn", 90),
            ("0x01 0x01", "0x02", "worn", 10),
            ("0x0b 0x01", "0x01", "failing", 110),
            ("0x01 0x01", "0x03", "failing", 10),
        ] {
            std::fs::write(dir.path().join("life_time"), format!("{life}\n")).unwrap();
            std::fs::write(dir.path().join("pre_eol_info"), format!("{spent}\n")).unwrap();
            assert_eq!(
                emmc(dir.path()),
                Some(Health { word, wear_percent: Some(percent) }),
                "{life} {spent}"
            );
        }
        std::fs::write(dir.path().join("life_time"), "0x00 0x00\n").unwrap();
        assert_eq!(emmc(dir.path()), None, "0 means that the device does not say");
    }

    #[test]
    fn smartctl_s_answer_is_read_and_a_device_without_smart_has_no_health() {
        let of = |answer: serde_json::Value| of_smart(&answer);
        let health = |word, wear_percent| Some(Health { word, wear_percent });
        let nvme = |passed: bool, used: u64, warning: u64| serde_json::json!({"smart_status": {"passed": passed}, "nvme_smart_health_information_log": {"percentage_used": used, "critical_warning": warning}});
        assert_eq!(of(nvme(true, 3, 0)), health("ok", Some(3)));
        assert_eq!(of(nvme(true, 95, 0)), health("worn", Some(95)));
        assert_eq!(of(nvme(true, 3, 4)), health("failing", Some(3)));
        assert_eq!(of(nvme(false, 3, 0)), health("failing", Some(3)));
        assert_eq!(of(serde_json::json!({"smart_status": {"passed": true}})), health("ok", None));
        assert_eq!(of(serde_json::json!({"smartctl": {"exit_status": 2}})), None);
    }
}
