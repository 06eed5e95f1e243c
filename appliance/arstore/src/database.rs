//! A database file: opened with durable settings, checked, migrated; then one writer and a few
//! readers.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Cause, StoreError};
use crate::schema::{Schema, migrate, version_of};
use crate::sql::{Tx, View};
use crate::writer::{self, Change, Work};

/// How long a statement waits for another program that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log is cut back to this many bytes after a checkpoint.
const WAL_KEPT: i64 = 16 * 1024 * 1024;

/// How a database is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Most reads at one time; default 4.  Connections are made when first needed.
    pub readers: usize,
    /// What is checked before anything else is done; default [`Check::Quick`].
    pub check: Check,
    /// Largest size of the database file, bytes; changes beyond it fail with
    /// [`StoreError::NoRoom`].  Default: as large as the disk.
    pub max_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, check: Check::Quick, max_bytes: None }
    }
}

/// What is checked when a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every page and row; about a second for each gigabyte.
    Quick,
    /// The same, and that every index fits its table.
    Full,
    /// Nothing.
    Nothing,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("cannot open the store `{}`", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refuses it.
    #[error("cannot open the store `{}`", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The check found damage.
    #[error(
        "the store `{}` is damaged ({found}); move it away with its `-wal` and `-shm` files, and restore a backup or start empty",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first fault.
        found: String,
    },
    /// A newer release has written it.
    #[error(
        "the store `{}` has schema {found} and this release knows up to {known}: a newer release has written it; install that one again, or restore a backup made before it",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known.
        known: u32,
    },
    /// A migration failed; the store is as it was before it.
    #[error("cannot bring the store `{}` to schema {number}", path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// The migration at fault.
        number: u32,
        /// Why.
        source: Cause,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the writer of the store `{}`", path.display())]
    Thread {
        /// The database.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// An open database.  Cheap to clone; closed by [`Database::close`] or when the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    work: Sender<Work>,
    writer: Mutex<Option<JoinHandle<()>>>,
    idle_readers: Mutex<Vec<Connection>>,
    reading: Semaphore,
}

impl Database {
    /// Opens or makes a database with the default [`Options`].  Blocks.
    pub fn open(path: &Path, schema: &Schema) -> Result<Self, OpenError> {
        Self::open_with(path, schema, &Options::default())
    }

    /// Opens or makes a database: folders are made, the file is readable by its owner only; checks
    /// it; applies the migrations that are missing.  Blocks.
    pub fn open_with(path: &Path, schema: &Schema, options: &Options) -> Result<Self, OpenError> {
        make_private(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let conn = prepare(path, schema, options)?;
        let (work, waiting) = std::sync::mpsc::channel();
        let of = path.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("{}-writer", schema.name))
            .spawn(move || writer::run(&conn, of, &waiting))
            .map_err(|source| OpenError::Thread { path: path.to_owned(), source })?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            work,
            writer: Mutex::new(Some(thread)),
            idle_readers: Mutex::default(),
            reading: Semaphore::new(options.readers.max(1)),
        })))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs `change` on the writer and returns after its commit is on disk.
    ///
    /// Changes run one after the other, in the order of the calls, and share commits with
    /// whatever else waits.  One that returns an error is undone and holds up nobody.  It is run at
    /// most once, must not block on anything else, and is not undone if the caller goes away.
    pub async fn transaction<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.transaction_then(change, |_| {}).await
    }

    /// The same; `then` is called on the writer's thread once the commit is on disk, before this
    /// returns, in the order of the commits.  For telling others without a gap and out of no order.
    pub async fn transaction_then<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.submit(change, then).await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// [`Database::transaction`] for a thread that is not one of the runtime's.
    pub fn transaction_blocking<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.submit(change, |_| {})
            .blocking_recv()
            .unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    fn submit<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> oneshot::Receiver<Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let pending = Pending { change: Some(change), result: None, then, caller };
        // If the writer is gone the sender of the answer is dropped here, and the caller sees that.
        self.0.work.send(Work::Change(Box::new(pending))).ok();
        answer
    }

    /// Runs `read` on one moment of the database, on a blocking thread of the runtime.  Sees every
    /// change that was answered before the call.
    pub async fn read<T, E>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let Ok(_permit) = self.0.reading.acquire().await else {
            return Err(StoreError::Closed.into());
        };
        let db = self.clone();
        tokio::task::spawn_blocking(move || db.read_blocking(read))
            .await
            .unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// [`Database::read`] on the calling thread.
    pub fn read_blocking<T, E: From<StoreError>>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.0.reading.is_closed() {
            return Err(StoreError::Closed.into());
        }
        let idle = self.idle_readers().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => reader(self.path())
                .map_err(|err| StoreError::from_sqlite(self.path(), "open a reader", err))?,
        };
        let sql = |sql| {
            conn.execute_batch(sql).map_err(|err| StoreError::from_sqlite(self.path(), sql, err))
        };
        sql("BEGIN")?;
        let result = read(&View { conn: &conn, path: self.path() });
        // A connection whose transaction does not end is dropped, not used again.
        if sql("COMMIT").is_ok() {
            self.idle_readers().push(conn);
        }
        result
    }

    /// Looks at every page, row and index; an empty list means that all is well.  Blocks, about a
    /// second or more for each gigabyte.
    pub fn integrity_faults(&self) -> Result<Vec<String>, StoreError> {
        self.read_blocking(|view| {
            let faults: Vec<String> =
                view.query_rows("PRAGMA integrity_check", &[], |row| row.get(0))?;
            Ok(if faults == ["ok"] { Vec::new() } else { faults })
        })
    }

    /// Finishes the changes that wait, then closes the file; further calls fail with
    /// [`StoreError::Closed`].  Blocks.
    pub fn close(&self) {
        self.0.close();
    }

    fn idle_readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        // Vec's own methods do not leave it half changed.
        self.0.idle_readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn close(&self) {
        self.reading.close();
        self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Fails only when the writer has ended already.
        self.work.send(Work::Close).ok();
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The writer itself may hold the last clone, in a closure; it cannot wait for itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // An error is a panic in a closure, which has been printed.
            thread.join().ok();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// One call of [`Database::transaction`] on its way.
struct Pending<T, E, F, C> {
    change: Option<F>,
    result: Option<Result<T, E>>,
    then: C,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F, C> Change for Pending<T, E, F, C>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send,
    C: FnOnce(&T) + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        self.result = self.change.take().map(|change| change(tx));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, fate: Result<(), StoreError>) {
        let Self { result, then, caller, .. } = *self;
        let result = match (result, fate) {
            // Its own reason may rest on what others did in the same commit.
            (_, Err(fault)) => Err(fault.into()),
            (Some(Err(own)), Ok(())) => Err(own),
            (Some(Ok(done)), Ok(())) => {
                then(&done);
                Ok(done)
            }
            (None, Ok(())) => Err(StoreError::Closed.into()),
        };
        // The caller may have gone away; the change stands.
        caller.send(result).ok();
    }
}

