//! The seam between the API and the way a command gets committed.
//!
//! Above it nobody knows how many boxes agree; below it nobody knows of HTTP, secrets' keys or
//! what an object means.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arstore::{Database, StoreError};
use tokio::sync::broadcast;

use crate::command::{Applied, Command, Rejection};
use crate::machine::StateMachine;
use crate::state::{State, StateError};

/// How many commits a watcher may lag before it needs a new snapshot.
const EVENTS_KEPT: usize = 256;

/// The answer of an [`Engine`], later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// Gets commands committed, in one order for all.
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Commits a command; answers once it is applied here and on disk wherever it has to be.
    fn commit(&self, command: Command) -> Answer<'_, Applied>;

    /// What a command would come to now, with the store's present revision; nothing is changed.
    fn check(&self, command: Command) -> Answer<'_, Applied>;

    /// The state, at least as new as `freshness` asks for.
    fn state(&self, freshness: Freshness) -> Answer<'_, &State>;

    /// What is committed from now on, in order; every commit that is not in a [`State`] read after
    /// this call is in the subscription.  Never holds up a commit: one that lags misses some.
    fn subscribe(&self) -> broadcast::Receiver<Arc<Applied>>;

    /// Whether commands can be committed now; if not, why, in one sentence.
    fn writable(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

/// How new a state must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// What this box knows.
    Local,
    /// Everything answered anywhere before the call.
    Linearizable,
}

/// Why an engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The command breaks a rule.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StoreError> for EngineError {
    fn from(err: StoreError) -> Self {
        Self::State(err.into())
    }
}

/// The engine of a box on its own: a command is committed when it is on this disk.
#[derive(Debug)]
pub struct LocalEngine {
    db: Database,
    state: State,
    commits: broadcast::Sender<Arc<Applied>>,
    /// Whether the last attempt to write failed for lack of room or a failing disk.
    failing: AtomicBool,
}

/// Why a transaction of the writer is undone.
enum Undo {
    /// It changes nothing, so that there is nothing to write.
    Unchanged(Applied),
    Failed(EngineError),
}

impl From<StoreError> for Undo {
    fn from(err: StoreError) -> Self {
        Self::Failed(err.into())
    }
}

impl From<StateError> for Undo {
    fn from(err: StateError) -> Self {
        Self::Failed(err.into())
    }
}

impl LocalEngine {
    /// The engine over an open database with [`crate::SCHEMA`].
    pub fn new(db: Database) -> Self {
        let (commits, _) = broadcast::channel(EVENTS_KEPT);
        Self { state: State::new(db.clone()), db, commits, failing: AtomicBool::new(false) }
    }

    async fn commit_here(&self, command: Command) -> Result<Applied, EngineError> {
        let commits = self.commits.clone();
        let committed = self
            .db
            .transaction_then(
                move |tx| {
                    let index = StateMachine::applied_index(tx)? + 1;
                    let founds = command.founds.is_some();
                    match StateMachine::apply(tx, index, &command)? {
                        Err(rejection) => Err(Undo::Failed(rejection.into())),
                        Ok(applied) if applied.is_change() || founds => Ok(Arc::new(applied)),
                        Ok(applied) => Err(Undo::Unchanged(applied)),
                    }
                },
                // Fails only when nobody watches.
                move |applied| drop(commits.send(Arc::clone(applied))),
            )
            .await;
        let result = match committed {
            Ok(applied) => Ok(Arc::unwrap_or_clone(applied)),
            Err(Undo::Unchanged(applied)) => return Ok(applied),
            Err(Undo::Failed(err)) => Err(err),
        };
        match &result {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(EngineError::State(StateError::Store(fault))) if fault.is_of_the_disk() => {
                self.failing.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        result
    }
}

impl Engine for LocalEngine {
    fn commit(&self, command: Command) -> Answer<'_, Applied> {
        Box::pin(self.commit_here(command))
    }

    fn check(&self, command: Command) -> Answer<'_, Applied> {
        Box::pin(async move {
            let checked: Result<_, StateError> =
                self.db.read(move |view| StateMachine::check(view, &command)).await;
            Ok(checked??)
        })
    }

    fn state(&self, _: Freshness) -> Answer<'_, &State> {
        // One box: what it knows is all there is.
        Box::pin(std::future::ready(Ok(&self.state)))
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Applied>> {
        self.commits.subscribe()
    }

    fn writable(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async {
            if !self.failing.load(Ordering::Relaxed) {
                return Ok(());
            }
            // It may have been put right meanwhile, and nobody may dare to change anything before we say so.
            let probed: Result<(), StoreError> = self.db.transaction(StateMachine::probe).await;
            match probed {
                Ok(()) => {
                    self.failing.store(false, Ordering::Relaxed);
                    Ok(())
                }
                Err(err) => Err(err.to_string()),
            }
        })
    }
}
