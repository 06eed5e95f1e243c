//! Boxes of the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rules;

/// A box of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// What people call it; default: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Rules for NodeSpec {}
