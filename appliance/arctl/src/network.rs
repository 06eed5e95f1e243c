//! Commands about the network: what there is, a change on trial, its confirmation.

use std::path::Path;
use std::time::{Duration, Instant};

use arapi::aros::NetworkStatus;
use arapi::names::Kind;
use serde_json::{Value, json};

use crate::cli::NetworkCommand;
use crate::client::Api;
use crate::commands::{commit, puts, read_all};
use crate::failure::Failure;
use crate::out::{self, Table};
use crate::system::told;

const PATH: &str = "/v1/system/network";
const CONFIRM: &str = "/v1/system/network/confirm";
/// Longest wait for a change to be on trial.
const TRIAL: Duration = Duration::from_secs(15);
/// How long the new network has to stand before it is believed.
const SETTLE: Duration = Duration::from_secs(3);
/// How long one question may take: what is not answered by then has gone with the old network.
const ASK: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// `arctl network …`.
pub(crate) async fn network(api: &Api, command: NetworkCommand, json: bool) -> Result<(), Failure> {
    match command {
        NetworkCommand::Show => show(api, json).await,
        NetworkCommand::Confirm => {
            let done: Value = api.post(CONFIRM, &json!({})).await?;
            told(json, &done, "the new network is kept")
        }
        NetworkCommand::Set { file, confirm_after_check } => {
            set(api, &file, confirm_after_check, json).await
        }
    }
}

async fn show(api: &Api, json: bool) -> Result<(), Failure> {
    let status: NetworkStatus = api.get(PATH).await?;
    if json {
        return out::json(&status);
    }
    let mut table = Table::new(&["LINK", "STATE", "ADDRESSES", "GATEWAYS", "DNS", "MAC"]);
    for link in &status.links {
        table.row([
            link.name.clone(),
            link.state.clone(),
            link.addresses.join(", "),
            link.gateways.join(", "),
            link.dns.join(", "),
            link.mac.clone().unwrap_or_default(),
        ]);
    }
    table.print("there is no link")?;
    let names: Vec<&str> =
        status.confirmed.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let configured =
        if names.is_empty() { "nothing; every link has DHCP".to_owned() } else { names.join(", ") };
    out::line(&format!("configured: {configured}"))?;
    if let Some(trial) = &status.trial {
        out::line(&on_trial(trial.seconds_left))?;
        if !trial.missing.is_empty() {
            out::line(&format!("  the box does not have {}", trial.missing.join(", ")))?;
        }
    }
    if let Some(why) = &status.last_rollback {
        out::line(&format!("last change was undone: {why}"))?;
    }
    Ok(())
}

fn on_trial(seconds: u64) -> String {
    format!(
        "a change is on trial: the box goes back in {seconds} s unless `arctl network confirm` keeps it"
    )
}

async fn set(api: &Api, file: &Path, confirms: bool, json: bool) -> Result<(), Failure> {
    let documents = read_all(&[file.to_owned()])?;
    let one = match documents.as_slice() {
        [one] if one.kind == Kind::Network => one,
        _ => {
            return Err(Failure::Usage(format!(
                "`{}` holds something else than one Network; apply other objects with `arctl apply`",
                file.display()
            )));
        }
    };
    let name = one.name.clone();
    // The answer to this may be the last thing that comes over the old network.
    let before: NetworkStatus = api.get(PATH).await?;
    if let Some(trial) = before.trial {
        return Err(Failure::Failed(on_trial(trial.seconds_left)));
    }
    let answer = commit(api, puts(&documents), false, &documents).await?;
    if answer.changed.is_empty() {
        return told(json, &answer, &format!("Network {name} unchanged"));
    }
    if !json {
        out::line(&format!("Network {name} changed"))?;
    }
    let seconds = trial_of(api, before.last_rollback.as_deref()).await?;
    if !confirms {
        if json {
            return out::json(&answer);
        }
        let left = seconds.unwrap_or(60);
        return out::line(&on_trial(left));
    }
    confirm_when_reached(api, seconds.unwrap_or(60), json).await
}

/// Waits until the change is on trial; none where the box cannot be asked any more.
async fn trial_of(api: &Api, undone_before: Option<&str>) -> Result<Option<u64>, Failure> {
    let started = Instant::now();
    while started.elapsed() < TRIAL {
        let Ok(asked) = tokio::time::timeout(ASK, api.get::<NetworkStatus>(PATH)).await else {
            return Ok(None);
        };
        match asked {
            Ok(NetworkStatus { trial: Some(trial), .. }) => return Ok(Some(trial.seconds_left)),
            Ok(NetworkStatus { last_rollback: Some(why), .. })
                if Some(why.as_str()) != undone_before =>
            {
                return Err(Failure::Failed(format!("the change was undone: {why}")));
            }
            Ok(_) => tokio::time::sleep(PAUSE).await,
            Err(Failure::Unreachable { .. } | Failure::Broken { .. } | Failure::Late { .. }) => {
                return Ok(None);
            }
            Err(err) => return Err(err),
        }
    }
    Err(Failure::Failed(
        "the box took the change and does not try it; see `arctl logs --unit aros`".to_owned(),
    ))
}

/// Confirms once the box answers over a new connection.
async fn confirm_when_reached(api: &Api, seconds: u64, json: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let limit = Duration::from_secs(seconds);
    tokio::time::sleep(SETTLE.min(limit / 2)).await;
    loop {
        let anew = api.anew()?;
        let asked = tokio::time::timeout(ASK, anew.get::<NetworkStatus>(PATH));
        match asked.await {
            Ok(Ok(NetworkStatus { trial: Some(_), .. })) => {
                let done: Value = anew.post(CONFIRM, &json!({})).await?;
                return told(json, &done, "the box is reached; the new network is kept");
            }
            Ok(Ok(NetworkStatus { trial: None, last_rollback, .. })) => {
                let why = last_rollback.unwrap_or_else(|| "no reason is given".to_owned());
                return Err(Failure::Failed(format!("the change was undone: {why}")));
            }
            Ok(Err(err @ Failure::Refused { .. })) => return Err(err),
            Ok(Err(_)) | Err(_) if started.elapsed() > limit => {
                return Err(Failure::Failed(format!(
                    "the box is not reached at `{}` over the new network; it goes back by itself, or look for it at its new address and run `arctl network confirm --server URL` there",
                    api.server()
                )));
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
