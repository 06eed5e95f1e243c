//! What a transaction of a person becomes in the object store, without any I/O.
//!
//! Values of secrets are taken out of the specs and put beside them; secrets that a spec does not mention stay
//! as they are; what belongs to deployments, logins and the producer is refused here.
//!
//! **Invariant:** a secret is only replaced where its field says `value` or `generate`; leaving the field out
//! never makes a new one for an object that has one.

use std::collections::{BTreeMap, BTreeSet};

use arapi::arclst::{Change, Expect};
use arapi::arwadm::{ChangeRequest, GeneratedSecret};
use arapi::error::ErrorCode;
use arapi::names::{NameError, is_reserved};
use arapi::objects::{Permission, SecretField, SecretText, SpecError};
use arapi::{Kind, Object, ObjectName, Spec};
use serde_json::Value;

use crate::guard::{self, GuardError, word};
use crate::people::People;

/// What is there before the transaction: at least every object of the kinds it changes.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// The objects.
    pub(crate) objects: BTreeMap<(Kind, ObjectName), Object>,
    /// The names of the secrets.
    pub(crate) secrets: BTreeSet<String>,
    /// Users, roles and tokens; read only where the transaction changes users or roles.
    pub(crate) people: People,
}

/// What is to be committed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The changes, in an order in which they can be applied.
    pub(crate) changes: Vec<Change>,
    /// Secrets that were made.
    pub(crate) generated: Vec<GeneratedSecret>,
    /// Secrets whose value was given, with the object they belong to.
    pub(crate) given: Vec<(String, Kind, ObjectName)>,
    /// Whether a change was bound to a revision that the request did not name.
    pub(crate) is_pinned: bool,
}

/// Why a transaction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("there is no change in the transaction")]
    Empty,
    #[error("{kind} `{name}` is in the transaction twice")]
    Twice { kind: Kind, name: ObjectName },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{kind} `{name}`: to change a {kind} the permission `{}` is needed", word(*.needed))]
    Forbidden { kind: Kind, name: ObjectName, needed: Permission },
    #[error("Module `{name}`: modules are deployed, not put; use `arctl deploy {name}.py`")]
    ModulePut { name: ObjectName },
    #[error(
        "Module `{name}`: a module goes with its services; use `arctl delete Module {name}` (`DELETE /v1/deployments/{name}`)"
    )]
    ModuleDelete { name: ObjectName },
    #[error("Service `{name}` is not deployed; deploy the module with it first")]
    NotDeployed { name: ObjectName },
    #[error(
        "Service `{name}`: field `{field}` follows from the deployed source and is `{is}`; leave it out"
    )]
    Derived { name: ObjectName, field: &'static str, is: String },
    #[error(
        "Service `{name}`: a service goes with its module `{module}`; deploy the module without it, or delete the module"
    )]
    ServiceDelete { name: ObjectName, module: String },
    #[error("Token `{name}`: tokens are made by `arctl token create` (`POST /v1/tokens`), not put")]
    TokenPut { name: ObjectName },
    #[error(
        "User `{name}`: field `password_hash` cannot be set; use `arctl user passwd {name}` (`POST /v1/users/{name}/password`)"
    )]
    PasswordHash { name: ObjectName },
    #[error(
        "{kind} `{name}`: field `{field}`: secret `{secret}` does not exist; set it with `arctl secret set {secret}`, or give `value` or `generate`"
    )]
    NoSuchSecret { kind: Kind, name: ObjectName, field: &'static str, secret: String },
    #[error(
        "{kind} `{name}`: field `{field}`: secret `{secret}` has no value here; give `value` or `generate`, or leave the field out to have one made where the kind allows it"
    )]
    OwnSecretMissing { kind: Kind, name: ObjectName, field: &'static str, secret: String },
    #[error(
        "{kind} `{name}`: field `{field}`: secret `{secret}` belongs to another object and goes with it; keep a shared one with `arctl secret set NAME`"
    )]
    ForeignSecret { kind: Kind, name: ObjectName, field: &'static str, secret: String },
    #[error(transparent)]
    Guard(#[from] GuardError),
}

impl PlanError {
    /// The code that goes with it.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Forbidden { .. }
            | Self::Guard(GuardError::GivesMore { .. } | GuardError::RoleGetsMore { .. }) => {
                ErrorCode::Forbidden
            }
            Self::Guard(GuardError::NobodyRemains) => ErrorCode::Conflict,
            Self::NotDeployed { .. } => ErrorCode::NotFound,
            _ => ErrorCode::Invalid,
        }
    }
}

