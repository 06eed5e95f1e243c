//! Transactions of people: planned, committed, written down, answered.

use std::collections::{BTreeMap, BTreeSet};

use arapi::arclst::{Change, Committed, Expect, Transaction};
use arapi::arwadm::{
    AuditEntry, ChangeRequest, ChangedObject, ObjectView, ResetAnswer, TransactionAnswer,
};
use arapi::error::ErrorCode;
use arapi::objects::{SecretField, SecuritySpec};
use arapi::{ClientError, Kind, Object, ObjectName, Spec};
use arbase::http::{ApiError, current_cid};
use serde_json::Value;

use crate::gate::Caller;
use crate::people::People;
use crate::plan::{self, Plan, PlanError, Present};
use crate::remote::passed_on;
use crate::server::App;

/// Most changes in one transaction.
const MOST_CHANGES: usize = 10_000;
/// How often a transaction is planned again because something changed in between.
const ATTEMPTS: u32 = 3;

/// An object as the admin API shows it.
pub(crate) fn view(object: &Object) -> ObjectView {
    ObjectView {
        kind: object.kind,
        name: object.name.clone(),
        spec: shown(&object.spec),
        revision: object.revision,
        created_ms: object.created_ms,
        changed_ms: object.changed_ms,
        changed_by: object.changed_by.clone(),
    }
}

/// The same without the source of a module, for lists.
pub(crate) fn view_in_list(object: &Object) -> ObjectView {
    let mut view = view(object);
    if let Some(fields) = view.spec.as_object_mut().filter(|_| object.kind == Kind::Module) {
        fields.remove("source");
    }
    view
}

/// A spec without what nobody is to see.
pub(crate) fn shown(spec: &Spec) -> Value {
    let mut json = spec.to_json();
    match (spec, json.as_object_mut()) {
        (Spec::User(_), Some(fields)) => {
            fields.insert("password_hash".to_owned(), Value::Null);
        }
        (Spec::Token(_), Some(fields)) => {
            fields.remove("sha256");
        }
        _ => {}
    }
    json
}

/// A spec for the audit log: also without the source of a module.
fn noted(object: &Object) -> Value {
    view_in_list(object).spec
}

/// Carries out a transaction.
pub(crate) async fn transact(
    app: &App,
    caller: &Caller,
    requests: &[ChangeRequest],
    dry_run: bool,
) -> Result<TransactionAnswer, ApiError> {
    if requests.len() > MOST_CHANGES {
        return Err(ApiError::invalid(format!(
            "{} changes are above the {MOST_CHANGES} of one transaction",
            requests.len()
        )));
    }
    // One at a time: the rules for users and roles look at all of them.
    let _one = app.changing.lock().await;
    let mut attempt = 1;
    loop {
        let present = load(app, requests).await?;
        let mut plan = plan::plan(requests, &present, &caller.permissions, &mut || {
            uuid::Uuid::new_v4().to_string()
        })
        .map_err(|err: PlanError| ApiError::new(err.code(), err.to_string()))?;
        drop_equal_secrets(app, &present, &mut plan).await?;
        let warnings = warnings(&present, &plan);
        let transaction = Transaction {
            changes: std::mem::take(&mut plan.changes),
            who: caller.who.clone(),
            cid: Some(current_cid().to_string()),
            dry_run,
        };
        match app.arclst().commit(&transaction).await {
            Ok(committed) => {
                let changed = changed(&committed, &plan, &present);
                if !dry_run {
                    note(app, caller, &committed, &changed).await?;
                    app.settle(requests.iter().map(kind_of), committed.revision).await;
                }
                let generated = if dry_run { Vec::new() } else { plan.generated };
                return Ok(TransactionAnswer {
                    revision: committed.revision,
                    changed,
                    generated,
                    warnings,
                });
            }
            Err(err) if is_conflict(&err) && plan.is_pinned && attempt < ATTEMPTS => attempt += 1,
            Err(err) => return Err(passed_on("commit a transaction", &err)),
        }
    }
}

/// Makes a new secret for a Security.
pub(crate) async fn reset(app: &App, caller: &Caller, name: &str) -> Result<ResetAnswer, ApiError> {
    let object = app.arclst().object(Kind::Security, name).await;
    let mut object = object.map_err(|err| passed_on("get a security", &err))?;
    if let Spec::Security(SecuritySpec::TlsKeyCert(_)) = &object.spec {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!(
                "Security `{name}` has a certificate and a key, which cannot be made here; give new ones"
            ),
        ));
    }
    let mut spec = object.spec.to_json();
    for (field, secret) in object.spec.secrets_mut() {
        if let SecretField::Secret(named) = secret
            && *named != plan::own_secret(Kind::Security, name, field)
        {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "Security `{name}` uses the shared secret `{named}`; set that with `arctl secret set {named}`"
                ),
            ));
        }
        if let Some(fields) = spec.as_object_mut() {
            fields.insert(field.to_owned(), serde_json::json!({"generate": "uuid4"}));
        }
    }
    let expect = Expect::Revision(object.revision);
    let put = ChangeRequest::Put { kind: Kind::Security, name: object.name, spec, expect };
    let answer = transact(app, caller, &[put], false).await?;
    let made = answer.generated.into_iter().next();
    let made = made.ok_or_else(|| {
        ApiError::new(ErrorCode::Conflict, format!("Security `{name}` has no secret"))
    })?;
    let (revision, name) = (answer.revision, name.to_owned());
    Ok(ResetAnswer { revision, name, field: made.field, value: made.value })
}

pub(crate) fn is_conflict(err: &ClientError) -> bool {
    err.code() == Some(ErrorCode::Conflict)
}

