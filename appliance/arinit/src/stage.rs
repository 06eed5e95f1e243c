//! The steps from the kernel's start to systemd's, and what is done when one fails.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arboot::entries::Name;
use arboot::{BlackBox, BlackBoxError, Entries, EntriesError, Esp, Event, Mode, Record, Slot};
use nix::mount::{MntFlags, MsFlags, umount2};
use serde::Serialize;

use crate::cmdline::{self, CommandLine, CommandLineError};
use crate::disks::{self, Disk};
use crate::verity::VerityError;
use crate::{dm, efi, kernel, log};

/// How long a disk may take to appear.
const DISK_TIME: Duration = Duration::from_secs(30);
/// How long the reason stays on the screen.
const READING_TIME: Duration = Duration::from_secs(3);
/// Starts in a row that were not confirmed, after which the other slot is tried.
const PATIENCE: u32 = 5;
/// The same, where only the recovery system is left: bad power alone should not end there.
const LONG_PATIENCE: u32 = 10;
/// Kernel modules, each with the step that loads it.
const MODULES: &str = "/etc/arinit.modules";
const SYSROOT: &str = "/sysroot";
/// On `/run`, which outlives the initial file system.
const ESP: &str = "/run/arinit-esp";

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error("cannot mount {0}")]
    Mount(String, #[source] io::Error),
    #[error("cannot read the kernel command line")]
    ReadCommandLine(#[source] io::Error),
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    #[error("cannot look for disks")]
    Disks(#[source] io::Error),
    #[error("no disk with the partitions `esp` and `slot-a` appeared within {} s", DISK_TIME.as_secs())]
    NoDisk,
    #[error("no partition has the root {root}: {tried}")]
    NoRoot { root: String, tried: String },
    #[error("{0} starts in a row were not confirmed")]
    Unconfirmed(u32),
    #[error("cannot open dm-verity over `{0}`")]
    Verity(String, #[source] io::Error),
    #[error("cannot prepare `{0}`")]
    Prepare(PathBuf, #[source] io::Error),
    #[error("cannot enter the root")]
    Switch(#[source] io::Error),
    #[error("cannot start `{0}`")]
    Exec(String, #[source] io::Error),
}

/// What is known of this start, for the units and for a failure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Boot {
    /// The slot the entry names: whose tries count.
    #[serde(skip)]
    chosen: Slot,
    /// Where the root lies.
    slot: Slot,
    /// The boot loader's entry; empty where it does not say.
    entry: String,
    version: String,
    mode: Mode,
    /// `/dev/vda`.
    disk: PathBuf,
    /// The verity root hash.
    root_hash: String,
    /// Why the box was started, where something says so.
    cause: Option<String>,
    #[serde(skip)]
    partitions: Disk,
}

/// As far as this start got; a panic knows nothing else.
static KNOWN: Mutex<Option<Boot>> = Mutex::new(None);

fn know(boot: &Boot) {
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot.clone());
}

/// Runs; comes back never, in one way or the other.
pub(crate) fn run() -> ExitCode {
    let Err(err) = start();
    give_up(&log::chain(&err))
}

/// Writes down why, lets the boot loader take another entry if there is one, and resets.
pub(crate) fn give_up(reason: &str) -> ! {
    log::err(reason);
    // Taken, so that a panic in here resets and does not begin again.
    let known = KNOWN.try_lock().ok().and_then(|mut known| known.take());
    if let Some(boot) = known {
        record(
            &boot.partitions,
            Event::FirstStageFailed {
                slot: boot.chosen,
                version: boot.version.clone(),
                reason: reason.to_owned(),
            },
        );
        match exhaust(&boot) {
            Ok(Some(other)) => log::err(&format!("slot {other} is started next")),
            Ok(None) => log::err("there is nothing else to start, so this is tried again"),
            Err(err) => log::err(&log::chain(&err)),
        }
    }
    kernel::wait(READING_TIME);
    kernel::reset()
}

fn start() -> Result<Infallible, StageError> {
    kernel::mount_kernel_file_systems()
        .map_err(|err| StageError::Mount("`/proc`, `/sys`, `/dev` and `/run`".into(), err))?;
    log::info(concat!("first stage ", env!("CARGO_PKG_VERSION")));
    load_modules("start");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Neither is there on every board.
    let efivars = Path::new("/sys/firmware/efi/efivars");
    kernel::mount_at("efivarfs", "efivarfs", efivars, flags, "").ok();
    kernel::mount_at("pstore", "pstore", "/sys/fs/pstore", flags, "").ok();

    let text = fs::read_to_string("/proc/cmdline").map_err(StageError::ReadCommandLine)?;
    let line = CommandLine::parse(&text);
    let entry = efi::text(efivars, "LoaderEntrySelected");
    let loader = efi::text(efivars, "LoaderDevicePartUUID");
    let found = find_disks(loader.as_deref())?;
    let Some(mut disk) = found.first().cloned() else { return Err(StageError::NoDisk) };

    let name = entry.as_deref().and_then(Name::parse);
    let named = name.map(|name| name.slot).or(line.as_ref().ok().and_then(|line| line.slot));
    let mut boot = Boot {
        chosen: named.unwrap_or(Slot::A),
        slot: named.unwrap_or(Slot::A),
        entry: entry.clone().unwrap_or_default(),
        version: line.as_ref().map_or("unknown", |line| &line.version).to_owned(),
        mode: Mode::Normal,
        disk: Path::new("/dev").join(&disk.name),
        root_hash: String::new(),
        cause: None,
        partitions: disk.clone(),
    };
    know(&boot);
    let line = line?;
    boot.mode = cmdline::mode(&line, entry.as_deref(), named);
    boot.root_hash = line.root.root_hex();

    // Where the boot loader does not say which disk it came from, the one that has the root is it.
    let mut root = find_root(&disk, &line, named);
    if root.is_err() && !disks::is_loaders(&disk, loader.as_deref()) {
        for other in found.iter().skip(1) {
            if let Ok(found) = find_root(other, &line, named) {
                (disk, root) = (other.clone(), Ok(found));
                break;
            }
        }
    }
    if let Ok((slot, _)) = &root {
        boot.slot = *slot;
        boot.chosen = named.unwrap_or(*slot);
        if boot.slot == Slot::Recovery && boot.mode == Mode::Normal {
            boot.mode = Mode::Recovery;
        }
    }
    boot.disk = Path::new("/dev").join(&disk.name);
    boot.partitions = disk;
    let records = note_start(&mut boot);
    know(&boot);
    let (_, device) = root?;
    stop_if_never_confirmed(&boot, &records)?;

    let uuid = format!("CRYPT-VERITY-{}-root", boot.root_hash.get(..32).unwrap_or_default());
    let node = dm::create("root", &uuid, line.root.sectors(), "verity", &line.root.table(&device))
        .map_err(|err| StageError::Verity(device, err))?;
    fs::create_dir_all(SYSROOT).map_err(|err| StageError::Prepare(SYSROOT.into(), err))?;
    let source = node.to_string_lossy().into_owned();
    kernel::mount_at(&source, "erofs", SYSROOT, MsFlags::MS_RDONLY | MsFlags::MS_NODEV, "")
        .map_err(|err| StageError::Mount(format!("the root `{source}`"), err))?;
    prepare_etc(&boot)?;
    leave_word(&boot)?;
    log::info(&format!(
        "starting slot {} (version {}) from `{}`",
        boot.chosen,
        boot.version,
        boot.slot.root_label()
    ));
    switch_root(boot.mode)
}

fn load_modules(step: &str) {
    for module in kernel::modules(Path::new(MODULES), step) {
        kernel::load_module(&module);
    }
}

/// The disks a root may lie on.  Drivers are loaded one by one only until the loader's own disk is there: each costs
/// time, and udev loads the others when the box is up.
fn find_disks(loader: Option<&str>) -> Result<Vec<Disk>, StageError> {
    let begun = Instant::now();
    let mut drivers = kernel::modules(Path::new(MODULES), "disk").into_iter();
    loop {
        let found =
            disks::find(Path::new("/sys"), Path::new("/dev"), loader).map_err(StageError::Disks)?;
        let first = found.first();
        if loader.is_some() && first.is_some_and(|disk| disks::is_loaders(disk, loader)) {
            return Ok(found);
        }
        if let Some(driver) = drivers.next() {
            kernel::load_module(&driver);
            continue;
        }
        let in_time = begun.elapsed() < DISK_TIME;
        match first {
            // The loader's own disk is worth waiting for: the other may be a stick with the installer.
            Some(_) if !in_time || loader.is_none() => {
                if loader.is_some() {
                    log::warn(
                        "the disk the boot loader came from did not appear, so another one is taken",
                    );
                }
                return Ok(found);
            }
            None if !in_time => return Err(StageError::NoDisk),
            _ => kernel::wait(Duration::from_millis(20)),
        }
    }
}

/// Where the root of an entry may lie, the likeliest first.
///
/// The recovery system's partition holds the root that slot a once had.  An entry of a slot does not take it from
/// there: what runs from there leaves `state` alone, and a box without its state is not the slot that was asked for.
fn places(named: Option<Slot>) -> impl Iterator<Item = Slot> {
    let is_slot = matches!(named, Some(Slot::A | Slot::B));
    let others = Slot::ALL.into_iter().filter(move |slot| Some(*slot) != named);
    named.into_iter().chain(others.filter(move |slot| !is_slot || *slot != Slot::Recovery))
}

/// The partition whose root has the hash of the command line: the chosen slot's if it has it, else another.
fn find_root(
    disk: &Disk,
    line: &CommandLine,
    named: Option<Slot>,
) -> Result<(Slot, String), StageError> {
    let mut tried = Vec::new();
    for slot in places(named) {
        let label = slot.root_label();
        let Some(partition) = disk.get(label) else { continue };
        let checked = File::open(partition.node())
            .map_err(VerityError::Read)
            .and_then(|mut file| line.root.check(&mut file));
        match checked {
            Ok(()) => {
                if named.is_some_and(|named| named != slot) {
                    log::warn(&format!("the root lies in `{label}`: {}", tried.join(", ")));
                }
                return Ok((slot, partition.device.clone()));
            }
            Err(err) => tried.push(format!("`{label}`: {}", log::chain(&err))),
        }
    }
    let short = line.root.root_hex().get(..12).unwrap_or_default().to_owned();
    Err(StageError::NoRoot { root: short, tried: tried.join(", ") })
}

fn black_box(disk: &Disk) -> Option<BlackBox<File>> {
    let Some(partition) = disk.get("blackbox") else {
        log::warn("there is no partition `blackbox`: nothing of this start is kept");
        return None;
    };
    let opened = File::options()
        .read(true)
        .write(true)
        .open(partition.node())
        .map_err(BlackBoxError::Read)
        .and_then(BlackBox::open);
    opened.inspect_err(|err| log::warn(&log::chain(err))).ok()
}

fn record(disk: &Disk, event: Event) {
    let Some(mut blackbox) = black_box(disk) else { return };
    if let Err(err) = blackbox.append(kernel::now_ms(), &arboot::boot_id(), event) {
        log::warn(&log::chain(&err));
    }
}

/// Writes *started* into the black box; returns everything in it.
fn note_start(boot: &mut Boot) -> Vec<Record> {
    let Some(mut blackbox) = black_box(&boot.partitions) else { return Vec::new() };
    let mut records = blackbox.records().unwrap_or_default();
    boot.cause = kernel::cause(Path::new("/sys")).map(str::to_owned).or_else(|| ordered(&records));
    let started = Event::Started {
        slot: boot.chosen,
        entry: boot.entry.clone(),
        version: boot.version.clone(),
        cause: boot.cause.clone(),
    };
    match blackbox.append(kernel::now_ms(), &arboot::boot_id(), started) {
        Ok(record) => records.push(record),
        Err(err) => log::warn(&log::chain(&err)),
    }
    records
}

/// The cause of a start that an orderly end came before.
fn ordered(records: &[Record]) -> Option<String> {
    match &records.last()?.event {
        Event::Stopping { how } if how == "power_off" => Some("power".to_owned()),
        Event::Stopping { .. } | Event::FirstStageFailed { .. } => Some("reboot".to_owned()),
        _ => None,
    }
}

fn stop_if_never_confirmed(boot: &Boot, records: &[Record]) -> Result<(), StageError> {
    let starts = arboot::unconfirmed_starts(records, boot.chosen);
    // This start is in the count and has not failed yet.
    let before = starts.saturating_sub(1);
    if boot.mode != Mode::Normal || boot.chosen == Slot::Recovery || before < PATIENCE {
        return Ok(());
    }
    let other = with_esp(&boot.partitions, |entries| entries.has_other(boot.chosen));
    match other {
        Ok(Some(Slot::Recovery)) if before < LONG_PATIENCE => Ok(()),
        Ok(Some(_)) => Err(StageError::Unconfirmed(before)),
        Ok(None) => Ok(()),
        Err(err) => {
            log::warn(&log::chain(&err));
            Ok(())
        }
    }
}

/// A step on the ESP that failed.
#[derive(Debug, thiserror::Error)]
enum EspError {
    #[error("there is no partition `esp`")]
    None,
    #[error("cannot mount the ESP")]
    Mount(#[source] io::Error),
    #[error(transparent)]
    Entries(#[from] EntriesError),
}

fn with_esp<T>(
    disk: &Disk,
    work: impl FnOnce(&Entries<Esp>) -> Result<T, EntriesError>,
) -> Result<T, EspError> {
    let partition = disk.get("esp").ok_or(EspError::None)?;
    load_modules("esp");
    fs::create_dir_all(ESP).map_err(EspError::Mount)?;
    let node = partition.node().to_string_lossy().into_owned();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    kernel::mount_at(&node, "vfat", ESP, flags, "umask=0077").map_err(EspError::Mount)?;
    let done = work(&Entries::new(Esp::new(ESP)));
    if let Err(err) = umount2(ESP, MntFlags::empty()) {
        log::warn(&format!("cannot unmount the ESP: {err}"));
    }
    Ok(done?)
}

/// Exhausts the own entry if the boot loader would start another slot then; says which.
fn exhaust(boot: &Boot) -> Result<Option<Slot>, EspError> {
    if boot.entry.is_empty() {
        return Ok(None);
    }
    with_esp(&boot.partitions, |entries| {
        let other = entries.has_other(boot.chosen)?;
        // The recovery system stays the last resort, whatever happens in it.
        if other.is_some() && boot.chosen != Slot::Recovery {
            entries.mark_bad(boot.chosen)?;
        }
        Ok(other)
    })
}

/// Puts a file system in memory over `/etc`, with the machine id that the black box keeps.
fn prepare_etc(boot: &Boot) -> Result<(), StageError> {
    let at = |path: &str| PathBuf::from(path);
    let etc = Path::new(SYSROOT).join("etc");
    let layer = at("/run/arint-etc");
    for dir in [layer.clone(), layer.join("upper"), layer.join("work")] {
        fs::create_dir_all(&dir).map_err(|err| StageError::Prepare(dir.clone(), err))?;
        if dir == layer {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            kernel::mount_at("etc", "tmpfs", &layer, flags, "mode=0755,size=16m")
                .map_err(|err| StageError::Mount("`/run/arint-etc`".into(), err))?;
        }
    }
    let options = format!(
        "lowerdir={},upperdir=/run/arint-etc/upper,workdir=/run/arint-etc/work",
        etc.display()
    );
    kernel::mount_at("etc", "overlay", &etc, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)
        .map_err(|err| StageError::Mount("the layer over `/etc`".into(), err))?;
    match black_box(&boot.partitions).map(|mut blackbox| blackbox.machine_id()) {
        Some(Ok(id)) => {
            let path = etc.join("machine-id");
            fs::write(&path, format!("{id}\n")).map_err(|err| StageError::Prepare(path, err))?;
        }
        // systemd makes one for this start.
        Some(Err(err)) => log::warn(&log::chain(&err)),
        None => {}
    }
    Ok(())
}

/// Tells the units what was started.
fn leave_word(boot: &Boot) -> Result<(), StageError> {
    let path = Path::new("/run/arint-boot.json");
    let failed = |err| StageError::Prepare(path.to_owned(), err);
    let text = serde_json::to_vec(boot).map_err(|err| failed(err.into()))?;
    fs::write(path, text).map_err(failed)?;
    // Opening it loads the driver, when something needs one: systemd-repart does at the first start.
    kernel::make_node("/dev/loop-control", 10, 237);
    let rules = Path::new("/run/udev/rules.d");
    let path = rules.join("10-arint-disk.rules");
    let written = fs::create_dir_all(rules)
        .and_then(|()| fs::write(&path, disks::link_rules(&boot.partitions.name)));
    written.map_err(|err| StageError::Prepare(path, err))?;
    // The name by which tools know the device, until udev makes it anew.
    std::os::unix::fs::symlink("../dm-0", "/dev/mapper/root").ok();
    Ok(())
}

fn switch_root(mode: Mode) -> Result<Infallible, StageError> {
    for dir in ["dev", "proc", "sys", "run"] {
        kernel::move_mount(&Path::new("/").join(dir), &Path::new(SYSROOT).join(dir))
            .map_err(StageError::Switch)?;
    }
    nix::unistd::chdir(SYSROOT).map_err(|err| StageError::Switch(err.into()))?;
    kernel::empty_initial_file_system();
    kernel::move_mount(Path::new("."), Path::new("/")).map_err(StageError::Switch)?;
    nix::unistd::chroot(".").map_err(|err| StageError::Switch(err.into()))?;
    nix::unistd::chdir("/").map_err(|err| StageError::Switch(err.into()))?;
    let mut last = None;
    for program in ["/usr/lib/systemd/systemd", "/sbin/init"] {
        let mut args = vec![program];
        args.extend(cmdline::unit(mode));
        let args: Vec<CString> =
            args.into_iter().filter_map(|arg| CString::new(arg).ok()).collect();
        let Some(path) = args.first() else { continue };
        let Err(err) = nix::unistd::execv(path, &args);
        last = Some(StageError::Exec(program.to_owned(), err.into()));
    }
    Err(last.unwrap_or(StageError::NoDisk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_root_may_lie_in_the_other_slot_and_only_the_recovery_systems_anywhere() {
        let found = |named| places(named).collect::<Vec<_>>();
        assert_eq!(found(Some(Slot::A)), [Slot::A, Slot::B]);
        assert_eq!(found(Some(Slot::B)), [Slot::B, Slot::A]);
        assert_eq!(found(Some(Slot::Recovery)), [Slot::Recovery, Slot::A, Slot::B]);
        assert_eq!(found(None), [Slot::A, Slot::B, Slot::Recovery]);
    }
}
