//! JSON Web Tokens (RFC 7519): signatures checked and made by `jsonwebtoken` on ring, which TLS uses as well, and the
//! claims that every token must have.
//!
//! The header of a token says how it claims to be signed; what is taken is said by the configuration alone, and a
//! key is only ever used with the family of algorithms that it was made for: `none` is no algorithm here, and a public
//! key is never a shared one.

use std::sync::Once;

use arapi::objects::JwtAlgorithm;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation,
};
use ring::{hmac, signature as with_ring};
use serde_json::{Map, Value};

/// Longest token that is looked at.
pub const LONGEST: usize = 16 * 1024;

/// Why a token is not taken.  For the log: a caller is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("it is no JSON Web Token: {0}")]
    Form(String),
    /// Its header asks for something that is not understood here.
    #[error("its header has `crit`")]
    Critical,
    /// It is not signed as it should be.
    #[error("it is signed with {0}, which is not allowed here")]
    Algorithm(String),
    /// The key it names is not known.
    #[error("its key is not known")]
    Key,
    /// The signature is wrong, or of another key.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or wrong.
    #[error("its `{0}` is missing or wrong")]
    Claim(String),
    /// It has ended.
    #[error("it has ended")]
    Ended,
    /// It does not hold yet.
    #[error("it does not hold yet")]
    Early,
}

/// What a token's header says.
#[derive(Debug)]
pub struct Head {
    /// How it claims to be signed.
    pub algorithm: Algorithm,
    /// With which key.
    pub kid: Option<String>,
}

/// Reads the header of a token.
pub fn head(token: &str) -> Result<Head, TokenError> {
    if token.len() > LONGEST {
        return Err(TokenError::Form("it is too long".to_owned()));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|err| match err.kind() {
        // An unknown algorithm, `none` among them, is an unknown variant.
        ErrorKind::Json(err) if err.to_string().contains("unknown variant") => {
            TokenError::Algorithm("an unknown algorithm".to_owned())
        }
        _ => TokenError::Form(err.to_string()),
    })?;
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    Ok(Head { algorithm: header.alg, kid: header.kid })
}

/// Checks the signature and gives the claims, which nobody has looked at yet.
pub fn verify(
    token: &str,
    key: &DecodingKey,
    allowed: &[Algorithm],
) -> Result<Map<String, Value>, TokenError> {
    install();
    let family = key.family();
    let algorithms: Vec<Algorithm> =
        allowed.iter().copied().filter(|algorithm| algorithm.family() == family).collect();
    let Some(first) = algorithms.first() else {
        return Err(TokenError::Algorithm("a key of another kind".to_owned()));
    };
    let mut validation = Validation::new(*first);
    validation.algorithms = algorithms;
    // The claims are checked below, with our own clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
    decoded.map(|data| data.claims).map_err(|err| match err.kind() {
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm("another algorithm".to_owned()),
        ErrorKind::InvalidSignature => TokenError::Signature,
        _ => TokenError::Form(err.to_string()),
    })
}

/// Signs claims with HS256.
pub fn sign(claims: &Value, kid: &str, key: &[u8]) -> Result<String, TokenError> {
    install();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(kid.to_owned());
    let signed = jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(key));
    signed.map_err(|err| TokenError::Form(err.to_string()))
}

/// A moment in a claim, in whole seconds; fractions are allowed (RFC 7519, section 2), other forms are not.
pub fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenError> {
    let wrong = || TokenError::Claim(name.to_owned());
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            if let Some(whole) = number.as_i64() {
                return Ok(Some(whole));
            }
            let seconds =
                number.as_f64().filter(|seconds| seconds.abs() < 1e15).ok_or_else(wrong)?;
            let text = format!("{:.0}", seconds.floor());
            text.parse().map(Some).map_err(|_| wrong())
        }
        Some(_) => Err(wrong()),
    }
}

/// Checks `exp`, which every token must have, and `nbf`, with this much leeway; both in seconds.
pub fn check_times(claims: &Map<String, Value>, now: i64, leeway: i64) -> Result<(), TokenError> {
    let ends = moment(claims, "exp")?.ok_or_else(|| TokenError::Claim("exp".to_owned()))?;
    let begins = moment(claims, "nbf")?;
    if now >= ends.saturating_add(leeway) {
        return Err(TokenError::Ended);
    }
    match begins {
        Some(begins) if now < begins.saturating_sub(leeway) => Err(TokenError::Early),
        Some(_) | None => Ok(()),
    }
}

/// Whether a claim is the value, or a list with the value in it.
pub fn has_value(claims: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    let is_wanted = |value: &Value| match value {
        Value::String(text) => text == wanted,
        Value::Bool(_) | Value::Number(_) => {
            let written = value.to_string();
            written == wanted
        }
        _ => false,
    };
    match claims.get(name) {
        Some(Value::Array(values)) => values.iter().any(is_wanted),
        Some(value) => is_wanted(value),
        None => false,
    }
}

/// The algorithm as the library has it.
pub fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

fn install() {
    static ONCE: Once = Once::new();
    // Fails only where it is installed already.
    ONCE.call_once(|| {
        PROVIDER.install_default().ok();
    });
}

fn unsupported() -> Error {
    Error::from(ErrorKind::UnsupportedAlgorithm)
}

/// Signs with a shared key; nothing here has a private one.
struct Signer {
    algorithm: Algorithm,
    key: hmac::Key,
}

