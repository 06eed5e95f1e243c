//! `self.crypto` of services: encryption under a key that no service sees.
//!
//! Tokens are Fernet's (its specification, version 0x80): AES-128 in CBC mode, HMAC-SHA256 over everything, URL-safe
//! base64.  So what an installation of 3.2 has encrypted can be decrypted once its key is here.
//!
//! The key is the value of the security [`KEY`], which an admin makes or takes along; it is read from the object
//! store when it is needed, at most once in a while.  A value that is itself a Fernet key is that key, any other is
//! hashed into one.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use arapi::arclst::Client;
use arapi::error::ErrorCode;
use arbase::Chain;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::call::{Answering, Outside, WorkerReply, WorkerRequest};

/// The security whose value is the key.
pub const KEY: &str = "service_crypto";

/// For how long a key that was read is used: a changed one counts after this.
const FRESH: Duration = Duration::from_secs(5);
/// Longest time for reading it.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// Of a token: version, time, initialization vector, at least one block, signature.
const SHORTEST: usize = 1 + 8 + 16 + 16 + 32;
const VERSION: u8 = 0x80;

type Encryptor = cbc::Encryptor<aes::Aes128>;
type Decryptor = cbc::Decryptor<aes::Aes128>;

/// Answers `crypto`, and passes everything else on.
pub struct Crypto {
    store: Client,
    known: Mutex<Option<(Instant, Key)>>,
    others: std::sync::Arc<dyn Outside>,
}

#[derive(Clone)]
struct Key {
    signing: [u8; 16],
    encryption: [u8; 16],
}

/// Why something was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
enum CryptoError {
    #[error(
        "there is no key for `self.crypto`: make the security `{KEY}` of type `api_key`, whose value is the key"
    )]
    NoKey,
    #[error("the key for `self.crypto` cannot be read now; try again")]
    Unreadable,
    #[error("this is no token that the box's key opens")]
    BadToken,
    #[error("`crypto` knows `encrypt` and `decrypt`, not `{0}`")]
    UnknownAction(String),
}

impl CryptoError {
    fn type_name(&self) -> &'static str {
        match self {
            Self::NoKey => "not-found",
            Self::Unreadable => "refused",
            Self::BadToken | Self::UnknownAction(_) => "bad-request",
        }
    }
}

impl Crypto {
    /// In front of what answers the other requests.
    pub fn before(others: std::sync::Arc<dyn Outside>, store: Client) -> Self {
        let store = Client(store.0.with_limit(READ_LIMIT));
        Self { store, known: Mutex::new(None), others }
    }

    async fn answer_crypto(&self, request: &WorkerRequest) -> Result<Bytes, CryptoError> {
        let key = self.key().await?;
        match request.meta.get("action").and_then(Value::as_str).unwrap_or_default() {
            "encrypt" => {
                let seconds = arbase::time::now_ms() / 1000;
                Ok(encrypt(&key, seconds, rand::random(), &request.body).into())
            }
            "decrypt" => decrypt(&key, &request.body).map(Into::into).ok_or(CryptoError::BadToken),
            other => Err(CryptoError::UnknownAction(other.to_owned())),
        }
    }

    async fn key(&self) -> Result<Key, CryptoError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, key)) = known
            && read.elapsed() < FRESH
        {
            return Ok(key);
        }
        // The field is called as the type of the security has it.
        for field in ["key", "password", "token"] {
            match self.store.secret(&format!("Security/{KEY}/{field}")).await {
                Ok(value) => {
                    let key = Key::of(&value.0);
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((Instant::now(), key.clone()));
                    return Ok(key);
                }
                Err(err) if err.code() == Some(ErrorCode::NotFound) => {}
                Err(err) => {
                    log::warn!(security = KEY, error:% = Chain(&err); "secret cannot be read");
                    return Err(CryptoError::Unreadable);
                }
            }
        }
        Err(CryptoError::NoKey)
    }
}

impl Outside for Crypto {
    fn indexes(&self) -> Vec<std::sync::Arc<crate::outgoing::index::Index>> {
        self.others.indexes()
    }

