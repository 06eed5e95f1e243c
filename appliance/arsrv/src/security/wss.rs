//! WS-Security: the UsernameToken of a SOAP message (OASIS UsernameToken Profile 1.1).
//!
//! How it is found in the message is the channel's part; here it is checked.  With a digest the password never
//! travels; a nonce counts once, and `Created` must be of about now, so that what was overheard opens nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use arapi::objects::{WssPassword, WssSpec};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest;
use sha2::{Digest as _, Sha256};

use super::credentials::Fingerprint;

/// How far `Created` may lie in the future, seconds: clocks differ.
const AHEAD: i64 = 60;
/// Nonces that are remembered.
const NONCES: usize = 100_000;

/// A UsernameToken.
#[derive(Clone, Default)]
pub struct UsernameToken {
    /// The user's name.
    pub username: String,
    /// What stands in `Password`.
    pub password: String,
    /// Whether that is a digest.
    pub is_digest: bool,
    /// What stands in `Nonce`.
    pub nonce: Option<String>,
    /// What stands in `Created`.
    pub created: Option<String>,
}

impl std::fmt::Debug for UsernameToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsernameToken").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Nonces that were used, until when each has to be remembered.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<HashMap<[u8; 32], i64>>);

/// Why a token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WssError {
    /// Another user.
    #[error("it is of another user")]
    Username,
    /// The password is sent in the other way.
    #[error("its password is sent in a way that is not asked for")]
    Type,
    /// The password is wrong.
    #[error("its password is wrong")]
    Password,
    /// `Nonce` or `Created` is missing.
    #[error("it has no `Nonce` or no `Created`")]
    Missing,
    /// `Created` is no time.
    #[error("its `Created` is no time of UTC")]
    Created,
    /// `Created` is too long ago.
    #[error("it is too old")]
    Old,
    /// `Created` lies ahead.
    #[error("it was made in the future")]
    Ahead,
    /// The nonce was used.
    #[error("its nonce was used before")]
    Replayed,
    /// Too many nonces are remembered.
    #[error("no more nonces can be remembered now")]
    Full,
}

impl Nonces {
    fn once(&self, token: &UsernameToken, until: i64, now: i64) -> Result<(), WssError> {
        let (Some(nonce), Some(created)) = (&token.nonce, &token.created) else { return Ok(()) };
        let mut hash = Sha256::new();
        for part in [&token.username, nonce, created] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let key: [u8; 32] = hash.finalize().into();
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nonces.len() >= NONCES {
            nonces.retain(|_, until| *until > now);
        }
        if nonces.get(&key).is_some_and(|until| *until > now) {
            return Err(WssError::Replayed);
        }
        // Forgetting one early would let it in again.
        if nonces.len() >= NONCES {
            return Err(WssError::Full);
        }
        nonces.insert(key, until);
        Ok(())
    }
}

/// Whether a token opens; `now` in Unix seconds.  A nonce counts only where the password was right, so that nobody
/// can use up somebody else's.
pub fn check(
    spec: &WssSpec,
    password: &str,
    token: &UsernameToken,
    nonces: &Nonces,
    now: i64,
) -> Result<(), WssError> {
    if token.username != spec.username {
        return Err(WssError::Username);
    }
    if token.is_digest != (spec.password_type == WssPassword::Digest) {
        return Err(WssError::Type);
    }
    let is_bare = token.nonce.is_none() || token.created.is_none();
    if is_bare && (spec.reject_empty_nonce_creat || token.is_digest) {
        return Err(WssError::Missing);
    }
    let mut until = now;
    if let Some(created) = &token.created {
        let created = moment(created).ok_or(WssError::Created)?;
        until = created.saturating_add(spec.max_age_s.into());
        if now > until {
            return Err(WssError::Old);
        }
        if created > now + AHEAD {
            return Err(WssError::Ahead);
        }
    }
    let is_right = if token.is_digest {
        let expected = digest_of(token, password).ok_or(WssError::Password)?;
        Fingerprint::of(expected.as_bytes()).is(&Fingerprint::of(token.password.trim().as_bytes()))
    } else {
        Fingerprint::of(password.as_bytes()).is(&Fingerprint::of(token.password.as_bytes()))
    };
    if !is_right {
        return Err(WssError::Password);
    }
    nonces.once(token, until.saturating_add(1), now)
}

/// Base64 of SHA-1 of nonce, `Created` and password.
fn digest_of(token: &UsernameToken, password: &str) -> Option<String> {
    let nonce = BASE64_STANDARD.decode(token.nonce.as_deref()?.trim()).ok()?;
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&nonce);
    context.update(token.created.as_deref()?.as_bytes());
    context.update(password.as_bytes());
    Some(BASE64_STANDARD.encode(context.finish()))
}