/// What must be allowed to change objects of a kind.
pub(crate) fn needed(kind: Kind) -> Permission {
    match kind {
        Kind::Channel | Kind::Outgoing | Kind::Module | Kind::Service | Kind::UserConfig => {
            Permission::Develop
        }
        Kind::Security | Kind::SecurityGroup | Kind::QuotaTier | Kind::Grant | Kind::Node => {
            Permission::Configure
        }
        Kind::User | Kind::Role | Kind::Token => Permission::Access,
        Kind::System | Kind::Network => Permission::System,
    }
}

/// The name under which an object's own secret is kept.
pub(crate) fn own_secret(kind: Kind, name: &str, field: &str) -> String {
    format!("{kind}/{name}/{field}")
}

/// Whether a secret's name has the form of an object's own.
pub(crate) fn is_owned(secret: &str) -> bool {
    let kind = secret.split_once('/').map(|(kind, _)| kind);
    kind.is_some_and(|kind| Kind::ALL.iter().any(|known| known.as_str() == kind))
}

/// Plans a transaction by someone who has `own`; `make` gives the value of each secret to be generated.
pub(crate) fn plan(
    requests: &[ChangeRequest],
    present: &Present,
    own: &BTreeSet<Permission>,
    make: &mut dyn FnMut() -> String,
) -> Result<Plan, PlanError> {
    if requests.is_empty() {
        return Err(PlanError::Empty);
    }
    let mut seen = BTreeSet::new();
    let mut draft = Draft { plan: Plan::default(), after: present.people.clone(), people: false };
    for request in requests {
        let (kind, name) = match request {
            ChangeRequest::Put { kind, name, .. } | ChangeRequest::Delete { kind, name, .. } => {
                (*kind, name)
            }
        };
        if !seen.insert((kind, name)) {
            return Err(PlanError::Twice { kind, name: name.clone() });
        }
        if !own.contains(&needed(kind)) {
            let (name, needed) = (name.clone(), needed(kind));
            return Err(PlanError::Forbidden { kind, name, needed });
        }
        match request {
            ChangeRequest::Put { spec, expect, .. } => {
                draft.put(present, kind, name, spec, *expect, make)?;
            }
            ChangeRequest::Delete { expect, .. } => draft.delete(present, kind, name, *expect)?,
        }
    }
    if draft.people {
        guard::check(&present.people, &draft.after, own)?;
    }
    // Secrets first, then objects before what refers to them; removals the other way round.
    draft.plan.changes.sort_by_key(|change| match change {
        Change::PutSecret { .. } => (0, 0),
        Change::Put { kind, .. } => (1, position(*kind)),
        Change::Delete { kind, .. } => (2, Kind::ALL.len() - position(*kind)),
        Change::DeleteSecret { .. } => (3, 0),
    });
    Ok(draft.plan)
}

fn position(kind: Kind) -> usize {
    Kind::ALL.iter().position(|known| *known == kind).unwrap_or(0)
}

struct Draft {
    plan: Plan,
    after: People,
    people: bool,
}

