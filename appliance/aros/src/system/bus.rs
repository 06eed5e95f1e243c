//! The services of the operating system, as this unit calls them over the system bus.

use std::time::Duration;

use arbase::http::ApiError;
use serde::Deserialize;
use zbus::Type;
use zbus::proxy::CacheProperties;
use zbus::{OwnedObjectPath, OwnedVariant};

/// How long a call may take.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A unit as the service manager lists it.
#[expect(dead_code, reason = "the form of the message, of which not every field is of use")]
#[derive(Debug, Clone, Deserialize, Type)]
pub(crate) struct UnitEntry {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) following: String,
    pub(crate) path: OwnedObjectPath,
    pub(crate) job: u32,
    pub(crate) job_type: String,
    pub(crate) job_path: OwnedObjectPath,
}

/// The service manager.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Systemd {
    fn list_units(&self) -> zbus::Result<Vec<UnitEntry>>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload_or_try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
}

/// The host name's service.
#[zbus::proxy(
    interface = "org.freedesktop.hostname1",
    default_service = "org.freedesktop.hostname1",
    default_path = "/org/freedesktop/hostname1"
)]
pub(crate) trait Hostname {
    fn set_static_hostname(&self, name: &str, interactive: bool) -> zbus::Result<()>;
    fn set_hostname(&self, name: &str, interactive: bool) -> zbus::Result<()>;
}

/// The clock's service.
#[zbus::proxy(
    interface = "org.freedesktop.timedate1",
    default_service = "org.freedesktop.timedate1",
    default_path = "/org/freedesktop/timedate1"
)]
pub(crate) trait Timedate {
    fn set_timezone(&self, zone: &str, interactive: bool) -> zbus::Result<()>;
    #[zbus(property)]
    fn timezone(&self) -> zbus::Result<String>;
    #[zbus(property, name = "NTPSynchronized")]
    fn ntp_synchronized(&self) -> zbus::Result<bool>;
}

/// The last answer of a time server: leap, version, mode, stratum, precision, root delay and dispersion, reference,
/// four moments, whether it was ignored, number of packets, jitter.
pub(crate) type NtpMessage =
    (u32, u32, u32, u32, i32, u64, u64, Vec<u8>, u64, u64, u64, u64, bool, u64, u64);

/// The time synchronisation.
#[zbus::proxy(
    interface = "org.freedesktop.timesync1.Manager",
    default_service = "org.freedesktop.timesync1",
    default_path = "/org/freedesktop/timesync1"
)]
pub(crate) trait Timesync {
    #[zbus(property)]
    fn server_name(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn server_address(&self) -> zbus::Result<(i32, Vec<u8>)>;
    #[zbus(property, name = "NTPMessage")]
    fn ntp_message(&self) -> zbus::Result<NtpMessage>;
}

/// The network's service.
#[zbus::proxy(
    interface = "org.freedesktop.network1.Manager",
    default_service = "org.freedesktop.network1",
    default_path = "/org/freedesktop/network1"
)]
pub(crate) trait Networkd {
    fn reload(&self) -> zbus::Result<()>;
    fn describe(&self) -> zbus::Result<String>;
}

/// The service of power and sessions.
#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(crate) trait Logind {
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
    fn power_off(&self, interactive: bool) -> zbus::Result<()>;
    fn set_reboot_to_boot_loader_entry(&self, entry: &str) -> zbus::Result<()>;
    #[zbus(property)]
    fn boot_loader_entries(&self) -> zbus::Result<Vec<String>>;
    fn terminate_user(&self, uid: u32) -> zbus::Result<()>;
}

macro_rules! connect {
    ($($(#[$doc:meta])* $name:ident: $proxy:ident;)+) => {
        $(
            $(#[$doc])*
            pub(crate) async fn $name(bus: &zbus::Connection) -> zbus::Result<$proxy<'_>> {
                // Nothing is cached: each answer is of the moment it was asked in.
                $proxy::builder(bus).cache_properties(CacheProperties::No).build().await
            }
        )+
    };
}

connect! {
    /// Of this bus.
    systemd: SystemdProxy;
    /// Of this bus.
    hostname: HostnameProxy;
    /// Of this bus.
    timedate: TimedateProxy;
    /// Of this bus.
    timesync: TimesyncProxy;
    /// Of this bus.
    networkd: NetworkdProxy;
    /// Of this bus.
    logind: LogindProxy;
}

/// Every property of one interface of a unit.
pub(crate) async fn unit_properties(
    bus: &zbus::Connection,
    path: &OwnedObjectPath,
    interface: &str,
) -> zbus::Result<std::collections::HashMap<String, OwnedVariant>> {
    let reply = bus
        .call_method(
            Some("org.freedesktop.systemd1"),
            path,
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &interface,
        )
        .await?;
    reply.body().deserialize()
}

/// Why a call to a service of the operating system failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It refused, or is not there.
    #[error("cannot {doing} through `{service}`")]
    Failed {
        /// What was to be done.
        doing: &'static str,
        /// The service's name on the bus.
        service: &'static str,
        /// Why.
        source: zbus::Error,
    },
    /// It did not answer.
    #[error("`{service}` did not {doing} within {CALL_LIMIT:?}")]
    Late {
        /// What was to be done.
        doing: &'static str,
        /// The service's name on the bus.
        service: &'static str,
    },
}

/// Waits for a call, not longer than [`CALL_LIMIT`].
pub(crate) async fn within<T>(
    doing: &'static str,
    service: &'static str,
    call: impl Future<Output = zbus::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CallError::Failed { doing, service, source }),
        Err(_) => Err(CallError::Late { doing, service }),
    }
}

impl CallError {
    /// For the caller of a route: the service's own words go to the log.
    pub(crate) fn answer(&self) -> ApiError {
        log::error!(error:% = arbase::Chain(self); "a service of the operating system failed");
        ApiError::unavailable(format!("{self}; the log has the cause"))
    }
}
