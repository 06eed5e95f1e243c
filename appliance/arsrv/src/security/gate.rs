//! Whether a request may pass: credentials in, caller out.
//!
//! A gate knows nothing of how credentials came: a door puts what it found into [`Presented`], whether that was in
//! headers of HTTP, in a SOAP envelope, in the first message of a WebSocket or in TLS.
//!
//! A channel names securities, groups of them, or both; any one suffices.  What becomes of a request that
//! satisfies none depends on whether the channel has groups, as in 3.2: with groups wrong credentials
//! are 403 and two kinds of credentials at once are 400, without groups everything is 401.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arapi::names::{Kind, ObjectName};
use arapi::objects::{ChannelSpec, SecretField, SecretText, SecuritySpec, Spec, WssSpec};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::certificate::{Asked, ClientCertificate};
use super::credentials::{self, Basic, Fingerprint};
use super::issuer::{Issuer, KeySet, KeySets, Miss};
use super::slowing::Slowing;
use super::tokens::{Account, Tokens};
use super::wss::{self, Nonces, UsernameToken, WssError};
use crate::limits::{Limiter, Limits};
use crate::world::World;

/// What gates share and what outlives them.
#[derive(Debug, Default)]
pub struct Shared {
    /// Tokens of our own.
    pub tokens: Arc<Tokens>,
    /// Keys of issuers.
    pub key_sets: KeySets,
    /// Nonces of WS-Security.
    pub nonces: Arc<Nonces>,
    /// Failed attempts.
    pub slowing: Slowing,
}

/// Every security that can open a gate, by name.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<ObjectName, Result<Arc<Key>, String>>);

/// One security that can open gates.
#[derive(Debug)]
pub struct Key {
    passed: Passed,
    lock: Lock,
    challenge: Option<HeaderValue>,
    fault: Option<String>,
}

/// What a caller has to present.
#[derive(Debug)]
enum Lock {
    /// A user's name with its password.
    Basic(String, Option<Fingerprint>),
    /// A header with a key in it.
    ApiKey(HeaderName, Option<Fingerprint>),
    /// A fixed token.
    Bearer(Option<Fingerprint>),
    /// A token of our own.
    Jwt(Arc<Account>),
    /// Somebody else's token.
    Issuer(Box<Issuer>),
    /// A UsernameToken.
    Wss(Box<WssSpec>, Option<SecretText>, Arc<Nonces>),
    /// A certificate.
    Certificate(Box<Asked>),
}

/// The security that let a request in.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Its name.
    pub name: ObjectName,
    /// What the service sees of it, a JSON document.
    pub document: Bytes,
    /// How much callers with it may do.
    pub limit: Option<Arc<Limiter>>,
}

/// What a request presents.
#[derive(Debug)]
pub struct Presented<'r> {
    /// Its headers, for API keys.
    pub headers: Option<&'r HeaderMap>,
    /// Whether there are credentials of any kind in `Authorization`.
    pub has_authorization: bool,
    /// A user's name with a password.
    pub basic: Option<Basic>,
    /// A bearer token.
    pub bearer: Option<&'r str>,
    /// A token of WS-Security.
    pub username_token: Option<&'r UsernameToken>,
    /// A certificate whose key the caller has proven to have.
    pub certificate: Option<&'r ClientCertificate>,
    /// Where it comes from; None: from inside.
    pub addr: Option<IpAddr>,
    /// When.
    pub now: SystemTime,
}

/// Why a request may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 403: wrong credentials, on a channel with groups.
    Forbidden,
    /// 400: two kinds of credentials, on a channel with groups.
    Both,
    /// 503: the credentials might be right, and their secret is not known now.
    Unknown(ObjectName),
    /// 429: too many failed attempts from there; not looked at.
    Slowed(Duration),
}

/// The check of one channel.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Open to all.
    is_open: bool,
    has_groups: bool,
    keys: Vec<Arc<Key>>,
    challenges: Vec<HeaderValue>,
    faults: Vec<String>,
}

/// What a security asks a caller to present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme<'g> {
    /// A user's name with a password.
    Basic,
    /// A key in this header.
    ApiKey(&'g str),
    /// A fixed token.
    Bearer,
    /// A JSON Web Token.
    Jwt,
    /// A token in a SOAP message.
    UsernameToken,
    /// A certificate, in TLS.
    Certificate,
}

/// What one look at the credentials gave.
enum Look<'g> {
    Opened(Cow<'g, Passed>),
    Refused(Refusal),
    /// Keys have to be read first.
    Wanting(Arc<KeySet>, Refusal),
}