impl Draft {
    fn put(
        &mut self,
        present: &Present,
        kind: Kind,
        name: &ObjectName,
        written: &Value,
        expect: Expect,
        make: &mut dyn FnMut() -> String,
    ) -> Result<(), PlanError> {
        // A box may well be called `arint`.
        if is_reserved(name.as_str()) && kind != Kind::Node && kind != Kind::Service {
            let source = NameError::Reserved(name.to_string());
            return Err(SpecError::Name { kind, name: name.to_string(), source }.into());
        }
        let existing = present.objects.get(&(kind, name.clone()));
        let mut written = written.clone();
        match kind {
            Kind::Module => return Err(PlanError::ModulePut { name: name.clone() }),
            Kind::Token => return Err(PlanError::TokenPut { name: name.clone() }),
            Kind::Service => derive_service(name, existing, &mut written)?,
            Kind::User => keep_password(name, existing, &mut written)?,
            _ => {}
        }
        keep_secrets(existing, &mut written);
        let mut spec = Spec::parse(kind, name.as_str(), written)?;
        let has_secrets = self.take_secrets(present, kind, name, &mut spec, make)?;
        let mut had_secrets = false;
        if let Some(existing) = existing {
            let kept = spec.secret_names();
            for (field, _) in existing.spec.clone().secrets_mut() {
                had_secrets = true;
                let secret = own_secret(kind, name.as_str(), field);
                if present.secrets.contains(&secret) && !kept.contains(&secret) {
                    self.plan.changes.push(Change::DeleteSecret { name: secret });
                }
            }
        }
        let depends = has_secrets || had_secrets || matches!(kind, Kind::User | Kind::Service);
        let expect = match (expect, existing) {
            (Expect::Any, Some(existing)) if depends => {
                self.plan.is_pinned = true;
                Expect::Revision(existing.revision)
            }
            (Expect::Any, None) if depends => {
                self.plan.is_pinned = true;
                Expect::Absent
            }
            (given, _) => given,
        };
        if matches!(kind, Kind::User | Kind::Role) {
            self.people = true;
            self.after.put_spec(name.clone(), spec.clone(), 0);
        }
        let spec = spec.to_json();
        self.plan.changes.push(Change::Put { kind, name: name.clone(), spec, expect });
        Ok(())
    }

    fn delete(
        &mut self,
        present: &Present,
        kind: Kind,
        name: &ObjectName,
        expect: Expect,
    ) -> Result<(), PlanError> {
        match kind {
            Kind::Module => return Err(PlanError::ModuleDelete { name: name.clone() }),
            Kind::Service => {
                let existing = present.objects.get(&(kind, name.clone()));
                let module = match existing.map(|object| &object.spec) {
                    Some(Spec::Service(service)) => service.module.clone(),
                    _ => return Err(PlanError::NotDeployed { name: name.clone() }),
                };
                return Err(PlanError::ServiceDelete { name: name.clone(), module });
            }
            Kind::User => {
                for token in present.people.tokens_of(name.as_str()) {
                    let expect = Expect::Any;
                    self.plan.changes.push(Change::Delete {
                        kind: Kind::Token,
                        name: token,
                        expect,
                    });
                }
            }
            _ => {}
        }
        if matches!(kind, Kind::User | Kind::Role) {
            self.people = true;
            self.after.remove(kind, name);
        }
        self.plan.changes.push(Change::Delete { kind, name: name.clone(), expect });
        Ok(())
    }

    /// Moves values out of the spec; says whether it has secrets at all.
    fn take_secrets(
        &mut self,
        present: &Present,
        kind: Kind,
        name: &ObjectName,
        spec: &mut Spec,
        make: &mut dyn FnMut() -> String,
    ) -> Result<bool, PlanError> {
        let mut any = false;
        for (field, secret) in spec.secrets_mut() {
            any = true;
            let own = own_secret(kind, name.as_str(), field);
            let value = match secret {
                SecretField::Secret(named) => {
                    let (kind, name, secret) = (kind, name.clone(), named.clone());
                    if present.secrets.contains(named) {
                        if is_owned(named) && *named != own {
                            return Err(PlanError::ForeignSecret { kind, name, field, secret });
                        }
                        continue;
                    }
                    return Err(if is_owned(named) {
                        PlanError::OwnSecretMissing { kind, name, field, secret }
                    } else {
                        PlanError::NoSuchSecret { kind, name, field, secret }
                    });
                }
                SecretField::Value(value) => {
                    self.plan.given.push((own.clone(), kind, name.clone()));
                    value.clone()
                }
                SecretField::Generate(_) => {
                    let value = make();
                    self.plan.generated.push(GeneratedSecret {
                        object: format!("{kind}/{name}"),
                        field: field.to_owned(),
                        value: value.clone(),
                    });
                    SecretText(value)
                }
            };
            *secret = SecretField::Secret(own.clone());
            self.plan.changes.push(Change::PutSecret { name: own, value });
        }
        Ok(any)
    }
}

