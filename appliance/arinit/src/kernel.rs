//! What the first stage asks of the kernel: mounts, modules, why it was started, reset.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::log;

/// The file systems of the kernel itself.
const KERNEL_FILE_SYSTEMS: [(&str, &str, MsFlags, &str); 4] = [
    ("proc", "/proc", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC), ""),
    ("sysfs", "/sys", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC), ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
];

/// Mounts what every program expects.
pub(crate) fn mount_kernel_file_systems() -> io::Result<()> {
    for (kind, at, flags, data) in KERNEL_FILE_SYSTEMS {
        fs::create_dir_all(at)?;
        mount_at(kind, kind, at, flags, data)?;
    }
    // Otherwise only the first ten lines in five seconds reach the log.
    fs::write("/proc/sys/kernel/printk_devkmsg", "on\n").ok();
    Ok(())
}

/// Mounts one.
pub(crate) fn mount_at(
    source: &str,
    kind: &str,
    at: impl AsRef<Path>,
    flags: MsFlags,
    data: &str,
) -> io::Result<()> {
    let data = (!data.is_empty()).then_some(data);
    Ok(mount(Some(source), at.as_ref(), Some(kind), flags, data)?)
}

/// Moves a mount.
pub(crate) fn move_mount(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?)
}

/// The modules that a list names for one step, in its order; each line is a step and a path.
pub(crate) fn modules(list: &Path, step: &str) -> Vec<PathBuf> {
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        // Everything is built in.
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        Err(err) => {
            log::warn(&format!("cannot read the list of modules `{}`: {err}", list.display()));
            String::new()
        }
    };
    let words = text.lines().filter_map(|line| line.split_once(' '));
    words.filter(|(of, _)| *of == step).map(|(_, path)| PathBuf::from(path.trim())).collect()
}

/// Loads a module; one that cannot be loaded is told and nothing else.
pub(crate) fn load_module(path: &Path) {
    let loaded =
        File::open(path).and_then(|file| Ok(finit_module(&file, c"", ModuleInitFlags::empty())?));
    match loaded {
        Ok(()) => {}
        // Built in, or brought by another one.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        // Its hardware is not there.
        Err(err) if err.raw_os_error() == Some(nix::libc::ENODEV) => {}
        Err(err) => log::warn(&format!("cannot load the module `{}`: {err}", path.display())),
    }
}

/// Makes the node of a device whose driver is not loaded yet; one that is there stays.
pub(crate) fn make_node(path: &str, major: u64, minor: u64) {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(err) => log::warn(&format!("cannot make `{path}`: {err}")),
    }
}

/// Why the kernel was started, where a watchdog or the memory of the last panic says so.
pub(crate) fn cause(sys: &Path) -> Option<&'static str> {
    const WATCHDOG_RESET: u32 = 0x20;
    let watchdogs = fs::read_dir(sys.join("class/watchdog")).into_iter().flatten().flatten();
    let reset = |dir: &Path| {
        let status = fs::read_to_string(dir.join("bootstatus")).ok()?;
        status.trim().parse::<u32>().ok()
    };
    let mut kept = fs::read_dir(sys.join("fs/pstore")).into_iter().flatten().flatten();
    // First, as a watchdog may end a panic that is slow to write itself down.
    if kept.any(|file| file.file_name().to_string_lossy().starts_with("dmesg-")) {
        return Some("panic");
    }
    let mut statuses = watchdogs.filter_map(|dog| reset(&dog.path()));
    statuses.any(|status| status & WATCHDOG_RESET != 0).then_some("watchdog")
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}

/// Frees the memory of the initial file system: removes everything on it but what is mounted into it.
pub(crate) fn empty_initial_file_system() {
    if let Ok(root) = fs::metadata("/") {
        empty(Path::new("/"), root.dev());
    }
}

fn empty(dir: &Path, device: u64) {
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = file.path();
        // What stays behind only takes memory.
        match file.metadata() {
            Ok(meta) if meta.dev() != device => {}
            Ok(meta) if meta.is_dir() => {
                empty(&path, device);
                fs::remove_dir(&path).ok();
            }
            _ => drop(fs::remove_file(&path)),
        }
    }
}

/// Waits; nothing else runs here.
#[expect(
    clippy::disallowed_methods,
    reason = "the first stage has no runtime that this could block"
)]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// Resets the box.
pub(crate) fn reset() -> ! {
    nix::unistd::sync();
    let Err(err) = reboot(RebootMode::RB_AUTOBOOT);
    log::err(&format!("cannot reset: {err}"));
    // The end of the first program is a panic of the kernel, and `panic=5` resets.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_step_by_step_in_the_order_of_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        fs::write(&list, "start /a.ko\ndisk /b.ko\ndisk /c.ko\nesp /a.ko\n").unwrap();
        assert_eq!(modules(&list, "disk"), [Path::new("/b.ko"), Path::new("/c.ko")]);
        assert_eq!(modules(&list, "esp"), [Path::new("/a.ko")]);
        assert_eq!(modules(&dir.path().join("none"), "start"), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_cause_of_a_start_is_what_the_watchdog_or_the_last_panic_left() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        assert_eq!(cause(sys), None);
        fs::create_dir_all(sys.join("class/watchdog/watchdog0")).unwrap();
        fs::write(sys.join("class/watchdog/watchdog0/bootstatus"), "0\n").unwrap();
        assert_eq!(cause(sys), None);
        fs::write(sys.join("class/watchdog/watchdog0/bootstatus"), "32\n").unwrap();
        assert_eq!(cause(sys), Some("watchdog"));
        fs::create_dir_all(sys.join("fs/pstore")).unwrap();
        fs::write(sys.join("fs/pstore/dmesg-efi_pstore-1"), "").unwrap();
        assert_eq!(cause(sys), Some("panic"));
    }
}
