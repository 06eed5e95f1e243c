//! Rules for changes of users and roles: nobody gives away what he does not have, and somebody who may do
//! everything always remains.

use std::collections::BTreeSet;

use arapi::ObjectName;
use arapi::objects::Permission;

use crate::people::{EVERYTHING, People};

/// Why a change of users or roles is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuardError {
    #[error(
        "user `{user}` would get the {}, which you do not have yourself",
        permissions(.lacking)
    )]
    GivesMore { user: ObjectName, lacking: Vec<Permission> },
    #[error(
        "role `{role}` would get the {}, which you do not have yourself",
        permissions(.lacking)
    )]
    RoleGetsMore { role: ObjectName, lacking: Vec<Permission> },
    #[error(
        "nobody who may do everything would remain: at least one active user needs all permissions (role `admin`); give them to another user first"
    )]
    NobodyRemains,
}

/// Checks a change of users and roles from `before` to `after` by someone who has `own`.
pub(crate) fn check(
    before: &People,
    after: &People,
    own: &BTreeSet<Permission>,
) -> Result<(), GuardError> {
    for (role, spec) in &after.roles {
        let had =
            before.roles.get(role).map(|role| role.permissions.as_slice()).unwrap_or_default();
        let more = spec.permissions.iter().copied().filter(|permission| !had.contains(permission));
        let lacking = lacking(more, own);
        if !lacking.is_empty() {
            return Err(GuardError::RoleGetsMore { role: role.clone(), lacking });
        }
    }
    for user in after.users.keys() {
        let had = before.permissions(user.as_str());
        let more = after.permissions(user.as_str()).into_iter();
        let lacking = lacking(more.filter(|permission| !had.contains(permission)), own);
        if !lacking.is_empty() {
            return Err(GuardError::GivesMore { user: user.clone(), lacking });
        }
    }
    if has_one_who_may_everything(before) && !has_one_who_may_everything(after) {
        return Err(GuardError::NobodyRemains);
    }
    Ok(())
}

/// Whether `own` covers everything that `user` may do; who sets a password could log in with it.
pub(crate) fn covers(people: &People, user: &str, own: &BTreeSet<Permission>) -> bool {
    // An inactive user counts with the roles he would have.
    let Some(spec) = people.users.get(user) else { return true };
    let roles = spec.roles.iter().filter_map(|role| people.roles.get(role));
    roles.flat_map(|role| &role.permissions).all(|permission| own.contains(permission))
}

fn lacking(
    wanted: impl Iterator<Item = Permission>,
    own: &BTreeSet<Permission>,
) -> Vec<Permission> {
    let lacking: BTreeSet<Permission> =
        wanted.filter(|permission| !own.contains(permission)).collect();
    lacking.into_iter().collect()
}

fn has_one_who_may_everything(people: &People) -> bool {
    people.users.iter().any(|(name, user)| {
        let may = people.permissions(name.as_str());
        user.password_hash.is_some() && EVERYTHING.iter().all(|permission| may.contains(permission))
    })
}

/// The word for a permission, as it stands in a role.
pub(crate) fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Logs => "logs",
        Permission::Operate => "operate",
        Permission::Develop => "develop",
        Permission::Configure => "configure",
        Permission::Access => "access",
        Permission::Audit => "audit",
        Permission::System => "system",
    }
}

fn permissions(lacking: &[Permission]) -> String {
    let words: Vec<String> =
        lacking.iter().map(|permission| format!("`{}`", word(*permission))).collect();
    let noun = if words.len() == 1 { "permission" } else { "permissions" };
    format!("{noun} {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use arapi::{Kind, Spec};
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn put(people: &mut People, kind: Kind, of: &str, spec: serde_json::Value) {
        people.put_spec(name(of), Spec::parse(kind, of, spec).unwrap(), 0);
    }

    fn user(people: &mut People, of: &str, roles: &[&str]) {
        let spec = json!({"roles": roles, "password_hash": "$argon2id$x"});
        put(people, Kind::User, of, spec);
    }

    fn box_with_two() -> People {
        let mut people = People::default();
        let all: Vec<&str> = EVERYTHING.iter().map(|permission| word(*permission)).collect();
        put(&mut people, Kind::Role, "admin", json!({"permissions": all}));
        put(&mut people, Kind::Role, "viewer", json!({"permissions": ["read"]}));
        put(&mut people, Kind::Role, "doorkeeper", json!({"permissions": ["access", "read"]}));
        user(&mut people, "root", &["admin"]);
        user(&mut people, "dora", &["doorkeeper"]);
        people
    }

    #[test]
    fn nobody_gives_a_user_what_he_does_not_have() {
        let before = box_with_two();
        let own = before.permissions("dora");
        let mut after = before.clone();
        user(&mut after, "eve", &["viewer"]);
        assert_eq!(check(&before, &after, &own), Ok(()));
        user(&mut after, "dora", &["doorkeeper", "admin"]);
        assert_eq!(
            check(&before, &after, &own).unwrap_err().to_string(),
            "user `dora` would get the permissions `logs`, `operate`, `develop`, `configure`, \
             `audit`, `system`, which you do not have yourself"
        );
        assert_eq!(check(&before, &after, &before.permissions("root")), Ok(()));
    }

    #[test]
    fn nobody_widens_a_role_beyond_what_he_has() {
        let before = box_with_two();
        let mut after = before.clone();
        put(&mut after, Kind::Role, "viewer", json!({"permissions": ["read", "audit"]}));
        assert_eq!(
            check(&before, &after, &before.permissions("dora")).unwrap_err().to_string(),
            "role `viewer` would get the permission `audit`, which you do not have yourself"
        );
    }

    #[test]
    fn a_disabled_admin_is_enabled_only_by_one_who_may_as_much() {
        let mut before = box_with_two();
        let off = json!({"roles": ["admin"], "password_hash": "$argon2id$x", "is_active": false});
        put(&mut before, Kind::User, "old", off);
        let mut after = before.clone();
        user(&mut after, "old", &["admin"]);
        assert!(check(&before, &after, &before.permissions("dora")).is_err());
        assert_eq!(check(&before, &after, &before.permissions("root")), Ok(()));
        assert!(!covers(&before, "old", &before.permissions("dora")));
        assert!(covers(&before, "dora", &before.permissions("dora")));
    }

    #[test]
    fn the_last_one_who_may_everything_is_not_removed_disabled_or_stripped() {
        let before = box_with_two();
        let own = before.permissions("root");
        let refused = "nobody who may do everything would remain: at least one active user needs \
                       all permissions (role `admin`); give them to another user first";
        let mut removed = before.clone();
        removed.remove(Kind::User, &name("root"));
        assert_eq!(check(&before, &removed, &own).unwrap_err().to_string(), refused);
        let mut stripped = before.clone();
        user(&mut stripped, "root", &["viewer"]);
        assert!(check(&before, &stripped, &own).is_err());
        let mut narrowed = before.clone();
        put(&mut narrowed, Kind::Role, "admin", json!({"permissions": ["read"]}));
        assert!(check(&before, &narrowed, &own).is_err());
        let mut replaced = removed;
        user(&mut replaced, "anna", &["admin"]);
        assert_eq!(check(&before, &replaced, &own), Ok(()));
    }
}
