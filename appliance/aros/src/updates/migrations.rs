//! Copies of stores that a migration kept for falling back; `arint os migrate` makes them.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// The folders whose entries are stores.
pub(crate) fn store_folders(config: &Config) -> [PathBuf; 2] {
    let parent = |dir: &Path| dir.parent().unwrap_or(Path::new("/")).to_owned();
    [parent(&config.state_dir), parent(&config.data_dir)]
}

/// Removes the copies that were kept until the slot is confirmed.
pub(crate) fn forget_kept(config: &Config) {
    for folder in store_folders(config) {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().contains(".before-")
                && let Err(err) = std::fs::remove_dir_all(entry.path())
            {
                log::warn!(path:% = entry.path().display(), error:% = err; "a kept copy cannot be removed");
            }
        }
    }
}
