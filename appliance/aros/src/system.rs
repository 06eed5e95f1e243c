//! The box as it runs: status, units, journal, network, name and time, power, hardware, support.
//!
//! The network and the settings come from files of this unit at the start, and from the store as soon as it answers.

mod announce;
mod bundle;
mod bus;
mod clock;
mod console;
mod disks;
mod identity;
mod journal;
mod name;
mod network;
mod power;
mod settings;
mod status;
mod support;
mod units;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arapi::arclst::{Client, WatchEvent};
use arapi::client::ClientError;
use arapi::names::{Kind, ObjectName};
use arapi::objects::{Object, Spec, SystemSpec};
use arbase::http::Answer;
use arbase::{Chain, Stop};
use arboot::Event;
use axum::Json;
use axum::routing::{get, post};
use tokio::sync::Notify;

pub(crate) use self::clock::answer::{TimeArgs, time_main};
use self::identity::{Identity, IdentityError};
pub(crate) use self::name::{NameArgs, name_main};
pub(crate) use self::status::metrics;
use crate::config::Config;
use crate::server::App;

/// What the image says of its board.
const BOARD: &str = "/usr/share/arint/board.toml";
/// The name of the objects of every box without its own.
const DEFAULT: &str = "default";
/// How long until the store is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// The store's secrets and objects are read as this service.
const SERVICE: &str = "aros";

/// What this half keeps.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    /// Why the identity is not the box's own.
    identity_problem: Option<String>,
    network: network::Network,
    settings: settings::Settings,
    announcement: announce::Announcement,
    support: support::Support,
    board: status::Board,
    consoles: Vec<PathBuf>,
    store: Client,
    /// Something the consoles show has changed.
    changed: Notify,
}

impl State {
    /// Reads what is kept, and makes the box's key at the first start.
    pub(crate) fn open(config: &Config) -> Result<Self, IdentityError> {
        let (identity, identity_problem) = match Identity::open(&config.state_dir) {
            Ok(identity) => (identity, None),
            Err(err) => {
                // A box that cannot be reached cannot be repaired.
                log::error!(error:% = Chain(&err); "box's key cannot be had; one in memory stands in");
                (Identity::passing()?, Some(Chain(&err).to_string()))
            }
        };
        let identity_problem =
            identity_problem.or_else(|| crate::updates::itself::problem(&config.state_dir));
        let board = status::Board::read(Path::new(BOARD));
        let consoles = config.consoles.clone().unwrap_or_else(|| {
            board.consoles().into_iter().map(|name| Path::new("/dev").join(name)).collect()
        });
        let trial = Duration::from_secs(config.network_trial_s);
        let store = Client::in_runtime_dir(&config.runtime_dir);
        Ok(Self {
            identity,
            identity_problem,
            network: network::Network::open(&config.state_dir, trial),
            settings: settings::Settings::open(&config.state_dir),
            announcement: announce::Announcement::default(),
            support: support::Support::new(),
            board,
            consoles,
            store: Client(store.0.with_service(SERVICE)),
            changed: Notify::new(),
        })
    }
}

/// The calls of this half.
pub(crate) fn router() -> axum::Router<Arc<App>> {
    axum::Router::new()
        .route("/v1/status", get(status::status_show))
        .route("/v1/units", get(units::unit_list))
        .route("/v1/journal", get(journal::journal_read))
        .route("/v1/identity", get(identity_show))
        .route("/v1/identify", post(power::identify))
        .route("/v1/network", get(network::network_show))
        .route("/v1/network/confirm", post(network::network_confirm))
        .route("/v1/power", post(power::power))
        .route(
            "/v1/support",
            get(support::support_show).post(support::support_open).delete(support::support_close),
        )
        .route("/v1/support/bundle", get(bundle::bundle_read))
}

/// `GET /v1/identity`.
async fn identity_show(
    axum::extract::State(app): axum::extract::State<Arc<App>>,
) -> Answer<arapi::aros::Identity> {
    Ok(Json(app.system.identity.wire()))
}

