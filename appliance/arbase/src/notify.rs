//! Telling the supervisor (systemd, or `arint dev`) how the process is: `sd_notify(3)`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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
