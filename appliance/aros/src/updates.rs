//! The box from image to image: slots, installation, confirmation, storage, reset, seed, black box.

mod blackbox;
mod boot;
mod bundle;
mod confirm;
mod floor;
mod identifiers;
mod install;
pub(crate) mod itself;
mod migrate_main;
mod migrations;
mod probes;
pub(crate) mod program;
mod rauc;
mod recovery_fill;
mod reset;
mod ring;
pub(crate) mod seed;
mod seed_main;
pub(crate) mod started;
mod storage;
mod storage_main;

use std::sync::{Arc, PoisonError};

use arapi::aros::{
    BlackBoxView, BootStatus, BundleInfo, Done, InstallRequest, InstallStatus, Probe, ResetAnswer,
    ResetRequest, SlotStatus, UpdateStatus,
};
use arapi::error::ErrorCode;
use arbase::Stop;
use arbase::http::{Answer, ApiError, Body};
use arboot::Slot;
use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};

pub(crate) use boot::Boot;
pub(crate) use migrate_main::{MigrateArgs, migrate_main};
pub use migrations::Store;
pub(crate) use recovery_fill::{RecoveryFillArgs, recovery_fill_main};
pub(crate) use seed_main::{SeedArgs, seed_main};
pub(crate) use storage_main::{StorageArgs, storage_main};

use crate::server::App;

/// In which the admin API says who asks.
const WHO_HEADER: &str = "x-arint-who";

/// The calls of this half.
pub(crate) fn router() -> axum::Router<Arc<App>> {
    let bundle = get(serve_bundle).put(receive_bundle).layer(DefaultBodyLimit::disable());
    axum::Router::new()
        .route("/v1/update", get(update))
        .route("/v1/update/bundle", bundle)
        .route("/v1/update/install", post(install))
        .route("/v1/update/rollback", post(rollback))
        .route("/v1/probes", get(run_probes))
        .route("/v1/blackbox", get(black_box))
        .route("/v1/factory-reset", post(factory_reset))
}

/// What runs beside the calls, until the unit stops.
pub(crate) async fn run(app: Arc<App>, stop: Stop) {
    let ring = app.updates.ring.clone();
    let pstore = app.config.pstore.clone();
    tokio::task::spawn_blocking(move || blackbox::collect_panics(&pstore, &ring)).await.ok();
    tokio::select! {
        () = stop.wait() => {}
        () = confirm::watch(&app) => stop.wait().await,
    }
}

/// How this start came about.
pub(crate) fn boot_status(app: &App) -> BootStatus {
    app.updates.status()
}