/// Brings the box up as it was configured, then follows the store until told to stop.
pub(crate) async fn run(app: Arc<App>, stop: Stop) {
    // The network first: nobody can ask for the rest without it.
    app.system.network.apply_confirmed(&app).await;
    app.system.settings.apply(&app).await;
    tokio::join!(
        app.system.network.watch_trials(&app, stop.clone()),
        app.system.support.run(&app, stop.clone()),
        app.system.settings.settle(&app, stop.clone()),
        clock::run(&app, stop.clone()),
        console::run(&app, stop.clone()),
        follow_store(&app, stop),
    );
}

/// Follows the store, and writes back into it, until told to stop.
async fn follow_store(app: &App, stop: Stop) {
    let store = &app.system.store;
    let node = loop {
        let name = store.status().await.map(|status| ObjectName::parse(&status.node));
        match name {
            Ok(Ok(name)) => break name,
            Ok(Err(err)) => log::error!(error:% = err; "store knows no name of this box"),
            Err(err) => log::debug!(error:% = Chain(&err); "store does not answer yet"),
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let watching = async {
        loop {
            if let Err(err) = watch(app, &node).await {
                log::debug!(error:% = Chain(&err); "store is not watched");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = stop.wait() => {}
        () = watching => {}
        () = app.system.network.watch_write_back(store, &node, stop.clone()) => {}
    }
}

/// Takes in what the store says, until it ends.
async fn watch(app: &App, node: &ObjectName) -> Result<(), ClientError> {
    let store = &app.system.store;
    let mut events = store.watch(&[Kind::System, Kind::Network, Kind::User]).await?;
    let mut objects: Vec<Object> = Vec::new();
    while let Some(event) = events.next().await? {
        match event {
            WatchEvent::Snapshot(listing) => objects = listing.objects,
            WatchEvent::Commit { changes, secrets, .. } => {
                let concerns_network =
                    secrets.iter().any(|name| name.starts_with(Kind::Network.as_str()));
                if changes.is_empty() && !concerns_network {
                    continue;
                }
                for change in changes {
                    objects.retain(|it| (it.kind, &it.name) != (change.kind, &change.name));
                    objects.extend(change.object);
                }
            }
        }
        let find = |kind: Kind, name: &str| {
            objects.iter().find(|it| it.kind == kind && it.name.as_str() == name).cloned()
        };
        let system = find(Kind::System, node.as_str()).or_else(|| find(Kind::System, DEFAULT));
        let system = match system.map(|object| object.spec) {
            Some(Spec::System(spec)) => spec,
            _ => SystemSpec::default(),
        };
        app.system.settings.see(app, system).await;
        let claimed = objects.iter().any(|object| object.kind == Kind::User);
        app.system.announcement.see(app, claimed).await;
        let seen = network::NetworkSeen {
            own: find(Kind::Network, node.as_str()),
            default: find(Kind::Network, DEFAULT),
        };
        app.system.network.see(app, store, seen).await?;
    }
    Ok(())
}

/// Writes a file that other users' services read, whole or not at all, whatever this unit's own mask is.
fn write_public(path: &Path, text: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&temp, text)?;
    std::fs::set_permissions(&temp, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&temp, path)
}

/// Keeps an event in the black box; it is durable when this returns.
pub(crate) async fn record(app: &App, event: Event) {
    let ring = app.updates.ring.clone();
    if let Err(err) = tokio::task::spawn_blocking(move || ring.note(event)).await {
        log::error!(error:% = err; "black box cannot be written");
    }
}

/// Keeps a sentence in the black box.
pub(crate) async fn note(app: &App, text: &str) {
    record(app, Event::Note { text: text.to_owned() }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_s_daemons_read_can_be_read_by_them_whatever_the_mask_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.network");
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        write_public(&path, "text").unwrap();
        nix::sys::stat::umask(before);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
