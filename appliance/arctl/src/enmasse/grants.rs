//! RBAC: roles become security groups, client roles their members, role permissions grants.
//!
//! A role of Zato has what its parent may as well, so the grant of a role is also for the groups of the roles below it.
//! Permissions are words for methods there, and methods here.

use std::collections::{BTreeMap, BTreeSet};

use arapi::names::Kind;
use serde_json::json;

use super::document::Entry;
use super::fields::Refused;
use super::plan::{Draft, Outcome};

/// Who has which role, and what the roles may.
#[derive(Default)]
struct Roles {
    parents: BTreeMap<String, String>,
    members: BTreeMap<String, BTreeSet<String>>,
    /// Role, then service, then methods.
    permissions: BTreeMap<String, BTreeMap<String, BTreeSet<&'static str>>>,
}

impl Roles {
    /// A role and those below it.
    fn with_below(&self, role: &str) -> Vec<String> {
        let mut all = vec![role.to_owned()];
        let mut at = 0;
        while let Some(above) = all.get(at).cloned() {
            for (below, parent) in &self.parents {
                if *parent == above && !all.contains(below) {
                    all.push(below.clone());
                }
            }
            at += 1;
        }
        all
    }
}

/// The methods that a permission is for.
fn methods(permission: &str) -> Option<&'static [&'static str]> {
    Some(match permission.to_ascii_lowercase().as_str() {
        "create" => &["POST"],
        "read" => &["GET"],
        "update" => &["PUT", "PATCH"],
        "delete" => &["DELETE"],
        _ => return None,
    })
}

/// The security of a client: `sec_def:::basic_auth:::name`.
fn client(entry: &Entry) -> Option<&str> {
    let text = entry.fields.get("client_def")?.as_str()?;
    let mut parts = text.splitn(3, ":::");
    (parts.next() == Some("sec_def")).then(|| parts.nth(1))?
}

