//! The balancer's config file, `arldb.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arbase::ConfigError;
use arbase::config::Broken;
use arproxy::Limits;
use arproxy::trust::Network;
use serde::Deserialize;

use crate::tls::{TlsUse, TlsVersion};

/// The name of the core's socket in the runtime folder.
const CORE_SOCKET: &str = "arsrv-http.sock";
/// Where the core says how it is.
pub(crate) const HEALTH_PATH: &str = "/arint/health";
/// The core takes 100 header lines; some are the balancer's own.
const MOST_HEADERS: usize = 90;

/// What an operator can set.  Fields that end in `_ms` are milliseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect.  Default `[::]:11223`: IPv6 and IPv4, or IPv4 alone where there is no IPv6.
    pub listen: SocketAddr,
    /// The folder of the Unix sockets.  Default `/run/arint`.
    pub runtime_dir: PathBuf,
    /// The core's socket.  Default `arsrv-http.sock` in the runtime folder.
    pub core_socket: Option<PathBuf>,
    /// Threads.  Default: half of the processors, at least 1.
    pub threads: usize,
    /// Proxies that are believed about the client they ask for: addresses and networks.  Default: none.
    pub trusted_proxies: Vec<Network>,

    /// The balancer's own folder.  Default `/var/lib/arint/arldb`.
    pub state_dir: PathBuf,
    /// Whether TLS is spoken on the port: `off`, `optional` or `required`.  Default `off`.
    pub tls: TlsUse,
    /// The certificate with its chain, PEM.  Default: one of its own, made in `state_dir`.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The least version, `1.2` or `1.3`.  Default `1.2`.
    pub tls_min_version: TlsVersion,
    /// Whether clients are asked for certificates, for the core to look at.  Default false.
    pub tls_client_certificates: bool,

    /// Client connections at once.  Default 8192.
    pub max_connections: usize,
    /// Header lines of a request.  Default 90, which is the most.
    pub max_header_count: usize,
    /// Bytes of request line and headers together.  Default 32 KiB.
    pub max_header_bytes: usize,
    /// Bytes of a request's body.  Default 128 MiB.
    pub max_body_bytes: u64,
    /// Requests at the core at once.  Default 1024.
    pub max_in_flight: usize,
    /// Requests that may wait for their turn.  Default 1024.
    pub max_queue: usize,

    /// How long a request may wait for its turn.  Default 10000.
    pub queue_timeout_ms: u64,
    /// From the first byte of a request to the end of its headers.  Default 10000.
    pub header_timeout_ms: u64,
    /// Longest pause of a client within a body.  Default 30000.
    pub body_timeout_ms: u64,
    /// Bytes a second that a body must come with on average, once it has taken longer than
    /// `body_timeout_ms`; 0: any.  Default 512.
    pub min_body_rate: u64,
    /// How long a connection may be open with no request.  Default 75000.
    pub keep_alive_timeout_ms: u64,
    /// From a request being complete to the beginning of its answer.  Default 120000.
    pub request_timeout_ms: u64,
    /// How long a client may take nothing of its answer.  Default 30000.
    pub write_timeout_ms: u64,
    /// How long requests in flight may take once the balancer stops.  Default 30000.
    pub stop_grace_ms: u64,

    /// Between two health checks of the core.  Default 2000.
    pub health_interval_ms: u64,
    /// How long a health check may take.  Default 5000.
    pub health_timeout_ms: u64,
    /// Health checks in a row that bring a core back.  Default 2.
    pub health_rise: u32,
    /// Health checks in a row that take a core out.  Default 2.
    pub health_fall: u32,
    /// How long making a connection to the core may take.  Default 2000.
    pub connect_timeout_ms: u64,
    /// How long after the core went away requests wait for it to come back.  Default 3000.
    pub connect_patience_ms: u64,
    /// Idle connections to the core that are kept.  Default 256.
    pub max_idle_backend: usize,
}

impl Default for Config {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            listen: SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 11223)),
            runtime_dir: PathBuf::from("/run/arint"),
            core_socket: None,
            threads: (processors / 2).max(1),
            trusted_proxies: Vec::new(),
            state_dir: PathBuf::from("/var/lib/arint/arldb"),
            tls: TlsUse::Off,
            tls_certificate: None,
            tls_key: None,
            tls_min_version: TlsVersion::V12,
            tls_client_certificates: false,
            max_connections: 8192,
            max_header_count: MOST_HEADERS,
            max_header_bytes: 32 * 1024,
            max_body_bytes: 128 * 1024 * 1024,
            max_in_flight: 1024,
            max_queue: 1024,
            queue_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            min_body_rate: 512,
            keep_alive_timeout_ms: 75_000,
            request_timeout_ms: 120_000,
            write_timeout_ms: 30_000,
            stop_grace_ms: 30_000,
            health_interval_ms: 2_000,
            health_timeout_ms: 5_000,
            health_rise: 2,
            health_fall: 2,
            connect_timeout_ms: 2_000,
            connect_patience_ms: 3_000,
            max_idle_backend: 256,
        }
    }
}

