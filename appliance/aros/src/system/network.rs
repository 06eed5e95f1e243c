//! The network of the box: what is configured, tried and confirmed.
//!
//! The object `Network` is watched in the store; [`render`] makes networkd's files from it, [`trial`] says when.  At the
//! start the network comes from the file of what was confirmed, without the store.
//!
//! **Invariant:** a change that nobody confirms rolls back, whether or not the store can be reached.

mod render;
mod trial;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arapi::arclst::{Client, Transaction};
use arapi::aros::{Done, Link, NetworkStatus, NetworkTrial};
use arapi::client::ClientError;
use arapi::error::ErrorCode;
use arapi::names::ObjectName;
use arapi::objects::NetworkSpec;
use arbase::http::{Answer, ApiError};
use arbase::{Chain, Stop};
use arstore::file;
use axum::Json;
use axum::extract::State;
use tokio::sync::{Mutex, Notify};

use self::trial::{Kept, Machine, Seen, Step};
use super::bus;
use crate::server::App;

/// The folder that networkd reads; in memory, so that each start renders it anew.
const NETWORKD_DIR: &str = "/run/systemd/network";
/// Where the config of wpa_supplicant's units lies.
const WPA_DIR: &str = "/etc/wpa_supplicant";
/// The file of what was confirmed, in the folder of the state.
const FILE: &str = "network.json";
/// How long until a write-back that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The network's part of the unit.
#[derive(Debug)]
pub(crate) struct Network {
    file: PathBuf,
    trial_length: Duration,
    inner: Mutex<Inner>,
    /// A trial began or ended.
    changed: Notify,
    /// The store is to be set back.
    write_back: Notify,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    seen: Seen,
}