impl<'r> Presented<'r> {
    /// What headers of HTTP present.
    pub fn of_headers(headers: &'r HeaderMap, addr: Option<IpAddr>, now: SystemTime) -> Self {
        Self {
            headers: Some(headers),
            has_authorization: headers.contains_key(AUTHORIZATION),
            basic: Basic::of(headers),
            bearer: credentials::bearer(headers),
            username_token: None,
            certificate: None,
            addr,
            now,
        }
    }

    fn seconds(&self) -> i64 {
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// Who the caller tries to be, and with what; None where guessing is of no use.
    fn attempt(&self, gate: &Gate) -> Option<((&'static str, String), Fingerprint)> {
        if let Some(basic) = &self.basic {
            return Some((("basic", basic.username.clone()), basic.password()));
        }
        if let Some(token) = self.username_token {
            let what = Fingerprint::of(token.password.as_bytes());
            return Some((("wss", token.username.clone()), what));
        }
        // A JSON Web Token cannot be guessed, and new ones come all the time.
        if let Some(token) = self.bearer
            && token.bytes().filter(|byte| *byte == b'.').count() != 2
        {
            return Some((("bearer", String::new()), Fingerprint::of(token.as_bytes())));
        }
        let headers = self.headers?;
        gate.keys.iter().find_map(|key| match &key.lock {
            Lock::ApiKey(header, _) => {
                let what = Fingerprint::of(headers.get(header)?.as_bytes());
                Some((("key", header.to_string()), what))
            }
            _ => None,
        })
    }
}

impl Keys {
    /// The keys of a world.  `secret` gives the value of a secret as far as it is known.
    pub fn plan(
        world: &World,
        limits: &Limits,
        secret: impl Fn(&str) -> Option<SecretText>,
        shared: &Shared,
        now: SystemTime,
    ) -> Self {
        let mut keys = BTreeMap::new();
        for object in world.of_kind(Kind::Security) {
            let Spec::Security(spec) = &object.spec else { continue };
            let name = &object.name;
            let key = if spec.is_active() {
                let limit = limits.of(Kind::Security, name).cloned();
                Key::new(name, spec, limit, &secret, shared, now).map(Arc::new)
            } else {
                Err(format!("security `{name}` is inactive"))
            };
            keys.insert(name.clone(), key);
        }
        Self(keys)
    }

    /// The accounts that can log in.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.values().filter_map(|key| match &key.as_ref().ok()?.lock {
            Lock::Jwt(account) => Some(account),
            _ => None,
        })
    }
}

impl Key {
    fn new(
        name: &ObjectName,
        spec: &SecuritySpec,
        limit: Option<Arc<Limiter>>,
        secret: &impl Fn(&str) -> Option<SecretText>,
        shared: &Shared,
        now: SystemTime,
    ) -> Result<Self, String> {
        let value = |field: &SecretField| match field {
            SecretField::Secret(name) => secret(name),
            SecretField::Value(_) | SecretField::Generate(_) => None,
        };
        let fingerprint = |field| Some(Fingerprint::of(value(field)?.0.as_bytes()));
        let bearer = || Some(format!("Bearer realm=\"{}\"", quoted(name.as_str())));
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let (lock, is_known, challenge) = match spec {
            SecuritySpec::Basic { username, realm, password, .. } => {
                let password = fingerprint(password);
                let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", quoted(realm));
                let is_known = password.is_some();
                (Lock::Basic(username.clone(), password), is_known, Some(challenge))
            }
            SecuritySpec::ApiKey { header, key, .. } => {
                let Ok(parsed) = HeaderName::from_bytes(header.as_bytes()) else {
                    return Err(format!("security `{name}`: `{header}` is no header"));
                };
                let key = fingerprint(key);
                let is_known = key.is_some();
                let challenge = format!("ApiKey header=\"{header}\"");
                (Lock::ApiKey(parsed, key), is_known, Some(challenge))
            }
            SecuritySpec::Bearer { token, .. } => {
                let token = fingerprint(token);
                let is_known = token.is_some();
                (Lock::Bearer(token), is_known, bearer())
            }
            SecuritySpec::Jwt(spec) => {
                let password = fingerprint(&spec.password);
                let key = value(&spec.signing_key);
                let key = key.as_ref().map(|key| key.0.as_str());
                let account = Account::new(name, spec, password, key, &shared.tokens, seconds);
                let is_known = account.is_known();
                (Lock::Jwt(Arc::new(account)), is_known, bearer())
            }
            SecuritySpec::JwtIssuer(spec) => {
                let secret = spec.secret.as_ref().and_then(value);
                let secret = secret.as_ref().map(|secret| secret.0.as_str());
                let issuer = Issuer::new(spec, secret, &shared.key_sets);
                let is_known = issuer.is_known();
                (Lock::Issuer(Box::new(issuer)), is_known, bearer())
            }
            SecuritySpec::Wss(spec) => {
                let password = value(&spec.password);
                let is_known = password.is_some();
                let nonces = Arc::clone(&shared.nonces);
                (Lock::Wss(Box::new(spec.clone()), password, nonces), is_known, None)
            }
            SecuritySpec::TlsChannel(spec) => {
                let asked = Asked::new(spec)
                    .map_err(|reason| format!("security `{name}` cannot be checked: {reason}"))?;
                (Lock::Certificate(Box::new(asked)), true, None)
            }
            SecuritySpec::TlsKeyCert(_) | SecuritySpec::Oauth(_) | SecuritySpec::Ntlm(_) => {
                return Err(format!(
                    "security `{name}` is of type `{}`, which only outgoing connections use",
                    spec.type_name()
                ));
            }
        };
        let fault = (!is_known).then(|| format!("the secret of security `{name}` is not known"));
        let username = match spec {
            SecuritySpec::Basic { username, .. } => username.as_str(),
            SecuritySpec::Jwt(spec) => &spec.username,
            SecuritySpec::Wss(spec) => &spec.username,
            _ => "",
        };
        let document = document(name, spec.type_name(), username);
        Ok(Self {
            passed: Passed { name: name.clone(), document, limit },
            lock,
            challenge: challenge.and_then(|text| HeaderValue::from_str(&text).ok()),
            fault,
        })
    }
}

