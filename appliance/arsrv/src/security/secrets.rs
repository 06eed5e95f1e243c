//! Secrets as they were last read from the object store, in memory only.
//!
//! A reconciler has its own.  A secret is read when it is first needed and whenever it may have changed.
//! While the store is away, the last known value stays.
//!
//! **Invariant:** a secret that the store says does not exist is not known, whatever it was before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arapi::arclst::Client;
use arapi::error::ErrorCode;
use arapi::objects::SecretText;
use arbase::Chain;

use crate::world::World;

/// Longest time for reading one secret: the store is a local process.
const READ_LIMIT: Duration = Duration::from_secs(3);

/// The secrets that one reconciler needs.  Its `Debug` prints no value.
#[derive(Debug)]
pub struct Secrets {
    store: Client,
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    generation: (u64, u64),
    value: Option<SecretText>,
}

impl Secrets {
    /// Knows nothing yet.
    pub fn of(store: Client) -> Self {
        Self { store: Client(store.0.with_limit(READ_LIMIT)), known: BTreeMap::new() }
    }

    /// Reads what is needed and may have changed, and forgets what is not needed.  Returns how many could
    /// not be read and have to be tried again.
    pub async fn refresh(&mut self, world: &World, needed: &BTreeSet<String>) -> usize {
        self.known.retain(|name, _| needed.contains(name));
        let stale = |name: &&String| {
            let known = self.known.get(*name);
            known.is_none_or(|known| known.generation != world.secret_generation(name))
        };
        let mut stale: Vec<String> = needed.iter().filter(stale).cloned().collect();
        while let Some(name) = stale.pop() {
            let generation = world.secret_generation(&name);
            let value = match self.store.secret(&name).await {
                Ok(value) => Some(value),
                Err(err) if err.code() == Some(ErrorCode::NotFound) => {
                    log::warn!(secret = name; "secret does not exist");
                    None
                }
                Err(err) => {
                    // One is enough to see that the store is away; the caller comes back.
                    log::warn!(secret = name, error:% = Chain(&err); "secret cannot be read");
                    return stale.len() + 1;
                }
            };
            self.known.insert(name, Known { generation, value });
        }
        0
    }

    /// The last known value.
    pub fn get(&self, name: &str) -> Option<&SecretText> {
        self.known.get(name)?.value.as_ref()
    }
}
