//! Profiles: where the time of services goes, by looking many times a second.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/profiles`: look for a while at what workers are doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// Only this service; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only this worker, for example `default-3`; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// For how long, seconds, 1 to 120; default 10.
    #[serde(default = "seconds")]
    pub seconds: u32,
    /// How often, times a second, 1 to 1000; default 100.
    #[serde(default = "rate_hz")]
    pub rate_hz: u32,
}

fn seconds() -> u32 {
    10
}

fn rate_hz() -> u32 {
    100
}

impl Default for ProfileRequest {
    fn default() -> Self {
        Self { service: None, worker: None, seconds: seconds(), rate_hz: rate_hz() }
    }
}

impl ProfileRequest {
    /// The rules the types cannot express; the sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let within = |field: &str, value: u32, high: u32| {
            if (1..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("field `{field}`: {value} is not between 1 and {high}"))
            }
        };
        within("seconds", self.seconds, 120)?;
        within("rate_hz", self.rate_hz, 1000)
    }
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// The workers that were looked at.
    pub workers: Vec<ProfiledWorker>,
    /// The functions that `stacks` name by their place here, counted from 0.
    pub frames: Vec<ProfileFrame>,
    /// What was seen how often, most often first.
    pub stacks: Vec<ProfileStack>,
    /// What was seen of further stacks, beyond the 20,000 per worker that are told apart.
    pub others: u64,
}

/// A worker that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfiledWorker {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its process.
    pub pid: u32,
    /// For how long, seconds.
    pub seconds: f64,
    /// How often it was looked at; below the rate where it was too busy to be.
    pub samples: u64,
    /// Processor time that looking took, seconds.
    pub cost_s: f64,
    /// Why nothing is known of it, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A function.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct ProfileFrame {
    /// Its qualified name.
    pub name: String,
    /// Its file: of a module as it was deployed, `arint/…` for the SDK, else of a package or of Python.
    pub file: String,
    /// The line where it begins.
    pub line: u32,
}

/// A stack that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileStack {
    /// The service it ran for.
    pub service: String,
    /// Whether its thread used the processor; else it waited, for another system or for Python's lock.
    pub working: bool,
    /// From the outermost to the innermost, as places in `frames`.
    pub frames: Vec<u32>,
    /// The line of the innermost that was being run.
    pub line: u32,
    /// How often it was seen.
    pub count: u64,
}
