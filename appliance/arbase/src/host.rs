//! What this machine is called.

use std::path::Path;

/// The host name in use, empty where none can be read.
///
/// `/etc/hostname` goes first, where systemd-hostnamed writes every change: the kernel's own file does not say, as a
/// unit's sandbox (`ProtectHostname=`) keeps the name that the machine had when the unit started.
#[must_use]
pub fn name() -> String {
    name_in(Path::new("/"))
}

fn name_in(root: &Path) -> String {
    ["etc/hostname", "proc/sys/kernel/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(root.join(path)).ok())
        // As in hostname(5): empty lines and comments are passed over.
        .find_map(|text| {
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_set_last_goes_before_the_one_of_the_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(name_in(dir.path()), "");
        std::fs::create_dir_all(dir.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("proc/sys/kernel/hostname"), "arsrv-7k2p9x4m\n").unwrap();
        assert_eq!(name_in(dir.path()), "arsrv-7k2p9x4m");
        std::fs::write(dir.path().join("etc/hostname"), "\n# set by hand\n").unwrap();
        assert_eq!(name_in(dir.path()), "arsrv-7k2p9x4m");
        std::fs::write(dir.path().join("etc/hostname"), "# set by hand\n plant-7 \n").unwrap();
        assert_eq!(name_in(dir.path()), "plant-7");
    }
}
