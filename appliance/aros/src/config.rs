//! The config file of the operating system unit, `aros.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use arbase::ConfigError;
use serde::Deserialize;

/// What an image sets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the Unix sockets.  Default `/run/arint`.
    pub runtime_dir: PathBuf,
    /// Where it keeps what must survive a restart.  Default `/var/lib/arint/aros`.
    pub state_dir: PathBuf,
    /// Where uploads and support bundles go.  Default `/data/aros`.
    pub data_dir: PathBuf,
    /// How long a changed network is tried before it rolls back, seconds, 1 to 3600.  Default 60.
    pub network_trial_s: u64,
    /// The terminals of the box's own screens; default: those of the board.
    pub consoles: Option<Vec<PathBuf>>,
    /// The port of the console that the screens show.  Default 8183.
    pub console_port: u16,
    /// The partition of the black box.  Default `/dev/disk/by-partlabel/blackbox`.
    pub blackbox: PathBuf,
    /// Where the EFI system partition is mounted.  Default `/efi`.
    pub esp: PathBuf,
    /// Where the first stage says how it started the box.  Default `/run/arint-boot.json`.
    pub boot_file: PathBuf,
    /// Where the kernel keeps its last words over a restart.  Default `/sys/fs/pstore`.
    pub pstore: PathBuf,
    /// The address of the balancer, which a probe asks.  Default `127.0.0.1:11223`.
    pub channels_addr: SocketAddr,
    /// The address of the admin API, which a probe asks.  Default `127.0.0.1:8183`.
    pub admin_addr: SocketAddr,
    /// Within so many seconds after start every probe has to pass, 10 to 3600.  Default 300.
    pub confirm_limit_s: u64,
    /// The largest update bundle that is taken, bytes.  Default 1 GiB.
    pub max_bundle_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: PathBuf::from("/run/arint"),
            state_dir: PathBuf::from("/var/lib/arint/aros"),
            data_dir: PathBuf::from("/data/aros"),
            network_trial_s: 60,
            consoles: None,
            console_port: 8183,
            blackbox: PathBuf::from("/dev/disk/by-partlabel/blackbox"),
            esp: PathBuf::from("/efi"),
            boot_file: PathBuf::from("/run/arint-boot.json"),
            pstore: PathBuf::from("/sys/fs/pstore"),
            channels_addr: SocketAddr::from(([127, 0, 0, 1], 11223)),
            admin_addr: SocketAddr::from(([127, 0, 0, 1], 8183)),
            confirm_limit_s: 300,
            max_bundle_bytes: 1 << 30,
        }
    }
}

impl Config {
    /// Reads `aros.toml` of a folder; a missing file means the defaults.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "aros", |config: &Self| {
            if !(1..=3600).contains(&config.network_trial_s) {
                return Err((
                    "network_trial_s",
                    format!("{} is not 1 to 3600", config.network_trial_s),
                ));
            }
            if (10..=3600).contains(&config.confirm_limit_s) {
                Ok(())
            } else {
                Err(("confirm_limit_s", format!("{} is not 10 to 3600", config.confirm_limit_s)))
            }
        })
    }
}
