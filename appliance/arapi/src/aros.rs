//! The operating system's control interface (`aros.sock`): what the box is, its network, its power, its updates,
//! its black box.  Only images have it; on a developer's machine nobody listens there.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{ClientError, UnixClient};
use crate::objects::NetworkSpec;

/// `GET /v1/status`: the box and its operating system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Host name in use.
    pub hostname: String,
    /// SHA-256 of the box's public key, hexadecimal; what people compare.
    pub fingerprint: String,
    /// The board, for example `generic/x86_64`.
    pub board: String,
    /// Version of the image that runs.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Seconds since the kernel started.
    pub uptime_s: u64,
    /// How this start came about.
    pub boot: BootStatus,
    /// Memory, bytes.
    pub memory: Memory,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// File systems that are mounted from disk.
    pub disks: Vec<Disk>,
    /// Units that failed, by name.
    pub failed_units: Vec<String>,
    /// The clock.
    pub clock: Clock,
    /// Whether Secure Boot was on at start.
    pub secure_boot: bool,
    /// Whether `state` and `data` are encrypted under the TPM.
    pub encrypted: bool,
    /// What needs attention, one sentence each.
    pub problems: Vec<String>,
}

/// How this start came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootStatus {
    /// Kernel's boot id.
    pub boot_id: String,
    /// The slot that runs: `a`, `b` or `recovery`.
    pub slot: String,
    /// Whether the slot has been confirmed by function.
    pub confirmed: bool,
    /// Tries left for an entry that is not confirmed.
    pub tries_left: Option<u32>,
    /// Why the box is not in the slot that was chosen last, one sentence; none if it is.
    pub fell_back: Option<String>,
}

/// Memory, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// All that the kernel manages.
    pub total: u64,
    /// What programs could still get (`MemAvailable`).
    pub available: u64,
}

/// A mounted file system and the disk below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Partition label, for example `state`.
    pub label: String,
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// The device, for example `/dev/vda`.
    pub device: String,
    /// Its model, where it says one.
    pub model: Option<String>,
    /// How much of its life is used, per cent, where it says so.
    #[serde(default)]
    pub wear_percent: Option<u8>,
    /// `ok`, `worn` or `failing`; none where the device says nothing (NVMe health, eMMC life time, SMART).
    pub health: Option<String>,
}

/// The clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Whether a time source has been heard since start.
    pub synchronized: bool,
    /// Where the time comes from, for example `192.0.2.1`; none before the first answer.
    pub source: Option<String>,
    /// Time zone.
    pub timezone: String,
}

/// One unit of the service manager (`GET /v1/units`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unit {
    /// Its name, for example `arsrv.service`.
    pub name: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// The finer state, for example `running`.
    pub sub: String,
    /// Memory of its control group, bytes.
    pub memory: Option<u64>,
    /// Times it was restarted by the service manager.
    pub restarts: u32,
    /// Microseconds from the kernel's start until it was active; none while it is not.
    pub active_after_us: Option<u64>,
}

/// The query of `GET /v1/journal`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalQuery {
    /// Only this unit.
    #[serde(default)]
    pub unit: Option<String>,
    /// Only this boot: 0 is the present one, -1 the one before; default 0.
    #[serde(default)]
    pub boot: Option<i32>,
    /// Only this priority and graver, 0 (emergency) to 7 (debug).
    #[serde(default)]
    pub priority: Option<u8>,
    /// At most so many lines, the newest; default 500.
    #[serde(default)]
    pub lines: Option<u32>,
    /// Go on with new lines.
    #[serde(default)]
    pub follow: bool,
}

/// One line of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JournalLine {
    /// Unix milliseconds.
    pub time_ms: u64,
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// The unit, or the program where there is none.
    pub unit: String,
    /// The text.
    pub message: String,
}

/// `GET /v1/network`: what is configured, what is there, and what is on trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// What was confirmed last.
    pub confirmed: NetworkSpec,
    /// A change on trial, if there is one.
    pub trial: Option<NetworkTrial>,
    /// The links of the kernel.
    pub links: Vec<Link>,
    /// Why the last trial ended without being kept, one sentence.
    pub last_rollback: Option<String>,
}

/// A change of the network that waits for its confirmation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkTrial {
    /// What is being tried.
    pub spec: NetworkSpec,
    /// Seconds until it rolls back.
    pub seconds_left: u64,
    /// Hardware that the change names and the box does not have.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A link of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<String>,
    /// `up`, `no-carrier`, `down`.
    pub state: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
}

/// `GET /v1/identity`: who the box is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// Its Ed25519 public key (RFC 8032), base64.
    pub public_key: String,
    /// SHA-256 of the public key, hexadecimal.
    pub fingerprint: String,
    /// The same for people to compare: the first 80 bits in four groups, for example `7k2p-9x4m-…`.
    pub words: String,
    /// The host name that is made from the key.
    pub default_hostname: String,
}

