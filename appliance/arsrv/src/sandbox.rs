//! How a worker is confined, and the step in which it confines itself.
//!
//! The core starts its own executable with `worker-exec` and a [`Spec`]; that process gives up what a worker must
//! not have, says on descriptor 0 what took effect (frame CONFINED), and then becomes Python.  Doing this in a
//! process of its own, rather than between fork and exec of the core, needs no unsafe code.
//!
//! What the kernel does not offer is left out and reported, with one exception: a process that should have got
//! a user of its own and did not ends.
//!
//! **Invariant:** nothing here runs in the core; [`worker_exec`] runs in a process with one thread.

mod landlock;
mod limits;
mod seccomp;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use arbase::{Chain, EXIT_FAILED, EXIT_USAGE};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::worker::frame::{self, Kind};

/// The hidden subcommand of the `arint` executable that ends in [`worker_exec`].
pub const SUBCOMMAND: &str = "worker-exec";

/// What a process becomes, and what it must not be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub dir: PathBuf,
    /// The core's process id: the worker dies with it.
    pub parent: i32,
    /// User and group of its own; needs root.
    pub uid: Option<u32>,
    /// Resource limits.
    pub limits: Limits,
    /// What of the file system it may use; without it, whatever its user may.
    pub files: Option<Files>,
    /// Whether it may open internet sockets.
    pub network: bool,
}

/// Hard resource limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Open files.
    pub files: u64,
    /// Bytes of memory it can write to (heap, stacks, anonymous mappings).
    pub data_bytes: u64,
    /// Processes and threads of its user, all workers together; only where the user is its own.
    pub processes: Option<u64>,
}

/// Paths below which a worker may do something.  What does not exist is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Read and execute, beside what every program of the system needs.
    pub read: Vec<PathBuf>,
    /// Read, write, make and remove.
    pub write: Vec<PathBuf>,
}

/// What took effect; the payload of a CONFINED frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// `user`, `capabilities`, `rlimits`, `landlock`, `seccomp`, `no-network`.
    pub by: Vec<String>,
    /// What did not, one sentence each.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// Why a process could not become a worker.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The argument is not a [`Spec`].
    #[error("cannot read what to become")]
    ReadSpec(#[source] serde_json::Error),
    /// No session of its own.
    #[error("cannot open a session")]
    Session(#[source] nix::Error),
    /// Not the user it was to be.
    #[error("cannot become user {uid}")]
    User {
        /// Which.
        uid: u32,
        /// Why.
        source: nix::Error,
    },
    /// It would outlive the core.
    #[error("cannot ask to be ended with the core")]
    DieWithParent(#[source] nix::Error),
    /// The core went away meanwhile.
    #[error("the core is gone")]
    Orphaned,
    /// It could gain rights by what it executes.
    #[error("cannot give up new rights")]
    NoNewPrivileges(#[source] nix::Error),
    /// The program does not start.
    #[error("cannot run `{program}`")]
    Exec {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Confines this process and becomes the program of the [`Spec`] in `args`.  Returns only if that fails.
pub fn worker_exec(args: Vec<OsString>) -> ExitCode {
    let err = match parse(&args) {
        Ok(spec) => become_worker(&spec),
        Err(err) => {
            complain(&err);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    complain(&err);
    ExitCode::from(EXIT_FAILED)
}

fn parse(args: &[OsString]) -> Result<Spec, ExecError> {
    let text = args.first().and_then(|arg| arg.to_str()).unwrap_or_default();
    serde_json::from_str(text).map_err(ExecError::ReadSpec)
}

/// Tells the core, in the form of a module that does not load, and whoever reads stderr.
fn complain(err: &ExecError) {
    let reason = Chain(err).to_string();
    std::io::stderr().write_all(format!("{reason}\n").as_bytes()).ok();
    let payload = serde_json::json!({ "reason": reason }).to_string();
    tell(Kind::Failed, payload.as_bytes());
}

/// Writes a frame to descriptor 0, if that is the core's socket.
fn tell(kind: Kind, payload: &[u8]) {
    let mut bytes = Vec::new();
    if frame::put_plain(&mut bytes, kind, 0, payload).is_ok()
        && let Ok(descriptor) = std::io::stdin().as_fd().try_clone_to_owned()
    {
        // Where nobody listens there is nobody to tell.
        UnixStream::from(descriptor).write_all(&bytes).ok();
    }
}

/// Always returns the error: on success this process has become another program.
fn become_worker(spec: &Spec) -> ExecError {
    match confine(spec) {
        Err(err) => err,
        Ok(confined) => {
            // A Confined is lists of texts: this cannot fail.
            tell(Kind::Confined, &serde_json::to_vec(&confined).unwrap_or_default());
            let mut command = Command::new(&spec.program);
            command.args(&spec.args).env_clear().envs(&spec.env).current_dir(&spec.dir);
            ExecError::Exec { program: spec.program.clone(), source: command.exec() }
        }
    }
}

fn confine(spec: &Spec) -> Result<Confined, ExecError> {
    let mut confined = Confined::default();
    nix::unistd::setsid().map_err(ExecError::Session)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    note(&mut confined, "rlimits", limits::apply(&spec.limits));
    if let Some(uid) = spec.uid {
        drop_to(uid).map_err(|source| ExecError::User { uid, source })?;
        confined.by.push("user".to_owned());
    }
    if Uid::effective().is_root() {
        note(&mut confined, "capabilities", limits::drop_capabilities());
    }
    // After the change of user, which resets it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(ExecError::DieWithParent)?;
    if Pid::parent() != Pid::from_raw(spec.parent) {
        return Err(ExecError::Orphaned);
    }
    nix::sys::prctl::set_no_new_privs().map_err(ExecError::NoNewPrivileges)?;
    if let Some(files) = &spec.files {
        note(&mut confined, "landlock", landlock::apply(files));
    }
    note(&mut confined, "seccomp", seccomp::apply(spec.network));
    if !spec.network && confined.by.iter().any(|by| by == "seccomp") {
        confined.by.push("no-network".to_owned());
    }
    Ok(confined)
}

fn note(confined: &mut Confined, what: &str, applied: Result<(), String>) {
    match applied {
        Ok(()) => confined.by.push(what.to_owned()),
        Err(why) => confined.missing.push(format!("{what}: {why}")),
    }
}

fn drop_to(uid: u32) -> Result<(), nix::Error> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    nix::unistd::setgroups(&[gid])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}
