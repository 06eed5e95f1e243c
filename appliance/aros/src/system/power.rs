//! Restart, power off, recovery, and finding the box in a rack.
//!
//! The power button is logind's (`HandlePowerKey=poweroff`), which tells the units to stop as [`power`] does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arapi::aros::{Done, IdentifyRequest, Identifying, PowerAction, PowerRequest};
use arbase::http::{Answer, ApiError, Body};
use arboot::Event;
use axum::Json;
use axum::extract::State;

use super::{bus, console};
use crate::server::App;

const LOGIND: &str = "org.freedesktop.login1";
/// Where the kernel has the LEDs.
const LEDS: &str = "/sys/class/leds";
/// For how long the box shows itself where nothing is said, and at most, seconds.
const IDENTIFY_S: u32 = 30;
const MOST_IDENTIFY_S: u32 = 600;

/// `POST /v1/power`.
pub(super) async fn power(
    State(app): State<Arc<App>>,
    Body(request): Body<PowerRequest>,
) -> Answer<Done> {
    let (how, message) = match request.action {
        PowerAction::Reboot => ("reboot", "the box restarts"),
        PowerAction::Recovery => {
            choose_recovery(&app).await?;
            ("recovery", "the box restarts into the recovery system")
        }
        PowerAction::PowerOff => ("power_off", "the box switches off"),
    };
    super::record(&app, Event::Stopping { how: how.to_owned() }).await;
    app.system.support.close(&app, "the box stops").await;
    log::info!(reason = how; "box stops");
    let called = bus::within("stop the box", LOGIND, async {
        let logind = bus::logind(&app.bus).await?;
        match request.action {
            PowerAction::PowerOff => logind.power_off(false).await,
            PowerAction::Reboot | PowerAction::Recovery => logind.reboot(false).await,
        }
    });
    called.await.map_err(|err| err.answer())?;
    Ok(Json(Done { message: message.to_owned() }))
}

/// Has the boot loader take the recovery system's entry at the next start, once.
async fn choose_recovery(app: &App) -> Result<(), ApiError> {
    let chosen = bus::within("choose the recovery system", LOGIND, async {
        let logind = bus::logind(&app.bus).await?;
        let entries = logind.boot_loader_entries().await?;
        let Some(entry) = entries.iter().find(|entry| is_recovery(entry)) else {
            return Ok(false);
        };
        logind.set_reboot_to_boot_loader_entry(entry).await?;
        Ok(true)
    });
    if chosen.await.map_err(|err| err.answer())? {
        return Ok(());
    }
    Err(ApiError::unavailable(
        "the boot loader has no entry of a recovery system; choose one of its menu with a key held at the start",
    ))
}

/// Whether an entry of the boot loader starts the recovery system.
fn is_recovery(entry: &str) -> bool {
    entry.starts_with("arint-") && entry.contains("recovery")
}

/// `POST /v1/identify`.
pub(super) async fn identify(
    State(app): State<Arc<App>>,
    Body(request): Body<Option<IdentifyRequest>>,
) -> Answer<Identifying> {
    let seconds = request.and_then(|request| request.seconds).unwrap_or(IDENTIFY_S);
    if !(1..=MOST_IDENTIFY_S).contains(&seconds) {
        return Err(ApiError::invalid(format!(
            "{seconds} seconds are not between 1 and {MOST_IDENTIFY_S}"
        )));
    }
    let mut by = Vec::new();
    let led = app.system.board.led().filter(|led| blink(Path::new(LEDS), led));
    let led = led.map(ToOwned::to_owned);
    by.extend(led.clone());
    let consoles = app.system.consoles.clone();
    if consoles.iter().any(|path| console::write(path, b"\x07").is_ok()) {
        by.push("bell".to_owned());
    }
    if by.is_empty() {
        return Err(ApiError::unavailable(
            "this box has neither an LED nor a console to show itself with",
        ));
    }
    log::info!("box shows itself");
    tokio::spawn(async move {
        for _ in 1..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for path in &consoles {
                console::write(path, b"\x07").ok();
            }
        }
        if let Some(led) = led {
            calm(Path::new(LEDS), &led);
        }
    });
    Ok(Json(Identifying { by, seconds }))
}

/// Makes an LED blink; false where it cannot.
fn blink(leds: &Path, led: &str) -> bool {
    let led = leds.join(led);
    // The kernel blinks by itself: no process has to be on time.
    std::fs::write(led.join("trigger"), "timer").is_ok()
        || std::fs::write(led.join("brightness"), "1").is_ok()
}

/// Gives an LED back its rest.
fn calm(leds: &Path, led: &str) {
    let led = leds.join(led);
    // Removing the trigger switches it off; where there are no triggers, the brightness does.
    std::fs::write(led.join("trigger"), "none").ok();
    std::fs::write(led.join("brightness"), "0").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_recovery_entry_is_one() {
        assert!(is_recovery("arint-recovery.conf"));
        assert!(is_recovery("arint-1-recovery.conf"));
        assert!(!is_recovery("arint-7-a.conf"));
        assert!(!is_recovery("windows-recovery.conf"));
    }

    #[test]
    fn an_led_blinks_and_rests_again() {
        let leds = tempfile::tempdir().unwrap();
        assert!(!blink(leds.path(), "status"), "an LED that is not there does not blink");
        std::fs::create_dir(leds.path().join("status")).unwrap();
        assert!(blink(leds.path(), "status"));
        let trigger = || std::fs::read_to_string(leds.path().join("status/trigger")).unwrap();
        assert_eq!(trigger(), "timer");
        calm(leds.path(), "status");
        assert_eq!(trigger(), "none");
    }
}
