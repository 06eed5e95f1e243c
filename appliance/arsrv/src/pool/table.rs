//! The services that can be called, with their limits: what a call looks at first.
//!
//! **Invariant:** a table is not changed after it was published but for the group of an entry, which changes when
//! its service is put under quarantine.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arapi::arsrv::FoundService;
use tokio::sync::Semaphore;

use super::group::{Group, Load};
use super::stats::Stats;

/// One service.
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The same as a JSON string.
    pub(crate) name_json: String,
    /// Whether it answers.
    pub(crate) is_active: bool,
    /// Longest time for one call.
    pub(crate) timeout: Duration,
    /// One permit for each call of it at one time, if that is limited.
    pub(crate) permits: Option<Arc<Semaphore>>,
    /// The number of them.
    pub(crate) max_concurrency: Option<u32>,
    /// Its figures.
    pub(crate) stats: Arc<Stats>,
    /// What the worker said about it.
    pub(crate) found: FoundService,
    group: RwLock<Arc<Group>>,
}

impl Entry {
    /// A service of a group.
    pub(crate) fn new(
        found: FoundService,
        limits: Limits,
        permits: Option<Arc<Semaphore>>,
        stats: Arc<Stats>,
        group: Arc<Group>,
    ) -> Self {
        let mut name_json = Vec::new();
        crate::worker::frame::put_json_string(&mut name_json, &found.name);
        Self {
            name: found.name.as_str().into(),
            // Only quotes and escapes were added.
            name_json: String::from_utf8(name_json).unwrap_or_default(),
            is_active: limits.is_active,
            timeout: limits.timeout,
            permits,
            max_concurrency: limits.max_concurrency,
            stats,
            found,
            group: RwLock::new(group),
        }
    }

    /// The workers that run it.
    pub(crate) fn group(&self) -> Arc<Group> {
        Arc::clone(&self.group.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives it to other workers.
    pub(crate) fn move_to(&self, group: Arc<Group>) {
        *self.group.write().unwrap_or_else(PoisonError::into_inner) = group;
    }

    /// What one call of it takes.
    pub(crate) fn load(&self) -> Load {
        if self.found.is_async { Load::Coroutine } else { Load::Thread }
    }
}

/// What an admin has set for a service.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Whether it answers.
    pub(crate) is_active: bool,
    /// Longest time for one call.
    pub(crate) timeout: Duration,
    /// Most calls at one time.
    pub(crate) max_concurrency: Option<u32>,
}

/// The services by name.
#[derive(Default)]
pub(crate) struct Table {
    /// The store's revision it was made of.
    pub(crate) revision: u64,
    /// Whether any set of modules is live yet.
    pub(crate) is_live: bool,
    /// The services.
    pub(crate) services: HashMap<Arc<str>, Arc<Entry>>,
}
