//! Who may do what: users, roles and tokens as they are in the object store.
//!
//! A watch keeps them in memory, so that a call costs no question to the store; [`Mirror::reached`] waits until
//! a change just made is seen.  While the store does not answer the last state known holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arapi::arclst::{Client, WatchEvent};
use arapi::objects::access::fits_pattern;
use arapi::objects::{Permission, RoleSpec, TokenSpec, UserSpec};
use arapi::{Kind, Object, ObjectName, Spec};
use arbase::{Chain, Stop};
use tokio::sync::watch;

use crate::tokens::sha256_hex;

/// Everything that may be done.
pub(crate) const EVERYTHING: [Permission; 8] = [
    Permission::Read,
    Permission::Logs,
    Permission::Operate,
    Permission::Develop,
    Permission::Configure,
    Permission::Access,
    Permission::Audit,
    Permission::System,
];

/// Wait between attempts to reach the store.
const RETRY: Duration = Duration::from_millis(100);

/// Users, roles and tokens at one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct People {
    /// The store's revision.
    pub(crate) revision: u64,
    /// The users.
    pub(crate) users: BTreeMap<ObjectName, UserSpec>,
    /// The roles.
    pub(crate) roles: BTreeMap<ObjectName, RoleSpec>,
    tokens: BTreeMap<ObjectName, Kept>,
    by_hash: HashMap<String, ObjectName>,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    /// Its object.
    pub(crate) spec: TokenSpec,
    /// When it was made.
    pub(crate) created_ms: u64,
}

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// The user.
    pub(crate) user: ObjectName,
    /// The name of the token's object.
    pub(crate) token: ObjectName,
}

impl People {
    /// The kinds it is made of.
    pub(crate) const KINDS: &[Kind] = &[Kind::Role, Kind::User, Kind::Token];

    /// Takes in an object.
    pub(crate) fn put(&mut self, object: Object) {
        let Object { name, spec, created_ms, .. } = object;
        self.put_spec(name, spec, created_ms);
    }

    /// Takes in an object that is not stored yet.
    pub(crate) fn put_spec(&mut self, name: ObjectName, spec: Spec, created_ms: u64) {
        match spec {
            Spec::User(user) => drop(self.users.insert(name, user)),
            Spec::Role(role) => drop(self.roles.insert(name, role)),
            Spec::Token(spec) => {
                self.remove(Kind::Token, &name);
                self.by_hash.insert(spec.sha256.clone(), name.clone());
                self.tokens.insert(name, Kept { spec, created_ms });
            }
            _ => {}
        }
    }

    /// Takes out an object.
    pub(crate) fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::User => drop(self.users.remove(name)),
            Kind::Role => drop(self.roles.remove(name)),
            Kind::Token => {
                if let Some(kept) = self.tokens.remove(name) {
                    self.by_hash.remove(&kept.spec.sha256);
                }
            }
            _ => {}
        }
    }

    /// Whether the box has its first admin.
    pub(crate) fn is_claimed(&self) -> bool {
        !self.users.is_empty()
    }

    /// What a user may do; nothing if there is no such active user.
    pub(crate) fn permissions(&self, user: &str) -> BTreeSet<Permission> {
        let Some(user) = self.users.get(user).filter(|user| user.is_active) else {
            return BTreeSet::new();
        };
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        roles.flat_map(|role| role.permissions.iter().copied()).collect()
    }

    /// Whether a user may invoke a service by hand: one of its roles that lets it operate has a pattern that fits.
    pub(crate) fn may_invoke(&self, user: &str, service: &str) -> bool {
        let Some(user) = self.users.get(user).filter(|user| user.is_active) else { return false };
        let mut roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        roles.any(|role| {
            role.permissions.contains(&Permission::Operate)
                && role.services.iter().any(|pattern| fits_pattern(pattern, service))
        })
    }

    /// Whom a token stands for at the moment `now_ms`.
    pub(crate) fn bearer(&self, token: &str, now_ms: u64) -> Option<Bearer> {
        let name = self.by_hash.get(&sha256_hex(token.as_bytes()))?;
        let kept = self.tokens.get(name)?;
        let live = kept.spec.expires_ms.is_none_or(|ends| ends > now_ms);
        let active = self.users.get(&kept.spec.user).is_some_and(|user| user.is_active);
        (live && active).then(|| Bearer { user: kept.spec.user.clone(), token: name.clone() })
    }

    /// The tokens by name.
    pub(crate) fn tokens(&self) -> &BTreeMap<ObjectName, Kept> {
        &self.tokens
    }

    /// The names of a user's tokens.
    pub(crate) fn tokens_of(&self, user: &str) -> Vec<ObjectName> {
        let of_user = self.tokens.iter().filter(|(_, kept)| kept.spec.user.as_str() == user);
        of_user.map(|(name, _)| name.clone()).collect()
    }

    /// The names of tokens that have ended.
    pub(crate) fn ended_tokens(&self, now_ms: u64) -> Vec<ObjectName> {
        let ended = |kept: &Kept| kept.spec.expires_ms.is_some_and(|ends| ends <= now_ms);
        self.tokens.iter().filter(|(_, kept)| ended(kept)).map(|(name, _)| name.clone()).collect()
    }

    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Snapshot(listing) => {
                *self = Self { revision: listing.revision, ..Self::default() };
                listing.objects.into_iter().for_each(|object| self.put(object));
            }
            WatchEvent::Commit { revision, changes, .. } => {
                self.revision = revision;
                for change in changes {
                    match change.object {
                        Some(object) => self.put(object),
                        None => self.remove(change.kind, &change.name),
                    }
                }
            }
        }
    }
}

