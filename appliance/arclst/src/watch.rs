//! The stream of a watcher: a snapshot, then every commit.
//!
//! **Invariant:** no revision is skipped or given twice: it is in the snapshot, or it is an event
//! of its own.  A watcher that cannot keep up gets a new snapshot in place of what it missed; it
//! never holds up a commit.
//!
//! A snapshot does not say which secrets have changed: after one, whoever uses secrets reads them
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arapi::Kind;
use arapi::arclst::{WatchChange, WatchEvent};
use arbase::{Chain, Stop};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::command::Applied;
use crate::engine::{Engine, EngineError, Freshness};

/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// One watcher.
pub(crate) struct Watch {
    engine: Arc<dyn Engine>,
    kinds: BTreeSet<Kind>,
    commits: broadcast::Receiver<Arc<Applied>>,
    /// The revision seen last; `None`: a snapshot is due.
    seen: Option<u64>,
    stop: Stop,
}

impl Watch {
    /// Watches `kinds`, or every kind if none is given.
    pub(crate) fn new(engine: Arc<dyn Engine>, kinds: BTreeSet<Kind>, stop: Stop) -> Self {
        let commits = engine.subscribe();
        Self { engine, kinds, commits, seen: None, stop }
    }

    /// The next line of the stream; `None` at its end.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        loop {
            let Some(seen) = self.seen else { return self.snapshot().await };
            let commit = tokio::select! {
                commit = tokio::time::timeout(KEEP_ALIVE, self.commits.recv()) => commit,
                () = self.stop.wait() => return None,
            };
            match commit {
                Err(_) => return Some("\n".to_owned()),
                Ok(Ok(commit)) if commit.revision > seen => {
                    self.seen = Some(commit.revision);
                    return line(&self.event(&commit));
                }
                // It was in the snapshot.
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(missed))) => {
                    log::info!(missed; "a watcher lags and gets a new snapshot");
                    // A new subscription comes before the snapshot, so that nothing falls between.
                    self.commits = self.engine.subscribe();
                    self.seen = None;
                }
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
    }

    async fn snapshot(&mut self) -> Option<String> {
        let listing = async {
            let state = self.engine.state(Freshness::Local).await?;
            Ok::<_, EngineError>(state.list(self.kinds.clone()).await?)
        };
        match listing.await {
            Ok(listing) => {
                self.seen = Some(listing.revision);
                line(&WatchEvent::Snapshot(listing))
            }
            Err(err) => {
                log::error!(error:% = Chain(&err); "cannot read a snapshot for a watcher");
                None
            }
        }
    }

    fn event(&self, commit: &Applied) -> WatchEvent {
        let watched = |kind: &Kind| self.kinds.is_empty() || self.kinds.contains(kind);
        let changes = commit
            .changes
            .iter()
            .filter(|change| watched(&change.kind))
            .map(|change| WatchChange {
                kind: change.kind,
                name: change.name.clone(),
                object: change.after.clone(),
            })
            .collect();
        WatchEvent::Commit { revision: commit.revision, changes, secrets: commit.secrets.clone() }
    }
}

fn line(event: &WatchEvent) -> Option<String> {
    match serde_json::to_string(event) {
        Ok(mut text) => {
            text.push('\n');
            Some(text)
        }
        Err(err) => {
            log::error!(error:% = Chain(&err); "cannot write an event as JSON");
            None
        }
    }
}

#[cfg(test)]
mod tests;
