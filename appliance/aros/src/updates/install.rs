//! Installing a bundle: what may be installed, the installation itself, its progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arapi::aros::{InstallRequest, InstallStatus};
use arapi::error::ErrorCode;
use arbase::Chain;
use arbase::http::ApiError;
use arboot::Slot;
use futures_util::StreamExt as _;

use super::rauc::{self, InstallerProxy};
use super::{bundle, confirm, floor};
use crate::server::App;

/// Between two looks at RAUC's progress.
const LOOK: Duration = Duration::from_millis(500);
/// If RAUC has said nothing new for so long, it is stuck: a slot of 512 MiB takes minutes at the slowest.
const SILENCE: Duration = Duration::from_secs(900);

/// What an installation is doing.
#[derive(Debug, Default)]
pub(crate) struct Install(Mutex<Option<InstallStatus>>);

impl Install {
    /// The running or the last one.
    pub(crate) fn status(&self) -> Option<InstallStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins one, unless one runs.
    fn begin(&self, source: &str) -> Result<InstallStatus, ApiError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = kept.as_ref().filter(|install| install.state == "running") {
            let message = format!(
                "an installation from `{}` runs already ({} %); wait for its end",
                running.source, running.percent
            );
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let status = InstallStatus {
            source: source.to_owned(),
            state: "running".to_owned(),
            message: "looking at the bundle".to_owned(),
            ..InstallStatus::default()
        };
        *kept = Some(status.clone());
        Ok(status)
    }

    fn change(&self, change: impl FnOnce(&mut InstallStatus)) {
        if let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(status);
        }
    }
}

/// Refuses while the box may not be changed.
pub(crate) fn refuse_on_trial(app: &App) -> Result<Slot, ApiError> {
    let Some(slot) = app.updates.slot() else {
        return Err(ApiError::unavailable(
            "this machine was not started from an image; only boxes can be updated",
        ));
    };
    match app.updates.is_on_trial() {
        Ok(false) => Ok(slot),
        Ok(true) => Err(ApiError::new(
            ErrorCode::Conflict,
            format!(
                "slot {slot} runs on trial and has not been confirmed yet; wait until its probes have passed"
            ),
        )),
        Err(err) => Err(ApiError::internal("read the boot entries", &err)),
    }
}

/// Begins an installation; it goes on after the answer.
pub(crate) fn start(app: &Arc<App>, request: InstallRequest) -> Result<InstallStatus, ApiError> {
    refuse_on_trial(app)?;
    let source = match &request.url {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => url.clone(),
        Some(url) => {
            return Err(ApiError::invalid(format!(
                "`{url}` is no address of a bundle; `http://…` or `https://…` was expected"
            )));
        }
        None => {
            let path = bundle::waiting(&app.config);
            if !path.is_file() {
                return Err(ApiError::new(
                    ErrorCode::NotFound,
                    "no bundle was uploaded; send one with `PUT /v1/update/bundle`, or give an address",
                ));
            }
            path.display().to_string()
        }
    };
    let status = app.updates.install.begin(&source)?;
    let app = Arc::clone(app);
    tokio::spawn(async move {
        match install(&app, &source, request.allow_downgrade).await {
            Ok(version) => installed(&app, &request, &version).await,
            Err(error) => {
                log::warn!(path = source.as_str(), error = error.as_str(); "update not installed");
                app.updates.install.change(|status| {
                    status.state = "failed".to_owned();
                    status.error = Some(error);
                });
            }
        }
    });
    Ok(status)
}

async fn installed(app: &Arc<App>, request: &InstallRequest, version: &str) {
    if request.url.is_none()
        && let Err(err) = bundle::keep(&app.config).await
    {
        log::warn!(error:% = err; "the installed bundle cannot be kept for neighbours");
    }
    log::info!(name = version; "update installed");
    app.updates.install.change(|status| {
        status.state = "installed".to_owned();
        status.percent = 100;
        status.message = if request.reboot {
            format!("version {version} is installed; the box restarts into it")
        } else {
            format!("version {version} is installed; it runs after the next restart")
        };
    });
    if request.reboot {
        confirm::reboot_soon(app);
    }
}