/// A text in quotes of a header: what is neither quote nor backslash nor control stays as it is.
fn quoted(text: &str) -> String {
    let kept = text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && *c != '"');
    kept.collect::<String>().replace('\\', "\\\\")
}

impl Gate {
    /// The gate of a channel.
    pub fn of(channel: &ChannelSpec, world: &World, keys: &Keys) -> Self {
        if channel.security.is_empty() && channel.security_groups.is_empty() {
            return Self { is_open: true, ..Self::default() };
        }
        let mut gate = Self { has_groups: !channel.security_groups.is_empty(), ..Self::default() };
        for name in &channel.security {
            gate.add(name, keys);
        }
        for group in &channel.security_groups {
            match world.object(Kind::SecurityGroup, group).map(|object| &object.spec) {
                Some(Spec::SecurityGroup(spec)) => {
                    for name in &spec.members {
                        gate.add(name, keys);
                    }
                }
                _ => gate.faults.push(format!("security group `{group}` does not exist")),
            }
        }
        gate
    }

    /// A gate that one security opens.
    pub fn of_one(name: &ObjectName, keys: &Keys) -> Self {
        let mut gate = Self::default();
        gate.add(name, keys);
        gate
    }

    /// A gate that every security opens.  It does not say what it asks for: names of securities are nobody's business.
    pub fn of_all(keys: &Keys) -> Self {
        let mut gate = Self::default();
        for name in keys.0.keys() {
            gate.add(name, keys);
        }
        gate.challenges.clear();
        gate
    }

    /// What it asks for: each of its securities with what that is.
    pub fn schemes(&self) -> Vec<(&ObjectName, Scheme<'_>)> {
        self.keys
            .iter()
            .map(|key| {
                let scheme = match &key.lock {
                    Lock::Basic(..) => Scheme::Basic,
                    Lock::ApiKey(header, _) => Scheme::ApiKey(header.as_str()),
                    Lock::Bearer(_) => Scheme::Bearer,
                    Lock::Jwt(_) | Lock::Issuer(_) => Scheme::Jwt,
                    Lock::Wss(..) => Scheme::UsernameToken,
                    Lock::Certificate(_) => Scheme::Certificate,
                };
                (&key.passed.name, scheme)
            })
            .collect()
    }

    fn add(&mut self, name: &ObjectName, keys: &Keys) {
        let key = match keys.0.get(name) {
            Some(Ok(key)) => key,
            Some(Err(fault)) => return self.faults.push(fault.clone()),
            None => return self.faults.push(format!("security `{name}` does not exist")),
        };
        if let Some(challenge) = &key.challenge
            && !self.challenges.contains(challenge)
        {
            self.challenges.push(challenge.clone());
        }
        self.faults.extend(key.fault.clone());
        self.keys.push(Arc::clone(key));
    }

