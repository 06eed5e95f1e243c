//! Tokens of our own: made at `/zato/jwt/log-in` for a name and a password, checked by gates, ended by log-out.
//!
//! A token is a JSON Web Token signed with a key from the secret store, so any box with that store can check it.  It
//! is short-lived; as in 3.2 using it renews it, which is remembered here and not in the token, up to the age at
//! which it ends for good.  A key that was replaced is good for checking until the tokens signed with it have ended.
//!
//! **Invariant:** a token that was logged out does not come back, not after a restart either: that it ended is on
//! disk before the log-out is answered.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arapi::names::ObjectName;
use arapi::objects::JwtSpec;
use jsonwebtoken::{Algorithm, DecodingKey};
use rand::RngCore as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::credentials::Fingerprint;
use super::jwt::{self, TokenError};

/// Tokens whose use is remembered.
const REMEMBERED: usize = 100_000;
/// Ends that are kept in all.
const ENDS: usize = 1_000_000;
const ISSUER: &str = "arint";

/// What is known of tokens on this box.
#[derive(Debug, Default)]
pub struct Tokens {
    used: Mutex<HashMap<String, i64>>,
    ended: Mutex<Ended>,
    keys: Mutex<BTreeMap<ObjectName, Vec<SigningKey>>>,
}

#[derive(Debug, Default)]
struct Ended {
    /// Until when each has to be remembered.
    tokens: HashMap<String, i64>,
    file: Option<(PathBuf, File)>,
}

#[derive(Clone)]
struct SigningKey {
    kid: String,
    secret: Vec<u8>,
    check: DecodingKey,
    /// When its last token ends; None: it is in use.
    until: Option<i64>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Who may log in, and whose tokens are taken.
#[derive(Debug)]
pub struct Account {
    /// The security.
    pub name: ObjectName,
    /// The user's name.
    pub username: String,
    password: Option<Fingerprint>,
    keys: Vec<SigningKey>,
    ttl: i64,
    max_age: i64,
    renews: bool,
    tokens: Arc<Tokens>,
}

/// Why a log-out is not done.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// It is no token of this account.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It could not be kept.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are too many.
    #[error("{ENDS} tokens were logged out already and have not ended yet")]
    Full,
}

impl Tokens {
    /// Reads which tokens were logged out, from a file that is made where it is missing.
    pub fn open(path: &Path, now: i64) -> io::Result<Self> {
        let known = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
            Err(err) => return Err(err),
        };
        let mut tokens = HashMap::new();
        for line in known.lines() {
            // A line that was cut by a power cut was never acknowledged.
            if let Some((id, until)) = line.split_once(' ')
                && let Ok(until) = until.parse::<i64>()
                && until > now
            {
                tokens.insert(id.to_owned(), until);
            }
        }
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        for (id, until) in &tokens {
            writeln!(file, "{id} {until}")?;
        }
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        let file = OpenOptions::new().append(true).open(path)?;
        let ended = Mutex::new(Ended { tokens, file: Some((path.to_owned(), file)) });
        Ok(Self { ended, ..Self::default() })
    }

    /// The keys of an account, of which the first is in use.
    fn keys(&self, name: &ObjectName, secret: &[u8], ttl: i64, now: i64) -> Vec<SigningKey> {
        let mut all = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = all.entry(name.clone()).or_default();
        keys.retain(|key| key.until.is_none_or(|until| until > now));
        if keys.first().is_none_or(|key| key.secret != secret) {
            for key in keys.iter_mut() {
                key.until = key.until.or(Some(now + ttl));
            }
            // One that comes back is in use again.
            keys.retain(|key| key.secret != secret);
            let digest = Sha256::digest(secret);
            let kid = hex::encode(digest.get(..8).unwrap_or_default());
            let (secret, check) = (secret.to_vec(), DecodingKey::from_secret(secret));
            keys.insert(0, SigningKey { kid, secret, check, until: None });
        }
        keys.clone()
    }

    fn is_ended(&self, id: &str) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.tokens.contains_key(id)
    }

    fn end(&self, id: &str, until: i64, now: i64) -> Result<(), EndError> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.tokens.len() >= ENDS {
            ended.tokens.retain(|_, until| *until > now);
        }
        if ended.tokens.len() >= ENDS {
            return Err(EndError::Full);
        }
        if let Some((path, file)) = &mut ended.file {
            let line = format!("{id} {until}\n");
            let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
            if let Err(source) = written {
                return Err(EndError::Write { path: path.clone(), source });
            }
        }
        ended.tokens.insert(id.to_owned(), until);
        drop(ended);
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    fn last_use(&self, id: &str) -> Option<i64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    fn note_use(&self, id: &str, now: i64, ttl: i64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = used.get_mut(id) {
            *last = now;
            return;
        }
        if used.len() >= REMEMBERED {
            used.retain(|_, last| *last + ttl > now);
        }
        if used.len() < REMEMBERED {
            used.insert(id.to_owned(), now);
        }
    }
}

