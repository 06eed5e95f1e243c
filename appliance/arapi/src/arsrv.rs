//! The integrator core's control interface (`arsrv.sock`).  Requests of users do not come this way:
//! they come from the balancer on `arsrv-http.sock`.

pub use crate::profile::{Profile, ProfileFrame, ProfileRequest, ProfileStack, ProfiledWorker};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{ClientError, UnixClient, path_part};
use crate::messages::{MessagePage, MessageQuery};
use crate::names::ObjectName;
use crate::objects::{ChannelType, HttpMethod, LockedPackage, Requirements};
use crate::trace::{TraceQuery, TraceSummary, TraceView};

/// May a caller invoke something?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessQuestion {
    /// The security by which the caller would come in.
    pub caller: ObjectName,
    /// The service; may be left out where `channel` is given.
    #[serde(default)]
    pub service: Option<ObjectName>,
    /// The channel; absent: any that invokes the service.
    #[serde(default)]
    pub channel: Option<ObjectName>,
    /// The method; default: the channel's own, or `GET`.
    #[serde(default)]
    pub method: Option<HttpMethod>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessAnswer {
    /// Whether it may.
    pub allowed: bool,
    /// The channel it is about.
    #[serde(default)]
    pub channel: Option<ObjectName>,
    /// The grant that lets it.
    #[serde(default)]
    pub grant: Option<ObjectName>,
    /// Why, in one sentence.
    pub reason: String,
}

/// Sources to be checked together: what the set of modules would be after a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The modules that are new or changed; the others are taken from the object store.
    pub modules: Vec<ModuleSource>,
    /// Modules that are to go.
    #[serde(default)]
    pub removed: Vec<String>,
    /// What to do about the packages of `modules`.
    #[serde(default)]
    pub packages: Packages,
    /// The group of workers that the services of `modules` are to run in; absent: where they run now, new ones in
    /// `default`.
    #[serde(default)]
    pub group: Option<String>,
}

/// Which packages modules are to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// Each those that it has.
    #[default]
    Keep,
    /// None of their own.
    Without,
    /// All of them these.
    These(Requirements),
}

/// A `requirements.txt` to be resolved for modules that are deployed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The `requirements.txt`.
    pub requirements: String,
    /// The modules, without `.py`; what others in the same group have is held fast.
    pub modules: Vec<String>,
    /// The group of workers, as in [`CheckRequest`].
    #[serde(default)]
    pub group: Option<String>,
}

/// What it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum ResolveVerdict {
    /// Every wheel is there.
    Resolved(Requirements),
    /// It cannot be.
    Refused(LoadFault),
}

/// The packages of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PackagesView {
    /// The addresses of the indexes in use.
    pub indexes: Vec<String>,
    /// The uploaded wheels, by file name.
    pub wheels: Vec<WheelInfo>,
    /// The environments that are built.
    pub environments: Vec<EnvironmentInfo>,
}

/// An uploaded wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WheelInfo {
    /// Its file name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content; empty where it is not known.
    pub sha256: String,
}

/// A built environment: packages that workers of one or more groups load from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentInfo {
    /// Its name, made of its content.
    pub name: String,
    /// The groups whose workers have it; none: it is kept for a moment, or for a rollback.
    pub groups: Vec<String>,
    /// What is in it.
    pub packages: Vec<LockedPackage>,
}

/// A module's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleSource {
    /// For example `photos.py`.
    pub file_name: String,
    /// The source.
    pub source: String,
}

/// What a fresh worker made of the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Every module loads.
    Loads {
        /// All services of all modules.
        services: Vec<FoundService>,
    },
    /// One does not.
    Refused(LoadFault),
}

/// A service found in a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FoundService {
    /// Its name.
    pub name: String,
    /// The module.
    pub module: String,
    /// The class.
    pub class: String,
    /// The class's line.
    #[serde(default)]
    pub line: u32,
    /// First line of the docstring.
    #[serde(default)]
    pub summary: String,
    /// The docstring.
    #[serde(default)]
    pub doc: String,
    /// Whether `handle` is a coroutine.
    #[serde(default)]
    pub is_async: bool,
    /// Whether it has a `warm_up_worker`, which a new worker runs before it takes calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warms_up: bool,
    /// The `handle_<VERB>` methods.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// JSON Schema of the declared input.
    #[serde(default)]
    pub input: Option<serde_json::Value>,
    /// JSON Schema of the declared output.
    #[serde(default)]
    pub output: Option<serde_json::Value>,
}