    /// The headers in which callers send keys.
    pub fn secret_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.keys.iter().filter_map(|key| match &key.lock {
            Lock::ApiKey(header, _) => Some(header),
            _ => None,
        })
    }

    /// Whether everybody passes.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The values of `WWW-Authenticate` that say what is asked for.
    pub fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }

    /// Whether callers with one of its securities are limited.
    pub fn has_limits(&self) -> bool {
        self.keys.iter().any(|key| key.passed.limit.is_some())
    }

    /// Whether it asks for certificates.
    pub fn asks_certificate(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.lock, Lock::Certificate(_)))
    }

    /// Whether it asks for credentials that stand in a message of SOAP.
    pub fn asks_username_token(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.lock, Lock::Wss(..)))
    }

    /// Whether one of its securities is this one.
    pub fn knows(&self, name: &ObjectName) -> bool {
        self.keys.iter().any(|key| key.passed.name == *name)
    }

    /// The secret of one of its securities, where callers have to show that very secret.
    pub fn mark(&self, name: &ObjectName) -> Option<Fingerprint> {
        match &self.keys.iter().find(|key| key.passed.name == *name)?.lock {
            Lock::Basic(_, secret) | Lock::ApiKey(_, secret) | Lock::Bearer(secret) => *secret,
            Lock::Jwt(_) | Lock::Issuer(_) | Lock::Wss(..) | Lock::Certificate(_) => None,
        }
    }

    /// What keeps securities of this gate from opening it, one sentence each.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Whether nobody can pass now.
    pub fn is_shut(&self) -> bool {
        !self.is_open && self.keys.iter().all(|key| key.fault.is_some())
    }

    /// Whether the caller may pass, and by which security.  Waits only where the keys of an issuer have to be read.
    pub async fn pass<'g>(
        &'g self,
        presented: &Presented<'_>,
        slowing: &Slowing,
    ) -> Result<Option<Cow<'g, Passed>>, Refusal> {
        if self.is_open {
            return Ok(None);
        }
        let attempt = match (presented.addr, presented.attempt(self)) {
            (Some(addr), Some(((kind, who), what))) => {
                let admitted = slowing.admit(addr, (kind, &who), what, Instant::now());
                Some(admitted.map_err(Refusal::Slowed)?)
            }
            _ => None,
        };
        if presented.bearer.is_some() {
            self.freshen();
        }
        let mut look = self.look(presented);
        if let Look::Wanting(set, refusal) = look {
            look = if set.refresh().await { self.look(presented) } else { Look::Refused(refusal) };
        }
        match look {
            Look::Opened(passed) => {
                if let Some(attempt) = attempt {
                    slowing.opened(attempt, Instant::now());
                }
                Ok(Some(passed))
            }
            Look::Refused(refusal) | Look::Wanting(_, refusal) => {
                let is_failure = matches!(refusal, Refusal::Unauthorized | Refusal::Forbidden);
                if let (Some(attempt), true) = (attempt, is_failure) {
                    slowing.failed(attempt, Instant::now());
                }
                Err(refusal)
            }
        }
    }

    /// Has keys read anew that are older than they should be; nobody waits for that.
    fn freshen(&self) {
        for key in &self.keys {
            if let Lock::Issuer(issuer) = &key.lock
                && let Some(set) = issuer.stale()
            {
                tokio::spawn(async move { set.refresh().await });
            }
        }
    }

    /// The same without waiting and without slowing anybody, for tests of rules.
    #[cfg(test)]
    pub(crate) fn check(&self, presented: &Presented<'_>) -> Result<Option<Passed>, Refusal> {
        if self.is_open {
            return Ok(None);
        }
        match self.look(presented) {
            Look::Opened(passed) => Ok(Some(passed.into_owned())),
            Look::Refused(refusal) | Look::Wanting(_, refusal) => Err(refusal),
        }
    }

    fn look(&self, presented: &Presented<'_>) -> Look<'_> {
        let has_authorization = presented.has_authorization;
        let has_key = self.keys.iter().any(|key| match &key.lock {
            Lock::ApiKey(header, _) => {
                presented.headers.is_some_and(|headers| headers.contains_key(header))
            }
            _ => false,
        });
        if self.has_groups && has_authorization && has_key {
            return Look::Refused(Refusal::Both);
        }
        let password = presented.basic.as_ref().map(Basic::password);
        let mut unknown = None;
        let mut wanting = None;
        for key in &self.keys {
            match key.lock.turn(presented, password, &mut wanting) {
                Turn::Opens(None) => return Look::Opened(Cow::Borrowed(&key.passed)),
                Turn::Opens(Some(username)) => {
                    let mut passed = key.passed.clone();
                    passed.document = document(&passed.name, "jwt", &username);
                    return Look::Opened(Cow::Owned(passed));
                }
                Turn::Unknown => unknown = unknown.or(Some(&key.passed.name)),
                Turn::No => {}
            }
        }
        let has_other = presented.username_token.is_some() || presented.certificate.is_some();
        let refusal = match unknown {
            Some(name) => Refusal::Unknown(name.clone()),
            None if self.has_groups && (has_authorization || has_key || has_other) => {
                Refusal::Forbidden
            }
            None => Refusal::Unauthorized,
        };
        match wanting {
            Some(set) => Look::Wanting(set, refusal),
            None => Look::Refused(refusal),
        }
    }
}