/// What a token of ours says.
struct Own {
    id: String,
    since: i64,
    until: i64,
}

impl Account {
    /// An account; without the secrets nobody can log in.
    pub fn new(
        name: &ObjectName,
        spec: &JwtSpec,
        password: Option<Fingerprint>,
        signing_key: Option<&str>,
        tokens: &Arc<Tokens>,
        now: i64,
    ) -> Self {
        let ttl = i64::from(spec.ttl_s);
        let keys = signing_key.map(|key| tokens.keys(name, key.as_bytes(), ttl, now));
        Self {
            name: name.clone(),
            username: spec.username.clone(),
            password,
            keys: keys.unwrap_or_default(),
            ttl,
            max_age: i64::from(spec.max_age_s).max(ttl),
            renews: spec.renew_on_use,
            tokens: Arc::clone(tokens),
        }
    }

    /// Whether its secrets are known.
    pub fn is_known(&self) -> bool {
        self.password.is_some() && !self.keys.is_empty()
    }

    /// A new token, if the password is right.
    pub fn log_in(&self, password: &Fingerprint, now: i64) -> Option<String> {
        match &self.password {
            Some(own) if own.is(password) => self.make(now, now),
            Some(_) | None => None,
        }
    }

    fn make(&self, since: i64, now: i64) -> Option<String> {
        let key = self.keys.first()?;
        let mut id = [0_u8; 16];
        rand::rng().fill_bytes(&mut id);
        let claims = json!({
            "iss": ISSUER,
            "sub": self.username,
            "sec": self.name,
            "jti": hex::encode(id),
            "iat": now,
            "auth_time": since,
            "exp": (now + self.ttl).min(since + self.max_age),
        });
        jwt::sign(&claims, &key.kid, &key.secret).ok()
    }

    /// Whether a token is one of this account's and holds; using it renews it.
    pub fn check(&self, token: &str, now: i64) -> Result<Map<String, Value>, TokenError> {
        let (own, claims) = self.read(token, now)?;
        if self.renews {
            self.tokens.note_use(&own.id, now, self.ttl);
        }
        Ok(claims)
    }

    fn read(&self, token: &str, now: i64) -> Result<(Own, Map<String, Value>), TokenError> {
        let kid = jwt::head(token)?.kid.ok_or(TokenError::Key)?;
        let key = self.keys.iter().find(|key| key.kid == kid).ok_or(TokenError::Key)?;
        if key.until.is_some_and(|until| now >= until) {
            return Err(TokenError::Key);
        }
        let claims = jwt::verify(token, &key.check, &[Algorithm::HS256])?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let moment = |name: &str| {
            jwt::moment(&claims, name)?.ok_or_else(|| TokenError::Claim(name.to_owned()))
        };
        for (name, expected) in
            [("iss", ISSUER), ("sec", self.name.as_str()), ("sub", self.username.as_str())]
        {
            if text(name) != Some(expected) {
                return Err(TokenError::Claim(name.to_owned()));
            }
        }
        let id = text("jti").ok_or_else(|| TokenError::Claim("jti".to_owned()))?.to_owned();
        let (since, until) = (moment("auth_time")?, moment("exp")?);
        let renewed = if self.renews { self.tokens.last_use(&id) } else { None };
        let until = renewed.map_or(until, |last| until.max(last + self.ttl));
        if now >= until.min(since + self.max_age) || self.tokens.is_ended(&id) {
            return Err(TokenError::Ended);
        }
        Ok((Own { id, since, until }, claims))
    }

