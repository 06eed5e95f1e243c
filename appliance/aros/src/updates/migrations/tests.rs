use std::panic::{AssertUnwindSafe, catch_unwind};

use arstore::StoreError;

use super::*;

const ONE: &[&str] = &["CREATE TABLE word (text TEXT NOT NULL) STRICT;"];
const TWO: &[&str] = &[
    "CREATE TABLE word (text TEXT NOT NULL) STRICT;",
    "ALTER TABLE word RENAME COLUMN text TO letters;",
];
const BROKEN: &[&str] = &["CREATE TABLE word (text TEXT NOT NULL) STRICT;", "DROP TABLE nothing;"];

static OLD: Schema = Schema { name: "words", migrations: ONE };
static NEW: Schema = Schema { name: "words", migrations: TWO };
static BAD: Schema = Schema { name: "words", migrations: BROKEN };

/// A store of the old version with one word in it.
struct Fixture {
    _dir: tempfile::TempDir,
    dir: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("words");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("secrets.key"), "key").unwrap();
        let fx = Self { _dir: temp, dir };
        fx.say(&OLD, "INSERT INTO word (text) VALUES ('old')");
        fx
    }

    fn store(&self, schema: &'static Schema) -> Store {
        Store { dir: self.dir.clone(), file: "words.sqlite", schema }
    }

    fn say(&self, schema: &'static Schema, sql: &'static str) {
        let db = Database::open(&self.dir.join("words.sqlite"), schema).unwrap();
        db.transaction_blocking(move |tx| {
            tx.execute(sql, arstore::params![])?;
            Ok::<(), StoreError>(())
        })
        .unwrap();
        db.close();
    }

    fn words(&self, schema: &'static Schema, column: &'static str) -> Vec<String> {
        let db = Database::open(&self.dir.join("words.sqlite"), schema).unwrap();
        let sql = format!("SELECT {column} FROM word ORDER BY rowid");
        let words = db
            .read_blocking(|view| view.query_rows(&sql, arstore::params![], |row| row.get(0)))
            .map_err(|err: StoreError| err)
            .unwrap();
        db.close();
        words
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn all(_: &str) {}

#[test]
fn a_store_whose_schema_fits_is_shared_and_not_copied() {
    let fx = Fixture::new();
    assert_eq!(fx.store(&OLD).bring(&mut all).unwrap(), Done::Shared);
    assert_eq!(fx.names(), ["words"]);
}

#[test]
fn a_store_is_migrated_on_a_copy_and_the_old_one_is_kept_until_it_is_forgotten() {
    let fx = Fixture::new();
    assert_eq!(fx.store(&NEW).bring(&mut all).unwrap(), Done::Migrated { from: 1 });
    assert_eq!(fx.names(), ["words", "words.before-1"]);
    assert_eq!(fx.words(&NEW, "letters"), ["old"]);
    assert!(fx.dir.join("secrets.key").is_file());
    assert_eq!(fx.store(&NEW).bring(&mut all).unwrap(), Done::Shared);
    fx.store(&NEW).forget().unwrap();
    assert_eq!(fx.names(), ["words"]);
}

#[test]
fn falling_back_finds_the_data_from_before_and_sets_the_newer_aside() {
    let fx = Fixture::new();
    fx.store(&NEW).bring(&mut all).unwrap();
    fx.say(&NEW, "INSERT INTO word (letters) VALUES ('new')");
    assert_eq!(fx.store(&OLD).bring(&mut all).unwrap(), Done::Restored { aside: 2 });
    assert_eq!(fx.words(&OLD, "text"), ["old"]);
    assert_eq!(fx.names(), ["words", "words.set-aside-2"]);
    // The second attempt starts from what the old version has written since.
    fx.say(&OLD, "INSERT INTO word (text) VALUES ('since')");
    fx.store(&NEW).bring(&mut all).unwrap();
    assert_eq!(fx.words(&NEW, "letters"), ["old", "since"]);
}

#[test]
fn a_migration_that_fails_leaves_the_store_as_it_was() {
    let fx = Fixture::new();
    let refused = fx.store(&BAD).bring(&mut all).unwrap_err();
    assert!(matches!(refused, MigrateError::Store(OpenError::Migrate { number: 2, .. })));
    assert_eq!(fx.words(&OLD, "text"), ["old"]);
    assert_eq!(fx.store(&OLD).bring(&mut all).unwrap(), Done::Shared);
}

#[test]
fn a_newer_store_without_a_copy_from_before_is_refused_and_left_alone() {
    let fx = Fixture::new();
    fx.store(&NEW).bring(&mut all).unwrap();
    fx.store(&NEW).forget().unwrap();
    let refused = fx.store(&OLD).bring(&mut all).unwrap_err().to_string();
    let expected = format!(
        "the store `{}` has schema 2, this version knows up to 1, and no copy from before is kept: install the newer version again",
        fx.dir.display()
    );
    assert_eq!(refused, expected);
    assert_eq!(fx.words(&NEW, "letters"), ["old"]);
}

/// Ends before step `at`, as a power cut does; whether there was such a step.
fn cut(store: &Store, at: usize) -> bool {
    let mut steps = 0;
    let mut stop = |_: &str| {
        steps += 1;
        assert!(steps <= at, "cut");
    };
    catch_unwind(AssertUnwindSafe(|| store.bring(&mut stop).unwrap())).is_err()
}

#[test]
fn a_power_cut_before_any_step_of_a_migration_costs_nothing_in_either_version() {
    let mut at = 0;
    loop {
        let fx = Fixture::new();
        let was_cut = cut(&fx.store(&NEW), at);
        // The new version goes on …
        fx.store(&NEW).bring(&mut all).unwrap();
        assert_eq!(fx.words(&NEW, "letters"), ["old"], "forward after {at} steps");
        // … and the box can still fall back.
        fx.store(&OLD).bring(&mut all).unwrap();
        assert_eq!(fx.words(&OLD, "text"), ["old"], "back after {at} steps");

        let fx = Fixture::new();
        cut(&fx.store(&NEW), at);
        // The old version starts right after the cut.
        fx.store(&OLD).bring(&mut all).unwrap();
        assert_eq!(fx.words(&OLD, "text"), ["old"], "at once back after {at} steps");
        if !was_cut {
            break;
        }
        at += 1;
    }
    assert!(at >= 7, "only {at} steps were cut");
}

#[test]
fn a_power_cut_before_any_step_of_falling_back_costs_nothing() {
    let mut at = 0;
    loop {
        let fx = Fixture::new();
        fx.store(&NEW).bring(&mut all).unwrap();
        fx.say(&NEW, "INSERT INTO word (letters) VALUES ('new')");
        let was_cut = cut(&fx.store(&OLD), at);
        fx.store(&OLD).bring(&mut all).unwrap();
        assert_eq!(fx.words(&OLD, "text"), ["old"], "after {at} steps");
        assert_eq!(fx.names(), ["words", "words.set-aside-2"], "after {at} steps");
        if !was_cut {
            break;
        }
        at += 1;
    }
    assert!(at >= 2, "only {at} steps were cut");
}
