//! How the box tells of itself on the LAN: the service `_arint._tcp` of multicast DNS, with what a list of boxes shows.
//!
//! resolved speaks it; this unit renders its file, over the image's own of the same name, which says nothing but the port.
//!
//! **Invariant:** whether the box is claimed is said only once the store has said it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use arbase::Chain;

use super::{bus, status};
use crate::server::App;

/// Our file; in memory, so that each start renders it anew.
const FILE: &str = "/run/systemd/dnssd/arint.dnssd";
const RESOLVED: &str = "systemd-resolved.service";

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Announcement {
    claimed: Mutex<Option<bool>>,
    /// Two changes at a time would leave either's file.
    turn: tokio::sync::Mutex<()>,
}

impl Announcement {
    /// Takes in whether the box has its first admin.
    pub(crate) async fn see(&self, app: &App, claimed: bool) {
        let before = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).replace(claimed);
        if before != Some(claimed) {
            self.apply(app).await;
        }
    }

    /// Makes it take effect; a box that cannot be found by itself is found by its address.
    pub(crate) async fn apply(&self, app: &App) {
        let _turn = self.turn.lock().await;
        let claimed = *self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let text = dnssd(
            app.config.console_port,
            &status::version(),
            &arbase::host::name(),
            &app.system.identity.fingerprint(),
            claimed,
        );
        let path = Path::new(FILE);
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return;
        }
        let written = std::fs::create_dir_all(path.parent().unwrap_or(path))
            .and_then(|()| super::write_public(path, &text));
        if let Err(err) = written {
            log::error!(path = FILE, error:% = err; "the box's announcement cannot be written");
            return;
        }
        // Early in a start it does not run yet, and reads the file when it does.
        let told = bus::within("announce the box", "org.freedesktop.systemd1", async {
            bus::systemd(&app.bus).await?.reload_or_try_restart_unit(RESOLVED, "replace").await
        });
        if let Err(err) = told.await {
            log::warn!(error:% = Chain(&err); "the box's announcement waits for the next start");
        }
    }
}

/// The file for resolved.  Nothing in it needs quoting: names and versions are of letters, digits, dots and dashes.
fn dnssd(port: u16, version: &str, hostname: &str, id: &str, claimed: Option<bool>) -> String {
    let claimed = claimed.map_or_else(String::new, |claimed| {
        format!(" claimed={}", if claimed { "yes" } else { "no" })
    });
    format!(
        "# Made by aros; changes here are lost.\n[Service]\nName=%H\nType=_arint._tcp\nPort={port}\nTxtText=path=/ version={version} name={hostname} id={id}{claimed}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_tells_its_version_name_and_key_and_whether_it_is_claimed_once_it_knows() {
        let head = "# Made by aros; changes here are lost.\n[Service]\nName=%H\nType=_arint._tcp\nPort=8183\n";
        let text = |claimed| dnssd(8183, "0.9.0", "arsrv-7k2p9x4m", "5f2a", claimed);
        let told = "TxtText=path=/ version=0.9.0 name=arsrv-7k2p9x4m id=5f2a";
        assert_eq!(text(None), format!("{head}{told}\n"));
        assert_eq!(text(Some(false)), format!("{head}{told} claimed=no\n"));
        assert_eq!(text(Some(true)), format!("{head}{told} claimed=yes\n"));
    }
}
