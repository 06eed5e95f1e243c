//! The state machine: commands in, tables out.
//!
//! **Invariant:** the same commands with the same indexes, applied in the same order to an empty
//! store, make the same rows on every box.  Nothing here reads a clock, a random number, a config
//! or a map without an order.

use arapi::arclst::ObjectChange;
use arstore::{Schema, StoreError, Tx, View, params};

use crate::command::{Applied, Command, Rejection};
use crate::plan::{NoPlan, Plan, owner_of, plan};
use crate::state::{APPLIED, CLUSTER, REVISION, StateError, fact, number};
use crate::stored;

/// The tables of the object store.
pub const SCHEMA: Schema =
    Schema { name: "arclst", migrations: &[include_str!("../migrations/0001-objects.sql")] };

/// Applies commands to the tables of [`SCHEMA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateMachine;

impl StateMachine {
    /// The index of the last command applied; 0 before the first.
    pub fn applied_index(view: &View<'_>) -> Result<u64, StoreError> {
        number(view, APPLIED)
    }

    /// Applies the command at `index` of the log.  A rejected one changes nothing but the index.
    ///
    /// An error is one of the disk: what was written must be undone and the command applied again.
    pub fn apply(
        tx: &Tx<'_>,
        index: u64,
        command: &Command,
    ) -> Result<Result<Applied, Rejection>, StateError> {
        set_fact(tx, APPLIED, &index.to_string())?;
        let plan = match plan(tx, command) {
            Ok(plan) => plan,
            Err(NoPlan::Rejected(rejection)) => return Ok(Err(rejection)),
            Err(NoPlan::State(err)) => return Err(err),
        };
        if let Some(cluster) = &command.founds
            && fact(tx, CLUSTER)?.is_none()
        {
            set_fact(tx, CLUSTER, cluster)?;
        }
        if plan.applied.is_change() {
            execute(tx, command, &plan)?;
        }
        Ok(Ok(plan.applied))
    }

    /// Writes without changing anything: shows whether the disk takes it.
    pub(crate) fn probe(tx: &Tx<'_>) -> Result<(), StoreError> {
        // An update that changes no byte is not written by SQLite.
        tx.execute("INSERT INTO fact (name, value) VALUES ('probe', '')", &[])?;
        tx.execute("DELETE FROM fact WHERE name = 'probe'", &[]).map(drop)
    }

    /// What a command would come to, with the store's present revision.
    pub fn check(
        view: &View<'_>,
        command: &Command,
    ) -> Result<Result<Applied, Rejection>, StateError> {
        match plan(view, command) {
            Ok(Plan { mut applied, .. }) => {
                applied.revision = number(view, REVISION)?;
                Ok(Ok(applied))
            }
            Err(NoPlan::Rejected(rejection)) => Ok(Err(rejection)),
            Err(NoPlan::State(err)) => Err(err),
        }
    }
}

fn execute(tx: &Tx<'_>, command: &Command, plan: &Plan) -> Result<(), StateError> {
    let revision = plan.applied.revision;
    set_fact(tx, REVISION, &revision.to_string())?;
    tx.execute(
        "INSERT INTO revision (revision, time_ms, who, cid) VALUES (?, ?, ?, ?)",
        params![revision, command.time_ms, &command.who, command.cid.as_ref()],
    )?;
    for change in &plan.applied.changes {
        write_object(tx, revision, change)?;
    }
    for (name, sealed) in &plan.secrets {
        match sealed {
            Some(sealed) => tx.execute(
                "INSERT INTO secret (name, owner, sealed) VALUES (?, ?, ?) \
                 ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
                params![name, owner_of(name), &sealed.0],
            )?,
            None => tx.execute("DELETE FROM secret WHERE name = ?", params![name])?,
        };
    }
    // The history goes with its revisions.
    let last_gone = revision.saturating_sub(command.history_keep);
    tx.execute("DELETE FROM revision WHERE revision <= ?", params![last_gone])?;
    Ok(())
}

fn write_object(tx: &Tx<'_>, revision: u64, change: &ObjectChange) -> Result<(), StateError> {
    let (kind, name) = (change.kind.as_str(), change.name.as_str());
    let document = change.after.as_ref().map(stored::encode).transpose()?;
    match &document {
        Some(document) => tx.execute(
            "INSERT INTO object (kind, name, revision, document) VALUES (?, ?, ?, ?) \
             ON CONFLICT (kind, name) DO UPDATE \
             SET revision = excluded.revision, document = excluded.document",
            params![kind, name, revision, document],
        )?,
        None => {
            tx.execute("DELETE FROM object WHERE kind = ? AND name = ?", params![kind, name])?
        }
    };
    tx.execute("DELETE FROM reference WHERE kind = ? AND name = ?", params![kind, name])?;
    for (to_kind, to_name) in change.after.iter().flat_map(|object| object.spec.references()) {
        // An object may name another twice.
        tx.execute(
            "INSERT OR IGNORE INTO reference (kind, name, to_kind, to_name) VALUES (?, ?, ?, ?)",
            params![kind, name, to_kind.as_str(), to_name.as_str()],
        )?;
    }
    tx.execute(
        "INSERT INTO history (kind, name, revision, document) VALUES (?, ?, ?, ?)",
        params![kind, name, revision, document.as_ref()],
    )?;
    Ok(())
}

fn set_fact(tx: &Tx<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO fact (name, value) VALUES (?, ?) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