/// A time of XML Schema, `2026-11-21T07:00:00.123Z` or with an offset, as Unix seconds.
fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let is_at = |at: usize, expected: u8| text.as_bytes().get(at) == Some(&expected);
    if !(is_at(4, b'-') && is_at(7, b'-') && is_at(10, b'T') && is_at(13, b':') && is_at(16, b':'))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        zone = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    let offset = match zone {
        // UTC is what the profile asks for; without a zone it is taken for that.
        "Z" | "" => 0,
        _ => {
            let (sign, rest) = zone.split_at_checked(1)?;
            let (hours, minutes) = rest.split_once(':')?;
            let of = |text: &str| (text.len() == 2).then(|| text.parse::<u8>().ok()).flatten();
            let seconds = i64::from(of(hours)?) * 3600 + i64::from(of(minutes)?) * 60;
            match sign {
                "+" => seconds,
                "-" => -seconds,
                _ => return None,
            }
        }
    };
    // Days since 1970 in the Gregorian calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// For fuzzing: any text as each part of a token.
pub fn fuzz(text: &str) {
    let token = UsernameToken {
        username: "a".to_owned(),
        password: text.to_owned(),
        is_digest: true,
        nonce: Some(text.to_owned()),
        created: Some(text.to_owned()),
    };
    moment(text);
    digest_of(&token, text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-11-21T07:00:00Z.
    const NOW: i64 = 1_795_244_400;

    fn spec(password_type: &str) -> WssSpec {
        serde_json::from_value(json!({"username": "crm", "password_type": password_type})).unwrap()
    }

    fn token(nonce: &str, created: &str, password: &str) -> UsernameToken {
        let mut token = UsernameToken {
            username: "crm".to_owned(),
            password: String::new(),
            is_digest: true,
            nonce: Some(BASE64_STANDARD.encode(nonce)),
            created: Some(created.to_owned()),
        };
        token.password = digest_of(&token, password).unwrap();
        token
    }

    #[test]
    fn times_are_read_as_xml_schema_has_them() {
        assert_eq!(moment("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(moment("2000-02-29T12:00:00.5Z"), Some(951_825_600));
        assert_eq!(moment("2026-11-21T07:00:00Z"), Some(NOW));
        assert_eq!(moment("2026-11-21T08:00:00.123456+01:00"), Some(NOW));
        assert_eq!(moment("2026-11-21T01:30:00-05:30"), Some(NOW));
        for wrong in [
            "",
            "2026-11-21",
            "2026-13-21T07:00:00Z",
            "2026-11-21T07:00:00.Z",
            "2026-11-21T07:00:00+1",
            "2026-11-21 07:00:00Z",
        ] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_profile() {
        // Computed with hashlib: b64(sha1(b"abc" + created + password)).
        let token = token("abc", "2026-11-21T07:00:00Z", "s3cret");
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(b"abc2026-11-21T07:00:00Zs3cret");
        assert_eq!(token.password, BASE64_STANDARD.encode(context.finish()));
    }

    #[test]
    fn a_digest_opens_once_within_its_time() {
        let (spec, nonces) = (spec("digest"), Nonces::default());
        let check = |token: &UsernameToken, now| check(&spec, "s3cret", token, &nonces, now);
        let fresh = token("n1", "2026-11-21T07:00:00Z", "s3cret");
        assert_eq!(
            check(&token("n1", "2026-11-21T07:00:00Z", "wrong"), NOW),
            Err(WssError::Password)
        );
        assert_eq!(check(&fresh, NOW + 300), Ok(()));
        assert_eq!(check(&fresh, NOW + 300), Err(WssError::Replayed));
        assert_eq!(check(&fresh, NOW + 301), Err(WssError::Old));
        assert_eq!(
            check(&token("n2", "2026-11-21T07:02:00Z", "s3cret"), NOW),
            Err(WssError::Ahead)
        );
        let mut bare = fresh.clone();
        bare.nonce = None;
        assert_eq!(check(&bare, NOW), Err(WssError::Missing));
        let mut text = fresh;
        text.is_digest = false;
        assert_eq!(check(&text, NOW), Err(WssError::Type));
    }

    #[test]
    fn a_text_opens_where_it_is_asked_for() {
        let mut spec = spec("text");
        spec.reject_empty_nonce_creat = false;
        let nonces = Nonces::default();
        let token = |password: &str| UsernameToken {
            username: "crm".to_owned(),
            password: password.to_owned(),
            ..UsernameToken::default()
        };
        assert_eq!(check(&spec, "s3cret", &token("s3cret"), &nonces, NOW), Ok(()));
        assert_eq!(check(&spec, "s3cret", &token("wrong"), &nonces, NOW), Err(WssError::Password));
        assert!(!format!("{:?}", token("s3cret")).contains("s3cret"));
    }
}
