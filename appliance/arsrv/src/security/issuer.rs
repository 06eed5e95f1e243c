//! Tokens of somebody else: JSON Web Tokens checked with the keys of their issuer.
//!
//! The keys are given, or read from the issuer's address and kept: read anew when a token names a key that is not
//! known, but no more often than every [`PAUSE`] whoever asks for it, and when they are older than [`FRESH`].  While
//! the issuer is away the last keys stay in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arapi::objects::JwtIssuerSpec;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::jwt::{self, TokenError};
use crate::outgoing::tls::{self, Trust};

/// Shortest time between two readings.
pub const PAUSE: Duration = Duration::from_secs(10);
/// How long keys are taken without looking whether there are new ones.
pub const FRESH: Duration = Duration::from_secs(600);
/// Longest time for one reading.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Largest key set.
const LARGEST: usize = 1024 * 1024;
/// Most keys of a set that are looked at.
const MOST_KEYS: usize = 100;

/// An issuer whose tokens are taken.
#[derive(Debug)]
pub struct Issuer {
    spec: JwtIssuerSpec,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// Given; None: the shared one is not known now.
    Given(Option<Arc<Vec<Key>>>),
    /// At an address.
    Remote(Arc<KeySet>),
}

/// One key of an issuer.
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Why a token did not open.
#[derive(Debug)]
pub enum Miss {
    /// It is not one of this issuer's, or a wrong one.
    Token(TokenError),
    /// Its key may be among those of an address that have not been read yet.
    Key(Arc<KeySet>),
    /// The keys are not known at all now.
    Unknown(Option<Arc<KeySet>>),
}

impl From<TokenError> for Miss {
    fn from(err: TokenError) -> Self {
        Self::Token(err)
    }
}

/// The keys at an address; shared by all who take tokens from there.
#[derive(Debug)]
pub struct KeySet {
    url: String,
    client: Result<reqwest::Client, String>,
    known: Mutex<Option<(Arc<Vec<Key>>, Instant)>>,
    /// When the last reading began; held while one is under way.
    reading: tokio::sync::Mutex<Option<Instant>>,
}

/// All key sets there are, by address and authority.
pub type KeySets = Mutex<BTreeMap<(String, Option<String>), Arc<KeySet>>>;

impl Issuer {
    /// An issuer; `secret` is the value of its shared key as far as it is known.
    pub fn new(spec: &JwtIssuerSpec, secret: Option<&str>, sets: &KeySets) -> Self {
        let keys = match (&spec.jwks_url, &spec.keys) {
            (Some(url), _) => {
                let mut sets = sets.lock().unwrap_or_else(PoisonError::into_inner);
                let set = sets
                    .entry((url.clone(), spec.tls_ca_pem.clone()))
                    .or_insert_with(|| Arc::new(KeySet::new(url, spec.tls_ca_pem.as_deref())));
                Keys::Remote(Arc::clone(set))
            }
            (None, Some(keys)) => Keys::Given(parse(keys.as_bytes()).ok().map(Arc::new)),
            (None, None) => Keys::Given(secret.map(|secret| {
                let key = DecodingKey::from_secret(secret.as_bytes());
                Arc::new(vec![Key { kid: None, algorithm: None, key }])
            })),
        };
        let algorithms = spec.algorithms.iter().map(|one| jwt::algorithm(*one)).collect();
        Self { spec: spec.clone(), algorithms, keys }
    }

    /// Whether tokens could be checked.
    pub fn is_known(&self) -> bool {
        match &self.keys {
            Keys::Given(keys) => keys.is_some(),
            // They are read when they are needed first.
            Keys::Remote(_) => true,
        }
    }