/// The securities that have a role.
pub(super) fn clients(draft: &Draft<'_>) -> Vec<String> {
    let all = draft.entries.iter().filter(|entry| entry.section == "rbac_client_role");
    let known = all.filter_map(client).filter(|name| draft.is_there(Kind::Security, name));
    known.map(ToOwned::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The name of a role's group; another where the export has a group with the role's name.
fn group_of(draft: &Draft<'_>, role: &str) -> String {
    let is_other = draft.entries.iter().any(|entry| {
        matches!(entry.section.as_str(), "groups" | "security_groups" | "group")
            && entry.name == role
    });
    if is_other { format!("role {role}") } else { role.to_owned() }
}

/// Everything of RBAC.
pub(super) fn grants<'a>(draft: &mut Draft<'a>) {
    let of_rbac: Vec<_> =
        draft.open().into_iter().filter(|(_, entry)| entry.section.starts_with("rbac_")).collect();
    let mut roles = Roles::default();
    let mut refused: Vec<(usize, Refused)> = Vec::new();
    // Which entry goes with which role.
    let mut of_role: BTreeMap<String, Vec<(usize, &'a Entry)>> = BTreeMap::new();
    for (index, entry) in of_rbac {
        let mut fields = draft.fields(entry);
        match entry.section.as_str() {
            "rbac_role" => {
                let parent = fields.text(&["parent_name", "parent"]).ok().flatten();
                if let Some(parent) = parent.filter(|parent| *parent != entry.name) {
                    roles.parents.insert(entry.name.clone(), parent);
                }
                of_role.entry(entry.name.clone()).or_default().push((index, entry));
            }
            "rbac_client_role" => match member(draft, entry, &mut roles) {
                Ok(role) => of_role.entry(role).or_default().push((index, entry)),
                Err(why) => refused.push((index, why)),
            },
            "rbac_role_permission" => match permission(draft, entry, &mut roles) {
                Ok(role) => of_role.entry(role).or_default().push((index, entry)),
                Err(why) => refused.push((index, why)),
            },
            "rbac_permission" => match methods(&entry.name) {
                Some(_) => draft.tell(index, Outcome::NotNeeded, Vec::new(), Vec::new(), None),
                None => refused.push((index, unknown_permission(&entry.name))),
            },
            _ => {}
        }
    }
    for (index, why) in refused {
        draft.refuse(index, why);
    }
    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed: BTreeMap<String, Refused> = BTreeMap::new();
    let mut names: BTreeSet<String> = of_role.keys().cloned().collect();
    names.extend(roles.parents.values().cloned());
    for role in &names {
        let members: Vec<&String> = roles.members.get(role).into_iter().flatten().collect();
        let group = group_of(draft, role);
        match draft.add(None, Kind::SecurityGroup, &group, json!({"members": members})) {
            Ok(object) => made.entry(role.clone()).or_default().push(object),
            Err(why) => drop(failed.insert(role.clone(), why)),
        }
    }
    for (role, services) in &roles.permissions {
        let groups: Vec<String> = roles
            .with_below(role)
            .into_iter()
            .filter(|role| !failed.contains_key(role))
            .map(|role| group_of(draft, &role))
            .collect();
        // Services with the same methods stand in one grant.
        let mut by_methods: BTreeMap<&BTreeSet<&str>, Vec<&String>> = BTreeMap::new();
        for (service, methods) in services {
            by_methods.entry(methods).or_default().push(service);
        }
        let is_one = by_methods.len() == 1;
        for (methods, services) in by_methods {
            let words: Vec<&str> = methods.iter().copied().collect();
            let name = if is_one { role.clone() } else { format!("{role} {}", words.join(" ")) };
            let spec = json!({
                "groups": groups, "services": services, "methods": words,
                "description": format!("from the role `{role}` of Zato"),
            });
            match draft.add(None, Kind::Grant, &name, spec) {
                Ok(object) => made.entry(role.clone()).or_default().push(object),
                Err(why) => drop(failed.insert(role.clone(), why)),
            }
        }
    }
    for (role, entries) in of_role {
        for (index, entry) in entries {
            if let Some(why) = failed.get(&role) {
                draft.refuse(index, why.clone());
                continue;
            }
            let mut notes = Vec::new();
            if entry.section == "rbac_role" {
                notes
                    .push("a role is a security group here, and what it may is a grant".to_owned());
            }
            let kind =
                if entry.section == "rbac_role_permission" { "Grant/" } else { "SecurityGroup/" };
            let all = made.get(&role).into_iter().flatten();
            let objects = all.filter(|object| object.starts_with(kind)).cloned().collect();
            let outcome = if notes.is_empty() { Outcome::Taken } else { Outcome::Changed };
            draft.tell(index, outcome, objects, notes, None);
        }
    }
}

fn member<'a>(draft: &Draft<'a>, entry: &'a Entry, roles: &mut Roles) -> Result<String, Refused> {
    let role = draft.fields(entry).needed(&["role_name", "role"])?;
    let client = client(entry).ok_or_else(|| {
        Refused::new(
            "its client is not a security definition",
            "callers are known by their credentials: make a Security for this one, and put it into the group of the role",
        )
    })?;
    if !draft.is_there(Kind::Security, client) {
        return Err(Refused::new(
            format!(
                "it is about the Security `{client}`, which was not taken and is not on the box"
            ),
            format!("put `{client}` into the export or on the box, and import it again"),
        ));
    }
    roles.members.entry(role.clone()).or_default().insert(client.to_owned());
    Ok(role)
}

fn permission<'a>(
    draft: &Draft<'a>,
    entry: &'a Entry,
    roles: &mut Roles,
) -> Result<String, Refused> {
    let mut fields = draft.fields(entry);
    let role = fields.needed(&["role_name", "role"])?;
    let service = fields.needed(&["service_name", "service"])?;
    let permission = fields.needed(&["perm_name", "permission", "permission_name"])?;
    let methods = methods(&permission).ok_or_else(|| unknown_permission(&permission))?;
    let of_role = roles.permissions.entry(role.clone()).or_default();
    of_role.entry(service).or_default().extend(methods);
    Ok(role)
}

fn unknown_permission(permission: &str) -> Refused {
    Refused::new(
        format!("`{permission}` is a permission of your own, and permissions are methods here"),
        "make a Grant with the methods that it stands for",
    )
}
