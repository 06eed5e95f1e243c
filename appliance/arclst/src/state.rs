//! Reading the store's tables: what is committed, and nothing is changed here.

use std::collections::BTreeSet;

use arapi::arclst::{HistoryEntry, Listing};
use arapi::objects::{Object, SpecError};
use arapi::{Kind, ObjectName};
use arstore::{Database, DocumentError, StoreError, View, params};

use crate::command::Sealed;
use crate::stored;

/// Why the state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database does not serve.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored object is unreadable.
    #[error("the stored {kind} `{name}` cannot be read")]
    Document {
        /// The kind, as it is stored.
        kind: String,
        /// The name, as it is stored.
        name: String,
        /// Why.
        source: DocumentError,
    },
    /// A stored object breaks today's rules.
    #[error("a stored object breaks the rules of this release")]
    Spec {
        /// Which and why.
        source: SpecError,
    },
}

/// The committed state, to be read.  Cheap to clone.
#[derive(Debug, Clone)]
pub struct State(Database);

impl State {
    pub(crate) fn new(db: Database) -> Self {
        Self(db)
    }

    /// The objects of these kinds, by kind and name; of every kind if none is given.
    pub async fn list(&self, kinds: BTreeSet<Kind>) -> Result<Listing, StateError> {
        self.0.read(move |view| listing(view, &kinds)).await
    }

    /// One object.
    pub async fn object(&self, kind: Kind, name: ObjectName) -> Result<Option<Object>, StateError> {
        self.0.read(move |view| object(view, kind, &name)).await
    }

    /// What became of an object, newest first, at most `most` entries.
    pub async fn history(
        &self,
        kind: Kind,
        name: ObjectName,
        most: u32,
    ) -> Result<Vec<HistoryEntry>, StateError> {
        self.0.read(move |view| history(view, kind, &name, most)).await
    }

    /// The names of the secrets, sorted.
    pub async fn secret_names(&self) -> Result<Vec<String>, StateError> {
        self.0
            .read(|view| {
                Ok(view
                    .query_rows("SELECT name FROM secret ORDER BY name", &[], |row| row.get(0))?)
            })
            .await
    }

    /// One secret, sealed.
    pub async fn secret(&self, name: String) -> Result<Option<Sealed>, StateError> {
        self.0
            .read(move |view| {
                Ok(view.query_row(
                    "SELECT sealed FROM secret WHERE name = ?",
                    params![&name],
                    |row| row.get(0).map(Sealed),
                )?)
            })
            .await
    }

    /// Every secret, sealed, by name.
    pub async fn secrets(&self) -> Result<Vec<(String, Sealed)>, StateError> {
        self.0
            .read(|view| {
                Ok(view.query_rows(
                    "SELECT name, sealed FROM secret ORDER BY name",
                    &[],
                    |row| Ok((row.get(0)?, Sealed(row.get(1)?))),
                )?)
            })
            .await
    }

    /// The store's revision and how many objects there are.
    pub async fn size(&self) -> Result<(u64, u64), StateError> {
        self.0
            .read(|view| {
                let count =
                    view.query_row("SELECT count(*) FROM object", &[], |row| row.get::<u64>(0))?;
                Ok((revision(view)?, count.unwrap_or(0)))
            })
            .await
    }

    /// The cluster's id; none before the first run.
    pub async fn cluster(&self) -> Result<Option<String>, StateError> {
        self.0.read(|view| Ok(fact(view, CLUSTER)?)).await
    }

    /// Every row of every table as text, in one order: equal for stores that hold the same.
    pub async fn dump(&self) -> Result<Vec<String>, StateError> {
        self.0.read(|view| Ok(dump(view)?)).await
    }
}

/// The fact that holds the cluster's id.
pub(crate) const CLUSTER: &str = "cluster";
/// The fact that holds the index of the last command applied.
pub(crate) const APPLIED: &str = "applied";
/// The fact that holds the revision; the table of revisions may be pruned.
pub(crate) const REVISION: &str = "revision";