    /// The keys, if they are at an address and older than they should be.
    pub fn stale(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Remote(set) if set.is_stale() => Some(Arc::clone(set)),
            Keys::Remote(_) | Keys::Given(_) => None,
        }
    }

    /// Whether a token is this issuer's and holds; gives its claims.  Never waits.
    pub fn check(&self, token: &str, now: i64) -> Result<Map<String, Value>, Miss> {
        let head = jwt::head(token)?;
        if !self.algorithms.contains(&head.algorithm) {
            return Err(TokenError::Algorithm(format!("{:?}", head.algorithm)).into());
        }
        // Who it says it is from is not believed yet, but what is somebody else's costs nothing more.
        let said = jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token);
        let said = said.map_err(|err| TokenError::Form(err.to_string()))?;
        if said.get("iss").and_then(Value::as_str) != Some(self.spec.issuer.as_str()) {
            return Err(TokenError::Claim("iss".to_owned()).into());
        }
        let keys = match &self.keys {
            Keys::Given(Some(keys)) => Arc::clone(keys),
            Keys::Given(None) => return Err(Miss::Unknown(None)),
            Keys::Remote(set) => set.known().ok_or_else(|| Miss::Unknown(Some(Arc::clone(set))))?,
        };
        let fits = |key: &&Key| {
            key.key.family() == head.algorithm.family()
                && key.algorithm.is_none_or(|algorithm| algorithm == head.algorithm)
                && match (&head.kid, &key.kid) {
                    (Some(wanted), Some(kid)) => wanted == kid,
                    // A shared key has no name, and an issuer with one key need not name it.
                    (Some(_), None) | (None, _) => true,
                }
        };
        let mut last = TokenError::Key;
        let mut found = None;
        for key in keys.iter().filter(fits) {
            match jwt::verify(token, &key.key, &[head.algorithm]) {
                Ok(claims) => {
                    found = Some(claims);
                    break;
                }
                Err(err) => last = err,
            }
        }
        let Some(claims) = found else {
            return Err(match (&self.keys, last) {
                (Keys::Remote(set), TokenError::Key) => Miss::Key(Arc::clone(set)),
                (_, err) => Miss::Token(err),
            });
        };
        self.check_claims(&claims, now)?;
        Ok(claims)
    }

    fn check_claims(&self, claims: &Map<String, Value>, now: i64) -> Result<(), TokenError> {
        let wrong = |name: &str| TokenError::Claim(name.to_owned());
        jwt::check_times(claims, now, self.spec.leeway_s.into())?;
        if claims.get("iss").and_then(Value::as_str) != Some(self.spec.issuer.as_str()) {
            return Err(wrong("iss"));
        }
        let audience = &self.spec.audience;
        if !audience.is_empty() && !audience.iter().any(|one| jwt::has_value(claims, "aud", one)) {
            return Err(wrong("aud"));
        }
        match self.spec.claims.iter().find(|(name, value)| !jwt::has_value(claims, name, value)) {
            Some((name, _)) => Err(wrong(name)),
            None => Ok(()),
        }
    }

    /// The user's name in a token's claims.
    pub fn username<'c>(&self, claims: &'c Map<String, Value>) -> &'c str {
        claims.get(&self.spec.username_claim).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The keys of a set that can check signatures.  Shared keys are not taken: a set is public.
fn parse(text: &[u8]) -> Result<Vec<Key>, String> {
    // One by one: a key of a kind that is not known here is no reason to refuse the others.
    let set: Value = serde_json::from_slice(text).map_err(|err| err.to_string())?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no `keys`")?;
    let mut found = Vec::new();
    for key in keys.iter().take(MOST_KEYS) {
        let Ok(key) = serde_json::from_value::<Jwk>(key.clone()) else { continue };
        let is_for_signatures =
            key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        if !is_for_signatures || matches!(key.algorithm, AlgorithmParameters::OctetKey(_)) {
            continue;
        }
        let Ok(decoding) = DecodingKey::from_jwk(&key) else { continue };
        let algorithm = key.common.key_algorithm.and_then(|one| one.to_string().parse().ok());
        found.push(Key { kid: key.common.key_id, algorithm, key: decoding });
    }
    if found.is_empty() {
        return Err("it has no key for signatures of a kind that is known here".to_owned());
    }
    Ok(found)
}

impl KeySet {
    fn new(url: &str, ca_pem: Option<&str>) -> Self {
        Self {
            url: url.to_owned(),
            client: client(url, ca_pem),
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    fn known(&self) -> Option<Arc<Vec<Key>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|(keys, _)| Arc::clone(keys))
    }

    /// Whether the keys are older than they should be, and may be read again.
    fn is_stale(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = known.as_ref().is_some_and(|(_, since)| since.elapsed() >= FRESH);
        is_old
            && self
                .reading
                .try_lock()
                .is_ok_and(|last| last.is_none_or(|last| last.elapsed() >= PAUSE))
    }

    /// Reads the keys, unless that was done a moment ago; who comes while they are read waits for it.  Says whether
    /// it is worth looking again.
    pub async fn refresh(&self) -> bool {
        let came = Instant::now();
        let mut reading = self.reading.lock().await;
        match *reading {
            Some(last) if last >= came => return true,
            Some(last) if last.elapsed() < PAUSE => return false,
            Some(_) | None => {}
        }
        // Counted from its end: those that came meanwhile are answered by it.
        let read = tokio::time::timeout(READ_LIMIT, self.read()).await;
        *reading = Some(Instant::now());
        match read.unwrap_or_else(|_| Err(format!("no answer within {READ_LIMIT:?}"))) {
            Ok(keys) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                *known = Some((Arc::new(keys), Instant::now()));
                true
            }
            Err(error) => {
                log::warn!(remote = self.url, error; "keys of an issuer cannot be read");
                false
            }
        }
    }

    async fn read(&self) -> Result<Vec<Key>, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let chain = |err: reqwest::Error| arbase::Chain(&err).to_string();
        let mut answer = client.get(&self.url).send().await.map_err(chain)?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(chain)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(format!("it is larger than {LARGEST} bytes"));
            }
        }
        parse(&body)
    }
}

fn client(url: &str, ca_pem: Option<&str>) -> Result<reqwest::Client, String> {
    let is_tls = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let trust = if is_tls { Trust::Authorities(ca_pem) } else { Trust::Anyone };
    let tls = tls::config(trust).map_err(|err| err.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|err| err.to_string())
}

/// For fuzzing: any bytes as a key set.
pub fn fuzz(bytes: &[u8]) {
    parse(bytes).ok();
}
