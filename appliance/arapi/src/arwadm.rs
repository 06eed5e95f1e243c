//! The admin API: wire types of the only door for changes.  Served over HTTPS (8183) for people and
//! `arctl`, and on `arwadm.sock` for the services of the same box.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arclst::Expect;
use crate::arsrv::FoundService;
use crate::names::{Kind, ObjectName};
use crate::objects::Permission;

/// `GET /v1/claim`: what a stranger may know of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimInfo {
    /// Whether the box has its first admin.
    pub claimed: bool,
    /// The box's name.
    pub node: String,
    /// The version of ARINT.
    pub version: String,
    /// SHA-256 of the certificate that the box presents, in hexadecimal; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// SHA-256 of that certificate's public key (its SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7), in hexadecimal:
    /// stays the same when the box is renamed.  Absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Present while the recovery system runs: why it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// Present on an unclaimed box that refused a seed file: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_refused: Option<String>,
}

/// `POST /v1/claim`: makes the first admin.  Possible once, with the code that the box shows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The code, for example `K7QF-2MXD`; case and dash do not matter.
    pub code: String,
    /// The admin's name.
    pub user: ObjectName,
    /// The admin's password, 12 characters or more.
    pub password: String,
}

/// `POST /v1/login`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// `GET` and `POST /v1/session`: a log-in of a browser.  Its token is in a cookie that scripts cannot read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionAnswer {
    /// The user.
    pub user: String,
    /// What he may do.
    pub permissions: Vec<Permission>,
    /// To be sent as `X-ARINT-CSRF` with every call of this session that changes something.
    pub csrf: String,
}

/// A token just made: the only time it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// The name of the token object.
    pub name: String,
    /// To be sent as `Authorization: Bearer …`.
    pub token: String,
    /// When it ends, Unix milliseconds; absent: never.
    pub expires_ms: Option<u64>,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// How long it lasts, seconds; absent: 90 days; 0: for ever.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// `POST /v1/users/{name}/password`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// The new password, 12 characters or more.
    pub password: String,
}

/// `POST /v1/password`: one's own password.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnPasswordRequest {
    /// The present password.
    pub old: String,
    /// The new password, 12 characters or more.
    pub password: String,
}

/// `GET /v1/tokens`: a token without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// The name of the token object.
    pub name: String,
    /// Whose.
    pub user: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it ends, Unix milliseconds; absent: never.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Whether it is the one this call was made with.
    #[serde(default)]
    pub current: bool,
}

/// What was done, where there is nothing else to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The store's revision with it.
    pub revision: u64,
}

/// `GET /v1/whoami`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmI {
    /// The user.
    pub user: String,
    /// The roles.
    pub roles: Vec<String>,
    /// What they allow.
    pub permissions: Vec<Permission>,
}

/// An object as the admin API shows it: secrets by name, password hashes not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectView {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// What was configured.
    pub spec: serde_json::Value,
    /// The revision of its last change.
    #[serde(default)]
    pub revision: u64,
    /// When it was made, Unix milliseconds.
    #[serde(default)]
    pub created_ms: u64,
    /// When it was last changed, Unix milliseconds.
    #[serde(default)]
    pub changed_ms: u64,
    /// Who changed it last.
    #[serde(default)]
    pub changed_by: String,
}

/// `GET /v1/objects[/{kind}]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectList {
    /// The store's revision.
    pub revision: u64,
    /// The objects.
    pub objects: Vec<ObjectView>,
}

/// `PUT /v1/objects/{kind}/{name}`.  What it is based on stands in `If-Match` (a revision) or
/// `If-None-Match: *` (nothing is there).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRequest {
    /// The spec.
    pub spec: serde_json::Value,
    /// Check everything, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `GET /v1/history/{kind}/{name}`: one entry of an object's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryView {
    /// The store's revision.
    pub revision: u64,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// Who.
    pub who: String,
    /// The request it came with.
    #[serde(default)]
    pub cid: Option<String>,
    /// The object after it; absent: removed.
    #[serde(default)]
    pub object: Option<ObjectView>,
}

/// `POST /v1/secrets/{name}`: keeps a shared secret.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The value.
    pub value: crate::objects::SecretText,
}

/// One change as a person writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChangeRequest {
    /// Makes or replaces.
    Put {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// The spec.
        spec: serde_json::Value,
        /// What it is based on.
        #[serde(default)]
        expect: Expect,
    },
    /// Removes.
    Delete {
        /// The kind.
        kind: Kind,
        /// The name.
        name: ObjectName,
        /// What it is based on.
        #[serde(default)]
        expect: Expect,
    },
}

/// `POST /v1/transactions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionRequest {
    /// The changes, accepted only whole.
    pub changes: Vec<ChangeRequest>,
    /// Check everything, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionAnswer {
    /// The store's revision after it.
    pub revision: u64,
    /// What changed.
    pub changed: Vec<ChangedObject>,
    /// Values of secrets that were generated: the only time they are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<GeneratedSecret>,
    /// What is accepted and will not work as it is, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One object that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedObject {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: ObjectName,
    /// `created`, `changed` or `deleted`.
    pub what: String,
    /// The spec before, without secrets; absent if it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// The spec after, without secrets; absent if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// A generated secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratedSecret {
    /// The object it belongs to.
    pub object: String,
    /// The field.
    pub field: String,
    /// The value.
    pub value: String,
}

