//! The units of the service manager.

use std::sync::Arc;

use arapi::aros::Unit;
use arbase::http::Answer;
use axum::Json;
use axum::extract::State;
use zbus::OwnedVariant;

use super::bus::{self, UnitEntry};
use crate::server::App;

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// `GET /v1/units`: services, timers and sockets that are loaded, and anything that failed.
pub(super) async fn unit_list(State(app): State<Arc<App>>) -> Answer<Vec<Unit>> {
    let units = list(&app).await.map_err(|err| err.answer())?;
    Ok(Json(units))
}

/// The units that [`unit_list`] answers, by name.
pub(crate) async fn list(app: &App) -> Result<Vec<Unit>, bus::CallError> {
    bus::within("list the units", SYSTEMD, async {
        let mut units = Vec::new();
        for entry in bus::systemd(&app.bus).await?.list_units().await? {
            if is_told(&entry) {
                units.push(unit(app, entry).await?);
            }
        }
        units.sort_by(|one: &Unit, other| one.name.cmp(&other.name));
        Ok(units)
    })
    .await
}

fn is_told(entry: &UnitEntry) -> bool {
    let told = [".service", ".timer", ".socket", ".target", ".mount"];
    entry.active == "failed"
        || (entry.load == "loaded" && told.iter().any(|suffix| entry.name.ends_with(suffix)))
}

async fn unit(app: &App, entry: UnitEntry) -> zbus::Result<Unit> {
    let mut told = Unit {
        name: entry.name,
        active: entry.active,
        sub: entry.sub,
        memory: None,
        restarts: 0,
        active_after_us: None,
    };
    if !told.name.ends_with(".service") || told.active == "inactive" {
        return Ok(told);
    }
    // A unit may be gone between the list and here: then it is told without its figures.
    let general = "org.freedesktop.systemd1.Unit";
    if let Ok(properties) = bus::unit_properties(&app.bus, &entry.path, general).await {
        let since = number(properties.get("ActiveEnterTimestampMonotonic"));
        told.active_after_us = since.filter(|us| *us > 0 && told.active == "active");
    }
    let service = "org.freedesktop.systemd1.Service";
    if let Ok(properties) = bus::unit_properties(&app.bus, &entry.path, service).await {
        // All ones: not known.
        told.memory = number(properties.get("MemoryCurrent")).filter(|bytes| *bytes != u64::MAX);
        let restarts = number(properties.get("NRestarts")).unwrap_or_default();
        told.restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
    }
    Ok(told)
}

fn number(value: Option<&OwnedVariant>) -> Option<u64> {
    let value = value?;
    value.downcast_ref::<u64>().or_else(|_| value.downcast_ref::<u32>().map(u64::from)).ok()
}

/// The names of the units that failed.
pub(crate) async fn failed(app: &App) -> Result<Vec<String>, bus::CallError> {
    bus::within("list the units", SYSTEMD, async {
        let units = bus::systemd(&app.bus).await?.list_units().await?;
        let failed = units.into_iter().filter(|unit| unit.active == "failed");
        Ok(failed.map(|unit| unit.name).collect())
    })
    .await
}