impl Config {
    /// Loads `arldb.toml` from the folder; a missing file means all defaults.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "arldb", Self::check)
    }

    /// The rules that the types cannot express.
    pub fn check(&self) -> Result<(), Broken> {
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => {
                return Err((
                    "tls_key",
                    "it is missing, and `tls_certificate` is given".to_owned(),
                ));
            }
            (None, Some(_)) => {
                let rule = "it is missing, and `tls_key` is given";
                return Err(("tls_certificate", rule.to_owned()));
            }
            _ => {}
        }
        let counts: [(&'static str, u64, u64, u64); 6] = [
            ("threads", as_u64(self.threads), 1, 256),
            ("max_connections", as_u64(self.max_connections), 1, 1_000_000),
            ("max_header_count", as_u64(self.max_header_count), 1, as_u64(MOST_HEADERS)),
            ("max_header_bytes", as_u64(self.max_header_bytes), 1024, 1024 * 1024),
            ("max_in_flight", as_u64(self.max_in_flight), 1, 1_000_000),
            ("max_queue", as_u64(self.max_queue), 0, 1_000_000),
        ];
        let most_ms = 24 * 3600 * 1000;
        let times = [
            ("queue_timeout_ms", self.queue_timeout_ms, 1, most_ms),
            ("header_timeout_ms", self.header_timeout_ms, 1, most_ms),
            ("body_timeout_ms", self.body_timeout_ms, 1, most_ms),
            ("min_body_rate", self.min_body_rate, 0, 1024 * 1024 * 1024),
            ("keep_alive_timeout_ms", self.keep_alive_timeout_ms, 1, most_ms),
            ("request_timeout_ms", self.request_timeout_ms, 1, most_ms),
            ("write_timeout_ms", self.write_timeout_ms, 1, most_ms),
            // `arbase::run_service` gives a service 45 s to stop.
            ("stop_grace_ms", self.stop_grace_ms, 0, 40_000),
            ("health_interval_ms", self.health_interval_ms, 10, most_ms),
            ("health_timeout_ms", self.health_timeout_ms, 1, most_ms),
            ("health_rise", u64::from(self.health_rise), 1, 100),
            ("health_fall", u64::from(self.health_fall), 1, 100),
            ("connect_timeout_ms", self.connect_timeout_ms, 1, most_ms),
            ("connect_patience_ms", self.connect_patience_ms, 0, most_ms),
        ];
        for (field, found, least, most) in counts.into_iter().chain(times) {
            if !(least..=most).contains(&found) {
                let rule = format!("{found} is not between {least} and {most}");
                return Err((field, rule));
            }
        }
        Ok(())
    }

    pub(crate) fn core_socket(&self) -> PathBuf {
        self.core_socket.clone().unwrap_or_else(|| self.runtime_dir.join(CORE_SOCKET))
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_connections: self.max_connections,
            max_header_count: self.max_header_count,
            max_header_bytes: self.max_header_bytes,
            max_body_bytes: self.max_body_bytes,
            header_timeout: Duration::from_millis(self.header_timeout_ms),
            body_timeout: Duration::from_millis(self.body_timeout_ms),
            min_body_rate: self.min_body_rate,
            keep_alive_timeout: Duration::from_millis(self.keep_alive_timeout_ms),
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            write_timeout: Duration::from_millis(self.write_timeout_ms),
            stop_grace: Duration::from_millis(self.stop_grace_ms),
        }
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        arbase::config::parse(Path::new("arldb.toml"), text, Config::check)
    }

    #[test]
    fn an_empty_file_means_all_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen.to_string(), "[::]:11223");
        assert_eq!(config.core_socket(), Path::new("/run/arint/arsrv-http.sock"));
    }

    #[track_caller]
    fn refused(text: &str, sentence: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), sentence);
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_both_bounds() {
        refused(
            "max_header_bytes = 100\n",
            "config `arldb.toml`: `max_header_bytes`: 100 is not between 1024 and 1048576",
        );
        refused(
            "tls_key = \"/k\"\n",
            "config `arldb.toml`: `tls_certificate`: it is missing, and `tls_key` is given",
        );
        refused("threads = 0\n", "config `arldb.toml`: `threads`: 0 is not between 1 and 256");
    }

    #[test]
    fn a_malformed_network_is_refused_with_its_line() {
        refused(
            "\ntrusted_proxies = [\"10.0.0.0/33\"]\n",
            "config `arldb.toml` line 2: `10.0.0.0/33` is no address and no network; write \
             `10.0.0.7`, `192.168.0.0/16` or `fd00::/8`",
        );
    }

    #[test]
    fn the_documentation_names_every_field_with_its_default() {
        let doc = include_str!("../../../docs/user/admin/balancer.md");
        let shown = doc.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let mut config = parse(shown.unwrap()).unwrap();
        // The only default that differs from box to box.
        config.threads = Config::default().threads;
        assert_eq!(config, Config::default());
        let own = include_str!("config.rs");
        let fields = own.split("pub struct Config {").nth(1).unwrap().split("\n}").next().unwrap();
        for line in fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
            let field = line.split(':').next().unwrap();
            assert!(
                doc.contains(&format!("\n{field} =")) || doc.contains(&format!("\n#{field} =")),
                "{field} is missing in balancer.md"
            );
        }
    }
}