fn kind_of(request: &ChangeRequest) -> Kind {
    match request {
        ChangeRequest::Put { kind, .. } | ChangeRequest::Delete { kind, .. } => *kind,
    }
}

/// Asks the store for what a plan looks at.
async fn load(app: &App, requests: &[ChangeRequest]) -> Result<Present, ApiError> {
    let mut kinds: BTreeSet<Kind> =
        requests.iter().map(kind_of).filter(|kind| *kind != Kind::Module).collect();
    if People::KINDS.iter().any(|kind| kinds.contains(kind)) {
        kinds.extend(People::KINDS);
    }
    if kinds.contains(&Kind::Channel) {
        kinds.insert(Kind::Service);
    }
    let mut present = Present::default();
    let client = app.arclst();
    for kind in kinds {
        let listing =
            client.list(Some(kind)).await.map_err(|err| passed_on("list objects", &err))?;
        for object in listing.objects {
            if People::KINDS.contains(&kind) {
                present.people.put(object.clone());
            }
            present.objects.insert((kind, object.name.clone()), object);
        }
    }
    let secrets = client.secret_names().await.map_err(|err| passed_on("list secrets", &err))?;
    present.secrets = secrets.into_iter().collect();
    Ok(present)
}

/// A value that is kept already need not be kept again: applying the same file twice changes nothing.
async fn drop_equal_secrets(app: &App, present: &Present, plan: &mut Plan) -> Result<(), ApiError> {
    let mut equal = BTreeSet::new();
    for (secret, _, _) in &plan.given {
        if !present.secrets.contains(secret) {
            continue;
        }
        let kept = app.arclst().secret(secret).await;
        let kept = kept.map_err(|err| passed_on("compare a secret", &err))?;
        let is_same = plan.changes.iter().any(|change| {
            matches!(change, Change::PutSecret { name, value } if name == secret && *value == kept)
        });
        if is_same {
            equal.insert(secret.clone());
        }
    }
    plan.changes
        .retain(|change| !matches!(change, Change::PutSecret { name, .. } if equal.contains(name)));
    plan.given.retain(|(secret, _, _)| !equal.contains(secret));
    Ok(())
}

fn warnings(present: &Present, plan: &Plan) -> Vec<String> {
    let mut after: BTreeMap<(Kind, ObjectName), Spec> = present
        .objects
        .iter()
        .filter(|((kind, _), _)| matches!(kind, Kind::Channel | Kind::Service))
        .map(|(key, object)| (key.clone(), object.spec.clone()))
        .collect();
    let mut changed = BTreeSet::new();
    for change in &plan.changes {
        match change {
            Change::Put { kind: Kind::Channel, name, spec, .. } => {
                if let Ok(spec) = Spec::parse(Kind::Channel, name.as_str(), spec.clone()) {
                    after.insert((Kind::Channel, name.clone()), spec);
                    changed.insert(name.clone());
                }
            }
            Change::Delete { kind: Kind::Channel, name, .. } => {
                after.remove(&(Kind::Channel, name.clone()));
            }
            _ => {}
        }
    }
    plan::warnings(&after, &changed)
}

/// What changed, objects of which only a secret changed included.
fn changed(committed: &Committed, plan: &Plan, present: &Present) -> Vec<ChangedObject> {
    let mut changed: Vec<ChangedObject> = committed
        .changes
        .iter()
        .map(|change| ChangedObject {
            kind: change.kind,
            name: change.name.clone(),
            what: match (&change.before, &change.after) {
                (None, _) => "created",
                (Some(_), Some(_)) => "changed",
                (Some(_), None) => "deleted",
            }
            .to_owned(),
            before: change.before.as_ref().map(noted),
            after: change.after.as_ref().map(noted),
        })
        .collect();
    let rotated = plan.generated.iter().filter_map(|generated| {
        let (kind, name) = generated.object.split_once('/')?;
        Some((kind.parse::<Kind>().ok()?, ObjectName::parse(name).ok()?))
    });
    let given = plan.given.iter().map(|(_, kind, name)| (*kind, name.clone()));
    for (kind, name) in rotated.chain(given) {
        if changed.iter().any(|object| object.kind == kind && object.name == name) {
            continue;
        }
        let spec = present.objects.get(&(kind, name.clone())).map(noted);
        let what = "changed".to_owned();
        changed.push(ChangedObject { kind, name, what, before: spec.clone(), after: spec });
    }
    changed
}

/// Writes down what was done.
async fn note(
    app: &App,
    caller: &Caller,
    committed: &Committed,
    changed: &[ChangedObject],
) -> Result<(), ApiError> {
    let entry = |object: &ChangedObject| AuditEntry {
        before: object.before.clone(),
        after: object.after.clone(),
        ..app.entry(caller, format!("{}/{}", object.kind, object.name))
    };
    for object in changed {
        log::info!(cid:% = current_cid(), who = caller.who, kind:% = object.kind, name:% = object.name,
            what = object.what, revision = committed.revision; "object changed");
    }
    app.note(changed.iter().map(entry).collect()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_are_never_shown() {
        let user = json!({"roles": ["admin"], "password_hash": "$argon2id$x"});
        let user = Spec::parse(Kind::User, "anna", user).unwrap();
        assert_eq!(
            shown(&user),
            json!({"password_hash": null, "roles": ["admin"], "is_active": true})
        );
        let token = Spec::parse(Kind::Token, "t", json!({"user": "anna", "sha256": "00"})).unwrap();
        assert_eq!(shown(&token), json!({"user": "anna"}));
    }
}
