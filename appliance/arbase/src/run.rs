//! From `main` to a running service and back.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::chain::Chain;
use crate::config::ConfigError;
use crate::logging;
use crate::stop::Stop;

/// The exit code of a service that failed.
pub const EXIT_FAILED: u8 = 1;
/// The exit code of wrong usage or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Longest time a service may take to stop.  systemd kills after 90 s; we would rather say so ourselves.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// What every service is started with.
#[derive(Debug, Clone)]
pub struct ServiceArgs {
    /// The folder of the config files.
    pub config_dir: PathBuf,
    /// Only check the config.
    pub check: bool,
    /// The graver levels down to this one are logged.
    pub log_level: log::LevelFilter,
}

/// Runs one service to its end.
///
/// `load` reads the config from the folder; `threads` says how many threads the runtime gets (1: the
/// calling thread only); `serve` runs until [`Stop`].  It calls [`crate::notify_ready`] once
/// it would answer.
pub fn run_service<C, F, E>(
    unit: &'static str,
    args: &ServiceArgs,
    load: impl FnOnce(&std::path::Path) -> Result<C, ConfigError>,
    threads: impl FnOnce(&C) -> usize,
    serve: impl FnOnce(C, Stop) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    logging::install(unit, args.log_level);
    let config = match load(&args.config_dir) {
        Ok(config) => config,
        Err(err) => {
            log::error!(error:% = Chain(&err); "config refused");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.check {
        return ExitCode::SUCCESS;
    }
    let threads = threads(&config).max(1);
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    let runtime = match builder.enable_all().thread_name(unit).build() {
        Ok(runtime) => runtime,
        Err(err) => {
            log::error!(error:% = Chain(&err); "cannot build the runtime");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let ended = runtime.block_on(async {
        let (stopper, stop) = Stop::new();
        if let Some(limit) = crate::notify::watchdog_limit() {
            // On the runtime that does the work: when that hangs, so do the signs of life.
            tokio::spawn(feed_watchdog(limit));
        }
        let serving = serve(config, stop);
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended.map_err(|err| Chain(&err).to_string()),
            signal = asked_to_stop() => signal.map_err(|err| Chain(&err).to_string())?,
        }
        crate::notify::notify_stopping();
        log::info!("stopping");
        stopper.stop();
        match tokio::time::timeout(STOP_LIMIT, serving).await {
            Ok(ended) => ended.map_err(|err| Chain(&err).to_string()),
            Err(_) => Err(format!("not stopped within {STOP_LIMIT:?}")),
        }
    });
    // Blocking tasks (a file read, a name lookup) may hang; nothing acknowledged depends on them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => {
            log::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!(error:% = error; "failed");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Tells the supervisor's watchdog that the runtime still runs what it has to.
async fn feed_watchdog(limit: Duration) {
    let mut ticks = tokio::time::interval(limit / 3);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        crate::notify::notify_watchdog();
    }
}

async fn asked_to_stop() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => (),
        _ = int.recv() => (),
    }
    Ok(())
}
