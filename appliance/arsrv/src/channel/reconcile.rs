//! Carries out what is configured about channels: each new world becomes a new table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arapi::names::Kind;
use arapi::objects::{SecretField, Spec};
use arbase::Stop;
use tokio::sync::watch;

use super::table::{Defaults, Table};
use crate::audit::Recorder;
use crate::http::cache::Cache;
use crate::security::{Secrets, Shared};
use crate::world::{Progress, World};

/// The name under which it reports to [`Progress`].
pub const RECONCILER: &str = "channels";

/// How long to wait before secrets that could not be read are tried again.
const SECRETS_AGAIN: Duration = Duration::from_secs(1);

/// Follows the worlds until told to stop.
pub async fn run(
    mut worlds: watch::Receiver<Arc<World>>,
    mut secrets: Secrets,
    tables: watch::Sender<Arc<Table>>,
    defaults: Defaults,
    shared: Arc<Shared>,
    cache: Arc<Cache>,
    recorder: Arc<Recorder>,
    progress: Progress,
    stop: Stop,
) {
    loop {
        let world = Arc::clone(&worlds.borrow_and_update());
        let missing = secrets.refresh(&world, &needed(&world)).await;
        let before = Arc::clone(&tables.borrow());
        let known = |name: &str| secrets.get(name).cloned();
        let now = SystemTime::now();
        let table = Arc::new(Table::plan(&world, known, &before, defaults, &shared, now));
        log_changes(&before, &table);
        tables.send_replace(Arc::clone(&table));
        cache.leave(table.all().filter_map(|channel| channel.quality.as_ref()?.keeps.as_ref()));
        let audited = table.all().filter(|channel| channel.spec.audit.is_some());
        // Before anything was heard nobody knows which channels there are.
        if table.revision > 0 {
            recorder.leave(audited.map(|channel| channel.name.clone()).collect()).await;
        }
        progress.report(RECONCILER, world.revision);
        tokio::select! {
            () = stop.wait() => return,
            changed = worlds.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(SECRETS_AGAIN), if missing > 0 => {}
        }
    }
}

/// The secrets that channels compare.
fn needed(world: &World) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for object in world.of_kind(Kind::Security) {
        let Spec::Security(spec) = &object.spec else { continue };
        if spec.is_active() && spec.opens_channels() {
            names.extend(spec.secrets().into_iter().filter_map(|field| match field {
                SecretField::Secret(name) => Some(name.clone()),
                SecretField::Value(_) | SecretField::Generate(_) => None,
            }));
        }
    }
    names
}

fn log_changes(before: &Table, after: &Table) {
    for channel in after.all() {
        let state = channel.status().state;
        let known = before.channel(&channel.name);
        if known.is_none_or(|known| known.spec != channel.spec || known.status().state != state) {
            log::info!(
                channel:% = channel.name, path = channel.spec.url_path,
                service:% = channel.service, state = state; "channel set up"
            );
        }
    }
    for channel in before.all().filter(|channel| after.channel(&channel.name).is_none()) {
        log::info!(channel:% = channel.name; "channel removed");
    }
}
