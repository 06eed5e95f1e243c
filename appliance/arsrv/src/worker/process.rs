//! Starting worker processes, and how they ended.
//!
//! A worker asks the kernel to be killed when the *thread* that started it ends.  So one thread starts them all
//! and lives as long as the pool: tokio's own threads may come and go.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::mpsc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Starts processes on a thread of its own.  When the last clone goes, so do the processes.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

type Order = (Box<Command>, oneshot::Sender<std::io::Result<Child>>);

impl Spawner {
    /// Starts the thread.  To be called inside of a runtime.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("worker-spawner".to_owned()).spawn(move || {
            let _inside = runtime.enter();
            while let Ok((mut command, answer)) = received.recv() {
                // Whoever asked may have gone; the child is killed then when it is dropped.
                answer.send(command.spawn()).ok();
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts a process.
    pub(crate) async fn spawn(&self, mut command: Command) -> std::io::Result<Child> {
        command.kill_on_drop(true);
        let gone = || std::io::Error::other("the thread that starts workers is gone");
        let (answer, started) = oneshot::channel();
        self.0.send((Box::new(command), answer)).map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

/// Kills a worker with everything it started.
pub(crate) fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // Fails only if nobody is left, or before the worker has opened its session; the child itself is killed apart.
        killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// How a process ended, in words: `exit code 3`, `signal SIGSEGV`.
pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => format!("signal {signal}"),
        },
        (None, None) => "unknown end".to_owned(),
    }
}

/// The exit code, or the signal as a negative number.
pub(crate) fn as_number(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| -signal))
}

/// Whether what ran in the process can have ended it: not so where somebody else killed it.
pub(crate) fn was_its_own_doing(status: ExitStatus) -> bool {
    let from_outside =
        [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
    status.signal().is_none_or(|signal| from_outside.iter().all(|kill| *kill as i32 != signal))
}

/// Resident memory of a process, bytes; nothing if it has ended.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words_and_killing_from_outside_is_not_the_workers_doing() {
        let exited = ExitStatus::from_raw(3 << 8);
        let crashed = ExitStatus::from_raw(11);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(in_words(exited), "exit code 3");
        assert_eq!(in_words(crashed), "signal SIGSEGV");
        assert_eq!((as_number(exited), as_number(crashed)), (Some(3), Some(-11)));
        assert!(was_its_own_doing(exited) && was_its_own_doing(crashed));
        assert!(!was_its_own_doing(killed));
    }

    #[test]
    fn the_memory_of_a_living_process_is_known() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1024 * 1024);
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