/// The schema a database has, without changing anything; nothing where there is no file.  Blocks.
pub fn schema_at(path: &Path) -> Result<Option<u32>, OpenError> {
    let failed =
        |err: rusqlite::Error| OpenError::Open { path: path.to_owned(), source: Cause::new(err) };
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(source) => return Err(OpenError::File { path: path.to_owned(), source }),
    }
    let conn = connect(path).map_err(failed)?;
    version_of(&conn).map(Some).map_err(failed)
}

/// Makes the file if it is missing, readable by its owner only; SQLite gives its side files the
/// same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => dir.map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all()),
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err),
    }
}

fn prepare(path: &Path, schema: &Schema, options: &Options) -> Result<Connection, OpenError> {
    let open = |err: rusqlite::Error| match err.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path: path.to_owned(), found: err.to_string() }
        }
        _ => OpenError::Open { path: path.to_owned(), source: Cause::new(err) },
    };
    let mut conn = connect(path).map_err(open)?;
    let found = version_of(&conn).map_err(open)?;
    if found > schema.version() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: schema.version() });
    }
    let check = match options.check {
        Check::Quick => Some("PRAGMA quick_check(1)"),
        Check::Full => Some("PRAGMA integrity_check(1)"),
        Check::Nothing => None,
    };
    if let Some(check) = check {
        let found: String = conn.query_row(check, [], |row| row.get(0)).map_err(open)?;
        if found != "ok" {
            return Err(OpenError::Damaged { path: path.to_owned(), found: one_line(&found) });
        }
    }
    conn.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(open)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT).map_err(open)?;
    migrate(&mut conn, schema, found).map_err(|(number, err)| OpenError::Migrate {
        path: path.to_owned(),
        number,
        source: Cause::new(err),
    })?;
    if let Some(most) = options.max_bytes {
        let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(open)?;
        // SQLite's own limit is lower still, and larger numbers are cut to it.
        let pages = i64::try_from(most).unwrap_or(i64::MAX) / page.max(1);
        conn.pragma_update(None, "max_page_count", pages.max(1)).map_err(open)?;
    }
    Ok(conn)
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.pragma_update(None, "query_only", "ON")?;
    Ok(conn)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    // Nothing in a file that somebody may have put there gets to call functions.
    conn.pragma_update(None, "trusted_schema", "OFF")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
