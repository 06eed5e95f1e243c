//! Telling the supervisor (systemd, or `arint dev`) how the process is: `sd_notify(3)`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Says that the process would answer now.  Does nothing where nobody asked to be told.
pub fn notify_ready() {
    notify("READY=1");
}

/// Says that the process has begun to stop.
pub fn notify_stopping() {
    notify("STOPPING=1");
}

/// Says that the process is alive, for the supervisor's watchdog.
pub fn notify_watchdog() {
    notify("WATCHDOG=1");
}

/// How long the supervisor's watchdog waits for a sign of life; none where it does not wait for this process.
pub fn watchdog_limit() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    limit_of(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn limit_of(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec))
}

fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let addr = match name.as_bytes().strip_prefix(b"@") {
        Some(rest) => SocketAddr::from_abstract_name(rest),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = addr.and_then(|addr| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr));
    if let Err(err) = sent {
        log::warn!(error:% = err; "cannot notify the supervisor");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_waits_for_another_process_is_not_ours() {
        let limit = |usec: &str, pid: Option<&str>| {
            limit_of(Some(usec.to_owned()), pid.map(str::to_owned), 7)
        };
        assert_eq!(limit("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(limit("30000000", Some("7")), Some(Duration::from_secs(30)));
        assert_eq!(limit("30000000", Some("8")), None);
        assert_eq!(limit("0", None), None);
        assert_eq!(limit("soon", None), None);
        assert_eq!(limit_of(None, None, 7), None);
    }
}