pub(crate) fn fact(view: &View<'_>, name: &str) -> Result<Option<String>, StoreError> {
    view.query_row("SELECT value FROM fact WHERE name = ?", params![name], |row| row.get(0))
}

pub(crate) fn number(view: &View<'_>, name: &str) -> Result<u64, StoreError> {
    // Only numbers are written under these names; the integrity of the file was checked at the start.
    Ok(fact(view, name)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

pub(crate) fn revision(view: &View<'_>) -> Result<u64, StoreError> {
    number(view, REVISION)
}

pub(crate) fn listing(view: &View<'_>, kinds: &BTreeSet<Kind>) -> Result<Listing, StateError> {
    let mut objects = Vec::new();
    let all = Kind::ALL.iter().filter(|kind| kinds.is_empty() || kinds.contains(kind));
    for kind in all {
        let rows = view.query_rows(
            "SELECT name, revision, document FROM object WHERE kind = ? ORDER BY name",
            params![kind.as_str()],
            |row| Ok((row.get::<String>(0)?, row.get(1)?, row.bytes(2)?.to_vec())),
        )?;
        for (name, revision, document) in rows {
            objects.push(stored::decode(kind.as_str(), &name, revision, &document)?);
        }
    }
    Ok(Listing { revision: revision(view)?, objects })
}

pub(crate) fn object(
    view: &View<'_>,
    kind: Kind,
    name: &ObjectName,
) -> Result<Option<Object>, StateError> {
    let found = view.query_row(
        "SELECT revision, document FROM object WHERE kind = ? AND name = ?",
        params![kind.as_str(), name.as_str()],
        |row| Ok((row.get(0)?, row.bytes(1)?.to_vec())),
    )?;
    found
        .map(|(revision, document)| {
            stored::decode(kind.as_str(), name.as_str(), revision, &document)
        })
        .transpose()
}

fn history(
    view: &View<'_>,
    kind: Kind,
    name: &ObjectName,
    most: u32,
) -> Result<Vec<HistoryEntry>, StateError> {
    let rows = view.query_rows(
        "SELECT h.revision, r.time_ms, r.who, r.cid, h.document \
         FROM history h JOIN revision r USING (revision) \
         WHERE h.kind = ? AND h.name = ? ORDER BY h.revision DESC LIMIT ?",
        params![kind.as_str(), name.as_str(), most],
        |row| {
            let entry = HistoryEntry {
                revision: row.get(0)?,
                time_ms: row.get(1)?,
                who: row.get(2)?,
                cid: row.get(3)?,
                object: None,
            };
            Ok((entry, row.get::<Option<String>>(4)?))
        },
    )?;
    rows.into_iter()
        .map(|(mut entry, document)| {
            entry.object = document
                .map(|document| {
                    stored::decode(
                        kind.as_str(),
                        name.as_str(),
                        entry.revision,
                        document.as_bytes(),
                    )
                })
                .transpose()?;
            Ok(entry)
        })
        .collect()
}

/// Who refers to an object, by kind and name.
pub(crate) fn referrers(
    view: &View<'_>,
    kind: Kind,
    name: &ObjectName,
) -> Result<Vec<(String, String)>, StoreError> {
    view.query_rows(
        "SELECT kind, name FROM reference WHERE to_kind = ? AND to_name = ? ORDER BY kind, name",
        params![kind.as_str(), name.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

fn dump(view: &View<'_>) -> Result<Vec<String>, StoreError> {
    let tables: Vec<String> = view.query_rows(
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
        &[],
        |row| row.get(0),
    )?;
    let mut lines = Vec::new();
    for table in tables {
        let columns: Vec<String> = view.query_rows(
            "SELECT name FROM pragma_table_info(?) ORDER BY cid",
            params![&table],
            |row| row.get(0),
        )?;
        let quoted = columns.iter().map(|column| format!("quote(\"{column}\")"));
        let line = quoted.collect::<Vec<_>>().join(" || ' ' || ");
        view.query_each(&format!("SELECT {line} FROM \"{table}\" ORDER BY 1"), &[], |row| {
            lines.push(format!("{table}: {}", row.get::<String>(0)?));
            Ok(())
        })?;
    }
    Ok(lines)
}