fn hash_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match hash_of(*algorithm) {
        Some(hash) if key.family() == AlgorithmFamily::Hmac => Ok(Box::new(Signer {
            algorithm: *algorithm,
            key: hmac::Key::new(hash, key.as_bytes()),
        })),
        _ => Err(Error::from(ErrorKind::InvalidAlgorithm)),
    }
}

impl signature::Signer<Vec<u8>> for Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.key, message).as_ref().to_vec())
    }
}

impl JwtSigner for Signer {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Checks signatures with one key.
struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if algorithm.family() != key.family() {
        return Err(Error::from(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let wrong = |_| signature::Error::new();
        if let Some(hash) = hash_of(self.algorithm) {
            let key = self.key.try_get_as_bytes().map_err(|_| signature::Error::new())?;
            // Takes the same time whatever the answer.
            return hmac::verify(&hmac::Key::new(hash, key), message, signed).map_err(wrong);
        }
        let rsa: Option<&'static with_ring::RsaParameters> = match self.algorithm {
            Algorithm::RS256 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Some(&with_ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Some(&with_ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Some(&with_ring::RSA_PSS_2048_8192_SHA512),
            _ => None,
        };
        if let Some(rsa) = rsa {
            return match self.key.kind() {
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    let key = with_ring::RsaPublicKeyComponents { n, e };
                    key.verify(rsa, message, signed).map_err(wrong)
                }
                DecodingKeyKind::SecretOrDer(der) => with_ring::UnparsedPublicKey::new(rsa, der)
                    .verify(message, signed)
                    .map_err(wrong),
            };
        }
        let curve: &'static dyn with_ring::VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &with_ring::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &with_ring::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &with_ring::ED25519,
            _ => return Err(signature::Error::new()),
        };
        let key = self.key.try_get_as_bytes().map_err(|_| signature::Error::new())?;
        with_ring::UnparsedPublicKey::new(curve, key).verify(message, signed).map_err(wrong)
    }
}

/// For fuzzing: any text as a token.
pub fn fuzz(text: &str) {
    head(text).ok();
    verify(text, &DecodingKey::from_secret(b"key"), &[Algorithm::HS256]).ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(token: &str, allowed: &[Algorithm]) -> Result<Map<String, Value>, TokenError> {
        verify(token, &DecodingKey::from_secret(b"key"), allowed)
    }

    fn part(value: &Value) -> String {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let token = sign(&json!({"sub": "anna"}), "k1", b"key").unwrap();
        assert_eq!(head(&token).unwrap().kid.as_deref(), Some("k1"));
        assert_eq!(claims(&token, &[Algorithm::HS256]).unwrap()["sub"], "anna");
        let other = verify(&token, &DecodingKey::from_secret(b"kex"), &[Algorithm::HS256]);
        assert_eq!(other, Err(TokenError::Signature));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let swapped = format!(
            "{}.{}.{signature}",
            signed.split('.').next().unwrap(),
            part(&json!({"sub": "eve"}))
        );
        assert_eq!(claims(&swapped, &[Algorithm::HS256]), Err(TokenError::Signature));
    }

    #[test]
    fn none_is_no_algorithm_and_a_public_key_is_no_shared_one() {
        for name in ["none", "None", "NONE", "nOnE"] {
            let token =
                format!("{}.{}.", part(&json!({"alg": name})), part(&json!({"sub": "eve"})));
            assert!(matches!(head(&token), Err(TokenError::Algorithm(_))), "{name}");
            assert!(claims(&token, &[Algorithm::HS256]).is_err());
        }
        // The classic: HS256 with the text of a public key as the shared one.
        let token = sign(&json!({"sub": "eve"}), "k", b"public").unwrap();
        let public = DecodingKey::from_rsa_raw_components(b"public", b"\x01\x00\x01");
        assert!(verify(&token, &public, &[Algorithm::RS256]).is_err());
        assert!(verify(&token, &public, &[Algorithm::HS256]).is_err());
        assert!(verify(&token, &DecodingKey::from_ed_der(b"public"), &[Algorithm::HS256]).is_err());
        // Not the algorithm that was asked for, though of the same family.
        assert!(matches!(claims(&token, &[Algorithm::HS512]), Err(TokenError::Algorithm(_))));
    }

    #[test]
    fn a_header_with_crit_and_a_token_too_long_are_refused() {
        let token =
            format!("{}.e30.AA", part(&json!({"alg": "HS256", "crit": ["b64"], "b64": false})));
        assert_eq!(head(&token).unwrap_err(), TokenError::Critical);
        assert!(head(&"x".repeat(LONGEST + 1)).is_err());
    }

    #[track_caller]
    fn times(claims: Value, expected: Result<(), TokenError>) {
        let claims = claims.as_object().unwrap().clone();
        assert_eq!(check_times(&claims, 1000, 10), expected);
    }

    #[test]
    fn a_token_holds_from_nbf_to_exp_with_leeway() {
        times(json!({"exp": 1001}), Ok(()));
        times(json!({"exp": 991}), Ok(()));
        times(json!({"exp": 990}), Err(TokenError::Ended));
        times(json!({"exp": 1001.5, "nbf": 1010}), Ok(()));
        times(json!({"exp": 2000, "nbf": 1011}), Err(TokenError::Early));
        times(json!({}), Err(TokenError::Claim("exp".to_owned())));
        times(json!({"exp": "9999"}), Err(TokenError::Claim("exp".to_owned())));
        times(json!({"exp": 1e300}), Err(TokenError::Claim("exp".to_owned())));
        times(json!({"exp": 2000, "nbf": "0"}), Err(TokenError::Claim("nbf".to_owned())));
    }
}
