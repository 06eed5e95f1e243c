//! The config file `arwadm.toml`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use arbase::ConfigError;
use arbase::config::Broken;
use serde::Deserialize;

/// The port of the admin API.
const PORT: u16 = 8183;

/// What the admin API is started with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the sockets and of the first-run code.  Default `/run/arint`.
    pub runtime_dir: PathBuf,
    /// The folder of the audit log and the certificate.  Default `/var/lib/arint/arwadm`.
    pub state_dir: PathBuf,
    /// Where it listens.  Default: port 8183 on every address, IPv6 and IPv4.
    pub listen: Listen,
    /// `self-signed`: HTTPS with a certificate made at the first start.  `off`: plain HTTP, only where
    /// `listen` is a loopback address.  Default `self-signed`.
    pub tls: TlsMode,
    /// Services' files that appear here are deployed.  Default `/var/lib/arint/pickup/incoming/services`.
    pub pickup_dir: PathBuf,
    /// Ini files that appear here become what services read as `self.user_config`.  Default
    /// `/var/lib/arint/pickup/incoming/user-conf`.
    pub pickup_user_conf_dir: PathBuf,
    /// How long a login lasts, seconds, 60 to 2592000.  Default 43200 (12 hours).
    pub login_ttl_s: u64,
    /// How long a token lasts where its request names no time, seconds; 0: for ever.  Default 7776000 (90
    /// days).
    pub token_ttl_s: u64,
    /// Most connections at one time over the network, 1 to 10000.  Default 256.
    pub connections: usize,
    /// A loopback address where `/metrics` is given to whoever asks, for a collector on the box.  Default: none.
    pub metrics_listen: Option<SocketAddr>,
    /// Most entries of the audit log; the oldest go first.  1000 to 100000000, default 1000000.
    pub audit_entries: u64,
    /// Whether this installation has an operating system unit (`aros`), as an image has.  Then a call of it is
    /// answered with 503 while it is not up; without, with 404 for ever.  Default false.
    pub operating_system: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/arint".into(),
            state_dir: "/var/lib/arint/arwadm".into(),
            listen: Listen::default(),
            tls: TlsMode::SelfSigned,
            pickup_dir: "/var/lib/arint/pickup/incoming/services".into(),
            pickup_user_conf_dir: "/var/lib/arint/pickup/incoming/user-conf".into(),
            login_ttl_s: 12 * 3600,
            token_ttl_s: 90 * 24 * 3600,
            connections: 256,
            metrics_listen: None,
            audit_entries: 1_000_000,
            operating_system: false,
        }
    }
}

/// Where the admin API listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "SocketAddr")]
pub enum Listen {
    /// Every address: `[::]:8183`, and `0.0.0.0:8183` on a box without IPv6.
    #[default]
    Everywhere,
    /// This one.
    At(SocketAddr),
}

impl From<SocketAddr> for Listen {
    fn from(addr: SocketAddr) -> Self {
        Self::At(addr)
    }
}

impl Listen {
    /// The addresses to try, in order.
    pub(crate) fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Everywhere => vec![
                (IpAddr::from(Ipv6Addr::UNSPECIFIED), PORT).into(),
                (IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT).into(),
            ],
            Self::At(addr) => vec![addr],
        }
    }

    fn is_loopback(self) -> bool {
        matches!(self, Self::At(addr) if addr.ip().is_loopback())
    }
}

/// Whether and how connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// With a certificate of the box's own.
    SelfSigned,
    /// Not at all.
    Off,
}

impl Config {
    /// Loads `arwadm.toml` of the folder.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "arwadm", Self::check)
    }

    fn check(&self) -> Result<(), Broken> {
        if self.tls == TlsMode::Off && !self.listen.is_loopback() {
            let listen = match self.listen {
                Listen::Everywhere => "every address".to_owned(),
                Listen::At(addr) => format!("`{addr}`"),
            };
            return Err((
                "tls",
                format!(
                    "`off` is only for a loopback address and `listen` is {listen}; set `listen` to `127.0.0.1:8183` or leave `tls` out"
                ),
            ));
        }
        if let Some(addr) = self.metrics_listen
            && !addr.ip().is_loopback()
        {
            return Err((
                "metrics_listen",
                format!(
                    "`{addr}` is no loopback address, and figures are given there without a token; elsewhere use `/metrics` of the admin API"
                ),
            ));
        }
        within("login_ttl_s", self.login_ttl_s, 60, 2_592_000)?;
        within("connections", u64::try_from(self.connections).unwrap_or(u64::MAX), 1, 10_000)?;
        within("audit_entries", self.audit_entries, 1000, 100_000_000)
    }
}

fn within(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), Broken> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value} is not between {low} and {high}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        arbase::config::parse(Path::new("arwadm.toml"), text, Config::check)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn plain_http_is_refused_beyond_loopback() {
        assert_eq!(
            parse("tls = \"off\"").unwrap_err(),
            "config `arwadm.toml`: `tls`: `off` is only for a loopback address and `listen` is every \
             address; set `listen` to `127.0.0.1:8183` or leave `tls` out"
        );
        assert!(parse("tls = \"off\"\nlisten = \"0.0.0.0:8183\"").is_err());
        assert!(parse("tls = \"off\"\nlisten = \"[::1]:8183\"").is_ok());
    }

    #[test]
    fn figures_without_a_token_are_refused_beyond_loopback() {
        assert_eq!(
            parse("metrics_listen = \"0.0.0.0:9464\"").unwrap_err(),
            "config `arwadm.toml`: `metrics_listen`: `0.0.0.0:9464` is no loopback address, and figures are \
             given there without a token; elsewhere use `/metrics` of the admin API"
        );
        assert!(parse("metrics_listen = \"[::1]:9464\"").is_ok());
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_with_both_ends() {
        assert_eq!(
            parse("connections = 0").unwrap_err(),
            "config `arwadm.toml`: `connections`: 0 is not between 1 and 10000"
        );
    }

    #[test]
    fn the_guide_shows_the_defaults() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/user/admin/first-steps.md");
        let guide = std::fs::read_to_string(path).unwrap();
        let mut blocks =
            guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let shown = blocks.find(|block| block.contains("login_ttl_s")).unwrap();
        assert_eq!(parse(shown).unwrap(), Config::default());
    }
}