/// What one lock does with what is presented.
enum Turn {
    /// It opens; a name that is not that of the security may come with it.
    Opens(Option<String>),
    /// It might, if its secret were known.
    Unknown,
    No,
}

impl Lock {
    fn turn(
        &self,
        presented: &Presented<'_>,
        password: Option<Fingerprint>,
        wanting: &mut Option<Arc<KeySet>>,
    ) -> Turn {
        let compare = |secret: &Option<Fingerprint>, presented: Fingerprint| match secret {
            Some(secret) if secret.is(&presented) => Turn::Opens(None),
            Some(_) => Turn::No,
            None => Turn::Unknown,
        };
        match self {
            Self::Basic(username, secret) => match (&presented.basic, password) {
                (Some(basic), Some(password)) if basic.username == *username => {
                    compare(secret, password)
                }
                _ => Turn::No,
            },
            Self::ApiKey(header, secret) => {
                match presented.headers.and_then(|headers| headers.get(header)) {
                    Some(value) => compare(secret, Fingerprint::of(value.as_bytes())),
                    None => Turn::No,
                }
            }
            Self::Bearer(secret) => match presented.bearer {
                Some(token) => compare(secret, Fingerprint::of(token.as_bytes())),
                None => Turn::No,
            },
            Self::Jwt(account) => match presented.bearer {
                Some(_) if !account.is_known() => Turn::Unknown,
                Some(token) => match account.check(token, presented.seconds()) {
                    Ok(_) => Turn::Opens(None),
                    Err(err) => {
                        log::debug!(name:% = account.name, error:% = err; "token is not taken");
                        Turn::No
                    }
                },
                None => Turn::No,
            },
            Self::Issuer(issuer) => {
                let Some(token) = presented.bearer else { return Turn::No };
                match issuer.check(token, presented.seconds()) {
                    Ok(claims) => Turn::Opens(Some(issuer.username(&claims).to_owned())),
                    Err(Miss::Token(err)) => {
                        log::debug!(error:% = err; "token of an issuer is not taken");
                        Turn::No
                    }
                    Err(Miss::Key(set)) => {
                        *wanting = Some(set);
                        Turn::No
                    }
                    Err(Miss::Unknown(set)) => {
                        *wanting = set.or(wanting.take());
                        Turn::Unknown
                    }
                }
            }
            Self::Wss(spec, password, nonces) => {
                let Some(token) = presented.username_token else { return Turn::No };
                let Some(password) = password else {
                    return if token.username == spec.username { Turn::Unknown } else { Turn::No };
                };
                match wss::check(spec, &password.0, token, nonces, presented.seconds()) {
                    Ok(()) => Turn::Opens(None),
                    Err(WssError::Full) => Turn::Unknown,
                    Err(err) => {
                        log::debug!(error:% = err; "UsernameToken is not taken");
                        Turn::No
                    }
                }
            }
            Self::Certificate(asked) => {
                let Some(certificate) = presented.certificate else { return Turn::No };
                match asked.check(certificate, presented.now) {
                    Ok(()) => Turn::Opens(None),
                    Err(reason) => {
                        log::debug!(reason; "certificate is not taken");
                        Turn::No
                    }
                }
            }
        }
    }
}

/// What a service sees as `self.channel.security`.  `id` is stable across boxes and changes: services
/// log and compare it.
fn document(name: &ObjectName, type_name: &str, username: &str) -> Bytes {
    let document = serde_json::json!({
        "id": crate::channel::stable_id(Kind::Security, name),
        "name": name,
        "type": type_name,
        "username": username,
    });
    document.to_string().into()
}

#[cfg(test)]
mod tests;
