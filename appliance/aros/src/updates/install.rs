//! Installing a bundle: what may be installed, the installation itself, its progress.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arapi::aros::{InstallRequest, InstallStatus};
use arapi::error::ErrorCode;
use arbase::Chain;
use arbase::http::ApiError;
use arboot::Slot;
use futures_util::StreamExt as _;
use zbus::Variant;

use super::rauc::{self, InstallerProxy};
use super::{bundle, confirm, floor};
use crate::server::App;

/// Between two looks at RAUC's progress.
const LOOK: Duration = Duration::from_millis(500);
/// If RAUC has said nothing new for so long, it is stuck: a slot of 512 MiB takes minutes at the slowest.
const SILENCE: Duration = Duration::from_secs(900);
/// So often a streamed installation is begun where udev was quicker than RAUC (see [`is_worth_another`]).
const ATTEMPTS: u32 = 5;
/// Between two of them.
const BREATH: Duration = Duration::from_secs(2);
/// Where the kernel tells of block devices.
const BLOCK_DEVICES: &str = "/sys/block";
/// Where every box serves the bundle that it installed last.
const NEIGHBOURS_PATH: &str = "/v1/system/update/bundle";

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
        Some(url) if is_url(url) => url.clone(),
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
            Err(fault) => {
                let error = match fault {
                    Fault::Refused(why) => why,
                    Fault::Failed(why) => {
                        // It may be tried again from the same address, but not with the same bytes.
                        if request.url.is_none() {
                            bundle::discard(&app.config).await;
                        }
                        why
                    }
                };
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
        let next = if request.reboot {
            "the box restarts into it"
        } else {
            "it runs after the next restart"
        };
        let share = share(status).map(|share| format!(" ({share})")).unwrap_or_default();
        status.message = format!("version {version} is installed{share}; {next}");
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

/// Why nothing was installed.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The bundle may not be installed here as it was asked for.
    Refused(String),
    /// It was tried.
    Failed(String),
}

async fn install(app: &App, source: &str, allow_downgrade: bool) -> Result<String, Fault> {
    let bus =
        |err: zbus::Error| Fault::Refused(format!("RAUC cannot be asked: {}", rauc::said(&err)));
    let rauc = InstallerProxy::new(&app.bus).await.map_err(bus)?;
    let sentence = if is_url(source) { rauc::streamed_sentence } else { rauc::sentence };
    let bundle = rauc::inspect(&rauc, source, access(source)).await;
    let bundle = bundle.map_err(|said| Fault::Failed(sentence(&said)))?;
    let version = bundle.version.clone();
    app.updates.install.change(|status| status.version = Some(version.clone()));
    let compatible = rauc.compatible().await.map_err(bus)?;
    let floor = floor::get(&app.config);
    if let Some(refused) = refusal(&bundle, &compatible, &floor, allow_downgrade) {
        return Err(Fault::Refused(refused));
    }
    let mut attempt = 1;
    while let Err(said) = attempted(app, &rauc, source, &bundle).await {
        if !is_worth_another(attempt, source, &said) {
            return Err(Fault::Failed(sentence(&said)));
        }
        log::warn!(attempt, error = said.as_str(); "the device of the streamed bundle was gone before it was used; once more");
        attempt += 1;
        tokio::time::sleep(BREATH).await;
    }
    Ok(version)
}

fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// How RAUC gets at a bundle.
///
/// Nobody signs a box's certificate, so a neighbour's is not asked who signed it, only whether it names the neighbour.
/// What makes the bundle trustworthy is its own signature, which covers every block; a neighbour gets no secret.
fn access(source: &str) -> HashMap<&'static str, Variant<'static>> {
    let mut args = HashMap::new();
    if is_neighbour(source) {
        args.insert("tls-no-verify", true.into());
    }
    args
}

/// Whether an address is that of another box's bundle, with nothing in it that has to be kept from others.
fn is_neighbour(source: &str) -> bool {
    let Ok(uri) = source.parse::<http::Uri>() else { return false };
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
        && plain
        && uri.path() == NEIGHBOURS_PATH
        && uri.query().is_none()
}

/// Whether RAUC lost its network block device to udev, and has not done so too often.
///
/// RAUC before 1.15 tells the kernel to remove the device when its last user closes it; where udev opens and closes it
/// before dm-verity has it, it is gone, of no size, and dm-verity says `E2BIG`.  Nothing was written then.
fn is_worth_another(attempt: u32, source: &str, said: &str) -> bool {
    let is_streamed = source.starts_with("http://") || source.starts_with("https://");
    attempt < ATTEMPTS
        && is_streamed
        && said.to_ascii_lowercase().contains("argument list too long")
}

