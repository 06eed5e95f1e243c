//! What is configured, as this box last heard it: the objects of the kinds the core watches.
//!
//! One task follows the object store and publishes each new [`World`] whole; reconcilers take the
//! newest whenever they get to it, and report the revision they have carried out.  When the store is away
//! the last world stays in force: the data path never waits for it.
//!
//! **Invariant:** a world is never changed after it was published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arapi::arclst::{Client, WatchEvent};
use arapi::names::{Kind, ObjectName};
use arapi::objects::Object;
use arbase::{Chain, Stop};
use tokio::sync::watch;

/// The kinds the core watches.
pub const KINDS: &[Kind] = &[
    Kind::Security,
    Kind::SecurityGroup,
    Kind::QuotaTier,
    Kind::Grant,
    Kind::Module,
    Kind::Service,
    Kind::Channel,
    Kind::Outgoing,
    Kind::UserConfig,
];

/// Everything configured at one revision of the store.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The store's revision; 0: nothing heard yet.
    pub revision: u64,
    objects: BTreeMap<(Kind, ObjectName), Arc<Object>>,
    /// Counts, by name, how often a secret was heard to have changed: who uses one reads it again when
    /// its count differs from the one it read at.
    secrets_seen: BTreeMap<String, u64>,
    /// Counts snapshots: after one, every secret may have changed unheard.
    snapshots: u64,
}

impl World {
    /// The objects of one kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.iter().filter(move |((of, _), _)| *of == kind).map(|(_, object)| object)
    }

    /// One object.
    pub fn object(&self, kind: Kind, name: &ObjectName) -> Option<&Arc<Object>> {
        // The key is small, and this is not on the data path.
        self.objects.get(&(kind, name.clone()))
    }

    /// A number that changes when the secret may have changed.
    pub fn secret_generation(&self, name: &str) -> (u64, u64) {
        (self.snapshots, self.secrets_seen.get(name).copied().unwrap_or(0))
    }

    /// A world as the first snapshot of a watch gives it.
    pub fn of_listing(listing: arapi::arclst::Listing) -> Self {
        let mut world = Self::default();
        world.hear(WatchEvent::Snapshot(listing));
        world
    }

    /// A world with these objects, for tests of plans.
    #[cfg(test)]
    pub(crate) fn of(revision: u64, objects: &[(Kind, &str, serde_json::Value)]) -> Self {
        let object = |(kind, name, spec): &(Kind, &str, serde_json::Value)| Object {
            kind: *kind,
            name: ObjectName::parse(name).unwrap(),
            spec: arapi::Spec::parse(*kind, name, spec.clone()).unwrap(),
            revision,
            created_ms: 0,
            changed_ms: 0,
            changed_by: "test".to_owned(),
        };
        let objects = objects.iter().map(object).collect();
        Self::of_listing(arapi::arclst::Listing { revision, objects })
    }

    fn hear(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Snapshot(listing) => {
                self.revision = listing.revision;
                self.objects = listing
                    .objects
                    .into_iter()
                    .map(|object| ((object.kind, object.name.clone()), Arc::new(object)))
                    .collect();
                self.snapshots += 1;
                self.secrets_seen = BTreeMap::new();
            }
            WatchEvent::Commit { revision, changes, secrets } => {
                self.revision = revision;
                for change in changes {
                    let key = (change.kind, change.name);
                    match change.object {
                        Some(object) => self.objects.insert(key, Arc::new(object)),
                        None => self.objects.remove(&key),
                    };
                }
                for name in secrets {
                    *self.secrets_seen.entry(name).or_default() += 1;
                }
            }
        }
    }
}

/// Follows the store until told to stop, publishing each world.
pub async fn follow(store: Client, publish: watch::Sender<Arc<World>>, stop: Stop) {
    let mut waited = false;
    while !stop.is_stopped() {
        tokio::select! {
            () = stop.wait() => return,
            ended = follow_once(&store, &publish) => match ended {
                Ok(()) => log::warn!("object store ended the watch; opening it again"),
                // At the start of a box the store may come up after us.
                Err(err) if !waited => {
                    log::debug!(error:% = Chain(&err); "object store cannot be watched yet");
                }
                Err(err) => {
                    log::warn!(error:% = Chain(&err); "object store cannot be watched; the last known configuration stays in force");
                }
            }
        }
        let pause = if publish.borrow().revision == 0 { 50 } else { 500 };
        waited = publish.borrow().revision != 0;
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }
}

async fn follow_once(
    store: &Client,
    publish: &watch::Sender<Arc<World>>,
) -> Result<(), arapi::ClientError> {
    let mut events = store.watch(KINDS).await?;
    while let Some(event) = events.next().await? {
        let mut world = World::clone(&publish.borrow());
        world.hear(event);
        publish.send_replace(Arc::new(world));
    }
    Ok(())
}

/// How far the reconcilers have come: requests are served at the lowest of their revisions.
#[derive(Debug, Clone)]
pub struct Progress(watch::Sender<BTreeMap<&'static str, u64>>);

impl Progress {
    /// Starts with every reconciler at revision 0.
    pub fn of(reconcilers: &[&'static str]) -> Self {
        let unique: BTreeSet<_> = reconcilers.iter().copied().collect();
        Self(watch::Sender::new(unique.into_iter().map(|name| (name, 0)).collect()))
    }

    /// Reports that `reconciler` has carried out `revision`.
    pub fn report(&self, reconciler: &'static str, revision: u64) {
        self.0.send_modify(|progress| {
            progress.insert(reconciler, revision);
        });
    }

    /// The revision at which requests are served.
    pub fn revision(&self) -> u64 {
        lowest(&self.0.borrow())
    }

    /// Returns once `reconciler` has carried out any world.
    pub async fn wait_for_one(&self, reconciler: &str) {
        let mut progress = self.0.subscribe();
        // Cannot fail: self holds the sender.
        progress.wait_for(|all| all.get(reconciler).is_some_and(|done| *done > 0)).await.ok();
    }

    /// Returns once requests are served at `revision` or a later one.
    pub async fn wait_for(&self, revision: u64) {
        let mut progress = self.0.subscribe();
        // Cannot fail: self holds the sender.
        progress.wait_for(|progress| lowest(progress) >= revision).await.ok();
    }
}

fn lowest(progress: &BTreeMap<&'static str, u64>) -> u64 {
    progress.values().copied().min().unwrap_or(0)
}