/// `POST /v1/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub action: PowerAction,
}

/// What to do with the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Restart in an orderly way.
    Reboot,
    /// Restart into the recovery system.
    Recovery,
    /// Switch off.
    PowerOff,
}

/// `POST /v1/identify`: blinks the box's LED and rings its bell, so that someone finds it in a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentifyRequest {
    /// For so long, 1 to 600; default 30.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// What identifies the box (answer of `POST /v1/identify`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Identifying {
    /// What blinks or rings: LEDs by name, `bell` for the bells of the consoles.
    pub by: Vec<String>,
    /// For so long.
    pub seconds: u32,
}

/// `POST /v1/factory-reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    /// The box's host name, typed again so that it is meant.
    pub hostname: String,
}

/// What a factory reset left behind: the proof that keys were destroyed, also in the black box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetAnswer {
    /// The fingerprint of the key that is destroyed.
    pub fingerprint: String,
    /// What happens now, one sentence.
    pub message: String,
}

/// `POST /v1/support`: opens a log-in on the box's own screen and serial console for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupportRequest {
    /// For so long, 1 to 480.
    pub minutes: u32,
}

/// An open support session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SupportSession {
    /// The user to log in as.
    pub user: String,
    /// Its password, shown once; none when the session is only listed.
    pub password: Option<String>,
    /// When it ends, Unix milliseconds.
    pub until_ms: u64,
}

/// One entry of the black box (`GET /v1/blackbox`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlackBoxEntry {
    /// Position in the ring since the box was made.
    pub seq: u64,
    /// Unix milliseconds by the clock of that moment.
    pub time_ms: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What happened, one word, for example `started`, `confirmed`, `probe_failed`.
    pub event: String,
    /// The same as a sentence.
    pub text: String,
}

/// `GET /v1/blackbox`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlackBoxView {
    /// Why the box is not in the slot that was chosen last, one sentence; none if it is.
    pub why: Option<String>,
    /// The entries, newest first.
    pub entries: Vec<BlackBoxEntry>,
}

/// `GET /v1/update`: slots, and what an installation is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateStatus {
    /// The slots.
    pub slots: Vec<SlotStatus>,
    /// The running or the last installation since start.
    pub install: Option<InstallStatus>,
    /// The lowest version that may be installed without saying so.
    pub floor: String,
}

/// A slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotStatus {
    /// `a`, `b` or `recovery`.
    pub slot: String,
    /// Whether it runs now.
    pub booted: bool,
    /// Whether it starts next.
    pub primary: bool,
    /// `good`, `new`, `bad` or `empty`.
    pub state: String,
    /// Tries left, where they are counted.
    pub tries_left: Option<u32>,
    /// The version in it.
    pub version: Option<String>,
    /// When it was written, Unix milliseconds.
    pub installed_ms: Option<u64>,
}

/// How an installation goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstallStatus {
    /// Where the bundle comes from.
    pub source: String,
    /// The version it brings, once it is known.
    pub version: Option<String>,
    /// `running`, `installed` or `failed`.
    pub state: String,
    /// 0 to 100.
    pub percent: u32,
    /// What is being done.
    pub message: String,
    /// Why it failed, one sentence.
    pub error: Option<String>,
    /// Bytes fetched of a bundle that is streamed; what the box has already is not fetched.
    pub fetched_bytes: Option<u64>,
    /// Bytes of that bundle.
    pub bundle_bytes: Option<u64>,
}

/// `POST /v1/update/install`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// `http://` or `https://` URL to stream from, or none for the bundle that was uploaded last
    /// (`PUT /v1/update/bundle`).
    #[serde(default)]
    pub url: Option<String>,
    /// Take a version below the floor; default false.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// Restart when installed; default true.
    #[serde(default = "crate::objects::yes")]
    pub reboot: bool,
}

/// What an uploaded bundle is (answer of `PUT /v1/update/bundle`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BundleInfo {
    /// What it is compatible with, for example `arint-generic-x86_64`.
    pub compatible: String,
    /// Its version.
    pub version: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// One functional probe (`GET /v1/probes`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Its name: `units`, `store`, `channel`, …
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found, one sentence.
    pub message: String,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
}

/// Done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// What happened, one sentence.
    pub message: String,
}

/// Calls `aros`'s control interface.  Further calls are made through the [`UnixClient`] inside.
#[derive(Debug, Clone)]
pub struct Client(pub UnixClient);

impl Client {
    /// A client at the socket `aros.sock` of the runtime folder.
    pub fn in_runtime_dir(dir: &Path) -> Self {
        Self(UnixClient::new("aros", dir.join("aros.sock")))
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status").await
    }

    /// `GET /v1/update`.
    pub async fn update(&self) -> Result<UpdateStatus, ClientError> {
        self.0.get("/v1/update").await
    }
}
