//! Commands about updates: what lies in the slots, installing a bundle, going back.

use std::path::Path;
use std::time::{Duration, Instant};

use arapi::aros::{
    BundleInfo, InstallRequest, InstallStatus, PowerAction, PowerRequest, Status, UpdateStatus,
};
use serde_json::{Value, json};

use crate::cli::UpdateCommand;
use crate::client::Api;
use crate::failure::Failure;
use crate::out::{self, Table, moment};
use crate::progress::Progress;
use crate::system::{slot_phrase, told};

const UPDATE: &str = "/v1/system/update";
const STATUS: &str = "/v1/system/status";
/// Between two questions about an installation.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for the box to be confirmed or to have fallen back: three tries of a start and their probes.
const WAIT: Duration = Duration::from_secs(30 * 60);
/// How long an installation may give no answer before it is believed to be lost.
const SILENCE: Duration = Duration::from_secs(120);

/// `arctl update …`.
pub(crate) async fn update(api: &Api, command: UpdateCommand, json: bool) -> Result<(), Failure> {
    match command {
        UpdateCommand::Status => status(api, json).await,
        UpdateCommand::Install { source, allow_downgrade, no_reboot, wait } => {
            let request = InstallRequest { url: None, allow_downgrade, reboot: !no_reboot };
            install(api, &source, request, wait, json).await
        }
        UpdateCommand::Rollback { no_reboot } => {
            let done: Value = api.post("/v1/system/update/rollback", &json!({})).await?;
            if no_reboot {
                return told(json, &done, "the other slot starts next; restart the box");
            }
            let restart = PowerRequest { action: PowerAction::Reboot };
            let done: Value = api.post("/v1/system/power", &restart).await?;
            told(json, &done, "the box restarts into the other slot")
        }
    }
}

async fn status(api: &Api, json: bool) -> Result<(), Failure> {
    let status: UpdateStatus = api.get(UPDATE).await?;
    if json {
        return out::json(&status);
    }
    let mut table = Table::new(&["SLOT", "VERSION", "STATE", "TRIES", "RUNS", "NEXT", "WRITTEN"]);
    let mark = |is: bool| if is { "yes" } else { "" }.to_owned();
    for slot in &status.slots {
        table.row([
            slot.slot.clone(),
            slot.version.clone().unwrap_or_default(),
            slot.state.clone(),
            slot.tries_left.map(|left| left.to_string()).unwrap_or_default(),
            mark(slot.booted),
            mark(slot.primary),
            slot.installed_ms.map(moment).unwrap_or_default(),
        ]);
    }
    table.print("there is no slot")?;
    if !status.floor.is_empty() {
        out::line(&format!("may be installed: {} and newer", status.floor))?;
    }
    if let Some(install) = &status.install {
        out::line(&phrase(install))?;
    }
    Ok(())
}

fn phrase(install: &InstallStatus) -> String {
    let version = install.version.as_ref().map(|version| format!(" of {version}"));
    let version = version.unwrap_or_default();
    match install.state.as_str() {
        "installed" => {
            let percent = install
                .fetched_bytes
                .zip(install.bundle_bytes)
                .and_then(|(fetched, whole)| fetched.saturating_mul(100).checked_div(whole));
            let fetched =
                percent.map(|percent| format!("; {percent} % of the bundle were fetched"));
            format!(
                "installation{version} from {} is done{}",
                install.source,
                fetched.unwrap_or_default()
            )
        }
        "failed" => {
            let why = install.error.as_deref().unwrap_or(&install.message);
            format!("installation{version} from {} failed: {why}", install.source)
        }
        _ => format!(
            "installation{version} from {}: {} %, {}",
            install.source, install.percent, install.message
        ),
    }
}

