//! What is remembered between commands: per profile the box, its certificate, and the token.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The config file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The profiles by name.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// One box.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The address of its admin API.
    pub(crate) server: String,
    /// SHA-256 of its certificate, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// SHA-256 of its certificate's public key, which stays when the certificate is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Where the config file is: `$XDG_CONFIG_HOME/arint/arctl.toml`, else in `~/.config`.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = of("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| of("HOME").map(|home| Path::new(&home).join(".config")));
    dir.map(|dir| dir.join("arint/arctl.toml")).ok_or(Failure::NoHome)
}

impl Config {
    /// Reads the config file; an absent one is empty.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Failure::Read { path: path.to_owned(), source }),
        };
        toml::from_str(&text).map_err(|err| Failure::Config {
            path: path.to_owned(),
            fault: err.message().replace('\n', ", "),
        })
    }

    /// Writes the config file, readable by its owner only, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let fault = |source| Failure::Write { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(fault)?;
        }
        let text = toml::to_string(self).map_err(|err| fault(std::io::Error::other(err)))?;
        let temp = path.with_extension(format!("toml.{}", std::process::id()));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temp, path)
        };
        write().map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arint/arctl.toml");
        assert_eq!(Config::load(&path).unwrap(), Config::default());
        let mut config = Config::default();
        let profile = Profile {
            server: "https://box:8183".to_owned(),
            token: Some("t".to_owned()),
            ..Profile::default()
        };
        config.profiles.insert("default".to_owned(), profile);
        config.save(&path).unwrap();
        config.save(&path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), config);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{config:?}").contains("\"t\""));
    }

    #[test]
    fn a_config_that_is_none_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arctl.toml");
        std::fs::write(&path, "profile = 1\n").unwrap();
        assert_eq!(
            Config::load(&path).unwrap_err().to_string(),
            format!(
                "`{}` cannot be understood: unknown field `profile`, expected `profiles`",
                path.display()
            )
        );
    }
}
