//! Passwords: the rule for new ones, and Argon2id on the blocking pool, a few at one time.
//!
//! **Invariant:** whether a user exists cannot be told from how long a wrong login takes: where there
//! is no hash a fixed one is verified instead.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use rand::RngCore as _;
use tokio::sync::Semaphore;

/// Shortest password, characters.
const SHORTEST: usize = 12;
/// Longest password, bytes: hashing is for passwords, not for files.
const LONGEST: usize = 1024;
/// Hashes computed at one time; each takes 19 MiB and some 20 ms of a core.
const AT_ONE_TIME: usize = 2;
/// Verified where there is no user, with the same parameters as a real one.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LW5vYm9keQ$Zq9sJQ0Yb0l3mJ3o1m3y3l8m1n4r5t6u7v8w9x0y1z0";

/// Hashes and verifies passwords.
#[derive(Debug)]
pub(crate) struct Passwords(Semaphore);

/// Why a password cannot be hashed or verified; a fault of our own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("cannot hash a password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("the hashing task ended early")]
    Task,
}

impl Default for Passwords {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONE_TIME))
    }
}

impl Passwords {
    /// The hash of a new password in PHC form.
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(move || {
            let mut bytes = [0u8; 16];
            rand::rng().fill_bytes(&mut bytes);
            let salt = SaltString::encode_b64(&bytes).map_err(PasswordError::Hash)?;
            let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(PasswordError::Hash)
        })
        .await?
    }

    /// Whether `password` belongs to `hash`; takes as long where there is no hash.
    pub(crate) async fn fits(
        &self,
        hash: Option<String>,
        password: String,
    ) -> Result<bool, PasswordError> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        self.run(move || {
            let known = hash.is_some();
            let text = hash.as_deref().unwrap_or(NOBODY);
            let verified = PasswordHash::new(text).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            });
            known && verified
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _permit = self.0.acquire().await.map_err(|_| PasswordError::Task)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Task)
    }
}

/// Checks the rule for new passwords.
pub(crate) fn check_new(password: &str) -> Result<(), String> {
    let characters = password.chars().count();
    if characters < SHORTEST {
        return Err(format!(
            "the password has {characters} characters, at least {SHORTEST} are needed"
        ));
    }
    if password.len() > LONGEST {
        return Err(format!(
            "the password is {} bytes long, at most {LONGEST} are allowed",
            password.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_and_no_other() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.fits(Some(hash.clone()), "correct horse".to_owned()).await.unwrap());
        assert!(!passwords.fits(Some(hash), "correct house".to_owned()).await.unwrap());
        assert!(!passwords.fits(None, "correct horse".to_owned()).await.unwrap());
    }

    #[test]
    fn the_hash_of_nobody_is_verified_with_the_same_parameters() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let salt = SaltString::encode_b64(&[0; 16]).unwrap();
        let fresh = Argon2::default().hash_password(b"x", &salt).unwrap();
        assert_eq!(nobody.algorithm, fresh.algorithm);
        assert_eq!(nobody.params, fresh.params);
        assert_eq!(nobody.hash.unwrap().len(), fresh.hash.unwrap().len());
    }

    #[test]
    fn a_short_password_is_refused_with_both_numbers() {
        assert_eq!(
            check_new("elevenchars").unwrap_err(),
            "the password has 11 characters, at least 12 are needed"
        );
        assert_eq!(check_new("zwölf Zeiche"), Ok(()));
        assert_eq!(
            check_new(&"x".repeat(1025)).unwrap_err(),
            "the password is 1025 bytes long, at most 1024 are allowed"
        );
    }
}
