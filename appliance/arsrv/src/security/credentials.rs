//! Credentials as they stand in a request.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Clients differ about the padding; it carries nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user's name and password (RFC 7617).
pub struct Basic {
    /// The name.
    pub username: String,
    password: Vec<u8>,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Basic {
    /// The credentials in `Authorization: Basic …`; None if there are none, or none that can be read.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(AUTHORIZATION)?.as_bytes())
    }

    /// Of a name and a password that came another way.
    pub fn new(username: &str, password: &str) -> Self {
        Self { username: username.to_owned(), password: password.as_bytes().to_owned() }
    }

    /// Parses the header's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let mut pair = BASE64.decode(rest.trim_ascii()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let password = pair.split_off(colon + 1);
        pair.pop();
        Some(Self { username: String::from_utf8(pair).ok()?, password })
    }

    /// The password's fingerprint.
    pub fn password(&self) -> Fingerprint {
        Fingerprint::of(&self.password)
    }
}

/// The token in `Authorization: Bearer …` (RFC 6750); None if there is none.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Stands for a secret where it only has to be compared.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

impl Fingerprint {
    /// Of a secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether it is the same secret; takes the same time whatever the answer.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<(&str, &str)>) {
        let found = Basic::parse(value.as_bytes());
        let found = found.map(|basic| (basic.username, String::from_utf8(basic.password).unwrap()));
        let expected = expected.map(|(name, password)| (name.to_owned(), password.to_owned()));
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn basic_credentials_are_read_as_rfc_7617_has_them() {
        check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame")));
        check("basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ", Some(("Aladdin", "open sesame")));
        // Only the first colon divides.
        check("Basic YTpiOmM=", Some(("a", "b:c")));
        check("Basic YTo=", Some(("a", "")));
        // test:123£ in UTF-8, the example of RFC 7617.
        check("Basic dGVzdDoxMjPCow==", Some(("test", "123£")));
    }

    #[test]
    fn what_is_no_basic_credential_is_none() {
        for value in ["", "Basic", "Basic ", "Bearer abc", "Basic ???", "Basic YWI=", "Basic /zph"]
        {
            check(value, None);
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let basic = Basic::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap();
        assert_eq!(format!("{basic:?}"), "Basic { username: \"Aladdin\", .. }");
        assert_eq!(format!("{:?}", basic.password()), "Fingerprint");
    }
}
