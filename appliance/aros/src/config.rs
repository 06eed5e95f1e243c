//! The config file of the operating system unit, `aros.toml`.

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
            Ok(())
        })
    }
}
