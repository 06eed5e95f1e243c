//! `arint os install`: what a stick with the installer does: writes its own system to the box's own disk.
//!
//! It lists the box's disks, never the stick it runs from, and asks on every console for the name of one; or it takes
//! the name from the seed file on the stick, which then goes along to the disk.  It makes neither `state` nor `data`:
//! the disk makes them at its first start.
//!
//! **Invariant:** a disk with anything on it is written only if a person typed its name and then `erase`, or if the
//! seed file says `erase = true`.

pub(crate) mod table;
mod write;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use arbase::Chain;
use arboot::gpt::Gpt;
use serde::Deserialize;

use crate::updates::seed::{self, FILE, Install, RECEIPT, SIGNATURE, Seed, SeedError, TAKEN};
use write::{Names, WriteError};

const STARTED: &str = "/run/arint-boot.json";
const MOUNT: &str = "/run/arint-install";
/// What is typed to give up what lies on a disk.
const ERASE: &str = "erase";
/// So much at both ends of a disk is zero if there is nothing on it.
const LOOKED_AT: u64 = 1 << 20;

/// `arint os install`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// What the first stage wrote.
    #[arg(long, default_value = STARTED)]
    started: PathBuf,
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// Started otherwise.
    #[error("cannot read `{}`, which says what stick this is", path.display())]
    Started {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a stick with the installer.
    #[error("`{}` does not say that this is the installer's stick; start the box from the stick", path.display())]
    NotInstalling {
        /// The file.
        path: PathBuf,
    },
    /// The stick or the disk.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing to install to.
    #[error("this box has no disk of its own with {0} MiB or more; plug one in and start again")]
    NoDisk(u64),
    /// The seed on the stick is none, or cannot be copied.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The seed on the stick names a disk that is not there.
    #[error("`{FILE}` on the stick names the disk `{0}`, and this box has {1}")]
    NoSuchDisk(String, String),
    /// The seed on the stick names a disk that is not empty.
    #[error(
        "on `{0}` {1}, and `{FILE}` on the stick does not say `erase = true`, so nothing is written"
    )]
    NotEmpty(String, Content),
    /// Writing.
    #[error("`{}` was not installed to, and starts nothing", disk.display())]
    Write {
        /// The disk.
        disk: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// The steps after writing.
    #[error("`{command}` failed: {said}; nothing on `{}` can be relied on", disk.display())]
    After {
        /// The disk.
        disk: PathBuf,
        /// What was called.
        command: String,
        /// What it said.
        said: String,
    },
}

/// What the first stage says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Started {
    disk: Option<PathBuf>,
    mode: String,
    #[serde(default)]
    version: String,
    root_hash: Option<String>,
}

/// A disk of the box.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    name: String,
    bytes: u64,
    model: String,
    content: Content,
}

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// A box's system.
    Box,
    /// Something else.
    Other,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "is nothing",
            Self::Box => "is the system of a box, with its data",
            Self::Other => "is something else",
        })
    }
}

impl Content {
    /// Looks at a disk; one that cannot be read may hold anything.
    fn of(disk: &Path, bytes: u64) -> Self {
        let is_box = Gpt::read(disk).is_ok_and(|table| {
            ["esp", "slot-a"].iter().all(|label| table.labelled(label).is_some())
        });
        if is_box {
            return Self::Box;
        }
        let looked = File::open(disk).and_then(|file| {
            let mut piece = vec![0; usize::try_from(LOOKED_AT).unwrap_or_default()];
            let mut is_zero = |at| -> std::io::Result<bool> {
                file.read_exact_at(&mut piece, at)?;
                Ok(piece.iter().all(|byte| *byte == 0))
            };
            Ok(is_zero(0)? && is_zero(bytes.saturating_sub(LOOKED_AT))?)
        });
        if looked.unwrap_or(false) { Self::Empty } else { Self::Other }
    }
}

