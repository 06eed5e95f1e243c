//! Confirmation by function: the slot that runs is good once every probe has passed, and is left when that takes too
//! long.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arapi::aros::Probe;
use arbase::Chain;
use arboot::{Event, Slot};

use super::{floor, probes};
use crate::server::App;

/// Between two rounds of probes while the slot is on trial.
const ROUND: Duration = Duration::from_secs(2);
/// Whoever asked for a restart, or follows an installation, hears of it in this time.
const ANSWERED: Duration = Duration::from_secs(2);
/// Between two rounds in a slot that should be left, and cannot be.
const STAYING: Duration = Duration::from_secs(30);
/// Between two rounds later on.
const LATER: Duration = Duration::from_secs(300);

/// Confirms the slot or leaves it; then goes on probing, for the status.
pub(crate) async fn watch(app: &App) {
    if let Some(slot) = app.updates.slot().filter(|slot| *slot != Slot::Recovery) {
        if let Some(reason) = &app.updates.no_storage {
            // A version that cannot open what the one before it could is left; a confirmed one is not to blame.
            if !matches!(app.updates.is_on_trial(), Ok(false)) {
                leave(app, slot, "storage", reason).await;
            }
            return;
        }
        match app.updates.is_on_trial() {
            Ok(false) => {
                floor::raise(&app.config, &app.updates.version());
                works_again(app, slot).await;
            }
            // An ESP that cannot be read now may be read at the limit.
            Ok(true) | Err(_) => on_trial(app, slot).await,
        }
    } else {
        return;
    }
    loop {
        tokio::time::sleep(LATER).await;
        remember(app, &probes::run(app).await);
    }
}

/// Probes until all pass, or until the limit.
async fn on_trial(app: &App, slot: Slot) {
    let since = Instant::now();
    let limit = Duration::from_secs(app.config.confirm_limit_s);
    log::info!(name = slot.as_str(); "slot is on trial");
    // Set where there is nothing better to go to: then it may still come right.
    let mut stays = false;
    loop {
        let found = probes::run(app).await;
        remember(app, &found);
        let Some(fault) = found.iter().find(|probe| !probe.passed) else {
            match confirm(app, slot) {
                Ok(()) => return forget_kept(app).await,
                Err(err) if since.elapsed() < limit => {
                    log::warn!(error:% = Chain(err.as_ref()); "the slot cannot be confirmed yet");
                }
                Err(err) if !stays => {
                    if leave(app, slot, "entry", &Chain(err.as_ref()).to_string()).await {
                        return;
                    }
                    stays = true;
                }
                Err(err) => {
                    log::warn!(error:% = Chain(err.as_ref()); "the slot cannot be confirmed")
                }
            }
            tokio::time::sleep(if stays { STAYING } else { ROUND }).await;
            continue;
        };
        if since.elapsed() >= limit && !stays {
            if leave(app, slot, &fault.name, &fault.message).await {
                return;
            }
            stays = true;
        }
        log::info!(name = fault.name.as_str(), reason = fault.message.as_str(); "probe has not passed yet");
        tokio::time::sleep(if stays { STAYING } else { ROUND }).await;
    }
}

/// Says in the black box that a slot which was confirmed before works in this start too.
///
/// The first stage counts the starts in a row that nobody said this of; without it, five power cuts in a box's life
/// would take it out of a slot that always worked.
async fn works_again(app: &App, slot: Slot) {
    loop {
        let found = probes::run(app).await;
        remember(app, &found);
        if found.iter().all(|probe| probe.passed) {
            return app
                .updates
                .ring
                .note(Event::Confirmed { slot, version: app.updates.version() });
        }
        tokio::time::sleep(ROUND).await;
    }
}

fn confirm(app: &App, slot: Slot) -> Result<(), Box<dyn std::error::Error>> {
    let version = app.updates.version();
    app.updates.mark_good(slot)?;
    app.updates.ring.note(Event::Confirmed { slot, version: version.clone() });
    floor::raise(&app.config, &version);
    log::info!(name = slot.as_str(); "slot confirmed");
    Ok(())
}

/// Removes what a migration kept for falling back; a unit of its own may do that, this one may not.
async fn forget_kept(app: &App) {
    let asked = async {
        PowerProxy::new(&app.bus).await?.start_unit("arint-forget.service", "replace").await
    };
    if let Err(err) = asked.await {
        log::warn!(error:% = err; "copies of stores from before the update are kept");
    }
}

/// Keeps the reason, exhausts the entry and restarts; false where only the recovery system is left, which can do less
/// than a slot that is half there.
async fn leave(app: &App, slot: Slot, probe: &str, reason: &str) -> bool {
    let version = app.updates.version();
    log::error!(name = probe, reason; "slot is left");
    app.updates.ring.note(Event::ProbeFailed {
        slot,
        version,
        probe: probe.to_owned(),
        reason: reason.to_owned(),
    });
    match app.updates.entries.has_other(slot) {
        Ok(Some(Slot::A | Slot::B)) => {}
        Ok(Some(Slot::Recovery) | None) => {
            log::error!("no other slot can be started; staying in this one");
            return false;
        }
        Err(err) => {
            log::error!(error:% = Chain(&err); "the boot entries cannot be read; the boot loader counts on");
        }
    }
    let marked = app.updates.entries.mark_bad(slot);
    if let Err(err) = marked {
        log::error!(error:% = Chain(&err); "the entry cannot be exhausted; the boot loader counts on");
    }
    app.updates.ring.note(Event::MarkedBad { slot, reason: format!("probe `{probe}` failed") });
    if let Err(err) = reboot(app).await {
        log::error!(error:% = err; "cannot restart; the boot loader takes the other slot next time");
    }
    true
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Power {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
}

/// Restarts in an orderly way.
pub(crate) async fn reboot(app: &App) -> zbus::Result<()> {
    let power = PowerProxy::new(&app.bus).await?;
    power.start_unit("reboot.target", "replace-irreversibly").await.map(drop)
}

/// Restarts once the answer that says so is on its way.
pub(crate) fn reboot_soon(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        tokio::time::sleep(ANSWERED).await;
        app.updates.ring.note(Event::Stopping { how: "reboot".to_owned() });
        if let Err(err) = reboot(&app).await {
            log::error!(error:% = err; "cannot restart");
        }
    });
}

fn remember(app: &App, found: &[Probe]) {
    let faults = found
        .iter()
        .filter(|probe| !probe.passed)
        .map(|probe| format!("probe `{}`: {}", probe.name, probe.message))
        .collect();
    *app.updates.problems.lock().unwrap_or_else(PoisonError::into_inner) = faults;
}
