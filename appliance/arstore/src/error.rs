//! Why a store refuses: the few cases a caller treats differently, whatever SQLite calls them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::document::DocumentError;

/// Why something could not be read from or written to a database.
///
/// It can be cloned because one failed commit answers everyone who was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the size the store may have, is used up.  Nothing was changed.
    #[error("no room left for the store `{}`; free some space on its disk", path.display())]
    NoRoom {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// The file or its file system can only be read.  Nothing was changed.
    #[error("the store `{}` can only be read; check the permissions and the mount", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// The disk failed, or another program holds the database.  Nothing was changed.
    #[error("the disk of the store `{}` does not serve it", path.display())]
    Disk {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// What is in the file is no longer a whole database.
    #[error("the store `{}` is damaged; stop the service, keep the file, restore a backup", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// A constraint of the schema: unique, foreign key, check.  The statement had no effect.
    #[error("cannot run `{sql}`")]
    Constraint {
        /// The statement.
        sql: String,
        /// What SQLite said.
        source: Cause,
    },
    /// Anything else that is wrong with a statement or its parameters.
    #[error("cannot run `{sql}`")]
    Statement {
        /// The statement.
        sql: String,
        /// What SQLite said.
        source: Cause,
    },
    /// A column holds something else than was asked for.
    #[error("column {column} cannot be read as {wanted}")]
    Column {
        /// Counted from 0.
        column: usize,
        /// The type that was asked for.
        wanted: &'static str,
        /// What SQLite said.
        source: Cause,
    },
    /// A stored document cannot be read.
    #[error("a stored document cannot be read")]
    Document {
        /// Why.
        #[source]
        source: Arc<DocumentError>,
    },
    /// The database was closed, or its writer has died.
    #[error("the store is closed")]
    Closed,
}

/// What SQLite said.  Opaque: the cases that matter are variants of [`StoreError`].
#[derive(Debug, Clone)]
pub struct Cause(Arc<rusqlite::Error>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {}

impl Cause {
    pub(crate) fn new(err: rusqlite::Error) -> Self {
        Self(Arc::new(err))
    }
}

impl From<DocumentError> for StoreError {
    fn from(source: DocumentError) -> Self {
        Self::Document { source: Arc::new(source) }
    }
}

impl StoreError {
    pub(crate) fn from_sqlite(path: &Path, sql: &str, err: rusqlite::Error) -> Self {
        let code = err.sqlite_error_code();
        let source = Cause::new(err);
        let path = path.to_owned();
        match code {
            Some(ErrorCode::DiskFull) => Self::NoRoom { path, source },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { path, source }
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory,
            ) => Self::Disk { path, source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, source }
            }
            Some(ErrorCode::ConstraintViolation) => {
                Self::Constraint { sql: sql.to_owned(), source }
            }
            _ => Self::Statement { sql: sql.to_owned(), source },
        }
    }

    /// Whether the disk, and not the request, is at fault: worth a 503 or 507 and a look at the box.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(
            self,
            Self::NoRoom { .. } | Self::ReadOnly { .. } | Self::Disk { .. } | Self::Damaged { .. }
        )
    }
}