/// The seed file on the stick, and what it says.
#[derive(Debug)]
struct OnStick {
    seed: Seed,
    /// The files that go along: the seed, and its signature if it has one.
    files: Vec<(&'static str, Vec<u8>)>,
}

/// Runs it.
pub(crate) fn install_main(args: &InstallArgs) -> Result<(), InstallError> {
    let consoles = Consoles::open();
    let done = run(args, &consoles);
    if let Err(err) = &done {
        consoles.say(&format!("\nNot installed: {}\n", Chain(err)));
    }
    done
}

fn run(args: &InstallArgs, consoles: &Consoles) -> Result<(), InstallError> {
    let path = || args.started.clone();
    let text = std::fs::read(&args.started)
        .map_err(|source| InstallError::Started { path: path(), source })?;
    let started: Option<Started> = serde_json::from_slice(&text).ok();
    let Some(Started { disk: Some(stick_path), mode, version, root_hash }) = started else {
        return Err(InstallError::NotInstalling { path: path() });
    };
    if mode != "install" {
        return Err(InstallError::NotInstalling { path: path() });
    }
    let open = |path: &Path, write: bool| {
        File::options()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|source| InstallError::Open { path: path.to_owned(), source })
    };
    let stick = open(&stick_path, false)?;
    let needed = write::needed_bytes(&stick)
        .map_err(|source| InstallError::Write { disk: stick_path.clone(), source })?;
    let mut disks = own_disks(Path::new("/sys/block"), &stick_path, needed);
    for _ in 0..20 {
        // Some need a while after power on.
        if !disks.is_empty() {
            break;
        }
        consoles.line_within(Duration::from_secs(1));
        disks = own_disks(Path::new("/sys/block"), &stick_path, needed);
    }
    if disks.is_empty() {
        return Err(InstallError::NoDisk(needed.div_ceil(1 << 20)));
    }
    let found = on_stick(&stick_path).and_then(|found| {
        let wanted = found.as_ref().and_then(|found| found.seed.install.as_ref());
        let chosen = wanted.map(|wanted| unattended(wanted, &disks)).transpose()?;
        Ok((found, chosen))
    });
    // What the seed cannot decide, a person may.
    let (found, unattended) = found.unwrap_or_else(|err| {
        consoles.say(&format!("\nNot installed by itself: {}.\n", Chain(&err)));
        (None, None)
    });
    let is_unattended = unattended.is_some();
    let chosen = unattended.unwrap_or_else(|| ask(consoles, &version, &disks));

    let disk_path = Path::new("/dev").join(&chosen.name);
    consoles.say(&format!("Installing to {} ({}).\n", chosen.name, size(chosen.bytes)));
    let disk = open(&disk_path, true)?;
    let names = Names { disk: table::fresh(), esp: table::fresh() };
    let verity = verity();
    let mut shown = String::new();
    write::write(
        &stick,
        &disk,
        chosen.bytes,
        verity.as_ref().map(Verity::bytes),
        names,
        || Command::new("blockdev").arg("--flushbufs").arg(&disk_path).status().map(|_| ()),
        |word, percent| {
            let text = format!("{word}: {} %\n", percent / 10 * 10);
            if text != shown {
                consoles.say(&text);
                shown = text;
            }
        },
    )
    .map_err(|source| InstallError::Write { disk: disk_path.clone(), source })?;
    drop(disk);
    finish(&disk_path, verity.as_ref(), root_hash.as_deref(), found.as_ref())?;
    if let Some(found) = found.filter(|found| found.seed.admin.is_some()) {
        consoles.say("The seed file goes along to the disk.\n");
        use_up(&stick_path, &found);
    }

    if is_unattended {
        consoles
            .say("\nInstalled.  Take the stick out and switch the box on; it switches off now.\n");
        end("poweroff");
    } else {
        consoles.say("\nInstalled.  Take the stick out now; the box starts again in 15 seconds.\n");
        consoles.line_within(Duration::from_secs(15));
        end("reboot");
    }
    Ok(())
}

