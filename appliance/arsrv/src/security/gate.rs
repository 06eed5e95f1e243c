//! Whether a request may pass, decided from its headers alone.
//!
//! A channel names securities, groups of them, or both; any one suffices.  What becomes of a request that
//! satisfies none depends on whether the channel has groups, as in 3.2: with groups wrong credentials
//! are 403 and two kinds of credentials at once are 400, without groups everything is 401.

use std::sync::Arc;

use arapi::names::{Kind, ObjectName};
use arapi::objects::{ChannelSpec, SecretField, SecuritySpec, Spec};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::credentials::{Basic, Fingerprint};
use crate::limits::{Limiter, Limits};
use crate::world::World;

/// The check of one channel.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Open to all.
    is_open: bool,
    has_groups: bool,
    keys: Vec<Key>,
    challenges: Vec<HeaderValue>,
    faults: Vec<String>,
}

/// One security that can open the gate.
#[derive(Debug, Clone)]
struct Key {
    passed: Passed,
    sought: Sought,
    /// None: the secret is not known.
    secret: Option<Fingerprint>,
}

/// What a request has to present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// A user's name with its password.
    Basic(String),
    /// A header with a key in it.
    ApiKey(HeaderName),
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
}

impl Gate {
    /// The gate of a channel.  `secret` gives the value of a secret as far as it is known.
    pub fn of(
        channel: &ChannelSpec,
        world: &World,
        limits: &Limits,
        secret: impl Fn(&str) -> Option<Fingerprint>,
    ) -> Self {
        if channel.security.is_empty() && channel.security_groups.is_empty() {
            return Self { is_open: true, ..Self::default() };
        }
        let mut gate = Self { has_groups: !channel.security_groups.is_empty(), ..Self::default() };
        for name in &channel.security {
            gate.add(name, world, limits, &secret);
        }
        for group in &channel.security_groups {
            match world.object(Kind::SecurityGroup, group).map(|object| &object.spec) {
                Some(Spec::SecurityGroup(spec)) => {
                    for name in &spec.members {
                        gate.add(name, world, limits, &secret);
                    }
                }
                _ => gate.faults.push(format!("security group `{group}` does not exist")),
            }
        }
        gate
    }

    /// A gate that one security opens.
    pub fn of_one(
        name: &ObjectName,
        world: &World,
        secret: impl Fn(&str) -> Option<Fingerprint>,
    ) -> Self {
        let mut gate = Self::default();
        gate.add(name, world, &Limits::default(), &secret);
        gate
    }

    fn add(
        &mut self,
        name: &ObjectName,
        world: &World,
        limits: &Limits,
        secret: &impl Fn(&str) -> Option<Fingerprint>,
    ) {
        let Some(Spec::Security(spec)) =
            world.object(Kind::Security, name).map(|object| &object.spec)
        else {
            self.faults.push(format!("security `{name}` does not exist"));
            return;
        };
        if !spec.is_active() {
            self.faults.push(format!("security `{name}` is inactive"));
            return;
        }
        let (sought, field, challenge) = match spec {
            SecuritySpec::Basic { username, realm, password, .. } => {
                // The realm has no quotes (checked by arapi); a backslash would quote what follows.
                let realm = realm.replace('\\', "\\\\");
                let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
                (Sought::Basic(username.clone()), password, challenge)
            }
            SecuritySpec::ApiKey { header, key, .. } => {
                let Ok(header_name) = HeaderName::from_bytes(header.as_bytes()) else { return };
                (Sought::ApiKey(header_name), key, format!("ApiKey header=\"{header}\""))
            }
            other => {
                self.faults.push(format!(
                    "security `{name}` is of type `{}`, which only outgoing connections use",
                    other.type_name()
                ));
                return;
            }
        };
        if let Ok(challenge) = HeaderValue::from_str(&challenge)
            && !self.challenges.contains(&challenge)
        {
            self.challenges.push(challenge);
        }
        let secret = match field {
            SecretField::Secret(secret_name) => secret(secret_name),
            SecretField::Value(_) | SecretField::Generate(_) => None,
        };
        if secret.is_none() {
            self.faults.push(format!("the secret of security `{name}` is not known"));
        }
        let document = document(name, spec);
        let limit = limits.of(Kind::Security, name).cloned();
        self.keys.push(Key {
            passed: Passed { name: name.clone(), document, limit },
            sought,
            secret,
        });
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

    /// What keeps securities of this gate from opening it, one sentence each.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Whether nobody can pass now.
    pub fn is_shut(&self) -> bool {
        !self.is_open && self.keys.iter().all(|key| key.secret.is_none())
    }

    /// Whether the request may pass, and by which security.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<&Passed>, Refusal> {
        if self.is_open {
            return Ok(None);
        }
        let has_authorization = headers.contains_key(http::header::AUTHORIZATION);
        let has_key = self.keys.iter().any(|key| match &key.sought {
            Sought::ApiKey(header) => headers.contains_key(header),
            Sought::Basic(_) => false,
        });
        if self.has_groups && has_authorization && has_key {
            return Err(Refusal::Both);
        }
        let basic = Basic::of(headers);
        let password = basic.as_ref().map(Basic::password);
        let mut unknown = None;
        for key in &self.keys {
            let presented = match &key.sought {
                Sought::Basic(username) => match (&basic, password) {
                    (Some(basic), Some(password)) if basic.username == *username => password,
                    _ => continue,
                },
                Sought::ApiKey(header) => match headers.get(header) {
                    Some(value) => Fingerprint::of(value.as_bytes()),
                    None => continue,
                },
            };
            match &key.secret {
                Some(secret) if secret.is(&presented) => return Ok(Some(&key.passed)),
                Some(_) => {}
                None => unknown = unknown.or(Some(&key.passed.name)),
            }
        }
        Err(match unknown {
            Some(name) => Refusal::Unknown(name.clone()),
            None if self.has_groups && (has_authorization || has_key) => Refusal::Forbidden,
            None => Refusal::Unauthorized,
        })
    }
}

/// What a service sees as `self.channel.security`.  `id` is stable across boxes and changes: services
/// log and compare it.
fn document(name: &ObjectName, spec: &SecuritySpec) -> Bytes {
    let username = match spec {
        SecuritySpec::Basic { username, .. } => username.as_str(),
        _ => "",
    };
    let document = serde_json::json!({
        "id": crate::channel::stable_id(Kind::Security, name),
        "name": name,
        "type": spec.type_name(),
        "username": username,
    });
    document.to_string().into()
}

#[cfg(test)]
mod tests;
