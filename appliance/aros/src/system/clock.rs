//! What the box's clock is worth, and time from neighbours.
//!
//! `arint os time` ([`answer`]) speaks to the LAN and has no rights; this half, which has them and speaks to nobody,
//! tells it what the clock is worth, and gives the neighbours it found to timesyncd, for a box that knows no time
//! server.  Both through a file in the runtime folder.
//!
//! The worth is NTP's stratum: one more than that of the server the clock was set by, [`BATTERY`] where it runs on its own
//! battery, [`UNKNOWN`] where it had to be guessed.  Time is only taken from a better clock, so no two boxes follow each
//! other.

pub(crate) mod answer;

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use arbase::Stop;

use super::bus;
use crate::server::App;

/// A clock that runs on its own battery and was not set since.
pub(crate) const BATTERY: u8 = 10;
/// A clock that says nothing.
pub(crate) const UNKNOWN: u8 = 16;
/// The file with the worth of the clock.
const WORTH: &str = "clock";
/// The file with the neighbours, the best one first.
const NEIGHBOURS: &str = "time-neighbours";
/// Most neighbours that are used.
const MOST: usize = 4;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// timesyncd's sign that it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
/// Longer ago than this, the clock runs on its own again; timesyncd asks at least every 34 minutes.
const STALE: Duration = Duration::from_secs(2 * 3600);
/// The battery's clock, seconds since 1970.
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";
/// A clock that was not taken from the battery differs from it by more, seconds.
const DRIFT: u64 = 120;

/// Goes on until told to stop.
pub(crate) async fn run(app: &App, stop: Stop) {
    let mut told = None;
    let mut set: Option<(SystemTime, u8)> = None;
    loop {
        let stratum = match set_at() {
            Some(at) => match set {
                Some((before, stratum)) if before == at => Some(stratum),
                Some(_) | None => {
                    let stratum = server_stratum(app).await;
                    set = stratum.map(|stratum| (at, stratum));
                    stratum
                }
            },
            None => None,
        };
        let worth = worth(stratum, runs_on_battery());
        if told != Some(worth) {
            let written = std::fs::write(app.config.runtime_dir.join(WORTH), format!("{worth}\n"));
            match written {
                Ok(()) => told = Some(worth),
                Err(err) => log::warn!(error:% = err; "worth of the clock cannot be told"),
            }
        }
        let text = std::fs::read_to_string(app.config.runtime_dir.join(NEIGHBOURS));
        if let Ok(text) = text {
            app.system.settings.see_neighbours(app, neighbours(&text)).await;
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// When timesyncd set the clock last, where that is not too long ago.
fn set_at() -> Option<SystemTime> {
    let at = std::fs::metadata(SYNCHRONIZED).ok()?.modified().ok()?;
    // In the future: the clock was set back, which only timesyncd does.
    at.elapsed().map_or(true, |ago| ago < STALE).then_some(at)
}

/// The stratum of the server that timesyncd follows.
async fn server_stratum(app: &App) -> Option<u8> {
    let message = bus::within("ask for the time server", "org.freedesktop.timesync1", async {
        bus::timesync(&app.bus).await?.ntp_message().await
    });
    message.await.ok().and_then(|message| u8::try_from(message.3).ok())
}

fn runs_on_battery() -> bool {
    let rtc = std::fs::read_to_string(RTC).ok().and_then(|text| text.trim().parse::<u64>().ok());
    rtc.is_some_and(|rtc| rtc.abs_diff(arbase::time::now_ms() / 1000) <= DRIFT)
}

/// What a clock is worth that was set by a server of this stratum, or by none.
fn worth(server: Option<u8>, runs_on_battery: bool) -> u8 {
    match (server, runs_on_battery) {
        (Some(stratum), _) => stratum.saturating_add(1).min(UNKNOWN),
        (None, true) => BATTERY,
        (None, false) => UNKNOWN,
    }
}

/// The neighbours of a file; what is no link-local address with its interface is left out.
fn neighbours(text: &str) -> Vec<String> {
    text.lines().filter(|line| is_neighbour(line)).take(MOST).map(ToOwned::to_owned).collect()
}

fn is_neighbour(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    text.split_once('%').is_some_and(|(addr, interface)| {
        addr.parse::<Ipv6Addr>().is_ok_and(|addr| addr.is_unicast_link_local())
            && (1..=15).contains(&interface.len())
            && interface.bytes().all(fits)
    })
}

/// Reads the worth of the clock; a box that does not say knows nothing.
fn read_worth(runtime_dir: &Path) -> u8 {
    let text = std::fs::read_to_string(runtime_dir.join(WORTH)).unwrap_or_default();
    text.trim().parse().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_worth_one_less_than_the_one_it_follows_and_a_guess_nothing() {
        assert_eq!(worth(Some(2), false), 3);
        assert_eq!(worth(Some(2), true), 3);
        assert_eq!(worth(Some(15), true), UNKNOWN);
        assert_eq!(worth(Some(255), true), UNKNOWN);
        assert_eq!(worth(None, true), BATTERY);
        assert_eq!(worth(None, false), UNKNOWN);
    }

    #[test]
    fn only_addresses_of_the_same_cable_are_neighbours() {
        let text = "fe80::1%end0\nfe80::2\n192.0.2.1%end0\n2001:db8::1%end0\nfe80::3%x y\nfe80::4%a/b\nfe80::5%\nfe80::6%enp0s4\n";
        assert_eq!(neighbours(text), ["fe80::1%end0", "fe80::6%enp0s4"]);
        let many = "fe80::1%end0\n".repeat(9);
        assert_eq!(neighbours(&many).len(), MOST);
    }

    #[test]
    fn a_box_that_does_not_say_what_its_clock_is_worth_knows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_worth(dir.path()), UNKNOWN);
        std::fs::write(dir.path().join(WORTH), "3\n").unwrap();
        assert_eq!(read_worth(dir.path()), 3);
        std::fs::write(dir.path().join(WORTH), "x").unwrap();
        assert_eq!(read_worth(dir.path()), UNKNOWN);
    }
}