/// What is done on the written disk: its own entry only, and its root held against the signed hash.
fn finish(
    disk: &Path,
    verity: Option<&Verity>,
    hash: Option<&str>,
    seed: Option<&OnStick>,
) -> Result<(), InstallError> {
    let call = |program: &str, args: &[&str]| {
        let failed = |said: String| InstallError::After {
            disk: disk.to_owned(),
            command: program.to_owned(),
            said,
        };
        let output =
            Command::new(program).args(args).output().map_err(|err| failed(err.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
        }
    };
    let device = disk.display().to_string();
    call("blockdev", &["--rereadpt", &device])?;
    call("udevadm", &["settle", "--timeout=30"]).ok();
    if let (Some(verity), Some(hash)) = (verity, hash) {
        let root = partition(disk, 4).display().to_string();
        call(
            "veritysetup",
            &[
                "verify",
                "--no-superblock",
                "--format=1",
                "--hash=sha256",
                "--data-block-size=4096",
                "--hash-block-size=4096",
                &format!("--data-blocks={}", verity.blocks),
                &format!("--hash-offset={}", verity.blocks * 4096),
                &format!("--salt={}", verity.salt),
                &root,
                &root,
                hash,
            ],
        )?;
    }
    let esp = partition(disk, 1).display().to_string();
    let place = Path::new(MOUNT).join("disk");
    let place_name = place.display().to_string();
    call("mkdir", &["-p", &place_name])?;
    call("mount", &["-t", "vfat", "-o", "nodev,nosuid,noexec", &esp, &place_name])?;
    // What lay on the stick's first partition came along with it.
    let mut unwanted: Vec<PathBuf> =
        [FILE, SIGNATURE, TAKEN, RECEIPT].iter().map(|name| place.join(name)).collect();
    if let Ok(entries) = std::fs::read_dir(place.join("loader/entries")) {
        unwanted.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains("install"))
        }));
    }
    for path in unwanted {
        std::fs::remove_file(path).ok();
    }
    let copied = seed.filter(|seed| seed.seed.admin.is_some()).map_or(Ok(()), |seed| {
        seed.files.iter().try_for_each(|(name, bytes)| std::fs::write(place.join(name), bytes))
    });
    let still = std::fs::read_dir(place.join("loader/entries"))
        .map(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("install"))
        })
        .unwrap_or(true);
    call("umount", &[&place_name])?;
    if let Err(err) = copied {
        return Err(InstallError::After {
            disk: disk.to_owned(),
            command: format!("copying `{FILE}` to the disk"),
            said: err.to_string(),
        });
    }
    if still {
        return Err(InstallError::After {
            disk: disk.to_owned(),
            command: "removing the installer's entry".to_owned(),
            said: "it is still there".to_owned(),
        });
    }
    call("sync", &[])
}

/// Ends the box without its units: what they lie on may be gone already.
fn end(how: &str) {
    Command::new("systemctl").args([how, "--force", "--force"]).status().ok();
}

/// The running root's tree: number of data blocks, and salt.
#[derive(Debug, PartialEq, Eq)]
struct Verity {
    blocks: u64,
    salt: String,
}

impl Verity {
    fn parse(cmdline: &str) -> Option<Self> {
        let value =
            cmdline.split_whitespace().find_map(|word| word.strip_prefix("arint.verity="))?;
        let (blocks, salt) = value.split_once(':')?;
        Some(Self { blocks: blocks.parse().ok()?, salt: salt.to_owned() })
    }

    /// Bytes of data and tree: each block of the tree holds 128 hashes.
    fn bytes(&self) -> u64 {
        let (mut level, mut tree) = (self.blocks, 0);
        while level > 1 {
            level = level.div_ceil(128);
            tree += level;
        }
        (self.blocks + tree) * 4096
    }
}

fn verity() -> Option<Verity> {
    Verity::parse(&std::fs::read_to_string("/proc/cmdline").ok()?)
}

