//! `arint os install`: what a stick with the installer does: writes its own system to the box's own disk.
//!
//! It lists the box's disks, never the stick it runs from, and asks on every console for the name of one; or it takes
//! the name from `arint-install.toml` on the stick.  It does not touch `state` and `data`: the disk makes them at its
//! first start.
//!
//! **Invariant:** nothing is written before a person typed the disk's name, or the file says `erase = true`.

mod table;
mod write;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use arbase::Chain;
use rand::RngCore as _;
use serde::Deserialize;

use write::{Names, WriteError};

const STARTED: &str = "/run/arint-boot.json";
const MOUNT: &str = "/run/arint-install";
/// The file on the stick that answers instead of a person.
const ANSWERS: &str = "arint-install.toml";

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
    /// The file on the stick is no answer.
    #[error("`{ANSWERS}` on the stick: {0}")]
    Answers(String),
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
}

/// What `arint-install.toml` may say.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    disk: String,
    #[serde(default)]
    erase: bool,
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
    let answers = answers(&stick_path)?;
    let chosen = match &answers {
        Some(answers) => {
            if !answers.erase {
                return Err(InstallError::Answers(
                    "`erase = true` is missing, so nothing is written".to_owned(),
                ));
            }
            chosen(&answers.disk, &disks, Path::new("/dev/disk/by-id")).ok_or_else(|| {
                let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
                let names = names.join(", ");
                InstallError::Answers(format!(
                    "this box has no disk `{}`; it has {names}",
                    answers.disk
                ))
            })?
        }
        None => ask(consoles, &version, &disks),
    };

    let disk_path = Path::new("/dev").join(&chosen.name);
    consoles.say(&format!("Installing to {} ({}).\n", chosen.name, size(chosen.bytes)));
    let disk = open(&disk_path, true)?;
    let mut names = Names { disk: [0; 16], esp: [0; 16] };
    rand::rng().fill_bytes(&mut names.disk);
    rand::rng().fill_bytes(&mut names.esp);
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
    finish(&disk_path, verity.as_ref(), root_hash.as_deref())?;

    if answers.is_some() {
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
fn finish(disk: &Path, verity: Option<&Verity>, hash: Option<&str>) -> Result<(), InstallError> {
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
    let mut unwanted = vec![place.join(ANSWERS)];
    if let Ok(entries) = std::fs::read_dir(place.join("loader/entries")) {
        unwanted.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains("install"))
        }));
    }
    for path in unwanted {
        std::fs::remove_file(path).ok();
    }
    let still = std::fs::read_dir(place.join("loader/entries"))
        .map(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("install"))
        })
        .unwrap_or(true);
    call("umount", &[&place_name])?;
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

/// The answers on the stick's ESP, if there are any.
fn answers(stick: &Path) -> Result<Option<Answers>, InstallError> {
    let place = Path::new(MOUNT).join("stick");
    std::fs::create_dir_all(&place).ok();
    let mounted = Command::new("mount")
        .args(["-t", "vfat", "-o", "ro,nodev,nosuid,noexec"])
        .arg(partition(stick, 1))
        .arg(&place)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        log::warn!(path:% = stick.display(); "the stick's first partition cannot be mounted");
        return Ok(None);
    }
    let text = std::fs::read_to_string(place.join(ANSWERS));
    Command::new("umount").arg(&place).status().ok();
    match text {
        Ok(text) => parse_answers(&text).map(Some),
        Err(_) => Ok(None),
    }
}

fn parse_answers(text: &str) -> Result<Answers, InstallError> {
    toml::from_str(text).map_err(|err| InstallError::Answers(err.message().to_owned()))
}

/// `/dev/vda` and 3 are `/dev/vda3`; `/dev/nvme0n1` and 3 are `/dev/nvme0n1p3`.
fn partition(disk: &Path, number: u32) -> PathBuf {
    let name = disk.display().to_string();
    let between = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{name}{between}{number}"))
}

/// Asks until the name of a disk is typed.
fn ask(consoles: &Consoles, version: &str, disks: &[Disk]) -> Disk {
    loop {
        consoles.say(&question(version, disks));
        let line = consoles.line();
        match chosen(&line, disks, Path::new("/nonexistent")) {
            Some(disk) => return disk,
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
        text += &format!("  {:<10} {:>9}  {}\n", disk.name, size(disk.bytes), disk.model);
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
             mmcblk0       4.3 GB  EMMC4G\n  nvme0n1     256.1 GB  Fast\nType the name of the disk: "
        );
    }

    #[test]
    fn a_disk_is_named_as_the_kernel_does_or_by_its_id_and_by_nothing_else() {
        let disks = [Disk { name: "sda".to_owned(), bytes: 1, model: String::new() }];
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("../../sda", dir.path().join("ata-Disk_1")).unwrap();
        for name in ["sda", " /dev/sda\n", "ata-Disk_1", "/dev/disk/by-id/ata-Disk_1"] {
            assert!(chosen(name, &disks, dir.path()).is_some(), "{name}");
        }
        for name in ["", "sdb", "sda1", "../sda", "y"] {
            assert_eq!(chosen(name, &disks, dir.path()), None, "{name}");
        }
    }

    #[test]
    fn answers_on_the_stick_must_name_the_disk_and_anything_unknown_is_refused() {
        assert_eq!(
            parse_answers("disk = \"sda\"\nerase = true\n").unwrap(),
            Answers { disk: "sda".to_owned(), erase: true }
        );
        assert!(!parse_answers("disk = \"sda\"").unwrap().erase);
        assert_eq!(
            parse_answers("disk = \"sda\"\nerase_all = true").unwrap_err().to_string(),
            "`arint-install.toml` on the stick: unknown field `erase_all`, expected `disk` or `erase`"
        );
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
