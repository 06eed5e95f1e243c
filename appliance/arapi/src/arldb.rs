//! The balancer's control interface (`arldb.sock`).

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{ClientError, UnixClient, path_part};
use crate::trace::TraceStep;

/// How the balancer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Where it listens, for example `0.0.0.0:11223`.
    pub listen: String,
    /// Client connections open now.
    pub connections: u64,
    /// Requests since its start.
    pub requests: u64,
    /// Requests that were given to another backend after the first failed.
    pub retried: u64,
    /// Requests refused by a limit (431, 413, 408, 503).
    pub refused: u64,
    /// The backends, in the order of preference.
    pub backends: Vec<BackendStatus>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackendStatus {
    /// Its name, for example `local`.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether it gets requests.
    pub healthy: bool,
    /// Requests it has now.
    pub in_flight: u64,
    /// Requests since the balancer's start.
    pub requests: u64,
    /// Those it failed.
    pub failures: u64,
    /// Smoothed time of its health check, milliseconds.
    pub rtt_ms: Option<f64>,
    /// What the last failed health check or request said.
    pub last_error: Option<String>,
}

/// Calls `arldb`'s control interface.
#[derive(Debug, Clone)]
pub struct Client(pub UnixClient);

impl Client {
    /// A client at the socket `arldb.sock` of the runtime folder.
    pub fn in_runtime_dir(dir: &Path) -> Self {
        Self(UnixClient::new("arldb", dir.join("arldb.sock")))
    }

    /// `GET /v1/traces/{cid}`: the balancer's steps of a request.
    pub async fn trace(&self, cid: &str) -> Result<Vec<TraceStep>, ClientError> {
        self.0.get(&format!("/v1/traces/{}", path_part(cid))).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status").await
    }
}