async fn install(
    api: &Api,
    source: &str,
    request: InstallRequest,
    wait: bool,
    json: bool,
) -> Result<(), Failure> {
    // Asked before anything is sent: whether it may, and what runs now.
    let before: Status = api.get(STATUS).await?;
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let progress = Progress::new(json);
    let request = if is_url {
        InstallRequest { url: Some(source.to_owned()), ..request }
    } else {
        let bundle = upload(api, Path::new(source), &before).await;
        let bundle = bundle.inspect_err(|_| progress.end())?;
        progress.end();
        if !json {
            out::line(&format!(
                "{}: version {} for {}, SHA-256 {}",
                source, bundle.version, bundle.compatible, bundle.sha256
            ))?;
        }
        request
    };
    let reboot = request.reboot;
    api.post::<_, Value>("/v1/system/update/install", &request).await?;
    let installed = followed(api, &before, reboot, &progress).await;
    progress.end();
    let installed = installed?;
    let version = installed.version.clone().unwrap_or_else(|| "the new version".to_owned());
    if !wait {
        let next = if reboot {
            "the box restarts into it"
        } else {
            "it runs after the next restart (`arctl system reboot`)"
        };
        if json {
            return out::json(&json!({ "install": installed }));
        }
        return out::line(&format!("{version} is installed; {next}"));
    }
    if !json {
        out::line(&format!("{version} is installed; waiting until the box is confirmed"))?;
    }
    let after = settled(api, &before, &progress).await;
    progress.end();
    let after = after?;
    if let Some(why) = verdict(&before, &installed, &after) {
        if json {
            out::json(&json!({ "install": installed, "status": after }))?;
        }
        return Err(Failure::Failed(why));
    }
    if json {
        return out::json(&json!({ "install": installed, "status": after }));
    }
    out::line(&format!("{} runs {} ({})", after.hostname, after.version, slot_phrase(&after)))
}

