//! The box's own screens: the HDMI console and the serial one, which show who the box is and where to reach it.
//!
//! No getty runs there, so nothing is typed over; while a support session is open it has the screens, and the banner
//! waits.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use arapi::aros::Link;
use arbase::Stop;

use crate::server::App;

/// How often it is looked whether the address or the claim has changed.
const LOOK: Duration = Duration::from_secs(2);
/// The file with the first-run code, in the runtime folder, for as long as the box is unclaimed.
pub(crate) const FIRST_RUN_CODE: &str = "first-run-code";

/// The file with the SHA-256 of the admin API's certificate, in the runtime folder.
const CERTIFICATE: &str = "certificate-fingerprint";

/// What a banner says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Banner {
    pub(crate) version: String,
    pub(crate) hostname: String,
    pub(crate) words: String,
    pub(crate) certificate: Option<String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) port: u16,
    pub(crate) code: Option<String>,
    pub(crate) problem: Option<String>,
}

impl Banner {
    /// The text, with the line ends that a terminal wants.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!("ARINT {}   {}", self.version, self.hostname), String::new()];
        let mut label = "Console:";
        let name = format!("https://{}.local:{}/", self.hostname, self.port);
        for url in self.addresses.iter().map(|addr| self.url(addr)).chain([name]) {
            lines.push(format!("  {label:<13}{url}"));
            label = "";
        }
        if self.addresses.is_empty() {
            lines.push("               no address yet; is a cable plugged in?".to_owned());
        }
        lines.push(format!("  {:<13}{}", "Fingerprint:", self.words));
        // What a browser shows of the certificate, in two lines that fit a terminal.
        let hex: Vec<char> = self.certificate.iter().flat_map(|hex| hex.chars()).collect();
        for (half, label) in hex.chunks(32).zip(["Certificate:", ""]) {
            let groups: Vec<String> = half.chunks(4).map(|group| group.iter().collect()).collect();
            lines.push(format!("  {label:<13}{}", groups.join(" ")));
        }
        if let Some(code) = &self.code {
            lines.push(format!("  {:<13}{code}", "Claim code:"));
        }
        if let Some(problem) = &self.problem {
            lines.push(format!("  {:<13}{problem}", "Attention:"));
        }
        lines.push(String::new());
        lines.join("\r\n") + "\r\n"
    }

    fn url(&self, addr: &str) -> String {
        if addr.contains(':') {
            format!("https://[{addr}]:{}/", self.port)
        } else {
            format!("https://{addr}:{}/", self.port)
        }
    }
}

/// The addresses worth typing: of links that are up, IPv4 first; link-local ones of IPv6 need a zone and are left out.
pub(crate) fn addresses(links: &[Link]) -> Vec<String> {
    let mut found: Vec<IpAddr> = links
        .iter()
        .filter(|link| link.state == "up")
        .flat_map(|link| &link.addresses)
        .filter_map(|address| address.split('/').next()?.parse().ok())
        .filter(|addr: &IpAddr| match addr {
            IpAddr::V4(_) => true,
            IpAddr::V6(addr) => !addr.is_unicast_link_local(),
        })
        .collect();
    found.sort_by_key(|addr| (addr.is_ipv6(), is_link_local(*addr)));
    found.dedup();
    found.into_iter().map(|addr| addr.to_string()).collect()
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(addr) if addr.is_link_local())
}

/// Writes to a terminal without waiting for it: a serial line that nobody reads must not stop the box.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // O_NOCTTY: the terminal must not become the one whose hang-up ends this process.
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    match file.write_all(bytes) {
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(()),
        written => written,
    }
}

/// Keeps the banner up to date until told to stop.
pub(crate) async fn run(app: &App, stop: Stop) {
    let mut shown: Option<Banner> = None;
    loop {
        let banner = now(app).await;
        if app.system.support.is_open() {
            shown = None;
        } else if shown.as_ref() != Some(&banner) {
            show(app, &banner.text());
            shown = Some(banner);
        }
        tokio::select! {
            () = stop.wait() => return,
            () = app.system.changed.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn now(app: &App) -> Banner {
    let code = std::fs::read_to_string(app.config.runtime_dir.join(FIRST_RUN_CODE)).ok();
    let code = code.map(|code| code.trim().to_owned()).filter(|code| !code.is_empty());
    let certificate = std::fs::read_to_string(app.config.runtime_dir.join(CERTIFICATE)).ok();
    Banner {
        version: super::status::os_release("IMAGE_VERSION")
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        hostname: arbase::host::name(),
        words: app.system.identity.words(),
        certificate: certificate.map(|hex| hex.trim().to_owned()),
        addresses: addresses(&super::network::kernel_links()),
        port: app.config.console_port,
        code: code.clone(),
        problem: crate::updates::boot_status(app).fell_back.or_else(|| {
            // Once it is claimed, the way in was another one.
            code.is_some().then(|| crate::updates::seed_refused(&app.config.runtime_dir)).flatten()
        }),
    }
}

fn show(app: &App, text: &str) {
    for path in &app.system.consoles {
        // A box need not have every console.
        if let Err(err) = write(path, format!("\r\n{text}").as_bytes()) {
            log::debug!(path:% = path.display(), error:% = err; "console cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(state: &str, addresses: &[&str]) -> Link {
        Link {
            name: "end0".into(),
            state: state.into(),
            addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
            ..Link::default()
        }
    }

    #[test]
    fn addresses_that_can_be_typed_come_first_and_others_not_at_all() {
        let links = [
            link("up", &["fe80::1/64", "2001:db8::10/64", "169.254.7.1/16", "192.0.2.10/24"]),
            link("no-carrier", &["192.0.2.11/24"]),
        ];
        assert_eq!(addresses(&links), ["192.0.2.10", "169.254.7.1", "2001:db8::10"]);
    }

    #[test]
    fn the_banner_says_where_to_go_and_with_what_code() {
        let banner = Banner {
            version: "0.1.0".into(),
            hostname: "arsrv-7k2p9x4m".into(),
            words: "7k2p-9x4m-aaaa-bbbb".into(),
            certificate: Some("5f2a".repeat(16)),
            addresses: vec!["192.0.2.10".into(), "2001:db8::10".into()],
            port: 8183,
            code: Some("H7KD-93PA".into()),
            problem: None,
        };
        let text = "ARINT 0.1.0   arsrv-7k2p9x4m\r\n\r\n  Console:     https://192.0.2.10:8183/\r\n               https://[2001:db8::10]:8183/\r\n               https://arsrv-7k2p9x4m.local:8183/\r\n  Fingerprint: 7k2p-9x4m-aaaa-bbbb\r\n  Certificate: 5f2a 5f2a 5f2a 5f2a 5f2a 5f2a 5f2a 5f2a\r\n               5f2a 5f2a 5f2a 5f2a 5f2a 5f2a 5f2a 5f2a\r\n  Claim code:  H7KD-93PA\r\n\r\n";
        assert_eq!(banner.text(), text);
    }

    #[test]
    fn a_box_without_an_address_says_so() {
        let banner = Banner { port: 8183, problem: Some("x".into()), ..Banner::default() };
        let text = banner.text();
        assert!(text.contains("no address yet; is a cable plugged in?"), "{text}");
        assert!(text.contains("Attention:   x"), "{text}");
        assert!(!text.contains("Claim"), "{text}");
    }
}