impl Network {
    /// Reads what was confirmed.  A file that cannot be read counts as none: a box must be reachable.
    pub(crate) fn open(state_dir: &Path, trial_length: Duration) -> Self {
        let path = state_dir.join(FILE);
        let kept = match file::read(&path) {
            Ok(None) => Kept::default(),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                log::error!(path:% = path.display(), error:% = err; "confirmed network cannot be read");
                Kept::default()
            }),
            Err(err) => {
                log::error!(error:% = Chain(&err); "confirmed network cannot be read");
                Kept::default()
            }
        };
        let machine = Machine::starting_from(kept);
        Self {
            file: path,
            trial_length,
            inner: Mutex::new(Inner { machine, seen: Seen::default() }),
            changed: Notify::new(),
            write_back: Notify::new(),
        }
    }

    fn store(&self, kept: &Kept) -> Result<(), file::FileError> {
        let bytes = serde_json::to_vec_pretty(kept).unwrap_or_default();
        file::write_private(&self.file, &bytes)
    }

    /// Makes the confirmed network take effect, from the file alone.
    pub(crate) async fn apply_confirmed(&self, app: &App) {
        let inner = self.inner.lock().await;
        if inner.machine.kept.refused.is_some()
            && let Err(err) = self.store(&inner.machine.kept)
        {
            log::error!(error:% = Chain(&err); "network cannot be kept");
        }
        apply(app, inner.machine.in_effect()).await;
    }

    /// Takes in what the store says now.  Fails where the store cannot be asked for the passphrase.
    pub(crate) async fn see(
        &self,
        app: &App,
        store: &Client,
        seen: Seen,
    ) -> Result<(), ClientError> {
        let (mut wanted, revision, secret) = seen.wanted();
        if let Some(name) = secret {
            match store.secret(&name).await {
                Ok(value) => wanted.passphrase = Some(value),
                Err(err) if err.code() == Some(ErrorCode::NotFound) => {
                    log::warn!(name; "passphrase of the wireless network is missing");
                }
                Err(err) => return Err(err),
            }
        }
        let who = seen.effective().map(|object| object.changed_by.clone()).unwrap_or_default();
        let mut inner = self.inner.lock().await;
        inner.seen = seen;
        let before = inner.machine.clone();
        let step = inner.machine.see(wanted, revision, &who, Instant::now(), self.trial_length);
        if inner.machine.kept != before.kept
            && let Err(err) = self.store(&inner.machine.kept)
        {
            // Not on disk, so not tried: after a restart nobody would know that it was.
            log::error!(error:% = Chain(&err); "changed network cannot be kept and is not tried");
            inner.machine = before;
            return Ok(());
        }
        match step {
            Step::Nothing => {}
            Step::WriteBack => self.write_back.notify_one(),
            Step::Apply => {
                let on_trial = inner.machine.trial(Instant::now()).is_some();
                log::info!(user = who, on_trial; "network changes");
                apply(app, inner.machine.in_effect()).await;
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Ends trials in time, for as long as the unit runs.
    pub(crate) async fn watch_trials(&self, app: &App, stop: Stop) {
        loop {
            let deadline = self.inner.lock().await.machine.deadline();
            let over = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.wait() => return,
                () = self.changed.notified() => {}
                () = over => self.roll_back_late(app).await,
            }
        }
    }

    async fn roll_back_late(&self, app: &App) {
        let mut inner = self.inner.lock().await;
        if inner.machine.deadline().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let change = inner.machine.kept.trial.as_ref().map(|mark| trial::described(&mark.network));
        let reason = format!(
            "{} was not confirmed within {} s",
            change.unwrap_or_default(),
            self.trial_length.as_secs()
        );
        if inner.machine.roll_back(reason.clone()) == Step::Apply {
            log::warn!(reason; "network rolls back");
            // In effect first: it is what brings the box back, even where the disk is full.
            apply(app, inner.machine.in_effect()).await;
            if let Err(err) = self.store(&inner.machine.kept) {
                log::error!(error:% = Chain(&err); "network cannot be kept");
            }
            self.write_back.notify_one();
            super::note(app, &format!("the network rolled back: {reason}")).await;
        }
    }

    /// Writes the confirmed network back into the store when a change was rolled back, until it is there.
    pub(crate) async fn watch_write_back(&self, store: &Client, node: &ObjectName, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = self.write_back.notified() => {}
            }
            let changes = {
                let inner = self.inner.lock().await;
                if inner.machine.kept.refused.is_none() {
                    continue;
                }
                inner.machine.changes_back(&inner.seen, node)
            };
            if changes.is_empty() {
                continue;
            }
            let transaction =
                Transaction { changes, who: "aros".to_owned(), cid: None, dry_run: false };
            match store.commit(&transaction).await {
                Ok(_) => log::info!("store has the confirmed network again"),
                // Changed again meanwhile: the watch brings it.
                Err(err) if err.code() == Some(ErrorCode::Conflict) => {}
                Err(err) => {
                    log::warn!(error:% = Chain(&err); "confirmed network cannot be written back");
                    tokio::time::sleep(RETRY).await;
                    self.write_back.notify_one();
                }
            }
        }
    }

    async fn confirm(&self) -> Result<(), ApiError> {
        let mut inner = self.inner.lock().await;
        let mut after = inner.machine.clone();
        if !after.confirm() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "no change of the network is on trial; it has been rolled back or was confirmed already",
            ));
        }
        self.store(&after.kept).map_err(|err| ApiError::internal("keep the network", &err))?;
        inner.machine = after;
        log::info!("network confirmed");
        self.changed.notify_one();
        Ok(())
    }

    /// As it is told.
    pub(crate) async fn status(&self, app: &App) -> NetworkStatus {
        let links = links(&app.bus).await;
        let inner = self.inner.lock().await;
        let trial = inner.machine.trial(Instant::now()).map(|(spec, left)| NetworkTrial {
            spec: spec.clone(),
            // A started second counts: 0 is over.
            seconds_left: left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            missing: missing(spec, &links),
        });
        NetworkStatus {
            confirmed: inner.machine.kept.confirmed.spec.clone(),
            trial,
            links,
            last_rollback: inner.machine.kept.last_rollback.clone(),
        }
    }
}

