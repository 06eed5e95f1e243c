//! Encryption of secrets: XChaCha20-Poly1305 with a key of its own file.
//!
//! A value is bound to its secret's name (associated data): a ciphertext moved to another name
//! does not open.  The vault keeps no secret; it reads and writes no file but its key's.

use std::path::{Path, PathBuf};

use arapi::objects::SecretText;
use arstore::file::FileError;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use rand::RngCore as _;

use crate::command::Sealed;

/// Bytes of the key.
const KEY_LEN: usize = 32;
/// Bytes of a nonce; 192 random bits do not meet twice.
const NONCE_LEN: usize = 24;

/// Seals and opens secrets.  Its `Debug` prints the type's name only.
#[derive(Clone)]
pub struct Vault(XChaCha20Poly1305);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

/// Why a secret, or all of them, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key is gone and secrets are there.
    #[error(
        "the key `{}` is missing, and the store has secrets ({secrets}) that only it opens; put it back from a backup, or delete the store to start empty",
        path.display()
    )]
    NoKey {
        /// The key's file.
        path: PathBuf,
        /// How many secrets there are.
        secrets: usize,
    },
    /// The file is no key.
    #[error(
        "the key `{}` has {found} bytes and not {KEY_LEN}: it is damaged; put it back from a backup",
        path.display()
    )]
    BadKey {
        /// The key's file.
        path: PathBuf,
        /// Its size.
        found: usize,
    },
    /// The key's file cannot be read or made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key does not open a secret.
    #[error(
        "the key `{}` does not open the secret `{name}`: it is not the key it was made with; put that back from a backup",
        path.display()
    )]
    WrongKey {
        /// The key's file.
        path: PathBuf,
        /// The secret.
        name: String,
    },
}

impl Vault {
    /// Opens the vault with the key at `path`.  `secrets` are all there are: each is opened once,
    /// so that a wrong key is noticed here.  Where there are none a missing key is made.
    pub fn open(path: &Path, secrets: &[(String, Sealed)]) -> Result<Self, VaultError> {
        let key = match arstore::file::read(path)? {
            Some(key) => key,
            None if secrets.is_empty() => {
                let mut key = vec![0u8; KEY_LEN];
                rand::rng().fill_bytes(&mut key);
                arstore::file::write_private(path, &key)?;
                key
            }
            None => {
                return Err(VaultError::NoKey { path: path.to_owned(), secrets: secrets.len() });
            }
        };
        if key.len() != KEY_LEN {
            return Err(VaultError::BadKey { path: path.to_owned(), found: key.len() });
        }
        let vault = Self(XChaCha20Poly1305::new(Key::from_slice(&key)));
        for (name, sealed) in secrets {
            if vault.unseal(name, sealed).is_none() {
                return Err(VaultError::WrongKey { path: path.to_owned(), name: name.clone() });
            }
        }
        Ok(vault)
    }

    /// Encrypts the value of the secret `name`; `None` only for values of hundreds of gigabytes.
    pub fn seal(&self, name: &str, value: &SecretText) -> Option<Sealed> {
        let mut sealed = vec![0u8; NONCE_LEN];
        rand::rng().fill_bytes(&mut sealed);
        let payload = Payload { msg: value.0.as_bytes(), aad: name.as_bytes() };
        let ciphertext = self.0.encrypt(XNonce::from_slice(&sealed), payload).ok()?;
        sealed.extend_from_slice(&ciphertext);
        Some(Sealed(sealed))
    }

    /// Decrypts the value of the secret `name`; `None` if it was not sealed by this key for this
    /// name.
    pub fn unseal(&self, name: &str, sealed: &Sealed) -> Option<SecretText> {
        let (nonce, ciphertext) = sealed.0.split_at_checked(NONCE_LEN)?;
        let payload = Payload { msg: ciphertext, aad: name.as_bytes() };
        let value = self.0.decrypt(XNonce::from_slice(nonce), payload).ok()?;
        String::from_utf8(value).ok().map(SecretText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "correct horse battery staple";

    fn text(value: &str) -> SecretText {
        SecretText(value.to_owned())
    }

    #[test]
    fn a_sealed_value_opens_under_its_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("key"), &[]).unwrap();
        let sealed = vault.seal("a", &text(VALUE)).unwrap();
        assert_eq!(vault.unseal("a", &sealed), Some(text(VALUE)));
        assert_eq!(vault.unseal("b", &sealed), None);
        assert_ne!(vault.seal("a", &text(VALUE)).unwrap(), sealed);
        assert!(!sealed.0.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()));
    }

    #[test]
    fn a_changed_or_cut_ciphertext_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("key"), &[]).unwrap();
        let sealed = vault.seal("a", &text(VALUE)).unwrap();
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert_eq!(vault.unseal("a", &changed), None, "byte {at}");
            assert_eq!(vault.unseal("a", &Sealed(sealed.0[..at].to_vec())), None, "cut at {at}");
        }
    }

    #[test]
    fn the_key_is_kept_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let sealed = Vault::open(&path, &[]).unwrap().seal("a", &text(VALUE)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Vault::open(&path, &[("a".to_owned(), sealed.clone())]).unwrap();
        assert_eq!(again.unseal("a", &sealed), Some(text(VALUE)));
        assert_eq!(format!("{again:?} {sealed:?}"), "Vault Sealed");
    }

    #[test]
    fn a_missing_damaged_or_wrong_key_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let shown = path.display().to_string();
        let vault = Vault::open(&path, &[]).unwrap();
        let secrets = [("crm".to_owned(), vault.seal("crm", &text(VALUE)).unwrap())];
        let refused = || Vault::open(&path, &secrets).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            refused(),
            format!(
                "the key `{shown}` is missing, and the store has secrets (1) that only it opens; put it back from a backup, or delete the store to start empty"
            )
        );
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(
            refused(),
            format!(
                "the key `{shown}` has 5 bytes and not 32: it is damaged; put it back from a backup"
            )
        );
        std::fs::write(&path, [7u8; 32]).unwrap();
        assert_eq!(
            refused(),
            format!(
                "the key `{shown}` does not open the secret `crm`: it is not the key it was made with; put that back from a backup"
            )
        );
    }
}
