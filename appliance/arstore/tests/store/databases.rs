//! Databases: settings, migrations, group commit, faults.

use std::error::Error as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use arstore::{Check, Database, Options, Schema, StoreError, params};

const FIRST: &str = "CREATE TABLE entry (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT";
const SCHEMA: Schema = Schema { name: "test", migrations: &[FIRST] };

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/test.sqlite");
        Self { _dir: dir, path }
    }

    fn open(&self) -> Database {
        Database::open(&self.path, &SCHEMA).unwrap()
    }

    #[track_caller]
    fn refusal(&self, schema: &Schema) -> String {
        Database::open(&self.path, schema).unwrap_err().to_string()
    }
}

fn insert(db: &Database, n: i64) -> Result<usize, StoreError> {
    db.transaction_blocking(move |tx| tx.execute("INSERT INTO entry VALUES (?, 'x')", params![n]))
}

fn count(db: &Database) -> u64 {
    db.read_blocking(|view| view.query_row("SELECT count(*) FROM entry", &[], |row| row.get(0)))
        .unwrap()
        .unwrap_or(0)
}

#[test]
fn the_writer_waits_for_the_disk_and_keeps_a_write_ahead_log() {
    let fx = Fixture::new();
    let settings = fx.open().transaction_blocking(|tx| {
        let pragma = |sql: &str| tx.query_row(sql, &[], |row| row.get::<i64>(0));
        let mode = tx.query_row("PRAGMA journal_mode", &[], |row| row.get::<String>(0))?;
        Ok::<_, StoreError>((mode, pragma("PRAGMA synchronous")?, pragma("PRAGMA foreign_keys")?))
    });
    assert_eq!(settings.unwrap(), (Some("wal".to_owned()), Some(2), Some(1)));
    let mode = std::fs::metadata(&fx.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_was_written_is_there_after_closing_and_opening() {
    let fx = Fixture::new();
    let db = fx.open();
    insert(&db, 1).unwrap();
    assert_eq!(count(&db), 1);
    db.close();
    assert!(matches!(insert(&db, 2), Err(StoreError::Closed)));
    assert_eq!(insert(&db, 2).unwrap_err().to_string(), "the store is closed");
    let closed = db.read_blocking(|_| Ok::<_, StoreError>(()));
    assert!(matches!(closed, Err(StoreError::Closed)));
    let db = fx.open();
    assert_eq!(count(&db), 1);
    assert_eq!(db.integrity_faults().unwrap(), [""; 0]);
}

#[test]
fn migrations_are_applied_once_and_in_order() {
    let fx = Fixture::new();
    insert(&fx.open(), 1).unwrap();
    const SECOND: &str =
        "ALTER TABLE entry ADD COLUMN more TEXT; UPDATE entry SET more = text || n";
    let longer = Schema { name: "test", migrations: &[FIRST, SECOND] };
    for _ in 0..2 {
        let db = Database::open(&fx.path, &longer).unwrap();
        let more = db.read_blocking(|view| {
            view.query_row("SELECT more FROM entry", &[], |row| row.get::<String>(0))
        });
        assert_eq!(more.unwrap().as_deref(), Some("x1"));
    }
}

#[test]
fn a_store_of_a_newer_release_is_refused() {
    let fx = Fixture::new();
    const NEWER: Schema = Schema { name: "test", migrations: &[FIRST, "", ""] };
    drop(Database::open(&fx.path, &NEWER).unwrap());
    assert_eq!(
        fx.refusal(&SCHEMA),
        format!(
            "the store `{}` has schema 3 and this release knows up to 1: a newer release has written it; install that one again, or restore a backup made before it",
            fx.path.display()
        )
    );
}

#[test]
fn a_migration_that_fails_leaves_the_store_as_it_was() {
    let fx = Fixture::new();
    insert(&fx.open(), 1).unwrap();
    let bad = Schema { name: "test", migrations: &[FIRST, "DROP TABLE entry; SELECT nothing"] };
    assert_eq!(
        fx.refusal(&bad),
        format!("cannot bring the store `{}` to schema 2", fx.path.display())
    );
    assert_eq!(count(&fx.open()), 1);
}

#[test]
fn a_damaged_store_is_refused_with_what_to_do() {
    let fx = Fixture::new();
    let db = fx.open();
    for n in 0..10 {
        insert(&db, n).unwrap();
    }
    db.transaction_blocking(|tx| tx.execute("UPDATE entry SET text = hex(zeroblob(20000))", &[]))
        .unwrap();
    db.close();
    drop(db);
    let file = std::fs::OpenOptions::new().write(true).open(&fx.path).unwrap();
    file.write_all_at(&[0xa5; 3000], 3 * 4096).unwrap();
    let refusal = fx.refusal(&SCHEMA);
    let begins = format!("the store `{}` is damaged (", fx.path.display());
    assert!(refusal.starts_with(&begins), "{refusal}");
    let ends =
        "); move it away with its `-wal` and `-shm` files, and restore a backup or start empty";
    assert!(refusal.ends_with(ends), "{refusal}");
    std::fs::write(&fx.path, b"this is no database, however long one may look at it").unwrap();
    assert!(fx.refusal(&SCHEMA).contains("is damaged (file is not a database)"));
}

#[test]
fn a_store_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let path = dir.path().join("file/test.sqlite");
    let err = Database::open(&path, &SCHEMA).unwrap_err();
    assert_eq!(err.to_string(), format!("cannot open the store `{}`", path.display()));
    assert!(err.source().is_some());
}

/// Keeps the writer busy until it is dropped.
struct Busy(mpsc::Sender<()>);

fn keep_busy(db: &Database) -> Busy {
    let (release, released) = mpsc::channel::<()>();
    let (started, starting) = mpsc::channel();
    let db = db.clone();
    std::thread::spawn(move || {
        db.transaction_blocking(move |_| {
            started.send(()).unwrap();
            // The other end is dropped, never used.
            released.recv().ok();
            Ok::<_, StoreError>(())
        })
    });
    starting.recv().unwrap();
    Busy(release)
}

#[tokio::test]
async fn what_waits_shares_a_commit_and_a_failing_change_is_undone_alone() {
    let fx = Fixture::new();
    let db = fx.open();
    let wal = |path: &Path| std::fs::metadata(format!("{}-wal", path.display())).unwrap().len();
    let before = wal(&fx.path);
    let busy = keep_busy(&db);
    let changes: Vec<_> = (0..40i64)
        .map(|n| {
            let db = db.clone();
            tokio::spawn(async move {
                db.transaction(move |tx| {
                    tx.execute("INSERT INTO entry VALUES (?, 'x')", params![n])?;
                    // Every fourth does the half and then breaks a constraint.
                    tx.execute(
                        "INSERT INTO entry VALUES (?, ?)",
                        params![n + 1000, (n % 4 != 0).then_some("x")],
                    )
                })
                .await
            })
        })
        .collect();
    // On this runtime of one thread each has been polled once now: it has sent its change.
    tokio::task::yield_now().await;
    assert!(!changes.iter().any(|change| change.is_finished()), "answered before the commit");
    drop(busy.0);
    for (n, change) in changes.into_iter().enumerate() {
        let result = change.await.unwrap();
        if n % 4 == 0 {
            let err = result.unwrap_err();
            assert!(matches!(err, StoreError::Constraint { .. }), "{err:?}");
            assert_eq!(err.to_string(), "cannot run `INSERT INTO entry VALUES (?, ?)`");
        } else {
            assert_eq!(result.unwrap(), 1);
        }
    }
    assert_eq!(count(&db), 60);
    let frames = (wal(&fx.path) - before) / 4096;
    assert!(
        frames < 30,
        "{frames} pages were logged for 40 changes, as if each had its own commit"
    );
}

#[tokio::test]
async fn what_follows_a_commit_is_called_in_the_order_of_the_commits() {
    let fx = Fixture::new();
    let db = fx.open();
    let (told, order) = mpsc::channel();
    let changes: Vec<_> = (0..50i64)
        .map(|n| {
            let (db, told) = (db.clone(), told.clone());
            tokio::spawn(async move {
                db.transaction_then(
                    move |tx| {
                        tx.execute(
                            "INSERT INTO entry (text) VALUES (?)",
                            params![n.to_string().as_str()],
                        )?;
                        Ok::<_, StoreError>(tx.last_row_id())
                    },
                    move |id| told.send(*id).unwrap(),
                )
                .await
                .unwrap();
            })
        })
        .collect();
    for change in changes {
        change.await.unwrap();
    }
    drop(told);
    assert_eq!(order.iter().collect::<Vec<i64>>(), (1..=50).collect::<Vec<i64>>());
}

#[tokio::test]
async fn nobody_is_told_of_a_change_before_its_commit() {
    let fx = Fixture::new();
    let db = fx.open();
    let other = fx.open();
    let busy = keep_busy(&db);
    let (told, tells) = mpsc::channel();
    let changes: Vec<_> = (1..=20i64)
        .map(|n| {
            let (db, other, told) = (db.clone(), other.clone(), told.clone());
            tokio::spawn(async move {
                db.transaction_then(
                    move |tx| tx.execute("INSERT INTO entry VALUES (?, 'x')", params![n]),
                    // On the writer's thread, just before the caller is answered.
                    move |_| told.send(count(&other)).unwrap(),
                )
                .await
                .unwrap();
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(busy.0);
    for change in changes {
        change.await.unwrap();
    }
    drop(told);
    // What others see is committed, and a commit waits for the disk (see the first test).
    for (answered, seen) in (1..).zip(tells) {
        assert!(seen >= answered, "{answered} were answered and {seen} are committed");
    }
}

#[tokio::test]
async fn a_change_whose_caller_went_away_stands() {
    let fx = Fixture::new();
    let db = fx.open();
    let busy = keep_busy(&db);
    let change = db.transaction(|tx| tx.execute("INSERT INTO entry VALUES (7, 'x')", &[]));
    let late = tokio::time::timeout(std::time::Duration::from_millis(20), change).await;
    assert!(late.is_err());
    drop(busy.0);
    // Changes run in the order of the calls: once this one is answered, that one was run.
    let next = db.transaction(|tx| tx.execute("INSERT INTO entry VALUES (8, 'x')", &[]));
    next.await.unwrap();
    assert_eq!(count(&db), 2);
}

#[tokio::test]
async fn a_read_sees_one_moment_and_cannot_write() {
    let fx = Fixture::new();
    let db = fx.open();
    let writer = db.clone();
    let counts = db
        .read(move |view| {
            let count =
                || view.query_row("SELECT count(*) FROM entry", &[], |row| row.get::<u64>(0));
            let before = count()?;
            insert(&writer, 1)?;
            Ok::<_, StoreError>((before, count()?))
        })
        .await;
    assert_eq!(counts.unwrap(), (Some(0), Some(0)));
    assert_eq!(count(&db), 1);
    let written = db.read_blocking(|view| {
        view.query_rows("DELETE FROM entry RETURNING n", &[], |row| row.get::<i64>(0))
    });
    assert!(matches!(written, Err(StoreError::ReadOnly { .. })), "{written:?}");
    assert_eq!(
        written.unwrap_err().to_string(),
        format!(
            "the store `{}` can only be read; check the permissions and the mount",
            fx.path.display()
        )
    );
}

#[test]
fn every_value_is_read_back_as_it_was() {
    let fx = Fixture::new();
    let db = fx.open();
    let blob = vec![0u8, 255, 7];
    let read = db.read_blocking(|view| {
        view.query_row(
            "SELECT ?, ?, ?, ?, ?, ?",
            params![u64::MAX, i64::MIN, "é", &blob, 0.5, None::<&str>],
            |row| {
                assert_eq!(row.bytes(2)?, "é".as_bytes());
                Ok((
                    row.get::<u64>(0)?,
                    row.get::<i64>(1)?,
                    row.get::<String>(2)?,
                    row.get::<Vec<u8>>(3)?,
                    row.get::<f64>(4)?,
                    row.get::<Option<String>>(5)?,
                ))
            },
        )
    });
    let wanted = (u64::MAX, i64::MIN, "é".to_owned(), blob, 0.5, None);
    assert_eq!(read.unwrap(), Some(wanted));
    let wrong: Result<Option<i64>, StoreError> =
        db.read_blocking(|view| view.query_row("SELECT 'x'", &[], |row| row.get(0)));
    assert_eq!(wrong.unwrap_err().to_string(), "column 0 cannot be read as i64");
}

#[test]
fn a_store_without_room_says_so_and_goes_on_when_there_is_room_again() {
    let fx = Fixture::new();
    let options = Options { max_bytes: Some(256 * 1024), check: Check::Full, readers: 1 };
    let db = Database::open_with(&fx.path, &SCHEMA, &options).unwrap();
    let mut kept = 0u64;
    let fault = loop {
        let written = db.transaction_blocking(|tx| {
            tx.execute("INSERT INTO entry (text) VALUES (hex(zeroblob(8000)))", &[])
        });
        match written {
            Ok(_) => kept += 1,
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, StoreError::NoRoom { .. }), "{fault:?}");
    assert!(fault.is_of_the_disk());
    assert_eq!(
        fault.to_string(),
        format!("no room left for the store `{}`; free some space on its disk", fx.path.display())
    );
    assert_eq!(count(&db), kept);
    db.transaction_blocking(|tx| tx.execute("DELETE FROM entry WHERE n < 5", &[])).unwrap();
    insert(&db, 1).unwrap();
    assert_eq!(db.integrity_faults().unwrap(), [""; 0]);
}