    fn answer(&self, request: WorkerRequest) -> Answering<'_> {
        if request.meta.get("op").and_then(Value::as_str) != Some("crypto") {
            return self.others.answer(request);
        }
        Box::pin(async move {
            match self.answer_crypto(&request).await {
                Ok(body) => WorkerReply { meta: json!({}), body },
                Err(err) => WorkerReply {
                    meta: json!({"error": {"type": err.type_name(), "message": err.to_string()}}),
                    body: Bytes::new(),
                },
            }
        })
    }
}

impl Key {
    /// Of a security's value.
    fn of(value: &str) -> Self {
        let own = BASE64_URL_SAFE.decode(value.trim()).ok();
        let bytes: [u8; 32] = own
            .and_then(|own| own.try_into().ok())
            .unwrap_or_else(|| Sha256::digest(format!("arint service crypto\n{value}")).into());
        let (signing, encryption) = bytes.split_at(16);
        let half = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
        Self { signing: half(signing), encryption: half(encryption) }
    }

    fn signature(&self, signed: &[u8]) -> Hmac<Sha256> {
        // A key of any length will do for an HMAC.
        let mut mac = <Hmac<Sha256> as hmac::Mac>::new(&self.padded().into());
        mac.update(signed);
        mac
    }

    /// The signing key as a whole block, which is how HMAC takes a shorter one.
    fn padded(&self) -> [u8; 64] {
        let mut block = [0; 64];
        block.iter_mut().zip(self.signing).for_each(|(to, from)| *to = from);
        block
    }
}

fn encrypt(key: &Key, seconds: u64, iv: [u8; 16], plain: &[u8]) -> String {
    let mut token = Vec::with_capacity(SHORTEST + plain.len() + 16);
    token.push(VERSION);
    token.extend_from_slice(&seconds.to_be_bytes());
    token.extend_from_slice(&iv);
    let sealed =
        Encryptor::new(&key.encryption.into(), &iv.into()).encrypt_padded_vec_mut::<Pkcs7>(plain);
    token.extend_from_slice(&sealed);
    let signature = key.signature(&token).finalize().into_bytes();
    token.extend_from_slice(&signature);
    BASE64_URL_SAFE.encode(token)
}

fn decrypt(key: &Key, token: &[u8]) -> Option<Vec<u8>> {
    let token = BASE64_URL_SAFE.decode(token.trim_ascii()).ok()?;
    if token.len() < SHORTEST || token.first() != Some(&VERSION) {
        return None;
    }
    let (signed, signature) = token.split_at_checked(token.len() - 32)?;
    // In constant time.
    key.signature(signed).verify_slice(signature).ok()?;
    let (head, sealed) = signed.split_at_checked(25)?;
    let iv: [u8; 16] = head.get(9..)?.try_into().ok()?;
    Decryptor::new(&key.encryption.into(), &iv.into()).decrypt_padded_vec_mut::<Pkcs7>(sealed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification of Fernet.
    const SPEC_KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const SPEC_TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    #[test]
    fn a_token_is_the_one_of_the_specification() {
        let iv = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let token = encrypt(&Key::of(SPEC_KEY), 499_162_800, iv, b"hello");
        assert_eq!(token, SPEC_TOKEN);
        assert_eq!(decrypt(&Key::of(SPEC_KEY), SPEC_TOKEN.as_bytes()).unwrap(), b"hello");
    }

    #[test]
    fn a_changed_token_and_another_key_open_nothing() {
        let key = Key::of("a value that is no Fernet key");
        let token = encrypt(&key, 1, [7; 16], b"secret");
        assert_eq!(decrypt(&key, token.as_bytes()).unwrap(), b"secret");
        assert!(decrypt(&Key::of("another"), token.as_bytes()).is_none());
        for at in 0..token.len() - 4 {
            let mut changed = token.clone().into_bytes();
            let byte = changed.get_mut(at).unwrap();
            *byte = if *byte == b'A' { b'B' } else { b'A' };
            assert!(decrypt(&key, &changed).is_none(), "byte {at}");
        }
        assert!(decrypt(&key, b"").is_none());
        assert!(decrypt(&key, b"gAAAAA==").is_none());
    }
}
