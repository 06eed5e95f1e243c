//! The keys and what is done to them, as a state machine without clock, chance or disk.
//!
//! [`Keyspace::apply`] takes the time and a seed as arguments: the same commands with the same
//! arguments lead to the same state and the same replies, here, after a restart and on another box.
//! It knows nothing of connections, passwords, transactions or scripts.
//!
//! **Invariant:** a key whose time has passed is never seen, whether or not it was swept yet; empty
//! collections do not exist.

use std::collections::BTreeSet;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::command::{self, Spec};
use crate::resp::Reply;
use crate::value::{Collection, Hashing, Value, own};

pub(crate) mod bits;
mod call;
pub(crate) mod hashes;
pub(crate) mod keys;
pub(crate) mod lists;
mod scan;
pub(crate) mod sets;
pub(crate) mod sorted;
pub(crate) mod strings;

pub(crate) use call::{Call, OUT_OF_MEMORY, Outcome};
pub(crate) use lists::timeout;

/// How many databases there are, as clients of Redis expect.
pub const DATABASES: usize = 16;
/// What a key takes beside its name and value.
const KEY: usize = 96;

/// One command with all it depends on besides the state and the time.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// The database it is sent to.
    pub db: usize,
    /// Decides what is random in it.
    pub seed: u64,
    /// Its name and arguments.
    pub argv: &'a [Bytes],
}

/// What a command has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key.
    Key(usize, Bytes),
    /// All keys of a database; two of them if databases were swapped.
    Database(usize),
}

/// A key's value with what is known about it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// Unix milliseconds; 0: never.
    pub(crate) expires_ms: u64,
    /// When it was last used.
    pub(crate) used_ms: u64,
}

impl Entry {
    fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// One database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Db {
    pub(crate) entries: IndexMap<Bytes, Entry, Hashing>,
    ends: BTreeSet<(u64, Bytes)>,
}

/// All databases.
#[derive(Debug)]
pub struct Keyspace {
    dbs: Vec<Db>,
    used: usize,
    limit: usize,
    changes: Vec<Change>,
}

impl Keyspace {
    /// An empty one that refuses to grow beyond `limit` bytes.  Commands that were accepted before
    /// are applied again without a limit, as it may have been another one then.
    pub fn new(limit: usize) -> Self {
        Self { dbs: vec![Db::default(); DATABASES], used: 0, limit, changes: Vec::new() }
    }

    /// Does one command.  Errors are replies; nothing else can go wrong.
    pub fn apply(&mut self, now_ms: u64, command: &Command<'_>) -> Reply {
        match command::find(command.argv) {
            Ok(spec) => self.apply_known(now_ms, spec, command),
            Err(refused) => refused,
        }
    }

    /// The same for a command that was looked up already.
    pub(crate) fn apply_known(&mut self, now_ms: u64, spec: &Spec, command: &Command<'_>) -> Reply {
        let command::Run::Keys(run) = spec.run else {
            return Reply::error("ERR this command does not work on keys");
        };
        let mut call = Call::new(self, now_ms, command);
        match run(&mut call) {
            Ok(reply) => reply,
            Err(fault) => fault.into_reply(spec.name),
        }
    }

    /// Whether commands that may need memory are refused now.
    pub fn is_full(&self) -> bool {
        self.used > self.limit
    }

