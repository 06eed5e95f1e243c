//! What of the file system a worker can reach, whoever it runs as (Landlock).
//!
//! Also keeps it from sending signals to the core and from abstract sockets, where the kernel can (6.12).
//! Connecting to Unix sockets that have a path is not restricted here: kernels before 7.1 cannot, and
//! `arkvd.sock` has to be reached.  Those are guarded by their mode and by what must be known to use them.

use std::path::Path;

use ::landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Files;

/// Every access that is asked for; what an older kernel does not know is left out by the crate.
const ASKED: ABI = ABI::V8;

/// What programs of a system need to run: read and execute.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// Of `/etc` only what libraries look up; the rest holds other programs' configuration and secrets.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "gai.conf",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "machine-id",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
];

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Confines the calling thread for good.
pub(super) fn apply(files: &Files) -> Result<(), String> {
    match restrict(files) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err("this kernel has no Landlock".to_owned()),
        Err(err) => Err(format!("the rules cannot be set: {}", arbase::Chain(&err))),
    }
}

fn restrict(files: &Files) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::from_read(ASKED);
    // Everything but making device nodes.
    let write = AccessFs::from_all(ASKED) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let etc = ETC.iter().map(|name| Path::new("/etc").join(name));
    let devices = DEVICES.iter().map(|name| Path::new("/dev").join(name));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ASKED))?
        .scope(Scope::from_all(ASKED))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(etc, read))?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(devices, device))?
        .add_rules(path_beneath_rules(&files.write, write))?
        .restrict_self()?;
    Ok(status.ruleset)
}
