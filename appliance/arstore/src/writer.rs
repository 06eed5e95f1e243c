//! The one thread that writes: group commit.
//!
//! Whatever waits is done in one SQLite transaction, so that many changes share one fsync.  Each
//! has a savepoint of its own: one that fails is undone alone.  Everyone is answered only after the
//! commit; if that fails, all that were in it fail.
//!
//! **Invariant:** a change is run at most once, and is answered exactly once.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::StoreError;
use crate::sql::{Tx, View};

/// Most changes in one commit.
const MOST_IN_ONE: usize = 512;
/// Longest time a commit is kept open for more.
const LONGEST_OPEN: Duration = Duration::from_millis(20);
/// A commit that takes longer than this is told.
const SLOW_COMMIT: Duration = Duration::from_secs(2);

/// What the writer is sent.
pub(crate) enum Work {
    /// A change.
    Change(Box<dyn Change>),
    /// Finish what came before and end.
    Close,
}

/// One caller's change.
pub(crate) trait Change: Send {
    /// Runs inside a savepoint; returns whether that is kept.  Called once, or not at all where the
    /// transaction is gone already.
    fn run(&mut self, tx: &Tx<'_>) -> bool;

    /// Tells the caller, once the fate of the commit is known.
    fn answer(self: Box<Self>, fate: Result<(), StoreError>);
}

pub(crate) fn run(conn: &Connection, path: PathBuf, work: &Receiver<Work>) {
    let writer = Writer { conn, path };
    while let Ok(Work::Change(first)) = work.recv() {
        if writer.group(first, work) == Next::End {
            break;
        }
    }
}

#[derive(PartialEq)]
enum Next {
    GoOn,
    End,
}

struct Writer<'a> {
    conn: &'a Connection,
    path: PathBuf,
}

impl Writer<'_> {
    /// One commit with `first` and all that waits behind it.
    fn group(&self, first: Box<dyn Change>, work: &Receiver<Work>) -> Next {
        let mut next = Next::GoOn;
        let mut done: Vec<Box<dyn Change>> = Vec::new();
        let mut fate = self.sql("BEGIN IMMEDIATE");
        let begun = Instant::now();
        let mut waiting = Some(first);
        while let Some(mut change) = waiting.take() {
            if fate.is_ok() {
                fate = self.step(change.as_mut());
            }
            done.push(change);
            if done.len() < MOST_IN_ONE && begun.elapsed() < LONGEST_OPEN {
                match work.try_recv() {
                    Ok(Work::Change(more)) => waiting = Some(more),
                    Ok(Work::Close) | Err(TryRecvError::Disconnected) => next = Next::End,
                    Err(TryRecvError::Empty) => {}
                }
            }
        }
        if fate.is_ok() {
            fate = self.sql("COMMIT");
        }
        if !self.conn.is_autocommit() {
            // Nothing of a commit that failed may be left open; if even this fails, so does the next BEGIN.
            self.sql("ROLLBACK").ok();
        }
        let took = begun.elapsed();
        if took > SLOW_COMMIT {
            log::warn!(path:% = self.path.display(), took_ms = took.as_millis(), changes = done.len(); "slow commit");
        }
        for change in done {
            change.answer(fate.clone());
        }
        next
    }

    /// Runs one change in its savepoint; fails where that costs the whole transaction.
    fn step(&self, change: &mut dyn Change) -> Result<(), StoreError> {
        self.sql("SAVEPOINT change")?;
        let tx =
            Tx { view: View { conn: self.conn, path: &self.path }, disk_fault: RefCell::default() };
        let keep = change.run(&tx);
        if self.conn.is_autocommit() {
            // SQLite gives up the whole transaction for some faults of the disk (its document
            // lang_transaction, section 3): what others had done in it is gone as well.
            return Err(tx.disk_fault.into_inner().unwrap_or(StoreError::Closed));
        }
        if keep {
            self.sql("RELEASE change")
        } else {
            self.sql("ROLLBACK TO change")?;
            self.sql("RELEASE change")
        }
    }

    fn sql(&self, sql: &str) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(|err| StoreError::from_sqlite(&self.path, sql, err))
    }
}
