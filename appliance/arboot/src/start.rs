//! What is known of a start: its name, and what it is for.

use serde::{Deserialize, Serialize};

/// What a system was started for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its work.
    #[default]
    Normal,
    /// Being repaired, with `/var` in memory: nothing of `state` and `data` is touched.
    Recovery,
    /// Writing the image to another disk.
    Install,
}

/// The kernel's id of this start, as the journal writes it: without dashes.
///
/// Nothing where there is no Linux to ask; what it would stand beside is worth keeping without it as well.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().replace('-', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_start_is_written_as_the_journal_writes_it() {
        let id = boot_id();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    }
}
