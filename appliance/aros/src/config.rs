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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: PathBuf::from("/run/arint"),
            state_dir: PathBuf::from("/var/lib/arint/aros"),
            data_dir: PathBuf::from("/data/aros"),
        }
    }
}

impl Config {
    /// Reads `aros.toml` of a folder; a missing file means the defaults.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "aros", |_| Ok(()))
    }
}
