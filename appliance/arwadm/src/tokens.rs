//! Tokens: 256 random bits that stand for a user.  Only their SHA-256 is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

/// Begins every token, so that programs which look for leaked secrets find it.
const PREFIX: &str = "arint_";

/// A token just made.  Its `Debug` prints the name only.
#[derive(Clone)]
pub(crate) struct NewToken {
    /// The name of its object.
    pub(crate) name: String,
    /// The token.
    pub(crate) token: String,
    /// What is kept of it.
    pub(crate) sha256: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NewToken {
    /// Makes one.
    pub(crate) fn random() -> Self {
        let mut bytes = [0u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let mut of_name = [0u8; 6];
        rand::rng().fill_bytes(&mut of_name);
        Self {
            name: format!("tok-{}", hex::encode(of_name)),
            sha256: sha256_hex(token.as_bytes()),
            token,
        }
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_256_bits_and_is_found_by_its_hash() {
        let token = NewToken::random();
        let bits = URL_SAFE_NO_PAD.decode(token.token.strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(bits.len(), 32);
        assert_eq!(sha256_hex(token.token.as_bytes()), token.sha256);
        assert_ne!(NewToken::random().token, token.token);
        assert!(!format!("{token:?}").contains(&token.token));
    }
}