/// Why modules do not load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadFault {
    /// One sentence.
    pub reason: String,
    /// The file, for example `photos.py`; empty if unknown.
    #[serde(default)]
    pub file: String,
    /// The line; 0 if there is none.
    #[serde(default)]
    pub line: u32,
    /// Python's traceback.
    #[serde(default)]
    pub traceback: String,
    /// The worker's exit code, where it ended by itself; negative: the signal.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// A service invoked by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvokeRequest {
    /// Which.
    pub service: String,
    /// The payload, any JSON.
    #[serde(default)]
    pub payload: serde_json::Value,
    /// Time limit, milliseconds; default: the service's.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InvokeResponse {
    /// The correlation id.
    pub cid: String,
    /// The status the service set, or that of its error.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// The body, if it is UTF-8.
    pub body: Option<String>,
    /// The body in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// How long it took.
    pub elapsed_ms: f64,
}

/// How the core is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The store's revision that requests are served at.
    pub revision: u64,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// The channels.
    pub channels: Vec<ChannelStatus>,
    /// The outgoing connections.
    pub outgoing: Vec<OutgoingStatus>,
    /// What is wrong now, one sentence each.
    pub problems: Vec<String>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// For example `default-3`.
    pub name: String,
    /// The group.
    pub group: String,
    /// Process id.
    pub pid: u32,
    /// `starting`, `ready`, `draining`.
    pub state: String,
    /// Requests it has now.
    pub in_flight: u32,
    /// Requests it has answered.
    pub served: u64,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// Since when, Unix milliseconds.
    pub started_ms: u64,
    /// How it is confined: `user`, `landlock`, `seccomp`, `rlimits`.
    pub sandbox: Vec<String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The module.
    pub module: String,
    /// Whether it answers.
    pub is_active: bool,
    /// Requests since the core's start.
    pub calls: u64,
    /// Those that failed (5xx).
    pub failures: u64,
    /// Median time, milliseconds, of the last 1000 or so.
    pub p50_ms: f64,
    /// The slowest hundredth.
    pub p99_ms: f64,
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelStatus {
    /// Its name.
    pub name: String,
    /// The path pattern.
    pub url_path: String,
    /// The protocol: `rest`, `json_rpc`, `soap` or `web_socket`.
    #[serde(rename = "type", default)]
    pub channel_type: ChannelType,
    /// The service; of a channel whose requests name it, the patterns of those they may name; empty where they are passed
    /// on to an outgoing connection.
    pub service: String,
    /// The outgoing connection that requests are passed on to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<String>,
    /// `serving`, `inactive`, `service not deployed`, `service inactive`, or why it cannot serve.
    pub state: String,
    /// Requests since the core's start.
    pub calls: u64,
    /// Answers of 500 and above.
    pub failures: u64,
    /// Requests above a rate limit.
    #[serde(default)]
    pub limited: u64,
    /// Clients that are connected now, of a WebSocket channel.
    #[serde(default)]
    pub connections: u64,
}

/// One outgoing connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutgoingStatus {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub address: String,
    /// `up`, `down`, `unknown` (never checked), `inactive`.
    pub health: String,
    /// What the last check or call found.
    pub last_error: Option<String>,
    /// When it was last checked, Unix milliseconds.
    pub checked_ms: Option<u64>,
    /// How long the last check took.
    pub ping_ms: Option<f64>,
    /// `closed`, `open` or `half-open`.
    pub circuit: String,
    /// Calls since the core's start.
    pub calls: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Calls that failed in the end.
    pub failures: u64,
    /// The connections of a database's pools, all workers together; absent where there is no such pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolFigures>,
}