/// The box's own disks: not the stick, not what is plugged in by hand, large enough, writable.
fn own_disks(sys: &Path, stick: &Path, needed: u64) -> Vec<Disk> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let stick = stick.canonicalize().unwrap_or_else(|_| stick.to_owned());
    let Ok(entries) = std::fs::read_dir(sys) else { return Vec::new() };
    let mut found: Vec<Disk> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let other = ["loop", "ram", "zram", "dm-", "sr", "md", "nbd", "fd"];
            if other.iter().any(|other| name.starts_with(other)) || name.contains("boot") {
                return None;
            }
            let dir = entry.path();
            let bytes = read(dir.join("size")).parse::<u64>().ok()? * table::SECTOR;
            let is_stick = stick.file_name().is_some_and(|stick| stick.to_string_lossy() == name);
            let by_hand = read(dir.join("removable")) == "1"
                || dir.canonicalize().is_ok_and(|path| path.to_string_lossy().contains("/usb"));
            let sectors = read(dir.join("queue/logical_block_size"));
            let model = [read(dir.join("device/model")), read(dir.join("device/name"))];
            let usable = read(dir.join("ro")) == "0" && sectors == "512" && bytes >= needed;
            (usable && !is_stick && !by_hand).then(|| Disk {
                content: Content::of(&Path::new("/dev").join(&name), bytes),
                name,
                bytes,
                model: model.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
            })
        })
        .collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

/// The disk that a name means: the kernel's, or one in `/dev/disk/by-id`.
fn chosen(name: &str, disks: &[Disk], by_id: &Path) -> Option<Disk> {
    let name = name.trim().trim_start_matches("/dev/").trim_start_matches("disk/by-id/");
    let target = (!name.contains('/'))
        .then(|| std::fs::read_link(by_id.join(name)).ok())
        .flatten()
        .and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
    let name = target.as_deref().unwrap_or(name);
    disks.iter().find(|disk| disk.name == name).cloned()
}

/// The seed file on the stick's first partition, if there is one.
fn on_stick(stick: &Path) -> Result<Option<OnStick>, InstallError> {
    let found = with_stick(stick, "ro", |place| {
        let text = std::fs::read(place.join(FILE)).ok()?;
        Some((text, std::fs::read(place.join(SIGNATURE)).ok()))
    });
    let Some((text, signature)) = found.flatten() else { return Ok(None) };
    let seed = seed::parse(Path::new(FILE), &text)?;
    let signature = signature.map(|bytes| (SIGNATURE, bytes));
    let files = [Some((FILE, text)), signature].into_iter().flatten().collect();
    Ok(Some(OnStick { seed, files }))
}

/// A seed without a signature is for one box: it is taken from the stick.
fn use_up(stick: &Path, found: &OnStick) {
    if found.files.len() > 1 {
        return;
    }
    let used = with_stick(stick, "rw,sync", |place| std::fs::remove_file(place.join(FILE)));
    if used.is_none_or(|used| used.is_err()) {
        log::warn!(path:% = stick.display(); "seed stays on the stick");
    }
}

/// Mounts the stick's first partition.
fn with_stick<T>(stick: &Path, how: &str, work: impl FnOnce(&Path) -> T) -> Option<T> {
    let place = Path::new(MOUNT).join("stick");
    std::fs::create_dir_all(&place).ok();
    let mounted = Command::new("mount")
        .args(["-t", "vfat", "-o", &format!("{how},nodev,nosuid,noexec")])
        .arg(partition(stick, 1))
        .arg(&place)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        log::warn!(path:% = stick.display(); "the stick's first partition cannot be mounted");
        return None;
    }
    let done = work(&place);
    Command::new("umount").arg(&place).status().ok();
    Some(done)
}

/// The disk that the seed names, if it may be written.
fn unattended(wanted: &Install, disks: &[Disk]) -> Result<Disk, InstallError> {
    let Some(disk) = chosen(&wanted.disk, disks, Path::new("/dev/disk/by-id")) else {
        let names: Vec<String> = disks.iter().map(|disk| format!("`{}`", disk.name)).collect();
        return Err(InstallError::NoSuchDisk(wanted.disk.clone(), names.join(", ")));
    };
    if disk.content != Content::Empty && !wanted.erase {
        return Err(InstallError::NotEmpty(disk.name, disk.content));
    }
    Ok(disk)
}

/// `/dev/vda` and 3 are `/dev/vda3`; `/dev/nvme0n1` and 3 are `/dev/nvme0n1p3`.
fn partition(disk: &Path, number: u32) -> PathBuf {
    let name = disk.display().to_string();
    let between = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{name}{between}{number}"))
}