/// One installation by RAUC, to its end; the error is what RAUC said.
async fn attempted(
    app: &App,
    rauc: &InstallerProxy<'_>,
    source: &str,
    bundle: &rauc::Bundle,
) -> Result<(), String> {
    let bus = |err: zbus::Error| rauc::said(&err);
    let mut args = access(source);
    if let Some(hash) = &bundle.manifest_hash {
        args.insert("require-manifest-hash", hash.clone().into());
    }
    let before = read_so_far(Path::new(BLOCK_DEVICES));
    let mut completed = rauc.receive_completed().await.map_err(bus)?;
    // Whoever asks for its progress starts it anew, so that it is gone is seen by its name only.
    let mut owner = rauc.inner().receive_owner_changed().await.map_err(bus)?;
    let begun = match rauc.install_bundle(source, args).await {
        // RAUC before 1.14 cannot be told which manifest is meant; the signature it checks itself.
        Err(err) if rauc::said(&err).contains("Unsupported key") => {
            rauc.install_bundle(source, access(source)).await
        }
        other => other,
    };
    begun.map_err(bus)?;
    let mut heard = tokio::time::Instant::now();
    let result = loop {
        tokio::select! {
            signal = completed.next() => {
                let Some(signal) = signal else { return Err(rauc::GONE.to_owned()) };
                break signal.args().map_err(bus)?.result;
            }
            Some(None) = owner.next() => return Err(rauc::GONE.to_owned()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let fetched = fetched(Path::new(BLOCK_DEVICES), &before);
        match rauc.progress().await {
            Ok((percent, message, _)) => {
                let percent = u32::try_from(percent.clamp(0, 100)).unwrap_or_default();
                app.updates.install.change(|status| {
                    if let Some((read, whole)) = fetched {
                        if status.fetched_bytes != Some(read) {
                            heard = tokio::time::Instant::now();
                        }
                        status.fetched_bytes = Some(read);
                        status.bundle_bytes = Some(whole);
                    }
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
            return Err(format!("no progress for {SILENCE:?}; the slot that runs is untouched"));
        }
    };
    if result == 0 {
        return Ok(());
    }
    Err(rauc.last_error().await.unwrap_or_else(|err| Chain(&err).to_string()))
}

/// What was read of each network block device since the start, bytes: RAUC sees a bundle that is streamed as one.
fn read_so_far(block_devices: &Path) -> HashMap<PathBuf, u64> {
    let devices = std::fs::read_dir(block_devices).into_iter().flatten().flatten();
    devices
        .filter(|device| device.file_name().to_string_lossy().starts_with("nbd"))
        .filter_map(|device| {
            let stat = std::fs::read_to_string(device.path().join("stat")).ok()?;
            // The third number counts sectors read (Documentation/block/stat.rst of Linux).
            let sectors = stat.split_whitespace().nth(2)?.parse::<u64>().ok()?;
            Some((device.path(), sectors.saturating_mul(512)))
        })
        .collect()
}

/// What was read of the bundle that is streamed now, and how large it is, bytes; the devices count on from bundle to
/// bundle, so what they had read before is taken off.
fn fetched(block_devices: &Path, before: &HashMap<PathBuf, u64>) -> Option<(u64, u64)> {
    read_so_far(block_devices).into_iter().find_map(|(device, read)| {
        let size = std::fs::read_to_string(device.join("size")).ok()?;
        let sectors = size.trim().parse::<u64>().ok().filter(|size| *size > 0)?;
        let before = before.get(&device).copied().unwrap_or_default();
        Some((read.saturating_sub(before), sectors.saturating_mul(512)))
    })
}

/// How much of a streamed bundle was fetched.
fn share(status: &InstallStatus) -> Option<String> {
    let (fetched, whole) = (status.fetched_bytes?, status.bundle_bytes?);
    let mib = |bytes: u64| format!("{}.{}", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20);
    Some(format!("{} of {} MiB were fetched, the rest was here already", mib(fetched), mib(whole)))
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

    #[test]
    fn only_a_streamed_bundle_whose_device_is_gone_is_tried_again_a_few_times() {
        let said = "Failed mounting bundle: Failed to load dm table: Argument list too long, check DM_VERITY, DM_CRYPT or CRYPTO_AES kernel options.";
        let url = "https://192.0.2.7/b.raucb";
        assert!(is_worth_another(1, url, said));
        assert!(is_worth_another(ATTEMPTS - 1, url, said));
        assert!(!is_worth_another(ATTEMPTS, url, said));
        assert!(!is_worth_another(1, "/data/aros/bundle.raucb", said));
        assert!(!is_worth_another(1, url, "signature verification failed"));
    }

    #[test]
    fn nobody_but_a_neighbour_is_trusted_without_a_signed_certificate() {
        assert!(is_neighbour("https://press-2.local:8183/v1/system/update/bundle"));
        assert!(is_neighbour("https://192.0.2.7:8183/v1/system/update/bundle"));
        for other in [
            "https://files.example.com/arint.raucb",
            "http://192.0.2.7:8183/v1/system/update/bundle",
            "https://anna:secret@192.0.2.7/v1/system/update/bundle",
            "https://192.0.2.7/v1/system/update/bundle?token=secret",
            "/v1/system/update/bundle",
        ] {
            assert!(!is_neighbour(other), "{other}");
        }
    }

    #[test]
    fn what_was_fetched_is_what_the_network_block_device_has_read() {
        let dir = tempfile::tempdir().unwrap();
        let device = |name: &str, size: &str, stat: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("size"), size).unwrap();
            std::fs::write(dir.path().join(name).join("stat"), stat).unwrap();
        };
        let none = HashMap::new();
        assert_eq!(fetched(dir.path(), &none), None);
        device("vda", "4096\n", " 1 0 4000 2 0 0 0 0 0 0 0\n");
        device("nbd0", "0\n", " 9 0 900 2 0 0 0 0 0 0 0\n");
        device("nbd1", "163840\n", " 9 0 7168 2 0 0 0 0 0 0 0\n");
        assert_eq!(fetched(dir.path(), &none), Some((3_670_016, 83_886_080)));
        let before = read_so_far(dir.path());
        std::fs::write(dir.path().join("nbd1/stat"), " 9 0 7170 2 0 0 0 0 0 0 0\n").unwrap();
        assert_eq!(fetched(dir.path(), &before), Some((1024, 83_886_080)));
        let status = InstallStatus {
            fetched_bytes: Some(3_670_016),
            bundle_bytes: Some(83_886_080),
            ..InstallStatus::default()
        };
        assert_eq!(
            share(&status).unwrap(),
            "3.5 of 80.0 MiB were fetched, the rest was here already"
        );
    }
}