/// `POST /v1/securities/{name}/reset`: the new secret, shown only this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetAnswer {
    /// The store's revision with it.
    pub revision: u64,
    /// The security.
    pub name: String,
    /// The field.
    pub field: String,
    /// The value.
    pub value: String,
}

/// `POST /v1/deployments`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The files, deployed together.
    pub files: Vec<crate::arsrv::ModuleSource>,
    /// Check only.
    #[serde(default)]
    pub dry_run: bool,
    /// The `requirements.txt` of all of them; absent: each file keeps the packages it has; empty: none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
    /// Whether requirements that have not changed are resolved again, to newer versions where there are any.
    #[serde(default)]
    pub upgrade: bool,
    /// The group of workers that the services are to run in; absent: where they run now, new ones in `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// `POST /v1/ide-deploy`: what an editor sent to the channel port.  Only on the socket, for `arsrv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdeDeployRequest {
    /// The user that the core has authenticated.
    pub user: String,
    /// The file's name; folders before it are passed over.
    pub payload_name: String,
    /// The source in base64.
    pub payload: String,
}

/// `GET /v1/deployments`: a deployed module without its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleInfo {
    /// The module.
    pub name: String,
    /// Its file.
    pub file_name: String,
    /// The version that serves.
    pub version: u64,
    /// SHA-256 of the source.
    pub sha256: String,
    /// When it was deployed, Unix milliseconds.
    pub time_ms: u64,
    /// Who.
    pub who: String,
    /// How it came.
    pub origin: String,
    /// The services in it.
    pub services: Vec<String>,
    /// The packages it was deployed with.
    #[serde(default)]
    pub packages: Vec<crate::objects::LockedPackage>,
}

/// What was deployed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployAnswer {
    /// The store's revision with it.
    pub revision: u64,
    /// The modules with their new versions.
    pub modules: Vec<DeployedModule>,
    /// The services in them.
    pub services: Vec<FoundService>,
    /// Services that are gone with it.
    pub removed: Vec<String>,
    /// From the request's arrival until it was live, milliseconds.
    pub elapsed_ms: f64,
}

/// One deployed module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployedModule {
    /// The module.
    pub name: String,
    /// Its version now.
    pub version: u64,
    /// Whether the source differs from the version before.
    pub changed: bool,
}

/// `GET /v1/deployments/{module}`: one version of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleVersion {
    /// The version.
    pub version: u64,
    /// Whether it is the one that serves.
    pub current: bool,
    /// SHA-256 of the source.
    pub sha256: String,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// Who.
    pub who: String,
    /// How it came.
    pub origin: String,
    /// The packages it was deployed with.
    #[serde(default)]
    pub packages: Vec<crate::objects::LockedPackage>,
}

/// `POST /v1/deployments/{module}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// To which version; absent: the one before.
    #[serde(default)]
    pub to: Option<u64>,
}

/// `POST /v1/services/{name}/invoke`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvokeBody {
    /// The payload, any JSON.
    #[serde(default)]
    pub payload: serde_json::Value,
    /// Time limit, milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `GET /v1/status`: the whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// The box's name.
    pub node: String,
    /// The version of ARINT.
    pub version: String,
    /// `ok`, `degraded` or `down`.
    pub health: String,
    /// What needs attention, one sentence each.
    pub problems: Vec<String>,
    /// The object store.
    pub arclst: Option<crate::arclst::Status>,
    /// The integrator core.
    pub arsrv: Option<crate::arsrv::Status>,
    /// The balancer.
    pub arldb: Option<crate::arldb::Status>,
    /// The operating system; absent where there is no operating system unit, as on a developer's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aros: Option<crate::aros::Status>,
}

/// The query of `GET /v1/audit` and `GET /v1/audit/export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only what this one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Only this call, for example `object_put`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only what begins with this, for example `Channel/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only `done`, `refused` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Only this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Only from this moment on, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only up to this moment, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Only entries before this number: the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many entries, 1 to 1000; default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

/// `GET /v1/audit`: entries, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// What `before` of the next page is; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// `GET /v1/audit`: one entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Counts from 1.
    pub seq: u64,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// Who: `user:anna`, `pickup`, `ide`, or `anonymous`.
    pub who: String,
    /// From where.
    pub remote: String,
    /// The name of the call, for example `object_put`.
    pub action: String,
    /// What it was done to, for example `Channel/orders`.
    pub target: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// Why it was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request.
    pub cid: String,
    /// The object before, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// The object after, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// Calls the admin API on `arwadm.sock`, as a service of the same box.
#[derive(Debug, Clone)]
pub struct Client(pub crate::client::UnixClient);

impl Client {
    /// A client at the socket `arwadm.sock` of the runtime folder, for the service `service`, with 90 s for
    /// each call.
    pub fn in_runtime_dir(dir: &std::path::Path, service: &'static str) -> Self {
        let client = crate::client::UnixClient::new("arwadm", dir.join("arwadm.sock"));
        Self(client.with_service(service).with_limit(std::time::Duration::from_secs(90)))
    }

    /// `POST /v1/ide-deploy`: fails with code `refused` where the source does not load.
    pub async fn ide_deploy(
        &self,
        request: &IdeDeployRequest,
    ) -> Result<DeployAnswer, crate::client::ClientError> {
        self.0.post("/v1/ide-deploy", request).await
    }
}
