//! `arint os name`: the box has its own name before anything asks for it.
//!
//! It is a program of its own because the kernel lets only a privileged one set the name; this unit, which is not,
//! changes it later through the host name's service.

use std::path::{Path, PathBuf};

use super::identity::{Identity, IdentityError};
use super::settings::Settings;

/// `arint os name`.
#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// Where the box's key and its settings are kept.
    #[arg(long, default_value = "/var/lib/arint/aros")]
    state_dir: PathBuf,
}

/// Why the box has no name of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    /// The key that the name comes from.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The kernel refuses.
    #[error("cannot set the host name `{name}`")]
    Set {
        /// Which.
        name: String,
        /// Why.
        source: nix::Error,
    },
}

/// Sets the name.
pub(crate) fn name_main(args: &NameArgs) -> Result<(), NameError> {
    let name = name(&args.state_dir)?;
    nix::unistd::sethostname(&name)
        .map_err(|source| NameError::Set { name: name.clone(), source })?;
    log::info!(name; "host name set");
    Ok(())
}

/// The name that an admin gave, or the one of the box's key, which is made at the first start.
fn name(state_dir: &Path) -> Result<String, IdentityError> {
    let identity = Identity::open(state_dir)?;
    Ok(Settings::open(state_dir).hostname().unwrap_or_else(|| identity.default_hostname()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_that_of_the_key_and_an_admins_goes_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = name(dir.path()).unwrap();
        assert!(first.starts_with("arsrv-"), "{first}");
        assert_eq!(name(dir.path()).unwrap(), first);
        std::fs::write(dir.path().join("system.json"), r#"{"hostname": "kitchen"}"#).unwrap();
        assert_eq!(name(dir.path()).unwrap(), "kitchen");
    }
}