/// Hardware that a spec names and the box does not have.
fn missing(spec: &NetworkSpec, links: &[Link]) -> Vec<String> {
    render::hardware(spec)
        .into_iter()
        .filter(|name| !links.iter().any(|link| link.name == *name))
        .map(ToOwned::to_owned)
        .collect()
}

/// Makes a network take effect: files, then networkd.  What fails is logged and the rest goes on, because half a network
/// is better than none and the trial ends by itself.
async fn apply(app: &App, network: &trial::Network) {
    let files = render::render(&network.spec);
    let gone = match write_files(Path::new(NETWORKD_DIR), &files) {
        Ok(gone) => gone,
        Err(err) => {
            log::error!(path = NETWORKD_DIR, error:% = Chain(&err); "networkd's files cannot be written");
            return;
        }
    };
    for name in gone {
        remove_link(app, &name).await;
    }
    let reloaded = bus::within("reload the network", "org.freedesktop.network1", async {
        bus::networkd(&app.bus).await?.reload().await
    });
    if let Err(err) = reloaded.await {
        // Early in a start it is not there yet, and reads the files when it is.
        log::warn!(error:% = Chain(&err); "networkd has not reloaded");
    }
    join_wifi(app, network).await;
}

/// Removes a virtual interface whose file is gone or changed, which networkd leaves alone.  This unit has no right to:
/// `arint-unlink@` has it, for this one task.
async fn remove_link(app: &App, name: &str) {
    let link = Path::new("/sys/class/net").join(name);
    if !link.is_dir() {
        return;
    }
    let unit = format!("arint-unlink@{}.service", escaped(name));
    let started = bus::within("remove a virtual interface", "org.freedesktop.systemd1", async {
        bus::systemd(&app.bus).await?.restart_unit(&unit, "replace").await
    });
    if let Err(err) = started.await {
        log::error!(name, error:% = Chain(&err); "virtual interface cannot be removed");
        return;
    }
    // Started is not done, and one of the same name can be made only when this one is gone.
    for _ in 0..50 {
        if !link.is_dir() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    log::error!(name; "virtual interface is still there");
}

/// The name of an interface as part of a unit's name (`systemd-escape`).
fn escaped(name: &str) -> String {
    name.bytes().fold(String::new(), |text, byte| match byte {
        b'_' | b':' => text + &char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => text + &char::from(byte).to_string(),
        b'.' if !text.is_empty() => text + ".",
        byte => text + &format!("\\x{byte:02x}"),
    })
}

/// Writes the files that differ and removes stale ones of ours; returns the virtual interfaces that are to go.
fn write_files(dir: &Path, files: &[render::File]) -> std::io::Result<Vec<String>> {
    std::fs::create_dir_all(dir)?;
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(render::PREFIX) {
            continue;
        }
        let old = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let new = files.iter().find(|file| file.name == name);
        if new.is_some_and(|file| file.text == old) {
            continue;
        }
        if let Some(made) = name.ends_with(".netdev").then(|| made_by(&old)).flatten() {
            gone.push(made);
        }
        if new.is_none() {
            std::fs::remove_file(entry.path())?;
        }
    }
    for file in files {
        let path = dir.join(&file.name);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == file.text) {
            continue;
        }
        super::write_public(&path, &file.text)?;
    }
    Ok(gone)
}

/// The interface that a `.netdev` file makes.
fn made_by(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("Name=")).map(ToOwned::to_owned)
}

/// Hands the wireless network to wpa_supplicant, where the image has it.
async fn join_wifi(app: &App, network: &trial::Network) {
    let Some((interface, ssid)) = render::wifi(&network.spec) else { return };
    let Some(passphrase) = &network.passphrase else { return };
    let path = Path::new(WPA_DIR).join(format!("wpa_supplicant-{interface}.conf"));
    let text = render::wpa_supplicant(ssid, &passphrase.0);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return;
    }
    if let Err(err) = file::write_private(&path, text.as_bytes()) {
        log::error!(error:% = Chain(&err); "config of the wireless network cannot be written");
        return;
    }
    let unit = format!("wpa_supplicant@{interface}.service");
    let started = bus::within("join the wireless network", "org.freedesktop.systemd1", async {
        bus::systemd(&app.bus).await?.restart_unit(&unit, "replace").await
    });
    if let Err(err) = started.await {
        log::warn!(unit, error:% = Chain(&err); "wireless network cannot be joined");
    }
}

