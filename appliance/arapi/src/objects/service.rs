//! Modules of Python source, the services in them, and the ini files they read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, RateLimit, Rules, yes};
use crate::names::{Kind, ObjectName};

/// A file of Python source with services in it.  Each deployment is a revision of this object, so
/// its history is the list of versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleSpec {
    /// The file's name, for example `photos.py`: the object's name with `.py`.
    pub file_name: String,
    /// The source, UTF-8.
    pub source: String,
    /// SHA-256 of the source in hexadecimal.
    pub sha256: String,
    /// Counts deployments of this module from 1; a rollback is a deployment too.
    pub version: u64,
    /// How it came: `api`, `pickup`, `ide`, `rollback to N`.
    pub origin: String,
    /// The packages it needs; absent: those that every worker has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
}

impl ModuleSpec {
    /// Largest source, in bytes.
    pub const MAX_SOURCE: usize = 4 * 1024 * 1024;
}

/// The packages of a module: what was asked for, and exactly what that was resolved to when it was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The `requirements.txt` as it was given.
    pub text: String,
    /// Every wheel that belongs to it, those that others need included, by name.
    pub lock: Vec<LockedPackage>,
}

/// One package of a lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name in the form that packages are compared by: lower case, `-` for `_` and `.`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wheel's file name.
    pub file: String,
    /// SHA-256 of the wheel in hexadecimal.
    pub sha256: String,
}

impl Requirements {
    /// Longest `requirements.txt`, in bytes.
    pub const MAX_TEXT: usize = 256 * 1024;
    /// Most wheels in a lock.
    pub const MAX_LOCK: usize = 2000;

    fn check(&self) -> Result<(), Broken> {
        if self.text.len() > Self::MAX_TEXT || self.lock.len() > Self::MAX_LOCK {
            return Err((
                "requirements",
                format!(
                    "{} bytes of text and {} packages are above the {} and {} allowed",
                    self.text.len(),
                    self.lock.len(),
                    Self::MAX_TEXT,
                    Self::MAX_LOCK
                ),
            ));
        }
        for package in &self.lock {
            let is_hash =
                package.sha256.len() == 64 && package.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_hash || !is_wheel_name(&package.file) {
                return Err((
                    "requirements.lock",
                    format!(
                        "`{}` is not a wheel's file name with the SHA-256 of its content",
                        package.file.escape_debug()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Whether a text can be the file name of a wheel, and nothing but a file name.
pub fn is_wheel_name(text: &str) -> bool {
    let stem = text.strip_suffix(".whl").unwrap_or_default();
    let parts = stem.split('-').count();
    text.len() <= 200
        && (5..=6).contains(&parts)
        && !stem.starts_with('.')
        && stem.split('-').all(|part| !part.is_empty())
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+!-".contains(&b))
}

impl Rules for ModuleSpec {
    fn check(&self) -> Result<(), Broken> {
        let stem = self.file_name.strip_suffix(".py").unwrap_or_default();
        let mut chars = stem.chars();
        let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err((
                "file_name",
                format!(
                    "`{}` is not the name of a Python module: letters, digits and `_`, then `.py`, were expected",
                    self.file_name.escape_debug()
                ),
            ));
        }
        if self.source.len() > Self::MAX_SOURCE {
            return Err((
                "source",
                format!("{} bytes are above the {} allowed", self.source.len(), Self::MAX_SOURCE),
            ));
        }
        self.requirements.as_ref().map_or(Ok(()), Requirements::check)
    }
}

/// A service found in a module.  Deployments make, change and remove these; an admin changes
/// `is_active` and the limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The module it is in.
    pub module: String,
    /// The class.
    pub class: String,
    /// First line of the docstring.
    #[serde(default)]
    pub summary: String,
    /// Whether it answers; default true.  An inactive one gives 404 on its channels.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// Longest time for one request, milliseconds, 1 to 3600000; default: the core's (60000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Most requests of it at one time on one box, 1 to 10000; default: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// The workers it runs in, by name; services of one group share processes.  Default `default`.
    #[serde(default = "default_group")]
    pub group: String,
    /// How often it may be invoked from outside: by channels and by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

fn default_group() -> String {
    "default".to_owned()
}

impl Rules for ServiceSpec {
    fn check(&self) -> Result<(), Broken> {
        if let Some(ms) = self.timeout_ms
            && !(1..=3_600_000).contains(&ms)
        {
            return Err(("timeout_ms", format!("{ms} is not between 1 and 3600000")));
        }
        if let Some(most) = self.max_concurrency
            && !(1..=10_000).contains(&most)
        {
            return Err(("max_concurrency", format!("{most} is not between 1 and 10000")));
        }
        let fits = !self.group.is_empty()
            && self.group.len() <= 40
            && self.group.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err((
                "group",
                format!(
                    "`{}` is not 1 to 40 letters, digits, `-` or `_`",
                    self.group.escape_debug()
                ),
            ));
        }
        RateLimit::check(self.rate_limit.as_ref())
    }

    fn references(&self) -> Vec<(Kind, &ObjectName)> {
        RateLimit::references(self.rate_limit.as_ref()).collect()
    }
}

/// An ini file that services read as `self.user_config.<name>.<section>.<key>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserConfigSpec {
    /// Section, then key, then value.
    pub sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Rules for UserConfigSpec {}
