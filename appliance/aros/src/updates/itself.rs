//! Who the box is, in a start that keeps `/var` in memory: its key, name, certificate and network are read from
//! `state`, of which nothing is changed.
//!
//! So a box in recovery has the name, the address and the certificate by which its admin knows it.  Users, objects and
//! secrets stay where they are.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use arbase::Chain;

use super::storage::{Storage, StorageError};

/// Where the box keeps them, in `state` as in memory.
const HOME: &str = "lib/arint";
/// What is brought over; only the first has to be there.
const FILES: [&str; 6] = [
    "aros/identity",
    "aros/system.json",
    "aros/network.json",
    "arwadm/tls/cert.pem",
    "arwadm/tls/key.pem",
    "arwadm/tls/names",
];
/// Says, for as long as this start lasts, why the box is not itself.
pub(crate) const NOT_ITSELF: &str = "not-itself";

/// Why the box cannot be itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ItselfError {
    /// `state` cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It holds no key.
    #[error("`state` holds no key of this box yet")]
    NoKey,
    /// Copying.
    #[error("cannot copy `{0}`")]
    Copy(&'static str, #[source] io::Error),
}

/// Copies what makes the box itself into `var`, or leaves there why it cannot be had; gives that sentence.
pub(crate) fn bring(storage: &Storage, var: &Path) -> Option<String> {
    let home = var.join(HOME);
    let done = storage.with_state_read(|state| copy(&state.join(HOME), &home));
    let err = match done.map_err(ItselfError::from).and_then(|copied| copied) {
        Ok(()) => return None,
        Err(err) => err,
    };
    let text = format!(
        "name, key and certificate are new for this start, because the box's own cannot be read: {}",
        Chain(&err)
    );
    let place = home.join("aros");
    let written =
        fs::create_dir_all(&place).and_then(|()| fs::write(place.join(NOT_ITSELF), &text));
    if let Err(err) = written {
        log::warn!(path:% = place.display(), error:% = err; "the reason cannot be kept");
    }
    Some(text)
}

/// What [`bring`] left.
pub(crate) fn problem(state_dir: &Path) -> Option<String> {
    fs::read_to_string(state_dir.join(NOT_ITSELF)).ok().filter(|text| !text.is_empty())
}

fn copy(from: &Path, to: &Path) -> Result<(), ItselfError> {
    for (file, is_needed) in FILES.into_iter().zip([true, false, false, false, false, false]) {
        let (source, target) = (from.join(file), to.join(file));
        match copy_one(&source, &target) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound && is_needed => {
                return Err(ItselfError::NoKey);
            }
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(ItselfError::Copy(file, err)),
        }
    }
    Ok(())
}

/// With its owner and mode, and those of its folders.
fn copy_one(from: &Path, to: &Path) -> io::Result<()> {
    let bytes = fs::read(from)?;
    if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
        copy_folder(from, to)?;
    }
    fs::write(to, bytes)?;
    as_it_was(from, to)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if to.try_exists()? {
        return Ok(());
    }
    if let (Some(from), Some(to)) = (from.parent(), to.parent()) {
        copy_folder(from, to)?;
    }
    fs::create_dir(to)?;
    as_it_was(from, to)
}

fn as_it_was(from: &Path, to: &Path) -> io::Result<()> {
    let was = fs::metadata(from)?;
    fs::set_permissions(to, fs::Permissions::from_mode(was.mode() & 0o7777))?;
    chown(to, Some(was.uid()), Some(was.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_name_and_certificate_are_brought_over_and_nothing_else() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |file: &str| from.path().join(file);
        for dir in ["aros", "arwadm", "arwadm/tls"] {
            fs::create_dir(at(dir)).unwrap();
            fs::set_permissions(at(dir), fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert_eq!(
            copy(from.path(), to.path()).unwrap_err().to_string(),
            "`state` holds no key of this box yet"
        );
        for file in ["aros/identity", "aros/system.json", "arwadm/tls/key.pem", "arwadm/audit"] {
            fs::write(at(file), file).unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        copy(from.path(), to.path()).unwrap();
        let there = |file: &str| to.path().join(file);
        assert_eq!(fs::read_to_string(there("aros/identity")).unwrap(), "aros/identity");
        assert!(there("aros/system.json").is_file() && there("arwadm/tls/key.pem").is_file());
        assert!(!there("arwadm/audit").try_exists().unwrap());
        let mode = |path: &str| fs::metadata(there(path)).unwrap().mode() & 0o777;
        assert_eq!(
            (mode("aros/identity"), mode("arwadm"), mode("arwadm/tls")),
            (0o600, 0o700, 0o700)
        );
        assert_eq!(problem(&there("aros")), None);
    }
}
