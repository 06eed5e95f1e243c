//! What the first stage and the operating system unit share: slots, the boot loader's entries, the black box.
//!
//! Everything here works on a byte store or a folder that is given to it, so that tests replay each prefix and
//! reordering of its writes.  It mounts nothing, starts nothing and talks to nobody.
//!
//! **Invariant:** a power cut between any two writes leaves entries of which one can be started, and a black box
//! whose earlier records can be read.

#![warn(missing_docs)]

pub mod blackbox;
pub mod entries;
pub mod event;
pub mod gpt;
pub mod slot;
pub mod start;
pub mod uki;

pub use blackbox::{BlackBox, BlackBoxError, Disk, unconfirmed_starts, why};
pub use entries::{Entries, EntriesError, Entry, Esp, State};
pub use event::{Event, Record};
pub use slot::Slot;
pub use start::{Mode, boot_id};
