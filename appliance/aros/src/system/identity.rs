//! Who the box is: a key of its own, made at the first start, and what is derived from it.
//!
//! The private key never leaves the file; what others see is the public key's SHA-256, the fingerprint.
//!
//! **Invariant:** the key is made once and is on disk before anything that is derived from it is shown.

use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use arstore::file;

/// The file of the private key (PKCS #8), in the folder of the state.
const FILE: &str = "identity";

/// The letters and digits of Crockford's base 32, in lower case: none can be mistaken for another.
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The file.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// The random numbers of the system.
    #[error("cannot make the box's key: the system gives no random numbers")]
    Random,
    /// The file holds something else.
    #[error("`{0}` holds no key of a box; restore it, or reset the box")]
    NoKey(String),
}

/// The public half of the box's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    public_key: Vec<u8>,
    digest: [u8; 32],
}

impl Identity {
    /// Reads the key, or makes it.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let pkcs8 = match file::read(&path)? {
            Some(bytes) => bytes,
            None => {
                let made = Self::generate()?;
                file::write_private(&path, &made)?;
                made
            }
        };
        Self::of(&pkcs8).ok_or_else(|| IdentityError::NoKey(path.display().to_string()))
    }

    /// One that lasts until this process ends, for a box whose own cannot be read.
    pub(crate) fn passing() -> Result<Self, IdentityError> {
        Self::of(&Self::generate()?).ok_or(IdentityError::Random)
    }

    fn generate() -> Result<Vec<u8>, IdentityError> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        made.map(|document| document.as_ref().to_vec()).map_err(|_| IdentityError::Random)
    }

    fn of(pkcs8: &[u8]) -> Option<Self> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public_key = key.public_key().as_ref().to_vec();
        let digest = Sha256::digest(&public_key).into();
        Some(Self { public_key, digest })
    }

    /// SHA-256 of the public key, hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first 80 bits of the fingerprint in four groups of letters and digits.
    pub(crate) fn words(&self) -> String {
        let text = crockford(&self.digest);
        let mut groups = Vec::new();
        let mut letters = text.chars().take(16).peekable();
        while letters.peek().is_some() {
            groups.push(letters.by_ref().take(4).collect::<String>());
        }
        groups.join("-")
    }

    /// `arsrv-` and the first 40 bits of the fingerprint: 16 boxes share one with a probability of 1 in 9000000000.
    pub(crate) fn default_hostname(&self) -> String {
        format!("arsrv-{}", crockford(&self.digest).chars().take(8).collect::<String>())
    }

    /// As it is told.
    pub(crate) fn wire(&self) -> arapi::aros::Identity {
        use base64::Engine as _;
        arapi::aros::Identity {
            public_key: base64::engine::general_purpose::STANDARD.encode(&self.public_key),
            fingerprint: self.fingerprint(),
            words: self.words(),
            default_hostname: self.default_hostname(),
        }
    }
}

/// Bytes in Crockford's base 32; bits that fill no letter are left out.
pub(crate) fn crockford(bytes: &[u8]) -> String {
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut text = String::new();
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            let at = usize::try_from((bits >> held) & 31).unwrap_or_default();
            text.extend(CROCKFORD.get(at).map(|letter| char::from(*letter)));
        }
        bits &= (1 << held) - 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_letters_that_cannot_be_mistaken() {
        assert_eq!(crockford(&[]), "");
        assert_eq!(crockford(&[0xff, 0xff, 0xff, 0xff, 0xff]), "zzzzzzzz");
        assert_eq!(crockford(&[0x00, 0x44, 0x32, 0x14, 0xc7]), "01234567");
        assert_eq!(crockford(&[0xff]), "z");
    }

    #[test]
    fn a_box_keeps_its_key_and_another_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        assert_eq!(Identity::open(dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(
            Identity::open(other.path()).unwrap().default_hostname(),
            first.default_hostname()
        );

        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let name = first.default_hostname();
        assert!(name.starts_with("arsrv-") && name.len() == 14, "{name}");
        assert_eq!(first.words().len(), 19);
        assert_eq!(first.fingerprint().len(), 64);
    }

    #[test]
    fn sixteen_boxes_of_one_image_have_sixteen_names() {
        let names: std::collections::BTreeSet<String> = (0..16)
            .map(|_| {
                let dir = tempfile::tempdir().unwrap();
                Identity::open(dir.path()).unwrap().default_hostname()
            })
            .collect();
        assert_eq!(names.len(), 16);
    }

    #[test]
    fn a_file_that_holds_no_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, b"not a key").unwrap();
        assert_eq!(
            Identity::open(dir.path()).unwrap_err().to_string(),
            format!("`{}` holds no key of a box; restore it, or reset the box", path.display())
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
    }
}