/// Fields that follow from the source are filled in where they are left out, and refused where they differ.
fn derive_service(
    name: &ObjectName,
    existing: Option<&Object>,
    written: &mut Value,
) -> Result<(), PlanError> {
    let Some(Spec::Service(service)) = existing.map(|object| &object.spec) else {
        return Err(PlanError::NotDeployed { name: name.clone() });
    };
    let Some(fields) = written.as_object_mut() else { return Ok(()) };
    for (field, is) in [("module", &service.module), ("class", &service.class)] {
        match fields.get(field) {
            Some(given) if given.as_str() != Some(is) => {
                let (name, is) = (name.clone(), is.clone());
                return Err(PlanError::Derived { name, field, is });
            }
            _ => drop(fields.insert(field.to_owned(), is.as_str().into())),
        }
    }
    fields.insert("summary".to_owned(), service.summary.as_str().into());
    Ok(())
}

fn keep_password(
    name: &ObjectName,
    existing: Option<&Object>,
    written: &mut Value,
) -> Result<(), PlanError> {
    let Some(fields) = written.as_object_mut() else { return Ok(()) };
    if fields.get("password_hash").is_some_and(|hash| !hash.is_null()) {
        return Err(PlanError::PasswordHash { name: name.clone() });
    }
    if let Some(Spec::User(user)) = existing.map(|object| &object.spec) {
        fields.insert("password_hash".to_owned(), user.password_hash.clone().into());
    }
    Ok(())
}

/// Secrets that the existing object has and `written` does not mention stay as they are, unless the type of
/// the object changes.
fn keep_secrets(existing: Option<&Object>, written: &mut Value) {
    let (Some(existing), Some(fields)) = (existing, written.as_object_mut()) else { return };
    if existing.spec.to_json().get("type") != fields.get("type") {
        return;
    }
    for (field, secret) in existing.spec.clone().secrets_mut() {
        if !fields.contains_key(field) {
            // A secret field is plain text in an enum: this cannot fail.
            let secret = serde_json::to_value(&*secret).unwrap_or_default();
            fields.insert(field.to_owned(), secret);
        }
    }
}

/// What is accepted and will not work as it is.  `objects` is the state after the transaction: every
/// channel and every service.
pub(crate) fn warnings(
    objects: &BTreeMap<(Kind, ObjectName), Spec>,
    changed: &BTreeSet<ObjectName>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let channels = objects.iter().filter_map(|((_, name), spec)| match spec {
        Spec::Channel(channel) => Some((name, channel)),
        _ => None,
    });
    let channels: Vec<_> = channels.collect();
    for (name, channel) in &channels {
        if !changed.contains(*name) {
            continue;
        }
        if let Some(service) = &channel.service
            && !objects.contains_key(&(Kind::Service, service.clone()))
        {
            warnings.push(format!(
                "Channel `{name}`: service `{service}` is not deployed; the channel answers 404 until it is"
            ));
        }
        for (other, same) in &channels {
            let alike = same.url_path == channel.url_path
                && same.only_method() == channel.only_method()
                && same.http_accept == channel.http_accept
                && same.soap_action == channel.soap_action;
            let told = changed.contains(*other) && other < name;
            if other != name && alike && same.is_active && channel.is_active && !told {
                warnings.push(format!(
                    "Channel `{name}`: Channel `{other}` has the same path `{}`, method and Accept; only one of them gets the requests",
                    channel.url_path
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
