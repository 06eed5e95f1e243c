//! What the black box keeps.

use serde::{Deserialize, Serialize};

use crate::slot::Slot;

/// One record of the black box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Position since the ring was made; never goes back.
    pub seq: u64,
    /// Unix milliseconds by the clock of that moment, which may be wrong early in a start.
    pub time_ms: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first stage runs.
    Started {
        /// The slot the entry names.
        slot: Slot,
        /// The entry's file name.
        entry: String,
        /// The image's version.
        version: String,
        /// Why the box was started, where firmware or kernel say: `power`, `watchdog`, `panic`, `reboot`.
        cause: Option<String>,
    },
    /// The first stage could not start the system; it exhausts its entry and resets.
    FirstStageFailed {
        /// The slot.
        slot: Slot,
        /// Its version.
        version: String,
        /// Which step, and why.
        reason: String,
    },
    /// The slot does what it is for.
    Confirmed {
        /// The slot.
        slot: Slot,
        /// Its version.
        version: String,
    },
    /// A functional probe failed; the box goes back to the other slot.
    ProbeFailed {
        /// The slot.
        slot: Slot,
        /// Its version.
        version: String,
        /// The probe.
        probe: String,
        /// What it found.
        reason: String,
    },
    /// Another slot was chosen, by an update or a person.
    Chosen {
        /// The slot.
        slot: Slot,
        /// Its version.
        version: String,
        /// By what: `update`, `admin alice`, …
        by: String,
    },
    /// A slot's entry was marked bad.
    MarkedBad {
        /// The slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
    /// An orderly end: `reboot`, `power_off`, `recovery`.
    Stopping {
        /// Which.
        how: String,
    },
    /// What the kernel said last before it died, from pstore.
    Panicked {
        /// The lines that matter.
        text: String,
    },
    /// `state` and `data` were destroyed with their keys.
    FactoryReset {
        /// Fingerprint of the key that is gone.
        fingerprint: String,
        /// Who asked.
        by: String,
    },
    /// Anything else worth keeping.
    Note {
        /// The text.
        text: String,
    },
}