/// Why a bundle may not be installed here, if it may not.
fn refusal(
    bundle: &rauc::Bundle,
    compatible: &str,
    floor: &str,
    allow_downgrade: bool,
) -> Option<String> {
    if bundle.compatible != compatible {
        return Some(format!(
            "the bundle is for `{}`, and this box is `{compatible}`; take the bundle for this board",
            bundle.compatible
        ));
    }
    if !allow_downgrade && floor::compare(&bundle.version, floor).is_lt() {
        return Some(format!(
            "the bundle brings version {}, which is older than {floor}, confirmed on this box before; allow a downgrade if it is meant",
            bundle.version
        ));
    }
    None
}

async fn install(app: &App, source: &str, allow_downgrade: bool) -> Result<String, String> {
    let bus = |err: zbus::Error| format!("RAUC cannot be asked: {}", rauc::said(&err));
    let rauc = InstallerProxy::new(&app.bus).await.map_err(bus)?;
    let bundle = rauc::inspect(&rauc, source).await?;
    let version = bundle.version.clone();
    app.updates.install.change(|status| status.version = Some(version.clone()));
    let compatible = rauc.compatible().await.map_err(bus)?;
    let floor = floor::get(&app.config);
    if let Some(refused) = refusal(&bundle, &compatible, &floor, allow_downgrade) {
        return Err(refused);
    }
    let mut args = HashMap::new();
    if let Some(hash) = &bundle.manifest_hash {
        args.insert("require-manifest-hash", hash.as_str().into());
    }
    let mut completed = rauc.receive_completed().await.map_err(bus)?;
    let begun = match rauc.install_bundle(source, args).await {
        // RAUC before 1.14 cannot be told which manifest is meant; the signature it checks itself.
        Err(err) if rauc::said(&err).contains("Unsupported key") => {
            rauc.install_bundle(source, HashMap::new()).await
        }
        other => other,
    };
    begun.map_err(|err| rauc::sentence(&rauc::said(&err)))?;
    let mut heard = tokio::time::Instant::now();
    let result = loop {
        tokio::select! {
            signal = completed.next() => {
                let Some(signal) = signal else {
                    return Err("RAUC has gone away; the slot that runs is untouched".to_owned());
                };
                break signal.args().map_err(bus)?.result;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        match rauc.progress().await {
            Ok((percent, message, _)) => {
                let percent = u32::try_from(percent.clamp(0, 100)).unwrap_or_default();
                app.updates.install.change(|status| {
                    if status.percent != percent || status.message != message {
                        heard = tokio::time::Instant::now();
                    }
                    status.percent = percent;
                    status.message = message;
                });
            }
            Err(err) => log::warn!(error:% = err; "RAUC's progress cannot be read"),
        }
        if heard.elapsed() > SILENCE {
            return Err(format!(
                "RAUC has made no progress for {SILENCE:?}; the slot that runs is untouched"
            ));
        }
    };
    if result == 0 {
        return Ok(version);
    }
    let said = rauc.last_error().await.unwrap_or_else(|err| Chain(&err).to_string());
    Err(rauc::sentence(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(version: &str) -> rauc::Bundle {
        rauc::Bundle {
            compatible: "arint-generic-x86_64".to_owned(),
            version: version.to_owned(),
            manifest_hash: None,
        }
    }

    #[test]
    fn an_older_version_is_refused_unless_it_is_meant() {
        let compatible = "arint-generic-x86_64";
        assert_eq!(refusal(&bundle("0.2.0"), compatible, "0.2.0", false), None);
        assert_eq!(refusal(&bundle("0.1.0"), compatible, "0.2.0", true), None);
        assert_eq!(
            refusal(&bundle("0.1.0"), compatible, "0.2.0", false).unwrap(),
            "the bundle brings version 0.1.0, which is older than 0.2.0, confirmed on this box before; allow a downgrade if it is meant"
        );
    }

    #[test]
    fn a_bundle_for_another_board_is_refused_even_as_a_downgrade() {
        assert_eq!(
            refusal(&bundle("9.0.0"), "arint-raspberrypi-rpi4", "", true).unwrap(),
            "the bundle is for `arint-generic-x86_64`, and this box is `arint-raspberrypi-rpi4`; take the bundle for this board"
        );
    }

    #[test]
    fn one_installation_runs_at_a_time() {
        let install = Install::default();
        install.begin("a").unwrap();
        let refused = install.begin("b").unwrap_err();
        assert_eq!(
            refused.message(),
            "an installation from `a` runs already (0 %); wait for its end"
        );
        install.change(|status| status.state = "failed".to_owned());
        assert!(install.begin("b").is_ok());
    }
}
