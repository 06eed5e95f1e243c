//! Schemas: numbered migrations, applied in order, each whole or not at all.
//!
//! The number of the last applied one is SQLite's `user_version`.

use rusqlite::Connection;

/// The tables of a database, as the migrations that lead to them.
///
/// A migration is never edited after its release; a change is a new one at the end.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// What the database is called in messages, for example `arclst`.
    pub name: &'static str,
    /// SQL scripts; the first is number 1.
    pub migrations: &'static [&'static str],
}

impl Schema {
    /// The number of the newest migration.
    pub fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

pub(crate) fn version_of(conn: &Connection) -> rusqlite::Result<u32> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Applies what is missing; fails with the number of the migration at fault.
pub(crate) fn migrate(
    conn: &mut Connection,
    schema: &Schema,
    found: u32,
) -> Result<(), (u32, rusqlite::Error)> {
    for (number, sql) in (1u32..).zip(schema.migrations).filter(|(number, _)| *number > found) {
        let apply = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", number)?;
            tx.commit()
        };
        apply(conn).map_err(|err| (number, err))?;
        log::info!(store = schema.name, migration = number; "store migrated");
    }
    Ok(())
}
