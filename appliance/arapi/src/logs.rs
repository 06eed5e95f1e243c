//! Log lines as they are handed around: by each process's log ring and by the admin API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One log line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Counts the lines of one process from 1.
    pub seq: u64,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The unit, for example `arsrv`.
    pub unit: String,
    /// The module path or, for a service's own lines, the service's name.
    pub target: String,
    /// The constant text, or a service's own message.
    pub message: String,
    /// The correlation id of the request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// What part of the log is wanted; the query of `GET /v1/logs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Only lines of this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Only lines of this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Only lines of this level and graver ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// At most this many old lines; default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Whether to go on with new lines.
    #[serde(default)]
    pub follow: bool,
}
