//! Who may invoke what: grants, on channels that ask for them.
//!
//! A channel with `use_rbac` lets a caller through its gate only where a grant names the caller's security, or a
//! group with it, and fits service, channel and method.  There is nothing that forbids: what is not granted is not
//! allowed.

use std::collections::BTreeSet;

use arapi::names::{Kind, ObjectName};
use arapi::objects::access::fits_pattern;
use arapi::objects::{GrantSpec, HttpMethod, Spec};

use crate::world::World;

/// All grants there are.
#[derive(Debug, Default)]
pub struct Grants(Vec<Grant>);

#[derive(Debug)]
struct Grant {
    name: ObjectName,
    callers: BTreeSet<ObjectName>,
    spec: GrantSpec,
}

/// The grants that fit one channel and its service.
#[derive(Debug, Clone, Default)]
pub struct Granted(Vec<(ObjectName, BTreeSet<ObjectName>, Vec<HttpMethod>)>);

impl Grants {
    /// The grants of a world.
    pub fn plan(world: &World) -> Self {
        let mut grants = Vec::new();
        for object in world.of_kind(Kind::Grant) {
            let Spec::Grant(spec) = &object.spec else { continue };
            if !spec.is_active {
                continue;
            }
            let mut callers: BTreeSet<ObjectName> = spec.securities.iter().cloned().collect();
            for group in &spec.groups {
                if let Some(Spec::SecurityGroup(group)) =
                    world.object(Kind::SecurityGroup, group).map(|object| &object.spec)
                {
                    callers.extend(group.members.iter().cloned());
                }
            }
            grants.push(Grant { name: object.name.clone(), callers, spec: spec.clone() });
        }
        Self(grants)
    }

    /// Those that fit a channel and its service.
    pub fn of_channel(&self, channel: &ObjectName, service: &str) -> Granted {
        let fits = |grant: &&Grant| {
            let any = |patterns: &[String], name: &str| {
                patterns.iter().any(|pattern| fits_pattern(pattern, name))
            };
            any(&grant.spec.services, service) && any(&grant.spec.channels, channel.as_str())
        };
        let found = self.0.iter().filter(fits);
        Granted(
            found
                .map(|grant| {
                    (grant.name.clone(), grant.callers.clone(), grant.spec.methods.clone())
                })
                .collect(),
        )
    }
}

impl Granted {
    /// The grant by which a caller may come in, if there is one.
    pub fn find(&self, caller: &ObjectName, method: HttpMethod) -> Option<&ObjectName> {
        let fits =
            |(_, callers, methods): &&(ObjectName, BTreeSet<ObjectName>, Vec<HttpMethod>)| {
                callers.contains(caller) && (methods.is_empty() || methods.contains(&method))
            };
        self.0.iter().find(fits).map(|(name, _, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    #[track_caller]
    fn check(
        caller: &str,
        channel: &str,
        service: &str,
        method: HttpMethod,
        expected: Option<&str>,
    ) {
        let basic =
            |user: &str| json!({"type": "basic", "username": user, "password": {"secret": "p"}});
        let world = World::of(
            1,
            &[
                (Kind::Security, "anna", basic("anna")),
                (Kind::Security, "bert", basic("bert")),
                (Kind::SecurityGroup, "staff", json!({"members": ["bert"]})),
                (
                    Kind::Grant,
                    "all-of-anna",
                    json!({"securities": ["anna"], "services": ["orders.*"]}),
                ),
                (
                    Kind::Grant,
                    "staff-reads",
                    json!({"groups": ["staff"], "services": ["*.get"], "channels": ["inner-*"], "methods": ["GET", "HEAD"]}),
                ),
                (Kind::Grant, "off", json!({"securities": ["bert"], "is_active": false})),
            ],
        );
        let granted = Grants::plan(&world).of_channel(&name(channel), service);
        assert_eq!(granted.find(&name(caller), method).map(ObjectName::as_str), expected);
    }

    #[test]
    fn only_what_is_granted_is_allowed() {
        check("anna", "any", "orders.create", HttpMethod::Post, Some("all-of-anna"));
        check("anna", "any", "billing.get", HttpMethod::Get, None);
        check("bert", "inner-a", "billing.get", HttpMethod::Get, Some("staff-reads"));
        check("bert", "inner-a", "billing.get", HttpMethod::Post, None);
        check("bert", "outer-a", "billing.get", HttpMethod::Get, None);
        check("carl", "inner-a", "billing.get", HttpMethod::Get, None);
    }
}