    /// Bytes in use, about.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that may be in use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// What the commands since the last call have changed.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn change_count(&self) -> usize {
        self.changes.len()
    }

    /// Keys of a database and how many of them have an end.
    pub fn counts(&self, db: usize) -> (usize, usize) {
        self.dbs.get(db).map_or((0, 0), |db| (db.entries.len(), db.ends.len()))
    }

    /// Up to `most` keys whose time has passed, with their databases.
    pub fn overdue(&self, now_ms: u64, most: usize) -> Vec<(usize, Bytes)> {
        let mut found = Vec::new();
        for (index, db) in self.dbs.iter().enumerate() {
            let due = db.ends.iter().take_while(|(end, _)| *end <= now_ms);
            found.extend(due.take(most - found.len()).map(|(_, key)| (index, key.clone())));
            if found.len() >= most {
                break;
            }
        }
        found
    }

    /// Whether a key exists now.
    pub fn exists(&self, now_ms: u64, db: usize, key: &[u8]) -> bool {
        self.dbs
            .get(db)
            .and_then(|db| db.entries.get(key))
            .is_some_and(|entry| !entry.is_over(now_ms))
    }

    /// The databases as they are now; shares the values until they change.
    pub(crate) fn snapshot(&self) -> Vec<Db> {
        self.dbs.clone()
    }

    /// Puts a key from a snapshot back.
    pub(crate) fn restore(&mut self, db: usize, key: Bytes, value: Value, expires_ms: u64) {
        self.put(db, &key, Entry { value, expires_ms, used_ms: 0 });
    }

    fn db(&self, db: usize) -> Option<&Db> {
        self.dbs.get(db)
    }

    /// Makes or replaces a key with all that belongs to it.
    fn put(&mut self, db: usize, key: &Bytes, entry: Entry) {
        self.remove(db, key);
        let Some(db) = self.dbs.get_mut(db) else { return };
        let key = own(key);
        self.used += KEY + key.len() + entry.value.memory();
        if entry.expires_ms != 0 {
            db.ends.insert((entry.expires_ms, key.clone()));
        }
        db.entries.insert(key, entry);
    }

    /// Removes a key, over or not.
    fn remove(&mut self, db: usize, key: &[u8]) -> Option<Entry> {
        let db = self.dbs.get_mut(db)?;
        let (key, entry) = db.entries.swap_remove_entry(key)?;
        self.used -= KEY + key.len() + entry.value.memory();
        if entry.expires_ms != 0 {
            db.ends.remove(&(entry.expires_ms, key));
        }
        Some(entry)
    }

    /// Sets the end of an existing key; 0: none.
    fn set_end(&mut self, db: usize, key: &[u8], expires_ms: u64) {
        let Some(db) = self.dbs.get_mut(db) else { return };
        let Some((_, name, entry)) = db.entries.get_full_mut(key) else { return };
        if entry.expires_ms != 0 {
            db.ends.remove(&(entry.expires_ms, name.clone()));
        }
        entry.expires_ms = expires_ms;
        if expires_ms != 0 {
            db.ends.insert((expires_ms, name.clone()));
        }
    }

    /// Replaces a text in place, keeping its end; the key must exist as a text.
    fn edit_text(&mut self, db: usize, key: &[u8], edit: impl FnOnce(Bytes) -> Bytes) {
        let Some(entry) = self.dbs.get_mut(db).and_then(|db| db.entries.get_mut(key)) else {
            return;
        };
        let Value::Text(text) = &mut entry.value else { return };
        let before = text.len();
        let edited = edit(std::mem::take(text));
        self.used = self.used - before + edited.len();
        *text = edited;
    }

    /// Changes a collection in place and removes the key if nothing is left; the key must exist
    /// with that type.
    fn edit_collection<T: Collection, R>(
        &mut self,
        db: usize,
        key: &[u8],
        edit: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let entry = self.dbs.get_mut(db)?.entries.get_mut(key)?;
        let collection = T::of_mut(&mut entry.value)?;
        let before = collection.memory();
        let result = edit(collection);
        self.used = self.used - before + collection.memory();
        if collection.is_empty() {
            self.remove(db, key);
        }
        Some(result)
    }

    fn clear(&mut self, db: usize) {
        let Some(db) = self.dbs.get_mut(db) else { return };
        let freed: usize =
            db.entries.iter().map(|(key, entry)| KEY + key.len() + entry.value.memory()).sum();
        self.used -= freed;
        *db = Db::default();
    }

    fn swap(&mut self, one: usize, other: usize) {
        if one < self.dbs.len() && other < self.dbs.len() {
            self.dbs.swap(one, other);
        }
    }
}

#[cfg(test)]
mod tests;