/// Uploads a bundle file.
async fn upload(api: &Api, path: &Path, before: &Status) -> Result<BundleInfo, Failure> {
    let fault = |source| Failure::Read { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    let length = file.metadata().await.map_err(fault)?.len();
    if length == 0 {
        return Err(Failure::Failed(format!("`{}` is empty", path.display())));
    }
    let what = format!("uploading to {}", before.hostname);
    let progress = Progress::new(false);
    api.upload("/v1/system/update/bundle", file, length, move |sent| {
        progress.at(&what, sent.saturating_mul(100) / length);
    })
    .await
}

/// Follows an installation to its end.
async fn followed(
    api: &Api,
    before: &Status,
    reboot: bool,
    progress: &Progress,
) -> Result<InstallStatus, Failure> {
    let mut last = InstallStatus::default();
    let mut answered = Instant::now();
    loop {
        match api.get::<UpdateStatus>(UPDATE).await {
            Ok(UpdateStatus { install: Some(install), .. }) => {
                answered = Instant::now();
                match install.state.as_str() {
                    "installed" => return Ok(install),
                    "failed" => {
                        let why = install.error.unwrap_or(install.message);
                        return Err(Failure::Failed(format!("the installation failed: {why}")));
                    }
                    _ => progress.at(&install.message, install.percent.into()),
                }
                last = install;
            }
            // Forgotten: the box has restarted in between.
            Ok(UpdateStatus { install: None, .. })
                if reboot && has_restarted(api, before).await =>
            {
                return Ok(last);
            }
            Ok(_) => {}
            Err(err) if !is_away(&err) => return Err(err),
            // It restarts as soon as it is done; the last answer may be lost in that.
            Err(_) if reboot && last.percent >= 90 => return Ok(last),
            Err(err) if answered.elapsed() > SILENCE => return Err(err),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn has_restarted(api: &Api, before: &Status) -> bool {
    api.get::<Status>(STATUS).await.is_ok_and(|now| now.boot.boot_id != before.boot.boot_id)
}

/// Whether the box may only be away for a while, as it is while it restarts.
fn is_away(err: &Failure) -> bool {
    match err {
        Failure::Unreachable { .. } | Failure::Late { .. } | Failure::Broken { .. } => true,
        // Its parts come up one after another.
        Failure::Refused { status, .. } => *status >= 500 || *status == 404,
        _ => false,
    }
}

/// Waits over the restart until the box is confirmed or back where it was.
async fn settled(api: &Api, before: &Status, progress: &Progress) -> Result<Status, Failure> {
    let started = Instant::now();
    loop {
        let elapsed = started.elapsed();
        if elapsed > WAIT {
            return Err(Failure::Failed(format!(
                "the box was neither confirmed nor back in its old slot after {} minutes; see `arctl update status` and `arctl system why`",
                WAIT.as_secs() / 60
            )));
        }
        // A new connection each time: the old one may hang on a box that is gone.
        let anew = api.anew()?;
        let asked = tokio::time::timeout(Duration::from_secs(10), anew.get::<Status>(STATUS));
        match asked.await {
            Ok(Ok(now)) if now.boot.boot_id == before.boot.boot_id => {
                progress.at("the box shuts down", 0);
            }
            Ok(Ok(now)) if now.boot.confirmed || now.boot.slot == "recovery" => return Ok(now),
            Ok(Ok(now)) if now.boot.fell_back.is_some() => return Ok(now),
            Ok(Ok(now)) => {
                progress.at(&format!("the box probes itself ({})", slot_phrase(&now)), 60)
            }
            // In the recovery system nobody is logged in, and the box says so without a log-in.
            Ok(Err(err)) if !is_away(&err) => return Err(in_recovery(api).await.unwrap_or(err)),
            Ok(Err(_)) | Err(_) => progress.at("the box starts", 30),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn in_recovery(api: &Api) -> Option<Failure> {
    let info: arapi::arwadm::ClaimInfo = api.get("/v1/claim").await.ok()?;
    let why = info.recovery?;
    Some(Failure::Failed(format!("the box is in its recovery system: {why}")))
}

/// Why an update is not what runs now; none where it is.
fn verdict(before: &Status, installed: &InstallStatus, after: &Status) -> Option<String> {
    if after.boot.slot == "recovery" {
        let why = after.boot.fell_back.as_deref().unwrap_or("no reason is given");
        return Some(format!("the box is in its recovery system: {why}"));
    }
    let is_other = installed.version.as_ref().is_some_and(|version| *version != after.version);
    if after.boot.slot == before.boot.slot || after.boot.fell_back.is_some() || is_other {
        let why = after
            .boot
            .fell_back
            .as_deref()
            .unwrap_or("no reason is given; see `arctl system blackbox`");
        return Some(format!("the box fell back to {}: {why}", after.version));
    }
    None
}

#[cfg(test)]
mod tests {
    use arapi::aros::BootStatus;

    use super::*;

    fn status(slot: &str, version: &str, fell_back: Option<&str>) -> Status {
        Status {
            version: version.to_owned(),
            boot: BootStatus {
                slot: slot.to_owned(),
                confirmed: true,
                fell_back: fell_back.map(ToOwned::to_owned),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn an_update_counts_only_if_it_is_what_runs_confirmed() {
        let before = status("a", "1.4.0", None);
        let installed =
            InstallStatus { version: Some("1.5.0".to_owned()), ..InstallStatus::default() };
        assert_eq!(verdict(&before, &installed, &status("b", "1.5.0", None)), None);
        let why = "1.5.0 was undone: probe `channel` failed: no answer";
        assert_eq!(
            verdict(&before, &installed, &status("a", "1.4.0", Some(why))).unwrap(),
            "the box fell back to 1.4.0: 1.5.0 was undone: probe `channel` failed: no answer"
        );
        assert!(verdict(&before, &installed, &status("a", "1.4.0", None)).is_some());
        assert_eq!(
            verdict(&before, &installed, &status("recovery", "1.3.0", Some("both slots failed")))
                .unwrap(),
            "the box is in its recovery system: both slots failed"
        );
    }

    #[test]
    fn an_installation_is_told_in_one_sentence() {
        let install = |state: &str, error: Option<&str>| InstallStatus {
            source: "upload".to_owned(),
            version: Some("1.5.0".to_owned()),
            state: state.to_owned(),
            percent: 40,
            message: "writing `rootfs`".to_owned(),
            error: error.map(ToOwned::to_owned),
            fetched_bytes: Some(4 << 20),
            bundle_bytes: Some(80 << 20),
        };
        assert_eq!(
            phrase(&install("running", None)),
            "installation of 1.5.0 from upload: 40 %, writing `rootfs`"
        );
        assert_eq!(
            phrase(&install("installed", None)),
            "installation of 1.5.0 from upload is done; 5 % of the bundle were fetched"
        );
        assert_eq!(
            phrase(&install("failed", Some("signature is wrong"))),
            "installation of 1.5.0 from upload failed: signature is wrong"
        );
    }
}