/// The kernel's links, with what networkd knows of gateways and DNS.
pub(crate) async fn links(bus: &zbus::Connection) -> Vec<Link> {
    let described = async { bus::networkd(bus).await?.describe().await };
    let described = tokio::time::timeout(Duration::from_secs(5), described).await;
    let described = match described {
        Ok(Ok(text)) => serde_json::from_str(&text).unwrap_or_default(),
        Ok(Err(_)) | Err(_) => described::Network::default(),
    };
    let mut links = kernel_links();
    for link in &mut links {
        if let Some(known) = described.interfaces.iter().find(|known| known.name == link.name) {
            link.gateways = known.gateways(&described.routes);
            link.dns = known.dns();
        }
    }
    links
}

/// The links as the kernel has them; loopback is left out.
pub(crate) fn kernel_links() -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return links };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let read = |file: &str| {
            std::fs::read_to_string(entry.path().join(file)).map(|text| text.trim().to_owned())
        };
        if name == "lo" || !entry.path().is_dir() {
            continue;
        }
        let state = match (read("operstate").as_deref(), read("carrier").as_deref()) {
            (Ok("up" | "unknown"), Ok("1")) => "up",
            (_, Ok("0")) => "no-carrier",
            _ => "down",
        };
        let mac = read("address").ok().filter(|mac| !mac.is_empty());
        links.push(Link { name, mac, state: state.to_owned(), ..Link::default() });
    }
    links.sort_by(|one, other| one.name.cmp(&other.name));
    for found in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(link) = links.iter_mut().find(|link| link.name == found.interface_name) else {
            continue;
        };
        let (Some(address), Some(mask)) = (found.address, found.netmask) else { continue };
        if let (Some(ip), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            link.addresses.push(format!("{}/{}", ip.ip(), mask.ip().to_bits().count_ones()));
        } else if let (Some(ip), Some(mask)) = (address.as_sockaddr_in6(), mask.as_sockaddr_in6()) {
            link.addresses.push(format!("{}/{}", ip.ip(), mask.ip().to_bits().count_ones()));
        }
    }
    links
}

/// networkd's description of itself, as far as it is told on.
mod described {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    pub(super) struct Network {
        pub(super) interfaces: Vec<Interface>,
        /// Those through a next hop of their own, which say no interface (router advertisements).
        pub(super) routes: Vec<Route>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    pub(super) struct Interface {
        pub(super) name: String,
        #[serde(rename = "DNS")]
        dns: Vec<Server>,
        routes: Vec<Route>,
        next_hops: Vec<NextHop>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Server {
        address: Vec<u8>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    pub(super) struct Route {
        destination_prefix_length: u8,
        gateway: Option<Vec<u8>>,
        #[serde(rename = "NextHopID")]
        next_hop: Option<u32>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct NextHop {
        #[serde(rename = "ID")]
        id: u32,
        gateway: Option<Vec<u8>>,
    }

    fn address(bytes: &[u8]) -> Option<String> {
        let four = <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).map(IpAddr::from);
        let sixteen = || <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).map(IpAddr::from);
        four.or_else(|_| sixteen()).ok().map(|addr| addr.to_string())
    }

    impl Interface {
        pub(super) fn dns(&self) -> Vec<String> {
            self.dns.iter().filter_map(|server| address(&server.address)).collect()
        }

        /// The gateways of the default routes; `shared` are the routes that no interface lists.
        pub(super) fn gateways(&self, shared: &[Route]) -> Vec<String> {
            let mut gateways: Vec<String> = self
                .routes
                .iter()
                .chain(shared)
                .filter(|route| route.destination_prefix_length == 0)
                .filter_map(|route| address(self.gateway(route)?))
                .collect();
            gateways.sort_by_key(|gateway| gateway.contains(':'));
            gateways.dedup();
            gateways
        }

        fn gateway<'a>(&'a self, route: &'a Route) -> Option<&'a [u8]> {
            let hop = || self.next_hops.iter().find(|hop| Some(hop.id) == route.next_hop);
            route.gateway.as_deref().or_else(|| hop()?.gateway.as_deref())
        }
    }
}

/// `GET /v1/network`.
pub(super) async fn network_show(State(app): State<Arc<App>>) -> Answer<NetworkStatus> {
    Ok(Json(app.system.network.status(&app).await))
}

/// `POST /v1/network/confirm`.
pub(super) async fn network_confirm(State(app): State<Arc<App>>) -> Answer<Done> {
    app.system.network.confirm().await?;
    Ok(Json(Done { message: "the new network is kept".to_owned() }))
}

pub(super) use self::trial::Seen as NetworkSeen;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_part_of_a_unit_s_name_as_systemd_escapes_it() {
        let systemd = artest::tool("systemd-escape", "systemd");
        for name in ["v20", "bond-0", "office_1", "end0.7", ".x"] {
            let output = std::process::Command::new(&systemd).args(["--", name]).output().unwrap();
            assert_eq!(escaped(name), String::from_utf8(output.stdout).unwrap().trim());
        }
    }

