//! How the first stage started this system: `/run/arint-boot.json`, which `arinit` writes.

use std::path::{Path, PathBuf};

use arboot::{Mode, Slot};
use serde::Deserialize;

/// Where the first stage writes it.
pub(crate) const PATH: &str = "/run/arint-boot.json";

/// How the first stage started this system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Started {
    /// The slot whose root runs.
    pub(crate) slot: Slot,
    /// The image's version.
    #[serde(default)]
    pub(crate) version: String,
    /// The disk it was started from, for example `/dev/vda`.
    #[serde(default)]
    pub(crate) disk: Option<PathBuf>,
    /// The root hash of what runs.
    #[serde(default)]
    pub(crate) root_hash: Option<String>,
    /// What for.
    #[serde(default)]
    pub(crate) mode: Mode,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartedError {
    /// It cannot be read.
    #[error("cannot read `{}`, which the first stage writes", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what was expected.
    #[error("`{}` is not what the first stage writes", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Started {
    /// Reads it.
    pub(crate) fn read(path: &Path) -> Result<Self, StartedError> {
        let text = std::fs::read(path)
            .map_err(|source| StartedError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| StartedError::Form { path: path.to_owned(), source })
    }

    /// Which system runs: in a start for recovery that one, although its root may lie in a slot until its own partition
    /// is filled.
    pub(crate) fn system(&self) -> Slot {
        if self.mode == Mode::Recovery { Slot::Recovery } else { self.slot }
    }

    /// Whether `state` and `data` are left alone, and `/var` is in memory.
    pub(crate) fn in_memory(&self) -> bool {
        self.slot == Slot::Recovery || self.mode != Mode::Normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_for_repair_or_installation_leaves_the_disk_alone() {
        let read = |text| serde_json::from_str::<Started>(text).unwrap();
        assert!(!read(r#"{"slot":"a"}"#).in_memory());
        assert!(read(r#"{"slot":"recovery"}"#).in_memory());
        assert!(read(r#"{"slot":"a","mode":"install","entry":""}"#).in_memory());
    }

    #[test]
    fn the_recovery_system_is_that_even_while_its_root_still_lies_in_a_slot() {
        let read = |text| serde_json::from_str::<Started>(text).unwrap().system();
        assert_eq!(read(r#"{"slot":"a","mode":"recovery"}"#), Slot::Recovery);
        assert_eq!(read(r#"{"slot":"b","mode":"normal"}"#), Slot::B);
    }
}
