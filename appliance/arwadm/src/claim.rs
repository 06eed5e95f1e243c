//! The first-run code: who can read it on the box's screen, console or log may claim the box.

use std::path::{Path, PathBuf};

use arstore::file::{FileError, read, write_private};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;

/// No `I`, `L`, `O`, `U`, `0`, `1`: nothing that is read as something else, and no accidental words.
const ALPHABET: &[u8; 30] = b"23456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters without the dash: 30^8 is 2^39, and attempts are limited.
const LENGTH: usize = 8;

/// A first-run code.  Its `Debug` prints the type's name only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClaimCode(String);

impl std::fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClaimCode")
    }
}

impl ClaimCode {
    /// Makes a new one.
    pub(crate) fn random() -> Self {
        let mut rng = rand::rng();
        let text = (0..LENGTH)
            .filter_map(|_| ALPHABET.get(rng.random_range(0..ALPHABET.len())))
            .map(|byte| char::from(*byte))
            .collect();
        Self(text)
    }

    /// Reads a code as a person may type it: any case, dashes and blanks anywhere.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain: String = text
            .chars()
            .filter(|c| !matches!(c, '-' | ' '))
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let fits = plain.len() == LENGTH && plain.bytes().all(|byte| ALPHABET.contains(&byte));
        fits.then_some(Self(plain))
    }

    /// As it is shown: `K7QF-2MXD`.
    pub(crate) fn shown(&self) -> String {
        let (front, back) = self.0.split_at_checked(LENGTH / 2).unwrap_or((&self.0, ""));
        format!("{front}-{back}")
    }

    /// Whether `typed` is this code; takes the same time whatever is wrong with it.
    pub(crate) fn fits(&self, typed: &str) -> bool {
        let typed = Self::parse(typed).map_or_else(|| "--------".to_owned(), |code| code.0);
        typed.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// Where the code is kept until the box is claimed.
pub(crate) fn code_file(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("first-run-code")
}

/// The code of this first run: the one that is kept, or a new one.
pub(crate) fn kept_or_new(path: &Path) -> Result<ClaimCode, FileError> {
    let kept =
        read(path)?.and_then(|bytes| ClaimCode::parse(String::from_utf8_lossy(&bytes).trim()));
    match kept {
        Some(code) => Ok(code),
        None => {
            let code = ClaimCode::random();
            write_private(path, format!("{}\n", code.shown()).as_bytes())?;
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_code_has_no_character_that_is_read_as_another() {
        for _ in 0..1000 {
            let code = ClaimCode::random();
            assert_eq!(code.0.len(), 8);
            assert!(!code.0.contains(['I', 'L', 'O', 'U', '0', '1']), "{}", code.0);
        }
        assert_ne!(ClaimCode::random(), ClaimCode::random());
    }

    #[test]
    fn a_code_is_taken_in_any_case_and_with_or_without_its_dash() {
        let code = ClaimCode::parse("K7QF-2MXD").unwrap();
        assert_eq!(code.shown(), "K7QF-2MXD");
        for typed in ["K7QF-2MXD", "k7qf2mxd", " k7qf 2mxd ", "K7-QF-2M-XD"] {
            assert!(code.fits(typed), "{typed}");
        }
        for typed in ["", "K7QF-2MXE", "K7QF-2MX", "K7QF-2MXDD", "--------", "ÄÖÜ"] {
            assert!(!code.fits(typed), "{typed}");
        }
    }

    #[test]
    fn a_code_is_kept_for_its_owner_only_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = code_file(dir.path());
        let code = kept_or_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(kept_or_new(&path).unwrap(), code);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", code.shown()));
    }
}
