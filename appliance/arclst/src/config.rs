//! `arclst.toml`.

use std::path::{Path, PathBuf};

use arapi::ObjectName;
use arbase::ConfigError;
use serde::Deserialize;

/// The config file of the object store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the sockets.  Default: `/run/arint`.
    pub runtime_dir: PathBuf,
    /// The folder of the store and its key.  Default: `/var/lib/arint/arclst`.
    pub state_dir: PathBuf,
    /// This box's name.  Default: the host's name at the first start, kept from then on.
    pub node_name: Option<ObjectName>,
    /// How many of the newest commits stay in the history, at least 1.  Default: 100000.
    pub history_keep: u64,
    /// Largest size of the store, MiB, at least 1; changes beyond it are refused.  Default: as large as the disk.
    pub store_max_mib: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/arint".into(),
            state_dir: "/var/lib/arint/arclst".into(),
            node_name: None,
            history_keep: 100_000,
            store_max_mib: None,
        }
    }
}

impl Config {
    /// Loads `arclst.toml` from the folder of the config files.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "arclst", Self::check)
    }

    /// The rules that the types cannot express.
    pub fn check(&self) -> Result<(), arbase::config::Broken> {
        if self.history_keep == 0 {
            return Err(("history_keep", "0 is below 1".to_owned()));
        }
        if self.store_max_mib == Some(0) {
            return Err(("store_max_mib", "0 is below 1".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        arbase::config::parse(Path::new("arclst.toml"), text, Config::check)
    }

    #[test]
    fn an_empty_config_has_the_documented_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.runtime_dir, Path::new("/run/arint"));
        assert_eq!(config.state_dir, Path::new("/var/lib/arint/arclst"));
        assert_eq!(
            (config.node_name, config.history_keep, config.store_max_mib),
            (None, 100_000, None)
        );
    }

    #[test]
    fn what_is_wrong_in_the_config_is_named() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            refused("state_dir = \"/x\"\nhistory = 3\n"),
            "config `arclst.toml` line 2: unknown field `history`, expected one of `runtime_dir`, `state_dir`, `node_name`, `history_keep`, `store_max_mib`"
        );
        assert_eq!(
            refused("history_keep = 0"),
            "config `arclst.toml`: `history_keep`: 0 is below 1"
        );
        assert_eq!(
            refused("store_max_mib = 0"),
            "config `arclst.toml`: `store_max_mib`: 0 is below 1"
        );
        assert_eq!(
            refused("node_name = \"\""),
            "config `arclst.toml` line 1: a name cannot be empty"
        );
    }
}
