//! The places an image can lie in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first slot of updates.
    A,
    /// The second slot of updates.
    B,
    /// The recovery system, which updates never touch.
    Recovery,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Recovery];

    /// As it stands in entries and partition labels: `a`, `b`, `recovery`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Recovery => "recovery",
        }
    }

    /// The partition with its root: `slot-a`, `slot-b`, `recovery`.
    pub fn root_label(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
            Self::Recovery => "recovery",
        }
    }

    /// The partition with its unified kernel image; the recovery system's lies on the ESP only.
    pub fn boot_label(self) -> Option<&'static str> {
        match self {
            Self::A => Some("boot-a"),
            Self::B => Some("boot-b"),
            Self::Recovery => None,
        }
    }

    /// The device of its root.
    pub fn root_device(self) -> PathBuf {
        PathBuf::from("/dev/disk/by-partlabel").join(self.root_label())
    }

    /// The slot an update started in this one is written to.
    pub fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no slot: `a`, `b` or `recovery` was expected")]
pub struct NoSlot(pub String);

impl FromStr for Slot {
    type Err = NoSlot;

    /// Takes either case: RAUC's boot names are `a` and `b` in `system.conf`, and people type `A`.
    fn from_str(text: &str) -> Result<Self, NoSlot> {
        Self::ALL
            .into_iter()
            .find(|slot| slot.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NoSlot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_in_either_case_and_anything_else_is_refused() {
        assert_eq!("A".parse(), Ok(Slot::A));
        assert_eq!("recovery".parse(), Ok(Slot::Recovery));
        assert_eq!(
            "c".parse::<Slot>().unwrap_err().to_string(),
            "`c` is no slot: `a`, `b` or `recovery` was expected"
        );
    }

    #[test]
    fn updates_go_back_and_forth_between_a_and_b_and_never_to_recovery() {
        assert_eq!(Slot::A.other(), Slot::B);
        assert_eq!(Slot::B.other(), Slot::A);
        assert_eq!(Slot::Recovery.other(), Slot::A);
    }
}