    /// A new token for one that holds; the age counts from the log-in.
    pub fn refresh(&self, token: &str, now: i64) -> Result<String, TokenError> {
        let (own, _) = self.read(token, now)?;
        self.make(own.since, now).ok_or(TokenError::Key)
    }

    /// Ends a token; on disk once this returns.
    pub fn log_out(&self, token: &str, now: i64) -> Result<(), EndError> {
        let (own, _) = self.read(token, now)?;
        let until = own.until.max(own.since + self.max_age);
        self.tokens.end(&own.id, until, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(tokens: &Arc<Tokens>, key: &str, now: i64) -> Account {
        let spec: JwtSpec =
            serde_json::from_value(json!({"username": "anna", "ttl_s": 100, "max_age_s": 250}))
                .unwrap();
        let password = Some(Fingerprint::of(b"pw"));
        Account::new(&ObjectName::parse("a").unwrap(), &spec, password, Some(key), tokens, now)
    }

    fn log_in(account: &Account, now: i64) -> String {
        account.log_in(&Fingerprint::of(b"pw"), now).unwrap()
    }

    #[test]
    fn a_token_ends_unless_it_is_used_and_at_its_age_in_any_case() {
        let tokens = Arc::default();
        let account = account(&tokens, "k", 0);
        assert!(account.log_in(&Fingerprint::of(b"wrong"), 0).is_none());
        let (idle, used) = (log_in(&account, 0), log_in(&account, 0));
        assert!(account.check(&used, 90).is_ok());
        assert_eq!(account.check(&idle, 100), Err(TokenError::Ended));
        assert!(account.check(&used, 180).is_ok());
        assert!(account.check(&used, 249).is_ok());
        assert_eq!(account.check(&used, 250), Err(TokenError::Ended));
    }

    #[test]
    fn a_refreshed_token_keeps_the_age_of_its_log_in() {
        let tokens = Arc::default();
        let account = account(&tokens, "k", 0);
        let second = account.refresh(&log_in(&account, 0), 90).unwrap();
        let third = account.refresh(&second, 180).unwrap();
        assert!(account.check(&third, 249).is_ok());
        assert_eq!(account.check(&third, 251), Err(TokenError::Ended));
    }

    #[test]
    fn a_replaced_key_holds_until_its_tokens_have_ended() {
        let tokens = Arc::default();
        let old = log_in(&account(&tokens, "k1", 0), 0);
        let rotated = account(&tokens, "k2", 50);
        assert!(rotated.check(&old, 60).is_ok());
        assert!(rotated.check(&log_in(&rotated, 60), 149).is_ok());
        assert_eq!(rotated.check(&old, 151), Err(TokenError::Key));
        // Tokens of another security are none of this one's.
        let spec: JwtSpec = serde_json::from_value(json!({"username": "anna"})).unwrap();
        let name = ObjectName::parse("b").unwrap();
        let other = Account::new(&name, &spec, None, Some("k2"), &tokens, 60);
        assert_eq!(
            other.check(&log_in(&rotated, 60), 61),
            Err(TokenError::Claim("sec".to_owned()))
        );
    }

    #[test]
    fn a_log_out_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ended-tokens");
        let tokens = Arc::new(Tokens::open(&path, 0).unwrap());
        let first = account(&tokens, "k", 0);
        let (out, stays) = (log_in(&first, 0), log_in(&first, 0));
        first.log_out(&out, 10).unwrap();
        assert_eq!(first.check(&out, 11), Err(TokenError::Ended));
        assert!(first.log_out(&out, 12).is_err());
        let again = Arc::new(Tokens::open(&path, 20).unwrap());
        let second = account(&again, "k", 20);
        assert_eq!(second.check(&out, 21), Err(TokenError::Ended));
        assert!(second.check(&stays, 21).is_ok());
        // What has ended anyway is forgotten.
        drop(Tokens::open(&path, 1000).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