    #[test]
    fn a_gateway_is_named_by_its_route_or_by_the_next_hop_of_a_route_that_no_interface_lists() {
        // As networkd 257 answers after DHCP and a router advertisement.
        let text = r#"{"Interfaces":[
            {"Name":"end0","DNS":[{"Family":2,"Address":[192,0,2,53]}],
             "NextHops":[{"ID":7,"Gateway":[254,128,0,0,0,0,0,0,0,0,0,0,0,0,0,2]}],
             "Routes":[{"DestinationPrefixLength":0,"Gateway":[192,0,2,1]},{"DestinationPrefixLength":24}]},
            {"Name":"end1","Routes":[]}],
            "Routes":[{"DestinationPrefixLength":0,"NextHopID":7}]}"#;
        let network: described::Network = serde_json::from_str(text).unwrap();
        let told = |at: usize| {
            let interface = network.interfaces.get(at).unwrap();
            (interface.gateways(&network.routes), interface.dns())
        };
        assert_eq!(
            told(0),
            (vec!["192.0.2.1".to_owned(), "fe80::2".to_owned()], vec!["192.0.2.53".to_owned()])
        );
        assert_eq!(told(1), (vec![], vec![]));
    }

    #[test]
    fn stale_files_go_and_the_interfaces_they_made_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            |name: &str, text: &str| render::File { name: name.to_owned(), text: text.to_owned() };
        let vlan = file("10-arint-v.netdev", "[NetDev]\nName=v\n[VLAN]\nId=1\n");
        let bond = file("10-arint-b.netdev", "[NetDev]\nName=b\n[Bond]\nMode=802.3ad\n");
        let other = dir.path().join("60-arint-wired.network");
        std::fs::write(&other, "not ours").unwrap();
        let gone = write_files(dir.path(), &[vlan.clone(), bond.clone()]).unwrap();
        assert_eq!(gone, [""; 0]);
        assert_eq!(write_files(dir.path(), &[vlan.clone(), bond.clone()]).unwrap(), [""; 0]);
        let changed = file(&bond.name, "[NetDev]\nName=b\n[Bond]\nMode=balance-alb\n");
        let mut gone = write_files(dir.path(), std::slice::from_ref(&changed)).unwrap();
        gone.sort();
        assert_eq!(gone, ["b", "v"], "a bond of another mode has to be made anew");
        assert!(!dir.path().join(&vlan.name).is_file());
        assert_eq!(std::fs::read_to_string(dir.path().join(&bond.name)).unwrap(), changed.text);
        assert_eq!(std::fs::read_to_string(other).unwrap(), "not ours");
    }
}
