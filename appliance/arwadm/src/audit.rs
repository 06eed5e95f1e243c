//! The audit log: who did what, when, from where, and what became of it.
//!
//! **Invariant:** a change is answered only after its entry is on disk.

use std::path::Path;

use arapi::arwadm::{AuditEntry, AuditPage, AuditQuery};
use arstore::{Database, OpenError, Schema, StoreError, Value, params};

/// The tables of the audit log.
pub const SCHEMA: Schema = Schema {
    name: "arwadm",
    migrations: &["
CREATE TABLE entry (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    who     TEXT NOT NULL,
    remote  TEXT NOT NULL,
    action  TEXT NOT NULL,
    target  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason  TEXT,
    cid     TEXT NOT NULL,
    before  TEXT,
    after   TEXT
) STRICT;
CREATE INDEX entry_time ON entry (time_ms);
CREATE TABLE pickup (
    file   TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL
) STRICT;
"],
};

/// Entries of a page where the query names no number.
const DEFAULT_PAGE: u32 = 100;
/// Most entries of a page.
const LARGEST_PAGE: u32 = 1000;

/// The audit log, and what the pickup folder has seen.
#[derive(Debug, Clone)]
pub(crate) struct Audit(Database);

impl Audit {
    /// Opens or makes it.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, OpenError> {
        Database::open(&state_dir.join("arwadm.sqlite"), &SCHEMA).map(Self)
    }

    /// Writes entries down; they are on disk when this returns.  `seq` is given here.
    pub(crate) async fn append(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.0
            .transaction(move |tx| {
                for entry in &entries {
                    let text =
                        |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
                    let (before, after) = (text(&entry.before), text(&entry.after));
                    tx.execute(
                        "INSERT INTO entry
                         (time_ms, who, remote, action, target, outcome, reason, cid, before, after)
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        params![
                            entry.time_ms,
                            &entry.who,
                            &entry.remote,
                            &entry.action,
                            &entry.target,
                            &entry.outcome,
                            entry.reason.as_ref(),
                            &entry.cid,
                            before.as_ref(),
                            after.as_ref(),
                        ],
                    )?;
                }
                Ok(())
            })
            .await
    }

    /// The entries that fit a query, newest first.
    pub(crate) async fn page(&self, query: AuditQuery) -> Result<AuditPage, StoreError> {
        let most = query.most.unwrap_or(DEFAULT_PAGE).clamp(1, LARGEST_PAGE);
        self.0
            .read(move |view| {
                let like = query.target.as_deref().map(|target| {
                    let plain = target.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                    format!("{plain}%")
                });
                let mut sql = "SELECT seq, time_ms, who, remote, action, target, outcome, reason, cid, before, after
                               FROM entry WHERE 1"
                    .to_owned();
                let parts: [(&str, Option<Value<'_>>); 8] = [
                    (" AND who = ?", query.who.as_ref().map(Value::from)),
                    (" AND action = ?", query.action.as_ref().map(Value::from)),
                    (" AND target LIKE ? ESCAPE '\\'", like.as_ref().map(Value::from)),
                    (" AND outcome = ?", query.outcome.as_ref().map(Value::from)),
                    (" AND cid = ?", query.cid.as_ref().map(Value::from)),
                    (" AND time_ms >= ?", query.since_ms.map(Value::from)),
                    (" AND time_ms <= ?", query.until_ms.map(Value::from)),
                    (" AND seq < ?", query.before.map(Value::from)),
                ];
                let mut given: Vec<Value<'_>> = Vec::new();
                for (part, value) in parts {
                    if let Some(value) = value {
                        sql.push_str(part);
                        given.push(value);
                    }
                }
                sql.push_str(" ORDER BY seq DESC LIMIT ?");
                given.push(Value::from(most));
                let entries = view.query_rows(&sql, &given, |row| {
                    let json = |text: Option<String>| {
                        text.and_then(|text| serde_json::from_str(&text).ok())
                    };
                    Ok(AuditEntry {
                        seq: row.get(0)?,
                        time_ms: row.get(1)?,
                        who: row.get(2)?,
                        remote: row.get(3)?,
                        action: row.get(4)?,
                        target: row.get(5)?,
                        outcome: row.get(6)?,
                        reason: row.get(7)?,
                        cid: row.get(8)?,
                        before: json(row.get(9)?),
                        after: json(row.get(10)?),
                    })
                })?;
                let is_full = entries.len() >= usize::try_from(most).unwrap_or(usize::MAX);
                let next = entries.last().filter(|_| is_full).map(|entry| entry.seq);
                Ok(AuditPage { entries, next })
            })
            .await
    }

    /// Removes the oldest entries beyond `most`; returns how many.
    pub(crate) async fn prune(&self, most: u64) -> Result<usize, StoreError> {
        self.0
            .transaction(move |tx| {
                tx.execute(
                    "DELETE FROM entry WHERE seq <= (SELECT max(seq) FROM entry) - ?",
                    params![most],
                )
            })
            .await
    }

    /// What the pickup folder had when it was last carried out: file, then SHA-256.
    pub(crate) async fn picked_up(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.0
            .read(|view| {
                view.query_rows("SELECT file, sha256 FROM pickup", params![], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
            })
            .await
    }

    /// Remembers files of the pickup folder as carried out.
    pub(crate) async fn remember(&self, files: Vec<(String, String)>) -> Result<(), StoreError> {
        self.0
            .transaction(move |tx| {
                for (file, sha256) in &files {
                    tx.execute(
                        "INSERT INTO pickup (file, sha256) VALUES (?, ?)
                         ON CONFLICT (file) DO UPDATE SET sha256 = excluded.sha256",
                        params![file, sha256],
                    )?;
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str, target: &str) -> AuditEntry {
        AuditEntry {
            seq: 0,
            time_ms: 1000,
            who: who.to_owned(),
            remote: "127.0.0.1".to_owned(),
            action: "object_put".to_owned(),
            target: target.to_owned(),
            outcome: "done".to_owned(),
            reason: None,
            cid: "0123456789abcdef".to_owned(),
            before: None,
            after: Some(serde_json::json!({"a": 1})),
        }
    }

    #[tokio::test]
    async fn entries_are_found_by_what_they_say_and_come_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        for number in 0..5 {
            let target = format!("Channel/o_{number}");
            audit.append(vec![entry("user:anna", &target)]).await.unwrap();
        }
        audit.append(vec![entry("user:bert", "Channel/ox1")]).await.unwrap();
        let by_who = AuditQuery { who: Some("user:bert".to_owned()), ..AuditQuery::default() };
        let page = audit.page(by_who).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert_eq!(page.entries[0].after, Some(serde_json::json!({"a": 1})));
        let query = AuditQuery {
            target: Some("Channel/o_".to_owned()),
            most: Some(3),
            ..AuditQuery::default()
        };
        let first = audit.page(query.clone()).await.unwrap();
        assert_eq!(first.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [5, 4, 3]);
        let rest = audit.page(AuditQuery { before: first.next, ..query }).await.unwrap();
        assert_eq!(rest.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(rest.next, None);
    }

    #[tokio::test]
    async fn the_oldest_entries_go_first_and_numbers_are_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.append((0..5).map(|_| entry("user:anna", "x")).collect()).await.unwrap();
        assert_eq!(audit.prune(2).await.unwrap(), 3);
        audit.append(vec![entry("user:anna", "x")]).await.unwrap();
        let page = audit.page(AuditQuery::default()).await.unwrap();
        assert_eq!(page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [6, 5, 4]);
    }

    #[tokio::test]
    async fn what_was_picked_up_is_remembered_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let one = |sha: &str| vec![("photos.py".to_owned(), sha.to_owned())];
        Audit::open(dir.path()).unwrap().remember(one("aa")).await.unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.remember(one("bb")).await.unwrap();
        assert_eq!(audit.picked_up().await.unwrap(), one("bb"));
    }
}