/// Asks until the name of a disk is typed, and `erase` where something is on it.
fn ask(consoles: &Consoles, version: &str, disks: &[Disk]) -> Disk {
    loop {
        consoles.say(&question(version, disks));
        let line = consoles.line();
        match chosen(&line, disks, Path::new("/nonexistent")) {
            Some(disk) if disk.content == Content::Empty => return disk,
            Some(disk) => {
                consoles.say(&format!(
                    "On {} {}.  Type `{ERASE}` to lose it: ",
                    disk.name, disk.content
                ));
                if consoles.line().trim() == ERASE {
                    return disk;
                }
                consoles.say("Nothing was written.\n");
            }
            None if line.trim().is_empty() => {}
            None => consoles.say(&format!("There is no disk `{}`.\n", line.trim())),
        }
    }
}

fn question(version: &str, disks: &[Disk]) -> String {
    let mut text = format!(
        "\nThis stick installs ARINT {version}.  Everything on the disk that you choose will be erased.\n"
    );
    for disk in disks {
        let content = match disk.content {
            Content::Empty => "empty",
            Content::Box => "a box's system",
            Content::Other => "not empty",
        };
        text += &format!(
            "  {:<10} {:>9}  {content:<14}  {}\n",
            disk.name,
            size(disk.bytes),
            disk.model
        );
    }
    text + "Type the name of the disk: "
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn size(bytes: u64) -> String {
    let (bytes, tera) = (bytes as f64, 1e12);
    if bytes >= tera { format!("{:.1} TB", bytes / tera) } else { format!("{:.1} GB", bytes / 1e9) }
}

/// Screen and serial lines: whatever the kernel writes to.
struct Consoles {
    outs: Vec<File>,
    lines: mpsc::Receiver<String>,
    /// Kept so that waiting for a line never ends where no console is left.
    _more: mpsc::Sender<String>,
}

impl Consoles {
    fn open() -> Self {
        let names = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let (sender, lines) = mpsc::channel();
        let mut outs = Vec::new();
        for name in names.split_whitespace() {
            // `tty0` is the screen that is shown; its keys come from the first one.
            let path = Path::new("/dev").join(if name == "tty0" { "tty1" } else { name });
            let opened = File::options().read(true).write(true).open(&path);
            let Ok((out, input)) = opened.and_then(|file| Ok((file.try_clone()?, file))) else {
                continue;
            };
            outs.push(out);
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(input).lines() {
                    let Ok(line) = line else { break };
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { outs, lines, _more: sender }
    }

    fn say(&self, text: &str) {
        for mut out in &self.outs {
            // A line that is not plugged in is no reason to stop.
            out.write_all(text.replace('\n', "\r\n").as_bytes()).ok();
        }
        log::info!(reason = text.trim(); "installer");
    }

    fn line(&self) -> String {
        self.lines.recv().unwrap_or_default()
    }

    /// Waits so long, or until somebody presses Enter.
    fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(disks: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, facts) in disks {
            let block = dir.path().join(name);
            for fact in facts.split(' ') {
                let (file, value) = fact.split_once('=').unwrap();
                let path = block.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, format!("{value}\n")).unwrap();
            }
        }
        dir
    }

    #[test]
    fn the_stick_small_disks_and_what_is_plugged_in_by_hand_are_not_offered() {
        let usual = "ro=0 removable=0 queue/logical_block_size=512";
        let sys = sysfs(&[
            ("vda", &format!("size=8388608 {usual} device/model=Stick")),
            ("nvme0n1", &format!("size=500118192 {usual} device/model=Fast")),
            ("sda", "size=8388608 ro=0 removable=1 queue/logical_block_size=512"),
            ("sdb", &format!("size=1000 {usual}")),
            ("sdc", "size=8388608 ro=1 removable=0 queue/logical_block_size=512"),
            ("sdd", "size=8388608 ro=0 removable=0 queue/logical_block_size=4096"),
            ("mmcblk0", &format!("size=8388608 {usual} device/name=EMMC4G")),
            ("mmcblk0boot0", &format!("size=8388608 {usual}")),
            ("loop0", &format!("size=8388608 {usual}")),
        ]);
        let found = own_disks(sys.path(), Path::new("/dev/vda"), 1 << 30);
        let shown: Vec<_> =
            found.iter().map(|disk| (disk.name.as_str(), disk.model.as_str())).collect();
        assert_eq!(shown, [("mmcblk0", "EMMC4G"), ("nvme0n1", "Fast")]);
        assert_eq!(
            question("0.2.0", &found),
            "\nThis stick installs ARINT 0.2.0.  Everything on the disk that you choose will be erased.\n  \
             mmcblk0       4.3 GB  not empty       EMMC4G\n  nvme0n1     256.1 GB  not empty       Fast\nType the name of the disk: "
        );
    }

    #[test]
    fn a_disk_is_named_as_the_kernel_does_or_by_its_id_and_by_nothing_else() {
        let disks = [disk("sda", Content::Empty)];
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("../../sda", dir.path().join("ata-Disk_1")).unwrap();
        for name in ["sda", " /dev/sda\n", "ata-Disk_1", "/dev/disk/by-id/ata-Disk_1"] {
            assert!(chosen(name, &disks, dir.path()).is_some(), "{name}");
        }
        for name in ["", "sdb", "sda1", "../sda", "y"] {
            assert_eq!(chosen(name, &disks, dir.path()), None, "{name}");
        }
    }

    fn disk(name: &str, content: Content) -> Disk {
        Disk { name: name.to_owned(), bytes: 1, model: String::new(), content }
    }

    #[test]
    fn a_seed_writes_an_empty_disk_and_one_with_data_only_if_it_says_so() {
        let disks = [disk("sda", Content::Other), disk("sdb", Content::Empty)];
        let wanted = |disk: &str, erase| Install { disk: disk.to_owned(), erase };
        assert_eq!(unattended(&wanted("sdb", false), &disks).unwrap().name, "sdb");
        assert_eq!(unattended(&wanted("sda", true), &disks).unwrap().name, "sda");
        assert_eq!(
            unattended(&wanted("sda", false), &disks).unwrap_err().to_string(),
            "on `sda` is something else, and `arint-seed.toml` on the stick does not say `erase = true`, so nothing is written"
        );
        assert_eq!(
            unattended(&wanted("sdc", true), &disks).unwrap_err().to_string(),
            "`arint-seed.toml` on the stick names the disk `sdc`, and this box has `sda`, `sdb`"
        );
    }

    #[test]
    fn a_disk_is_empty_only_if_nothing_is_at_either_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        let look = || Content::of(&path, 8 << 20);
        assert_eq!(look(), Content::Empty);
        file.write_all_at(b"x", (8 << 20) - 512).unwrap();
        assert_eq!(look(), Content::Other);
        file.write_all_at(&[0], (8 << 20) - 512).unwrap();
        let table = "label: gpt\nsize=2M, name=esp\nsize=2M, name=slot-a\n";
        let call = crate::updates::program::run_with_input;
        call("sfdisk", ["-q", path.to_str().unwrap()], table.as_bytes())
            .expect("sfdisk is needed (Debian package fdisk)");
        assert_eq!(look(), Content::Box);
        assert_eq!(Content::of(Path::new("/nonexistent"), 1), Content::Other);
    }

    #[test]
    fn a_system_that_was_not_started_to_install_never_installs() {
        let dir = tempfile::tempdir().unwrap();
        let started = dir.path().join("boot.json");
        std::fs::write(
            &started,
            r#"{"slot":"a","disk":"/dev/vda","mode":"normal","root_hash":null}"#,
        )
        .unwrap();
        let refused = install_main(&InstallArgs { started: started.clone() }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "`{}` does not say that this is the installer's stick; start the box from the stick",
                started.display()
            )
        );
    }

    #[test]
    fn the_length_of_root_and_tree_follows_from_the_command_line() {
        let verity = Verity::parse("ro arint.verity=20000:ab12 quiet").unwrap();
        assert_eq!(verity, Verity { blocks: 20000, salt: "ab12".to_owned() });
        // 157 blocks over 20000, 2 over those, 1 over those.
        assert_eq!(verity.bytes(), 20160 * 4096);
        assert_eq!(Verity::parse("ro quiet"), None);
    }
}
