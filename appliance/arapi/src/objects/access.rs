//! Who may administer, and what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Read the audit log.
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
}

impl Rules for RoleSpec {}

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