/// The pools of a database connection, all workers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolFigures {
    /// The workers that use it.
    pub workers: u32,
    /// Most connections that may be open.
    pub size: u32,
    /// Connections that are open.
    pub open: u32,
    /// Connections that services have now.
    pub in_use: u32,
    /// Services that wait for one.
    pub waiting: u32,
    /// Errors since the core's start: statements that failed, connections that could not be had.
    pub errors: u64,
}

/// What a ping found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PingResult {
    /// Whether there was an answer below 500.
    pub ok: bool,
    /// The status, if any.
    pub status: Option<u16>,
    /// One sentence.
    pub message: String,
    /// How long it took.
    pub elapsed_ms: f64,
}

/// Calls `arsrv`'s control interface.
#[derive(Debug, Clone)]
pub struct Client(pub UnixClient);

impl Client {
    /// A client at the socket `arsrv.sock` of the runtime folder, with 90 s for each call.
    pub fn in_runtime_dir(dir: &Path) -> Self {
        let client = UnixClient::new("arsrv", dir.join("arsrv.sock"));
        Self(client.with_limit(std::time::Duration::from_secs(90)))
    }

    /// `POST /v1/check`: loads the sources in a fresh worker, which is kept for the deployment that follows.
    pub async fn check(&self, request: &CheckRequest) -> Result<CheckVerdict, ClientError> {
        self.0.post("/v1/check", request).await
    }

    /// `POST /v1/packages/resolve`: gets every wheel that the requirements need; changes nothing that serves.
    pub async fn resolve(&self, request: &ResolveRequest) -> Result<ResolveVerdict, ClientError> {
        self.0.post("/v1/packages/resolve", request).await
    }

    /// `GET /v1/packages`.
    pub async fn packages(&self) -> Result<PackagesView, ClientError> {
        self.0.get("/v1/packages").await
    }

    /// `DELETE /v1/packages/wheels/{file}`.
    pub async fn remove_wheel(&self, file: &str) -> Result<(), ClientError> {
        self.0.delete(&format!("/v1/packages/wheels/{}", path_part(file))).await
    }

    /// `POST /v1/wait/{revision}`: returns once requests are served at that revision or a later one.
    pub async fn wait_for(&self, revision: u64) -> Result<(), ClientError> {
        self.0.post(&format!("/v1/wait/{revision}"), &()).await
    }

    /// `POST /v1/invoke`.
    pub async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, ClientError> {
        self.0.post("/v1/invoke", request).await
    }

    /// `POST /v1/profile`; takes as long as `seconds` says, and a little longer.
    pub async fn profile(&self, request: &ProfileRequest) -> Result<Profile, ClientError> {
        self.0.post("/v1/profile", request).await
    }

    /// `POST /v1/access`; fails with code `not_found` where the question names what does not exist.
    pub async fn access(&self, question: &AccessQuestion) -> Result<AccessAnswer, ClientError> {
        self.0.post("/v1/access", question).await
    }

    /// `POST /v1/channels/{name}/messages`: what the channel has kept of requests and answers.
    pub async fn messages(
        &self,
        channel: &str,
        query: &MessageQuery,
    ) -> Result<MessagePage, ClientError> {
        self.0.post(&format!("/v1/channels/{}/messages", path_part(channel)), query).await
    }

    /// `POST /v1/outgoing/{name}/ping`.
    pub async fn ping(&self, name: &str) -> Result<PingResult, ClientError> {
        self.0.post(&format!("/v1/outgoing/{}/ping", path_part(name)), &()).await
    }

    /// `GET /v1/traces`.
    pub async fn traces(&self, query: &TraceQuery) -> Result<Vec<TraceSummary>, ClientError> {
        let mut path = format!("/v1/traces?failed={}", query.failed);
        if let Some(ms) = query.slow_ms {
            path.push_str(&format!("&slow_ms={ms}"));
        }
        if let Some(most) = query.most {
            path.push_str(&format!("&most={most}"));
        }
        self.0.get(&path).await
    }

    /// `GET /v1/traces/{cid}`; fails with code `not_found` where nothing is known of the request.
    pub async fn trace(&self, cid: &str) -> Result<TraceView, ClientError> {
        self.0.get(&format!("/v1/traces/{}", path_part(cid))).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status").await
    }
}
