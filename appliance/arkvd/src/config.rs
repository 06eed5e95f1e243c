//! The file `arkvd.toml`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use arbase::ConfigError;
use serde::Deserialize;

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After it is on disk; writes of many clients share one commit.
    #[default]
    Sync,
    /// At once; it reaches the disk within `interval_ms`, and what came last may be lost.
    Interval,
}

/// The settings of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of sockets and of the password file.  Default: `/run/arint`.
    pub runtime_dir: PathBuf,
    /// The folder of the data.  Default: `/var/lib/arint/arkvd`.
    pub state_dir: PathBuf,
    /// Mode of the socket `arkvd.sock`, as an octal text.  Default: `"0666"`: who may use it is
    /// decided by the password, not by the file.
    pub socket_mode: String,
    /// The TCP address; empty: none.  Default: `127.0.0.1:6379`.
    pub listen: String,
    /// Whether `listen` may be an address that others reach.  The password is then sent over the
    /// network as it is.  Default: false.
    pub allow_remote: bool,
    /// Most memory for keys and values, bytes; writes beyond it are refused.  Default: 268435456
    /// (256 MiB).
    pub max_memory_bytes: usize,
    /// Most connections at one time.  Default: 1000.
    pub max_clients: usize,
    /// Largest value a client may send, bytes.  Default: 67108864 (64 MiB).
    pub max_value_bytes: usize,
    /// The file with the password, one line.  Default: `arkvd.password` in `runtime_dir`.  If it
    /// does not exist, it is made with a random password, readable by its owner and its
    /// group only.
    pub password_file: Option<PathBuf>,
    /// When a write is answered: `sync` (default) or `interval`.
    pub durability: Durability,
    /// How often writes go to disk with `interval`, milliseconds, 10 to 60000.  Default: 1000.
    pub interval_ms: u64,
    /// Longest time a script may run, milliseconds, 1 to 60000.  Others wait meanwhile.  Default:
    /// 5000.
    pub script_limit_ms: u64,
    /// Most memory scripts may use, bytes, at least 1048576.  Default: 67108864 (64 MiB).
    pub script_memory_bytes: usize,
    /// A snapshot is made when the log has grown by this many bytes, at least 65536.  Default:
    /// 67108864 (64 MiB).
    pub snapshot_after_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/arint".into(),
            state_dir: "/var/lib/arint/arkvd".into(),
            socket_mode: "0666".into(),
            listen: "127.0.0.1:6379".into(),
            allow_remote: false,
            max_memory_bytes: 256 * 1024 * 1024,
            max_clients: 1000,
            max_value_bytes: 64 * 1024 * 1024,
            password_file: None,
            durability: Durability::Sync,
            interval_ms: 1000,
            script_limit_ms: 5000,
            script_memory_bytes: 64 * 1024 * 1024,
            snapshot_after_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Loads `arkvd.toml` from a folder; where there is none, all is as by default.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        arbase::config::load(dir, "arkvd", Self::check)
    }

    /// The rules the types cannot express.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let addresses = self
            .listen_addresses()
            .map_err(|err| ("listen", format!("`{}` is no address: {err}", self.listen)))?;
        if !self.allow_remote && addresses.iter().any(|addr| !addr.ip().is_loopback()) {
            let rule = format!(
                "`{}` can be reached from outside; set `allow_remote = true` if that is meant",
                self.listen
            );
            return Err(("listen", rule));
        }
        if u32::from_str_radix(&self.socket_mode, 8).map_or(true, |mode| mode > 0o777) {
            let rule = format!("`{}` is no octal file mode such as `0660`", self.socket_mode);
            return Err(("socket_mode", rule));
        }
        let number = |field, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err((field, format!("{value} is not between {least} and {most}")))
            }
        };
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        number("interval_ms", self.interval_ms, 10, 60_000)?;
        number("script_limit_ms", self.script_limit_ms, 1, 60_000)?;
        number("script_memory_bytes", size(self.script_memory_bytes), 1 << 20, 1 << 40)?;
        number("max_memory_bytes", size(self.max_memory_bytes), 1 << 20, 1 << 50)?;
        number("max_value_bytes", size(self.max_value_bytes), 1024, 512 << 20)?;
        number("max_clients", size(self.max_clients), 1, 100_000)?;
        number("snapshot_after_bytes", self.snapshot_after_bytes, 65_536, 1 << 50)
    }

    pub(crate) fn listen_addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        if self.listen.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.listen.to_socket_addrs()?.collect())
    }

    pub(crate) fn mode(&self) -> u32 {
        u32::from_str_radix(&self.socket_mode, 8).unwrap_or(0o600)
    }

    /// The path of the password file.
    pub fn password_path(&self) -> PathBuf {
        self.password_file.clone().unwrap_or_else(|| self.runtime_dir.join("arkvd.password"))
    }

    /// The path of the socket.
    pub fn socket_path(&self) -> PathBuf {
        self.runtime_dir.join("arkvd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        arbase::config::parse::<Config>(Path::new("arkvd.toml"), text, Config::check)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_default_config_is_right() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn an_address_others_reach_is_refused_unless_allowed() {
        assert_eq!(
            refused("listen = \"0.0.0.0:6379\"\n"),
            "config `arkvd.toml`: `listen`: `0.0.0.0:6379` can be reached from outside; set `allow_remote = true` if that is meant"
        );
        let allowed = "listen = \"0.0.0.0:6379\"\nallow_remote = true\n";
        arbase::config::parse::<Config>(Path::new("x"), allowed, Config::check).unwrap();
    }

    #[test]
    fn the_user_page_shows_the_defaults() {
        let page =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/user/integrator/key-value-store.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, from) = page.split_once("```toml\n").unwrap();
        let (shown, _) = from.split_once("```").unwrap();
        let shown = arbase::config::parse::<Config>(Path::new("page"), shown, Config::check);
        assert_eq!(shown.unwrap(), Config::default());
        let named = page.matches("_bytes = ").count();
        assert_eq!(named, 4, "every size is shown");
    }

    #[test]
    fn wrong_values_are_named_with_the_rule() {
        assert_eq!(
            refused("interval_ms = 5\n"),
            "config `arkvd.toml`: `interval_ms`: 5 is not between 10 and 60000"
        );
        assert_eq!(
            refused("socket_mode = \"rw\"\n"),
            "config `arkvd.toml`: `socket_mode`: `rw` is no octal file mode such as `0660`"
        );
        assert!(refused("max_memory = 5\n").starts_with(
            "config `arkvd.toml` line 1: unknown field `max_memory`, expected one of `runtime_dir`"
        ));
    }
}
