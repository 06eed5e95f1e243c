//! How much a caller may do: rate limits and quota tiers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Broken, Rules, yes};
use crate::limits::Definition;
use crate::names::{Kind, ObjectName};

/// A rate limit of a channel, a security or a service: its own definition or that of a quota tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Lines of `FROM = RATE`, for example `*=1000/m`; the first that fits a caller counts, and a caller that no line
    /// fits may not come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The quota tier that says it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<ObjectName>,
    /// Whether it holds; default true.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// On a channel: whether the limit of the security that let the caller in holds here as well; default true.
    #[serde(default = "yes")]
    pub check_parent: bool,
}

impl RateLimit {
    /// The broken rule of `rate_limit`, if there is one.
    pub(crate) fn check(limit: Option<&Self>) -> Result<(), Broken> {
        let Some(limit) = limit else { return Ok(()) };
        match (&limit.definition, &limit.tier) {
            (Some(definition), None) => definition
                .parse::<Definition>()
                .map(|_| ())
                .map_err(|err| ("rate_limit.definition", err.to_string())),
            (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err((
                "rate_limit",
                "it has both a `definition` and a `tier`, of which one was expected".to_owned(),
            )),
            (None, None) => Err((
                "rate_limit",
                "it has neither a `definition` nor a `tier`, of which one was expected".to_owned(),
            )),
        }
    }

    /// What it refers to.
    pub(crate) fn references(limit: Option<&Self>) -> impl Iterator<Item = (Kind, &ObjectName)> {
        limit.and_then(|limit| limit.tier.as_ref()).map(|tier| (Kind::QuotaTier, tier)).into_iter()
    }
}

/// A rate limit under a name, for many: each channel, security or service that names it is counted for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaTierSpec {
    /// Lines of `FROM = RATE`, for example `*=1000/m`.
    pub definition: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Rules for QuotaTierSpec {
    fn check(&self) -> Result<(), Broken> {
        let parsed = self.definition.parse::<Definition>();
        parsed.map(|_| ()).map_err(|err| ("definition", err.to_string()))
    }
}
