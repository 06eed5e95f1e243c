//! Start and stop of the service.

use std::path::PathBuf;
use std::sync::Arc;

use arapi::{Kind, ObjectName};
use arbase::http::{ListenError, listen_unix, serve_unix};
use arbase::{Stop, time::now_ms};
use arstore::file::FileError;
use arstore::{Database, OpenError, Options};
use tokio::net::UnixListener;

use crate::api::{self, Api};
use crate::config::Config;
use crate::engine::{Engine, EngineError, Freshness, LocalEngine};
use crate::first_run;
use crate::machine::SCHEMA;
use crate::state::{State, StateError};
use crate::vault::{Vault, VaultError};

/// The mode of the socket: this user, and the group of the services.
const SOCKET_MODE: u32 = 0o660;
/// The name of a box whose host has none.
const NAMELESS: &str = "node-1";

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime ends.
    #[error("the start was cut short")]
    Cut,
    /// The secrets cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is stored cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The first objects cannot be made.
    #[error("cannot make the first objects")]
    FirstRun {
        /// Why.
        source: EngineError,
    },
    /// This box's name cannot be kept.
    #[error(transparent)]
    Name(#[from] FileError),
    /// The kept name is none.
    #[error("the file `{}` does not hold the name of this box; set `node_name` in arclst.toml", path.display())]
    BadName {
        /// The file.
        path: PathBuf,
    },
    /// The socket cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// The running service.
#[derive(Debug)]
pub struct Server {
    engine: Arc<LocalEngine>,
    db: Database,
    vault: Vault,
    node: ObjectName,
    history_keep: u64,
    listener: UnixListener,
}

impl Server {
    /// Opens the store, checks that everything in it can be read, makes the first objects where
    /// there are none, and binds `arclst.sock`.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { runtime_dir, state_dir, node_name, history_keep, store_max_mib } = config;
        let options = Options {
            max_bytes: store_max_mib.map(|mib| mib.saturating_mul(1024 * 1024)),
            ..Options::default()
        };
        let path = state_dir.join("objects.sqlite");
        let opening =
            tokio::task::spawn_blocking(move || Database::open_with(&path, &SCHEMA, &options));
        let db = opening.await.map_err(|_| StartError::Cut)??;
        let engine = Arc::new(LocalEngine::new(db.clone()));
        let state = State::new(db.clone());
        let vault = Vault::open(&state_dir.join("secrets.key"), &state.secrets().await?)?;
        let node = own_name(node_name, state_dir.join("node"))?;
        first_run(engine.as_ref(), &state, &node, history_keep).await?;
        let listener = listen_unix(&runtime_dir.join("arclst.sock"), SOCKET_MODE)?;
        Ok(Self { engine, db, vault, node, history_keep, listener })
    }

    /// The engine below, for what runs in the same process.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    /// Serves until told to stop, then closes the store.
    pub async fn run_until(self, stop: Stop) {
        let Self { engine, db, vault, node, history_keep, listener } = self;
        let api = Api { engine, vault, node, history_keep, stop: stop.clone() };
        serve_unix(api::router(api), listener, stop).await;
        // Waits for the writer; what it has not answered yet may be thrown away.
        tokio::task::spawn_blocking(move || db.close()).await.ok();
    }
}

/// Makes what a new store begins with, and the object of this box.  Reading everything once shows
/// here, and not to a caller, that something stored is unreadable.
async fn first_run(
    engine: &LocalEngine,
    state: &State,
    node: &ObjectName,
    history_keep: u64,
) -> Result<(), StartError> {
    let everything = state.list(std::collections::BTreeSet::new()).await?;
    let command = if state.cluster().await?.is_none() {
        first_run::founding(node, now_ms(), history_keep)
    } else if everything
        .objects
        .iter()
        .any(|object| object.kind == Kind::Node && object.name == *node)
    {
        return Ok(());
    } else {
        first_run::joining(node, now_ms(), history_keep)
    };
    let commit = engine.commit(command).await;
    let applied = commit.map_err(|source| StartError::FirstRun { source })?;
    log::info!(node:% = node, revision = applied.revision; "first objects made");
    // A replicated engine answers here once this box has them.
    engine
        .state(Freshness::Linearizable)
        .await
        .map_err(|source| StartError::FirstRun { source })?;
    Ok(())
}

/// The configured name, or the one kept at the first start, or the host's.
fn own_name(configured: Option<ObjectName>, path: PathBuf) -> Result<ObjectName, StartError> {
    let kept = arstore::file::read(&path)?;
    let kept = match kept {
        Some(bytes) if configured.is_none() => {
            let name = String::from_utf8(bytes).ok().and_then(|text| ObjectName::parse(&text).ok());
            return name.ok_or(StartError::BadName { path });
        }
        other => other,
    };
    let name = match configured.or_else(host_name) {
        Some(name) => name,
        None => {
            ObjectName::parse(NAMELESS).map_err(|_| StartError::BadName { path: path.clone() })?
        }
    };
    if kept.as_deref() != Some(name.as_str().as_bytes()) {
        arstore::file::write_private(&path, name.as_str().as_bytes())?;
    }
    Ok(name)
}

fn host_name() -> Option<ObjectName> {
    let name = ObjectName::parse(&arbase::host::name()).ok()?;
    (name.as_str() != "localhost" && name.as_str() != "(none)").then_some(name)
}
