//! `arint dev`: the whole node on a developer's machine, without root, systemd or D-Bus.
//!
//! It does what the image's units do: one process per unit, each with its config file, started in
//! order, told to stop in the reverse order, restarted when it dies.  All of it lives in one data
//! folder; ports are the standard ones where they are free.
//!
//! **Invariant:** no process outlives it.  Units die with it even when it is killed, and workers die with
//! the core.

mod layout;
mod supervisor;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use arbase::{Chain, EXIT_FAILED};

pub(crate) use layout::DevArgs;
use layout::{Layout, LayoutError};
use supervisor::{Supervisor, SupervisorError};

/// Why the node does not run.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error("cannot lay out the data folder")]
    Layout(#[source] LayoutError),
    #[error("cannot run the units")]
    Supervise(#[source] SupervisorError),
    #[error("cannot print the addresses")]
    Print(#[source] std::io::Error),
    #[error("cannot build the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Runs the node until Ctrl-C.
pub(crate) fn run(args: &DevArgs) -> ExitCode {
    if args.supervised && !crate::dies_with_parent() {
        return ExitCode::from(EXIT_FAILED);
    }
    arbase::logging::install("dev", args.log_level);
    // One thread: the units' parent-death signal follows the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(DevError::Runtime).and_then(|runtime| runtime.block_on(node(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            log::error!(error:% = Chain(&err); "failed");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn node(args: &DevArgs) -> Result<(), DevError> {
    let layout = Layout::prepare(args).map_err(DevError::Layout)?;
    let mut supervisor =
        Supervisor::start(&layout, args.log_level).await.map_err(DevError::Supervise)?;
    let code_file: PathBuf = layout.runtime_dir.join("first-run-code");
    let code = std::fs::read_to_string(code_file).ok().map(|code| code.trim().to_owned());
    let text = if args.json {
        let document = serde_json::json!({
            "channels": layout.channels_url(),
            "admin": layout.admin_url(),
            "kvdb": layout.kvdb_addr.to_string(),
            "code": code,
            "data_dir": layout.data_dir,
            "runtime_dir": layout.runtime_dir,
            "pickup_dir": layout.pickup_dir(),
        });
        format!("{document}\n")
    } else {
        layout.banner(code.as_deref())
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(DevError::Print)?;
    drop(out);
    supervisor.run_until_signal().await.map_err(DevError::Supervise)
}