/// The people as far as the watch has brought them.
#[derive(Debug, Clone)]
pub(crate) struct Mirror(watch::Receiver<Option<Arc<People>>>);

impl Mirror {
    /// Starts the watch; it ends with `stop`.
    pub(crate) fn start(client: Client, stop: Stop) -> Self {
        let (tx, rx) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                () = follow(client, tx) => {}
                () = stop.wait() => {}
            }
        });
        Self(rx)
    }

    /// The people now; `None` until the store has answered once.
    pub(crate) fn now(&self) -> Option<Arc<People>> {
        self.0.borrow().clone()
    }

    /// Returns once the store has answered.
    pub(crate) async fn first(&self) -> Arc<People> {
        let mut rx = self.0.clone();
        let people = rx.wait_for(Option::is_some).await.map(|people| people.clone());
        people.ok().flatten().unwrap_or_default()
    }

    /// Returns once the people are at `revision` or later, at the latest after two seconds: the change
    /// is kept in any case, only calls that follow at once might not see it yet.
    pub(crate) async fn reached(&self, revision: u64) {
        let mut rx = self.0.clone();
        let there =
            rx.wait_for(|people| people.as_ref().is_some_and(|people| people.revision >= revision));
        if tokio::time::timeout(Duration::from_secs(2), there).await.is_err() {
            log::warn!(revision; "the watch of users and roles is late");
        }
    }
}

async fn follow(client: Client, tx: watch::Sender<Option<Arc<People>>>) {
    let mut reported = false;
    let mut people = People::default();
    loop {
        let ended = match client.watch(People::KINDS).await {
            Err(err) => Chain(&err).to_string(),
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(event)) => {
                        people.take(event);
                        tx.send_replace(Some(Arc::new(people.clone())));
                        reported = false;
                    }
                    Ok(None) => break "the watch ended".to_owned(),
                    Err(err) => break Chain(&err).to_string(),
                }
            },
        };
        // At the start of a box the store may come up after us.
        if tx.borrow().is_none() {
            log::debug!(error:% = ended; "the object store cannot be watched yet");
        } else if !reported {
            log::warn!(error:% = ended; "the object store is away; users and roles stay as they were");
            reported = true;
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn spec(kind: Kind, json: serde_json::Value) -> Spec {
        Spec::parse(kind, "x", json).unwrap()
    }

    fn people() -> People {
        let mut people = People::default();
        let role = spec(Kind::Role, serde_json::json!({"permissions": ["read", "logs"]}));
        people.put_spec(name("viewer"), role, 0);
        let user = spec(Kind::User, serde_json::json!({"roles": ["viewer"]}));
        people.put_spec(name("anna"), user, 0);
        let hash = sha256_hex(b"arint_x");
        let token = serde_json::json!({"user": "anna", "sha256": hash, "expires_ms": 1000});
        people.put_spec(name("tok-1"), spec(Kind::Token, token), 1);
        people
    }

    #[test]
    fn a_token_stands_for_its_user_until_it_ends() {
        let people = people();
        let bearer = people.bearer("arint_x", 999).unwrap();
        assert_eq!((bearer.user.as_str(), bearer.token.as_str()), ("anna", "tok-1"));
        assert_eq!(people.bearer("arint_x", 1000), None);
        assert_eq!(people.bearer("arint_y", 1), None);
        assert_eq!(people.ended_tokens(1000), [name("tok-1")]);
    }

    #[test]
    fn an_inactive_user_may_nothing_and_his_tokens_open_nothing() {
        let mut people = people();
        assert_eq!(people.permissions("anna"), [Permission::Read, Permission::Logs].into());
        let user = spec(Kind::User, serde_json::json!({"roles": ["viewer"], "is_active": false}));
        people.put_spec(name("anna"), user, 0);
        assert_eq!(people.permissions("anna"), BTreeSet::new());
        assert_eq!(people.bearer("arint_x", 1), None);
    }

    #[test]
    fn a_token_that_was_removed_or_replaced_opens_nothing() {
        let mut people = people();
        let token = serde_json::json!({"user": "anna", "sha256": sha256_hex(b"arint_z")});
        people.put_spec(name("tok-1"), spec(Kind::Token, token), 1);
        assert_eq!(people.bearer("arint_x", 1), None);
        assert!(people.bearer("arint_z", 1).is_some());
        people.remove(Kind::Token, &name("tok-1"));
        assert_eq!(people.bearer("arint_z", 1), None);
    }
}
