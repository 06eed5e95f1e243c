//! Limits of resources and rights that the kernel keeps per process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Limits;

/// How much sooner than the core the kernel picks a worker when memory runs out (-1000 to 1000).
const OOM_SCORE_ADJ: &str = "800";

/// Sets the limits; never above the ones in force.
pub(super) fn apply(limits: &Limits) -> Result<(), String> {
    // Best effort: without /proc the kernel chooses by size alone.
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ).ok();
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_NOFILE, limits.files)?;
    lower(Resource::RLIMIT_DATA, limits.data_bytes)?;
    if let Some(processes) = limits.processes {
        lower(Resource::RLIMIT_NPROC, processes)?;
    }
    Ok(())
}

fn lower(resource: Resource, most: u64) -> Result<(), String> {
    let set = || {
        let (_, hard) = getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)
    };
    set().map_err(|err: nix::Error| format!("cannot limit {resource:?}: {err}"))
}

/// Gives up every capability for good; for a worker that stays root.
pub(super) fn drop_capabilities() -> Result<(), String> {
    let drop = || {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, caps::CapSet::Bounding, capability)?;
        }
        caps::runtime::ambient_set_supported()
            .and_then(|()| caps::clear(None, caps::CapSet::Ambient))?;
        caps::clear(None, caps::CapSet::Inheritable)
    };
    // The effective ones go with the exec: nothing is left in the bounding set.
    drop().map_err(|err: caps::errors::CapsError| format!("cannot drop capabilities: {err}"))
}
