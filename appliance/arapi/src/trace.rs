//! What happened to a request, step by step, as units and the admin API hand it around.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One step of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceStep {
    /// The unit that took it, for example `arsrv`.
    pub unit: String,
    /// `balancer`, `request`, `gate`, `body`, `queue`, `service`, `outgoing`, `later`.
    pub what: String,
    /// The channel, security, service or connection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it began, Unix microseconds.
    pub at_us: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// The status it ended with, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether it failed.
    #[serde(default)]
    pub failed: bool,
    /// Its id, 16 hexadecimal digits.
    pub span: String,
    /// The id of the step that it is part of; empty: of none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// What else there is to say: `worker`, `method`, `path`, `remote`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

/// A request, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceView {
    /// The correlation id.
    pub cid: String,
    /// The trace id (W3C), 32 hexadecimal digits; empty where only the balancer knows the request.
    pub trace: String,
    /// The steps in the order in which they began.
    pub steps: Vec<TraceStep>,
    /// Steps that were left out because there were too many.
    #[serde(default)]
    pub left_out: u64,
}

/// One request in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceSummary {
    /// The correlation id.
    pub cid: String,
    /// When it began, Unix microseconds.
    pub at_us: u64,
    /// How long it took, microseconds; none: it is under way.
    #[serde(default)]
    pub took_us: Option<u64>,
    /// The channel, or the service that was invoked by hand.
    pub name: String,
    /// The status of the answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// How many steps are known.
    pub steps: u64,
}

/// Which requests are listed; the query of `GET /v1/traces`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// Only those that failed (500 and above).
    #[serde(default)]
    pub failed: bool,
    /// Only those that took so many milliseconds at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
    /// At most so many, the newest first; default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<usize>,
}