/// What the probes last found wrong, and whether the box is where it was told to be; one sentence each.
pub(crate) fn problems(app: &App) -> Vec<String> {
    app.updates.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Why the last seed file was refused, if one was.
pub(crate) fn seed_refused(runtime_dir: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(runtime_dir.join(seed_main::REFUSED)).ok()?;
    (!text.is_empty()).then_some(text)
}

async fn update(State(app): State<Arc<App>>) -> Answer<UpdateStatus> {
    let entries =
        app.updates.entries.list().map_err(|err| ApiError::internal("read the entries", &err))?;
    let primary = entries.iter().find(|entry| entry.is_startable()).map(|entry| entry.name.slot);
    let mut slots: Vec<SlotStatus> = Slot::ALL
        .into_iter()
        .map(|slot| {
            let entry = entries
                .iter()
                .filter(|entry| entry.name.slot == slot)
                .max_by_key(|entry| entry.name.generation);
            let tries = entry.and_then(|entry| entry.name.tries);
            let state = match (entry, tries) {
                (None, _) => "empty",
                (Some(_), None) => "good",
                (Some(entry), Some(_)) if entry.name.is_exhausted() => "bad",
                (Some(_), Some(_)) => "new",
            };
            SlotStatus {
                slot: slot.to_string(),
                booted: app.updates.slot() == Some(slot),
                primary: primary == Some(slot),
                state: state.to_owned(),
                tries_left: tries.map(|tries| tries.left),
                version: entry.map(|entry| entry.version.clone()),
                installed_ms: None,
            }
        })
        .collect();
    // What RAUC knows on top is worth a look, but not a failure.
    for (name, times) in installed(&app).await {
        if let Some(slot) = slots.iter_mut().find(|slot| slot.slot == name) {
            slot.installed_ms = times;
        }
    }
    Ok(Json(UpdateStatus {
        slots,
        install: app.updates.install.status(),
        floor: floor::get(&app.config),
    }))
}

/// When RAUC wrote which slot, Unix milliseconds.
async fn installed(app: &App) -> Vec<(String, Option<u64>)> {
    let asked = async { rauc::InstallerProxy::new(&app.bus).await?.get_slot_status().await };
    let found = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
    let Ok(Ok(slots)) = found else { return Vec::new() };
    slots
        .iter()
        .filter_map(|(_, status)| {
            let name = status.get("bootname").and_then(rauc::text)?;
            let time = status.get("installed.timestamp").and_then(rauc::text)?;
            Some((name.to_ascii_lowercase(), unix_ms(&time)))
        })
        .collect()
}

/// `2026-11-21T03:00:00Z` as Unix milliseconds.
fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.trim_end_matches('Z').split_once('T')?;
    let number = |part: Option<&str>| part?.split('.').next()?.parse::<u64>().ok();
    let (mut date, mut time) = (date.split('-'), time.split(':'));
    let (year, month, day) = (number(date.next())?, number(date.next())?, number(date.next())?);
    let (hour, minute, second) = (number(time.next())?, number(time.next())?, number(time.next())?);
    // Civil date to days, counting years from March (Howard Hinnant).
    let year = year.checked_sub(u64::from(month <= 2))?;
    let shifted = if month > 2 { month.checked_sub(3)? } else { month.checked_add(9)? };
    let day_of_year = (153 * shifted + 2) / 5 + day.checked_sub(1)?;
    let (era, of_era) = (year / 400, year % 400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

async fn receive_bundle(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Answer<BundleInfo> {
    bundle::receive(&app, &headers, body).await.map(Json)
}

async fn serve_bundle(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response<axum::body::Body>, ApiError> {
    bundle::serve(&app, &headers).await
}

async fn install(
    State(app): State<Arc<App>>,
    Body(request): Body<InstallRequest>,
) -> Answer<InstallStatus> {
    install::start(&app, request).map(Json)
}

/// Chooses the other slot, if what it holds can be started.
async fn rollback(State(app): State<Arc<App>>) -> Answer<Done> {
    let slot = install::refuse_on_trial(&app)?;
    if app.updates.install.status().is_some_and(|install| install.state == "running") {
        return Err(ApiError::new(ErrorCode::Conflict, "an installation runs; wait for its end"));
    }
    let other = slot.other();
    let entry =
        app.updates.entry(other).map_err(|err| ApiError::internal("read the entries", &err))?;
    let Some(entry) = entry.filter(|entry| entry.is_startable()) else {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("slot {other} holds nothing that could be started; install a bundle instead"),
        ));
    };
    let rauc = rauc::InstallerProxy::new(&app.bus)
        .await
        .map_err(|err| ApiError::internal("reach RAUC", &err))?;
    rauc.mark("active", "other").await.map_err(|err| {
        ApiError::unavailable(format!("slot {other} cannot be chosen: {}", rauc::said(&err)))
    })?;
    confirm::reboot_soon(&app);
    Ok(Json(Done {
        message: format!("slot {other} (version {}) starts now; the box restarts", entry.version),
    }))
}

async fn run_probes(State(app): State<Arc<App>>) -> Answer<Vec<Probe>> {
    Ok(Json(probes::run(&app).await))
}

async fn black_box(State(app): State<Arc<App>>) -> Answer<BlackBoxView> {
    let view = black_box_view(&app).await;
    view.map(Json).map_err(|err| ApiError::internal("read the black box", &err))
}

/// The black box, for people.
pub(crate) async fn black_box_view(app: &App) -> Result<BlackBoxView, ring::RingError> {
    let ring = app.updates.ring.clone();
    // Reading it whole takes a moment.
    let records =
        tokio::task::spawn_blocking(move || ring.records()).await.unwrap_or_else(|err| {
            log::error!(error:% = err; "the black box cannot be read");
            Ok(Vec::new())
        })?;
    Ok(blackbox::view(&records, app.updates.slot()))
}

async fn factory_reset(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Body(request): Body<ResetRequest>,
) -> Answer<ResetAnswer> {
    let hostname = arbase::host::name();
    let who = headers.get(WHO_HEADER).and_then(|who| who.to_str().ok()).unwrap_or("somebody");
    let fingerprint = app.system.identity.wire().fingerprint;
    reset::begin(&app, &request, &hostname, &fingerprint, who).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::unix_ms;

    #[test]
    fn raucs_times_are_read() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2000-02-29T12:34:56Z"), Some(951_827_696_000));
        assert_eq!(unix_ms("soon"), None);
    }
}
