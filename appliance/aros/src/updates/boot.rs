//! The slot that runs, its entry, and what the boot loader would take next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arapi::aros::BootStatus;
use arboot::{Entries, EntriesError, Entry, Esp, Slot};

use super::ring::Ring;
use super::started::Started;
use super::storage_main;
use crate::config::Config;

/// For so long the answer to "why is the box here" is not looked up again.
const WHY_LASTS: Duration = Duration::from_secs(30);

/// What this half of the unit works with.
#[derive(Debug)]
pub(crate) struct Boot {
    /// How the first stage started this system; none on a machine without one.
    pub(crate) started: Option<Started>,
    /// Why there is neither `state` nor `data` in this start, and so only the recovery system in the slot.
    pub(crate) no_storage: Option<String>,
    /// The black box.
    pub(crate) ring: Ring,
    /// The boot entries.
    pub(crate) entries: Entries<Esp>,
    /// Set once the slot is known to be confirmed, so that the ESP need not be looked at again.
    confirmed: AtomicBool,
    /// Why the box is not where it was told to be, and when that was last looked up.
    why: Mutex<Option<(Instant, Option<String>)>>,
    /// What the probes last found wrong.
    pub(crate) problems: Mutex<Vec<String>>,
    /// What an installation is doing.
    pub(crate) install: super::install::Install,
}

impl Boot {
    /// Reads how the box was started.
    pub(crate) fn new(config: &Config) -> Self {
        let started = Started::read(&config.boot_file)
            .inspect_err(
                |err| log::warn!(error:% = arbase::Chain(err); "not started by our first stage"),
            )
            .ok();
        Self {
            started,
            no_storage: storage_main::failed(),
            ring: Ring::new(&config.blackbox),
            entries: Entries::new(Esp::new(&config.esp)),
            confirmed: AtomicBool::new(false),
            why: Mutex::default(),
            problems: Mutex::default(),
            install: super::install::Install::default(),
        }
    }

    /// The slot that runs.
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.started.as_ref().map(Started::system)
    }

    /// The version that runs.
    pub(crate) fn version(&self) -> String {
        match &self.started {
            Some(started) if !started.version.is_empty() => started.version.clone(),
            _ => env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The newest entry of a slot.
    pub(crate) fn entry(&self, slot: Slot) -> Result<Option<Entry>, EntriesError> {
        let entries = self.entries.list()?;
        Ok(entries
            .into_iter()
            .filter(|entry| entry.name.slot == slot)
            .max_by_key(|entry| entry.name.generation))
    }

    /// Whether the slot that runs has still to prove itself.
    pub(crate) fn is_on_trial(&self) -> Result<bool, EntriesError> {
        let Some(slot) = self.slot().filter(|slot| *slot != Slot::Recovery) else {
            return Ok(false);
        };
        if self.confirmed.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let on_trial = self.entry(slot)?.is_some_and(|entry| entry.name.tries.is_some());
        self.confirmed.store(!on_trial, Ordering::Relaxed);
        Ok(on_trial)
    }

    /// Takes the tries off the entry of the slot that runs.
    pub(crate) fn mark_good(&self, slot: Slot) -> Result<(), EntriesError> {
        self.entries.mark_good(slot)?;
        self.confirmed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// How this start came about, for people.
    pub(crate) fn status(&self) -> BootStatus {
        let mut status =
            BootStatus { boot_id: self.ring.boot_id().to_owned(), ..BootStatus::default() };
        let Some(slot) = self.slot() else { return status };
        if let Some(reason) = &self.no_storage {
            // What runs is the recovery system, whichever root it came from.
            status.slot = Slot::Recovery.to_string();
            status.fell_back = Some(reason.clone());
            return status;
        }
        status.slot = slot.to_string();
        if self.confirmed.load(Ordering::Relaxed) || slot == Slot::Recovery {
            status.confirmed = true;
        } else {
            match self.entry(slot) {
                Ok(entry) => {
                    let tries = entry.and_then(|entry| entry.name.tries);
                    status.confirmed = tries.is_none();
                    status.tries_left = tries.map(|tries| tries.left);
                }
                Err(err) => {
                    log::warn!(error:% = arbase::Chain(&err); "the boot entries cannot be read");
                }
            }
        }
        status.fell_back = self.why(slot);
        status
    }

    /// Reads the whole black box, so not for every call.
    fn why(&self, slot: Slot) -> Option<String> {
        let mut kept = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, why)) = kept.as_ref().filter(|(since, _)| since.elapsed() < WHY_LASTS) {
            return why.clone();
        }
        let why = match self.ring.records() {
            Ok(records) => arboot::why(&records, slot),
            Err(err) => {
                log::warn!(error:% = arbase::Chain(&err); "the black box cannot be read");
                None
            }
        };
        *kept = Some((Instant::now(), why.clone()));
        why
    }
}
