//! What a command would do: worked out from the state, nothing written.
//!
//! Every rule of the store is here; executing a plan cannot be refused.  A dry run is a plan that
//! nobody executes.
//!
//! **Invariant:** a plan follows from the state and the command alone.

use std::collections::BTreeMap;

use arapi::arclst::{Expect, ObjectChange};
use arapi::names::is_reserved;
use arapi::objects::{Object, SecretField, Spec};
use arapi::{Kind, ObjectName};
use arstore::{StoreError, View, params};

use crate::command::{Applied, Command, Edit, Rejection, Sealed};
use crate::state::{self, StateError};

/// How many of those who refer to an object are named.
const REFERRERS_NAMED: usize = 5;

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it comes to, as the caller is told.
    pub(crate) applied: Applied,
    /// The secrets that change; `None`: removed.
    pub(crate) secrets: Vec<(String, Option<Sealed>)>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlan {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StoreError> for NoPlan {
    fn from(err: StoreError) -> Self {
        Self::State(err.into())
    }
}

/// Works out what `command` does to the state seen in `view`.
pub(crate) fn plan(view: &View<'_>, command: &Command) -> Result<Plan, NoPlan> {
    if !is_text(&command.who, 300) {
        return Err(Rejection::Who { found: command.who.escape_debug().to_string() }.into());
    }
    let revision = state::revision(view)?;
    let mut draft = Draft {
        view,
        command,
        next: revision + 1,
        order: Vec::new(),
        objects: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    for edit in &command.edits {
        match edit {
            Edit::Put { kind, name, spec, expect } => draft.put(*kind, name, spec, *expect)?,
            Edit::Delete { kind, name, expect } => draft.delete(*kind, name, *expect)?,
            Edit::PutSecret { name, sealed } => draft.put_secret(name, sealed)?,
            Edit::DeleteSecret { name } => draft.delete_secret(name)?,
        }
    }
    draft.check_references()?;
    Ok(draft.into_plan(revision))
}

type Key = (Kind, ObjectName);

/// The state as it is after the edits so far: what was touched lies over what is stored.
struct Draft<'a> {
    view: &'a View<'a>,
    command: &'a Command,
    next: u64,
    /// The objects in the order in which they were first touched.
    order: Vec<Key>,
    objects: BTreeMap<Key, Touched>,
    secrets: BTreeMap<String, TouchedSecret>,
}

struct Touched {
    before: Option<Object>,
    now: Option<Object>,
}

struct TouchedSecret {
    was_there: bool,
    now: Option<Sealed>,
}

impl Draft<'_> {
    fn put(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        written: &serde_json::Value,
        expect: Expect,
    ) -> Result<(), NoPlan> {
        self.check_owner(kind, name)?;
        let spec = checked_spec(kind, name, written)?;
        let now = self.touch(kind, name)?;
        check_expected(kind, name, now.as_ref(), expect)?;
        if now.as_ref().is_some_and(|object| object.spec == spec) {
            return Ok(());
        }
        let (revision, time_ms, who) = (self.next, self.command.time_ms, self.command.who.clone());
        let created_ms = now.as_ref().map_or(time_ms, |object| object.created_ms);
        self.set(Object {
            kind,
            name: name.clone(),
            spec,
            revision,
            created_ms,
            changed_ms: time_ms,
            changed_by: who,
        });
        Ok(())
    }

    fn delete(&mut self, kind: Kind, name: &ObjectName, expect: Expect) -> Result<(), NoPlan> {
        self.check_owner(kind, name)?;
        let now = self.touch(kind, name)?;
        match (expect, &now) {
            (Expect::Absent, _) => {
                return Err(Rejection::RemoveAbsent { kind, name: name.clone() }.into());
            }
            (Expect::Any, None) => {
                return Err(Rejection::NoObject { kind, name: name.clone() }.into());
            }
            _ => check_expected(kind, name, now.as_ref(), expect)?,
        }
        if let Some(touched) = self.objects.get_mut(&(kind, name.clone())) {
            touched.now = None;
        }
        self.delete_own_secrets(kind, name)?;
        Ok(())
    }

    fn put_secret(&mut self, name: &str, sealed: &Sealed) -> Result<(), NoPlan> {
        if !is_text(name, Rejection::SECRET_NAME_MAX) {
            return Err(Rejection::SecretName { found: name.escape_debug().to_string() }.into());
        }
        self.touch_secret(name)?.now = Some(sealed.clone());
        Ok(())
    }

    fn delete_secret(&mut self, name: &str) -> Result<(), NoPlan> {
        let secret = self.touch_secret(name)?;
        if secret.now.take().is_none() {
            return Err(Rejection::NoSecret { name: name.to_owned() }.into());
        }
        Ok(())
    }

    fn delete_own_secrets(&mut self, kind: Kind, name: &ObjectName) -> Result<(), StoreError> {
        let owner = format!("{kind}/{name}");
        let stored: Vec<String> = self.view.query_rows(
            "SELECT name FROM secret WHERE owner = ? ORDER BY name",
            params![&owner],
            |row| row.get(0),
        )?;
        for name in stored {
            self.touch_secret(&name)?;
        }
        for (_, secret) in self
            .secrets
            .iter_mut()
            .filter(|(name, _)| owner_of(name).is_some_and(|found| found == owner))
        {
            secret.now = None;
        }
        Ok(())
    }

    /// The object as it is now; from here on it counts as touched.
    fn touch(&mut self, kind: Kind, name: &ObjectName) -> Result<Option<Object>, StateError> {
        let key = (kind, name.clone());
        if let Some(touched) = self.objects.get(&key) {
            return Ok(touched.now.clone());
        }
        let before = state::object(self.view, kind, name)?;
        self.order.push(key.clone());
        self.objects.insert(key, Touched { before: before.clone(), now: before.clone() });
        Ok(before)
    }

    fn set(&mut self, object: Object) {
        if let Some(touched) = self.objects.get_mut(&(object.kind, object.name.clone())) {
            touched.now = Some(object);
        }
    }

    fn touch_secret(&mut self, name: &str) -> Result<&mut TouchedSecret, StoreError> {
        if !self.secrets.contains_key(name) {
            let stored = self.view.query_row(
                "SELECT sealed FROM secret WHERE name = ?",
                params![name],
                |row| row.get(0).map(Sealed),
            )?;
            let touched = TouchedSecret { was_there: stored.is_some(), now: stored };
            self.secrets.insert(name.to_owned(), touched);
        }
        Ok(self
            .secrets
            .entry(name.to_owned())
            .or_insert(TouchedSecret { was_there: false, now: None }))
    }

    fn check_owner(&self, kind: Kind, name: &ObjectName) -> Result<(), Rejection> {
        let is_of_users = matches!(
            kind,
            Kind::Service
                | Kind::Channel
                | Kind::Outgoing
                | Kind::Security
                | Kind::SecurityGroup
                | Kind::QuotaTier
                | Kind::Grant
                | Kind::Module
                | Kind::UserConfig
                | Kind::Role
                | Kind::User
        );
        if is_of_users && is_reserved(name.as_str()) && !is_producer(&self.command.who) {
            return Err(Rejection::Reserved { kind, name: name.clone() });
        }
        Ok(())
    }

    /// Whatever is referred to is there, seen from the end of the transaction.
    fn check_references(&self) -> Result<(), NoPlan> {
        for key in &self.order {
            let Some(touched) = self.objects.get(key) else { continue };
            match &touched.now {
                Some(object) => self.check_targets(object)?,
                None if touched.before.is_some() => self.check_unused(key)?,
                None => {}
            }
        }
        Ok(())
    }

    fn check_targets(&self, object: &Object) -> Result<(), NoPlan> {
        for (to_kind, to_name) in object.spec.references() {
            let is_there = match self.objects.get(&(to_kind, to_name.clone())) {
                Some(touched) => touched.now.is_some(),
                None => {
                    let sql = "SELECT 1 FROM object WHERE kind = ? AND name = ?";
                    let key = params![to_kind.as_str(), to_name.as_str()];
                    self.view.query_row(sql, key, |_| Ok(()))?.is_some()
                }
            };
            if !is_there {
                return Err(Rejection::NoTarget {
                    kind: object.kind,
                    name: object.name.clone(),
                    to_kind,
                    to_name: to_name.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Objects that the command touches have been looked at by [`Self::check_targets`] or will be.
    fn check_unused(&self, (kind, name): &Key) -> Result<(), NoPlan> {
        let mut by = Vec::new();
        for (from_kind, from_name) in state::referrers(self.view, *kind, name)? {
            let parsed = (from_kind.parse::<Kind>(), ObjectName::parse(&from_name));
            // Only what was parsed is ever written there.
            if let (Ok(from_kind), Ok(from_name)) = parsed {
                let key = (from_kind, from_name);
                if !self.objects.contains_key(&key) {
                    by.push(key);
                }
            }
        }
        if by.is_empty() {
            return Ok(());
        }
        let more = by.len().saturating_sub(REFERRERS_NAMED);
        by.truncate(REFERRERS_NAMED);
        Err(Rejection::InUse { kind: *kind, name: name.clone(), by, more }.into())
    }

    fn into_plan(mut self, revision: u64) -> Plan {
        let mut changes = Vec::new();
        for (kind, name) in self.order {
            let Some(Touched { before, now }) = self.objects.remove(&(kind, name.clone())) else {
                continue;
            };
            let same = match (&before, &now) {
                (Some(before), Some(now)) => before.spec == now.spec,
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                changes.push(ObjectChange { kind, name, before, after: now });
            }
        }
        let secrets: Vec<(String, Option<Sealed>)> = self
            .secrets
            .into_iter()
            .filter(|(_, secret)| secret.was_there || secret.now.is_some())
            .map(|(name, secret)| (name, secret.now))
            .collect();
        let mut applied = Applied {
            revision,
            changes,
            secrets: secrets.iter().map(|(name, _)| name.clone()).collect(),
        };
        if applied.is_change() {
            applied.revision = self.next;
        }
        Plan { applied, secrets }
    }
}

/// The spec as the store keeps it: of its kind, and without a secret's value.
pub(crate) fn checked_spec(
    kind: Kind,
    name: &ObjectName,
    written: &serde_json::Value,
) -> Result<Spec, Rejection> {
    let mut spec = Spec::parse(kind, name.as_str(), written.clone())
        .map_err(|err| Rejection::Spec(err.to_string()))?;
    let value = spec
        .secrets_mut()
        .into_iter()
        .find(|(_, field)| !matches!(field, SecretField::Secret(_)))
        .map(|(field, _)| field.to_owned());
    match value {
        Some(field) => Err(Rejection::SecretInSpec { kind, name: name.clone(), field }),
        None => Ok(spec),
    }
}

fn check_expected(
    kind: Kind,
    name: &ObjectName,
    now: Option<&Object>,
    expect: Expect,
) -> Result<(), Rejection> {
    let name = name.clone();
    match (expect, now) {
        (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(object)) => {
            Err(Rejection::Exists { kind, name, found: object.revision })
        }
        (Expect::Revision(expected), None) => Err(Rejection::Gone { kind, name, expected }),
        (Expect::Revision(expected), Some(object)) if object.revision != expected => {
            let (found, by) = (object.revision, object.changed_by.clone());
            Err(Rejection::Changed { kind, name, found, by, expected })
        }
        (Expect::Revision(_), Some(_)) => Ok(()),
    }
}

/// Whether the author is a part of the product.
fn is_producer(who: &str) -> bool {
    who == "system" || who.starts_with("system:")
}

fn is_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// `<Kind>/<object>` of an object's own secret `<Kind>/<object>/<field>`.  Objects' names may have
/// slashes in them and fields have none.
pub(crate) fn owner_of(secret: &str) -> Option<&str> {
    let (owner, _field) = secret.rsplit_once('/')?;
    let (kind, name) = owner.split_once('/')?;
    let is_kind = Kind::ALL.iter().any(|known| known.as_str() == kind);
    (is_kind && !name.is_empty()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::owner_of;

    #[test]
    fn a_secret_of_an_objects_own_names_it_even_with_slashes() {
        assert_eq!(owner_of("Security/crm/password"), Some("Security/crm"));
        assert_eq!(owner_of("Security/crm/eu/password"), Some("Security/crm/eu"));
        for shared in ["crm", "crm/password", "Security/password", "security/crm/password", "a/b/c"]
        {
            assert_eq!(owner_of(shared), None, "{shared}");
        }
    }
}
