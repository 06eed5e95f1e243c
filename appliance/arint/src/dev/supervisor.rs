//! Starting, watching and stopping the units' processes, as systemd does on a box.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::Layout;

/// The units in the order in which they are started; they are stopped in the reverse order.
pub(crate) const UNITS: &[&str] = &["arclst", "arsrv", "arwadm", "arldb"];

/// Longest time until a unit says that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until a unit has stopped; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// A unit that died is started again after this, doubled for each death in a row.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(10);

/// Why the units do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    #[error("cannot find the program itself")]
    OwnPath(#[source] io::Error),
    #[error("cannot start `{unit}`")]
    Spawn { unit: &'static str, source: io::Error },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot make the readiness socket `{}`", path.display())]
    Notify { path: PathBuf, source: io::Error },
    #[error("`{unit}` ended before it was ready ({status}); its last lines above say why")]
    EndedEarly { unit: &'static str, status: ExitStatus },
    #[error("`{unit}` was not ready within {READY_LIMIT:?}")]
    NotReady { unit: &'static str },
    #[error("stopped before the node was ready")]
    Interrupted,
}

/// The running units.
#[derive(Debug)]
pub(crate) struct Supervisor {
    program: PathBuf,
    config_dir: PathBuf,
    runtime_dir: PathBuf,
    log_level: log::LevelFilter,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Unit {
    name: &'static str,
    child: Child,
    /// Where it says that it is ready, or stops.
    notify: UnixDatagram,
    started: Instant,
    deaths: u32,
}

impl Supervisor {
    /// Starts every unit and returns once all are ready.  arwadm and arsrv start together: neither
    /// needs the other to be ready.
    pub(crate) async fn start(
        layout: &Layout,
        log_level: log::LevelFilter,
    ) -> Result<Self, SupervisorError> {
        let mut supervisor = Self {
            program: std::env::current_exe().map_err(SupervisorError::OwnPath)?,
            config_dir: layout.config_dir.clone(),
            runtime_dir: layout.runtime_dir.clone(),
            log_level,
            units: Vec::new(),
        };
        let mut term = signal(SignalKind::terminate()).map_err(SupervisorError::Signals)?;
        let mut int = signal(SignalKind::interrupt()).map_err(SupervisorError::Signals)?;
        let started = tokio::select! {
            started = supervisor.start_all() => started,
            _ = term.recv() => Err(SupervisorError::Interrupted),
            _ = int.recv() => Err(SupervisorError::Interrupted),
        };
        match started {
            Ok(()) => Ok(supervisor),
            Err(err) => {
                supervisor.stop_all().await;
                Err(err)
            }
        }
    }

    async fn start_all(&mut self) -> Result<(), SupervisorError> {
        self.wait_for_predecessors().await;
        for unit in UNITS {
            let notify = self.notify_socket(unit)?;
            let child = self.spawn(unit)?;
            self.units.push(Unit { name: unit, child, notify, started: Instant::now(), deaths: 0 });
        }
        for running in &mut self.units {
            let unit = running.name;
            tokio::select! {
                said = wait_ready(&running.notify) => said.map_err(|source| SupervisorError::Notify { path: self.runtime_dir.clone(), source })?,
                ended = running.child.wait() => {
                    let status = ended.map_err(|source| SupervisorError::Spawn { unit, source })?;
                    return Err(SupervisorError::EndedEarly { unit, status });
                }
                () = tokio::time::sleep(READY_LIMIT) => return Err(SupervisorError::NotReady { unit }),
            }
            log::debug!(unit; "unit ready");
        }
        Ok(())
    }

    /// Units of a killed `arint dev` may still be stopping; theirs are the sockets until they have.
    async fn wait_for_predecessors(&self) {
        let started = Instant::now();
        while started.elapsed() < STOP_LIMIT {
            let answers = |unit: &&str| {
                let socket = self.runtime_dir.join(format!("{unit}.sock"));
                std::os::unix::net::UnixStream::connect(socket).is_ok()
            };
            match UNITS.iter().find(|unit| answers(unit)) {
                Some(unit) => log::debug!(unit; "waiting for an earlier node to stop"),
                None => return,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps the units running until SIGINT or SIGTERM, then stops them.
    pub(crate) async fn run_until_signal(&mut self) -> Result<(), SupervisorError> {
        let mut term = signal(SignalKind::terminate()).map_err(SupervisorError::Signals)?;
        let mut int = signal(SignalKind::interrupt()).map_err(SupervisorError::Signals)?;
        loop {
            let died = tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                died = first_death(&mut self.units) => died,
            };
            let Some((index, status)) = died else { continue };
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                restarted = self.restart(index, &status) => restarted?,
            }
        }
        log::info!("stopping; Ctrl-C again kills");
        tokio::select! {
            () = self.stop_all() => {}
            _ = int.recv() => self.kill_all().await,
        }
        Ok(())
    }

    async fn restart(&mut self, index: usize, status: &str) -> Result<(), SupervisorError> {
        let Some(unit) = self.units.get_mut(index) else { return Ok(()) };
        let lived = unit.started.elapsed();
        unit.deaths = if lived > Duration::from_secs(60) { 1 } else { unit.deaths + 1 };
        let pause = RESTART_PAUSE * 2_u32.saturating_pow(unit.deaths.min(10) - 1);
        let pause = pause.min(LONGEST_RESTART_PAUSE);
        let name = unit.name;
        log::error!(unit = name, status, pause_ms = pause.as_millis(); "unit died; starting it again");
        tokio::time::sleep(pause).await;
        let child = self.spawn(name)?;
        if let Some(unit) = self.units.get_mut(index) {
            unit.child = child;
            unit.started = Instant::now();
        }
        Ok(())
    }

    fn spawn(&self, unit: &'static str) -> Result<Child, SupervisorError> {
        Command::new(&self.program)
            .arg(unit)
            .arg("--supervised")
            .arg("--config-dir")
            .arg(&self.config_dir)
            .arg("--log-level")
            .arg(self.log_level.as_str())
            .env("NOTIFY_SOCKET", self.runtime_dir.join(format!("{unit}.notify")))
            .env_remove("JOURNAL_STREAM")
            .stdin(std::process::Stdio::null())
            // A process group of its own: Ctrl-C reaches us only, and we stop the units in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SupervisorError::Spawn { unit, source })
    }

    fn notify_socket(&self, unit: &str) -> Result<UnixDatagram, SupervisorError> {
        let path = self.runtime_dir.join(format!("{unit}.notify"));
        remove_if_there(&path)
            .and_then(|()| UnixDatagram::bind(&path))
            .map_err(|source| SupervisorError::Notify { path, source })
    }

    async fn stop_all(&mut self) {
        while let Some(mut unit) = self.units.pop() {
            terminate(&unit.child);
            match tokio::time::timeout(STOP_LIMIT, unit.child.wait()).await {
                Ok(Ok(status)) => log::debug!(unit = unit.name, status:% = status; "unit stopped"),
                Ok(Err(err)) => log::warn!(unit = unit.name, error:% = err; "cannot wait for unit"),
                Err(_) => {
                    log::error!(unit = unit.name; "unit did not stop in time; killing it");
                    unit.child.kill().await.ok();
                }
            }
        }
    }

    async fn kill_all(&mut self) {
        for unit in &mut self.units {
            unit.child.kill().await.ok();
        }
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // Fails only if it is gone already, which the wait that follows sees.
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
    }
}

/// The first unit that ends.
async fn first_death(units: &mut [Unit]) -> Option<(usize, String)> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        for (index, unit) in units.iter_mut().enumerate() {
            match unit.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Some((index, status.to_string())),
                Err(err) => return Some((index, err.to_string())),
            }
        }
        tick.tick().await;
    }
}

async fn wait_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut buffer = [0u8; 256];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let text = buffer.get(..length).unwrap_or_default();
        if text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => Ok(()),
    }
}
