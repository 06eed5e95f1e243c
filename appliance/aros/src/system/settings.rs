//! The object `System`: host name, time zone, NTP servers.  Applied at once, and kept for the next start.
//!
//! A setting that cannot be applied is a problem of the box's status; the others are applied all the same.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arapi::objects::SystemSpec;
use arbase::{Chain, Stop};
use arstore::file;

use super::bus;
use crate::server::App;

/// The file of what was applied last, in the folder of the state.
const FILE: &str = "system.json";
/// Our part of timesyncd's config; in memory, so that each start renders it anew.
const TIMESYNCD: &str = "/run/systemd/timesyncd.conf.d/50-arint.conf";
/// Where the time zones lie.
const ZONES: &str = "/usr/share/zoneinfo";

/// What is set, and what of it does not work.
#[derive(Debug)]
pub(crate) struct Settings {
    file: PathBuf,
    spec: Mutex<SystemSpec>,
    /// Who on the LAN knows the time, the best clock first (see [`super::clock`]).
    neighbours: Mutex<Vec<String>>,
    problems: Mutex<Vec<String>>,
    /// A service of the operating system did not answer: it may later.
    unsettled: AtomicBool,
}

/// How long until what could not be set is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Settings {
    /// Reads what was set last.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let spec = match file::read(&path) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                log::error!(path:% = path.display(), error:% = err; "name and time settings cannot be read");
                SystemSpec::default()
            }),
            Ok(None) => SystemSpec::default(),
            Err(err) => {
                log::error!(error:% = Chain(&err); "name and time settings cannot be read");
                SystemSpec::default()
            }
        };
        Self {
            file: path,
            spec: Mutex::new(spec),
            neighbours: Mutex::default(),
            problems: Mutex::default(),
            unsettled: AtomicBool::new(false),
        }
    }

    /// What of it does not work, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host name that an admin gave.
    pub(crate) fn hostname(&self) -> Option<String> {
        self.spec().hostname
    }

    fn spec(&self) -> SystemSpec {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what the store says now.
    pub(crate) async fn see(&self, app: &App, wanted: SystemSpec) {
        if wanted == self.spec() {
            return;
        }
        let bytes = serde_json::to_vec_pretty(&wanted).unwrap_or_default();
        if let Err(err) = file::write_private(&self.file, &bytes) {
            log::error!(error:% = Chain(&err); "name and time settings cannot be kept");
        }
        *self.spec.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        log::info!("name and time settings change");
        self.apply(app).await;
    }

    /// Takes in who on the LAN knows the time.
    pub(crate) async fn see_neighbours(&self, app: &App, found: Vec<String>) {
        let before = std::mem::replace(
            &mut *self.neighbours.lock().unwrap_or_else(PoisonError::into_inner),
            found.clone(),
        );
        if before != found {
            log::info!(neighbours:? = found; "time from neighbours, where no server is known");
            if set_ntp(app, &self.spec().ntp, &found).await.is_err() {
                self.unsettled.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Tries again what a service of the operating system did not take, until told to stop.
    pub(crate) async fn settle(&self, app: &App, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            if self.unsettled.load(Ordering::Relaxed) {
                self.apply(app).await;
            }
        }
    }

    /// Makes it take effect.
    pub(crate) async fn apply(&self, app: &App) {
        let spec = self.spec();
        let default = app.system.identity.default_hostname();
        let mut problems = Vec::new();
        if let Err(err) = set_hostname(app, spec.hostname.as_deref().unwrap_or(&default)).await {
            log::error!(error:% = Chain(&err); "host name cannot be set");
            problems.push("the host name cannot be set; the log has the cause".to_owned());
        }
        let zone = spec.timezone.as_deref().unwrap_or("UTC");
        let known = is_zone(zone);
        if known {
            problems.extend(set_timezone(app, zone).await.err());
        }
        let neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner).clone();
        problems.extend(set_ntp(app, &spec.ntp, &neighbours).await.err());
        self.unsettled.store(!problems.is_empty(), Ordering::Relaxed);
        if !known {
            problems.push(format!(
                "time zone `{zone}` is not in this image's database; the clock shows the one before"
            ));
        }
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        app.system.changed.notify_waiters();
        app.system.announcement.apply(app).await;
    }
}

/// Whether the image knows a time zone; `UTC` is what a box without the database has.
fn is_zone(zone: &str) -> bool {
    zone == "UTC" || Path::new(ZONES).join(zone).is_file()
}

async fn set_hostname(app: &App, name: &str) -> Result<(), bus::CallError> {
    if arbase::host::name() == name {
        // As `arint os name` set it at the start: hostnamed need not be started for it.
        return Ok(());
    }
    bus::within("set the host name", "org.freedesktop.hostname1", async {
        let service = bus::hostname(&app.bus).await?;
        service.set_static_hostname(name, false).await?;
        service.set_hostname(name, false).await
    })
    .await
}

async fn set_timezone(app: &App, zone: &str) -> Result<(), String> {
    let set = bus::within("set the time zone", "org.freedesktop.timedate1", async {
        let service = bus::timedate(&app.bus).await?;
        if service.timezone().await.is_ok_and(|now| now == zone) {
            return Ok(());
        }
        service.set_timezone(zone, false).await
    });
    set.await.map_err(|err| {
        log::error!(name = zone, error:% = Chain(&err); "time zone cannot be set");
        format!("time zone `{zone}` cannot be set; the log has the cause")
    })
}

/// The part of timesyncd's config that a spec asks for; none where it asks for nothing.  Neighbours are asked only where
/// neither the spec nor DHCP names a server.
fn timesyncd_conf(ntp: &[String], neighbours: &[String]) -> Option<String> {
    let line = |key: &str, servers: &[String]| {
        if servers.is_empty() { String::new() } else { format!("{key}={}\n", servers.join(" ")) }
    };
    let lines = line("NTP", ntp) + &line("FallbackNTP", neighbours);
    (!lines.is_empty()).then(|| {
        format!("# Made by aros from the System object; changes here are lost.\n[Time]\n{lines}")
    })
}

async fn set_ntp(app: &App, ntp: &[String], neighbours: &[String]) -> Result<(), String> {
    let path = Path::new(TIMESYNCD);
    let wanted = timesyncd_conf(ntp, neighbours);
    if std::fs::read_to_string(path).ok() == wanted {
        return Ok(());
    }
    let written = match &wanted {
        Some(text) => std::fs::create_dir_all(path.parent().unwrap_or(path))
            .and_then(|()| super::write_public(path, text)),
        None => std::fs::remove_file(path),
    };
    let failed = |err: &dyn std::error::Error| {
        log::error!(error:% = err; "NTP servers cannot be set");
        "the NTP servers cannot be set; the log has the cause".to_owned()
    };
    written.map_err(|err| failed(&err))?;
    let restarted =
        bus::within("restart the time synchronisation", "org.freedesktop.systemd1", async {
            bus::systemd(&app.bus)
                .await?
                .try_restart_unit("systemd-timesyncd.service", "replace")
                .await
        });
    restarted.await.map(|_| ()).map_err(|err| failed(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_servers_of_the_object_come_before_those_of_dhcp_and_neighbours_last() {
        let head = "# Made by aros from the System object; changes here are lost.\n[Time]\n";
        let servers = ["192.0.2.1".to_owned(), "ntp.example".to_owned()];
        let neighbours = ["fe80::1%end0".to_owned()];
        assert_eq!(timesyncd_conf(&[], &[]), None);
        assert_eq!(
            timesyncd_conf(&servers, &[]).unwrap(),
            format!("{head}NTP=192.0.2.1 ntp.example\n")
        );
        assert_eq!(
            timesyncd_conf(&servers, &neighbours).unwrap(),
            format!("{head}NTP=192.0.2.1 ntp.example\nFallbackNTP=fe80::1%end0\n")
        );
    }
}
