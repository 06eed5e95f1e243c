//! Who may administer, and what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel::HttpMethod;
use super::{Broken, Rules, yes};
use crate::names::{Kind, ObjectName};

/// One thing that may be done over the admin API.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read objects, status and figures.
    Read,
    /// Read log lines.
    Logs,
    /// Invoke services by hand, ping connections.
    Operate,
    /// Deploy and roll back services, change channels and outgoing connections.
    Develop,
    /// Change everything else that is configured, securities included.
    Configure,
    /// Users, roles, tokens.
    Access,
    /// Read the audit log, and what channels keep of requests and answers.
    Audit,
    /// The operating system: updates, network, name and time, power, reset, support.
    System,
}

/// What may be done, by name.  `viewer`, `operator`, `developer` and `admin` exist from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleSpec {
    /// What who has the role may do.
    pub permissions: Vec<Permission>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The services who has the role may invoke by hand, as patterns in which `*` stands for any text; default all.
    #[serde(default = "everything", skip_serializing_if = "is_everything")]
    pub services: Vec<String>,
}

impl Rules for RoleSpec {
    fn check(&self) -> Result<(), Broken> {
        check_patterns("services", &self.services)
    }
}

/// Who may invoke what: on channels with `use_rbac`, a caller needs one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantSpec {
    /// The securities it is for.
    #[serde(default)]
    pub securities: Vec<ObjectName>,
    /// The security groups it is for: each of their members.
    #[serde(default)]
    pub groups: Vec<ObjectName>,
    /// The services they may invoke, as patterns in which `*` stands for any text; default all.
    #[serde(default = "everything")]
    pub services: Vec<String>,
    /// The channels they may do so by, as patterns; default all.
    #[serde(default = "everything")]
    pub channels: Vec<String>,
    /// The methods they may do so with; default all.
    #[serde(default)]
    pub methods: Vec<HttpMethod>,
    /// Whether it counts; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Rules for GrantSpec {
    fn check(&self) -> Result<(), Broken> {
        if self.securities.is_empty() && self.groups.is_empty() {
            return Err((
                "securities",
                "it is for nobody: `securities` or `groups` was expected".to_owned(),
            ));
        }
        check_patterns("services", &self.services)?;
        check_patterns("channels", &self.channels)
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        let securities = self.securities.iter().map(|name| (Kind::Security, name));
        let groups = self.groups.iter().map(|name| (Kind::SecurityGroup, name));
        securities.chain(groups).collect()
    }
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

fn is_everything(patterns: &[String]) -> bool {
    matches!(patterns, [one] if one == "*")
}

pub(super) fn check_patterns(field: &'static str, patterns: &[String]) -> Result<(), Broken> {
    match patterns.iter().find(|pattern| pattern.is_empty() || pattern.len() > 400) {
        Some(pattern) => Err((
            field,
            format!("`{}` is no pattern: 1 to 400 bytes were expected", pattern.escape_debug()),
        )),
        None => Ok(()),
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text, none included.
pub fn fits_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    // The first part begins the name; split gives one at least.
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A person or program that administers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// Argon2id hash of the password in PHC form; set through the password call of the admin API,
    /// never through objects, and shown as `null`.
    #[serde(default)]
    pub password_hash: Option<String>,
    /// The roles it has.
    pub roles: Vec<ObjectName>,
    /// Whether it may log in; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
}

impl Rules for UserSpec {
    fn check(&self) -> Result<(), Broken> {
        match &self.password_hash {
            Some(hash) if !hash.starts_with("$argon2id$") => {
                Err(("password_hash", "an Argon2id hash in PHC form was expected".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        self.roles.iter().map(|role| (Kind::Role, role)).collect()
    }
}

/// A user's long-lived key to the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// Whose.
    pub user: ObjectName,
    /// SHA-256 of the token in hexadecimal; the token itself has 256 random bits.
    pub sha256: String,
    /// When it ends, Unix milliseconds; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Rules for TokenSpec {
    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        vec![(Kind::User, &self.user)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(fits_pattern(pattern, name), expected, "{pattern} {name}");
    }

    #[test]
    fn a_star_stands_for_any_text() {
        check("orders.get", "orders.get", true);
        check("orders.get", "orders.get-all", false);
        check("*", "anything", true);
        check("*", "", true);
        check("orders.*", "orders.get", true);
        check("orders.*", "my.orders.get", false);
        check("*.get", "orders.get", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("aa*aa", "aaa", false);
        check("a**b", "ab", true);
    }
}
