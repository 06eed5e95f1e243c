//! One command at work: its arguments, and the keys as it may see them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Command, Db, Entry, Keyspace};
use crate::number::{parse_float, parse_int};
use crate::resp::Reply;
use crate::value::{Collection, Hash, List, Set, Sorted, Value, own};

/// Why a command is refused, in the words of Redis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    WrongType,
    Syntax,
    NotInt,
    NotFloat,
    NoKey,
    OutOfMemory,
    Arity,
    ExpireTime,
    Text(Cow<'static, str>),
}

/// What a command gives.
pub(crate) type Outcome = Result<Reply, Fault>;

impl Fault {
    pub(crate) const fn text(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The reply for the command `name`.
    pub(crate) fn into_reply(self, name: &str) -> Reply {
        match self {
            Self::WrongType => {
                Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            Self::Syntax => Reply::error("ERR syntax error"),
            Self::NotInt => Reply::error("ERR value is not an integer or out of range"),
            Self::NotFloat => Reply::error("ERR value is not a valid float"),
            Self::NoKey => Reply::error("ERR no such key"),
            Self::OutOfMemory => Reply::error(OUT_OF_MEMORY),
            Self::Arity => {
                Reply::Error(format!("ERR wrong number of arguments for '{name}' command").into())
            }
            Self::ExpireTime => {
                Reply::Error(format!("ERR invalid expire time in '{name}' command").into())
            }
            Self::Text(text) => Reply::Error(text),
        }
    }
}

/// The refusal when no memory is left.
pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// One command at work.
pub(crate) struct Call<'a> {
    keyspace: &'a mut Keyspace,
    pub(crate) now_ms: u64,
    pub(crate) db: usize,
    argv: &'a [Bytes],
    seed: u64,
}

static NOTHING: Bytes = Bytes::new();

impl<'a> Call<'a> {
    pub(super) fn new(keyspace: &'a mut Keyspace, now_ms: u64, command: &Command<'a>) -> Self {
        Self { keyspace, now_ms, db: command.db, argv: command.argv, seed: command.seed }
    }

    /// How many arguments there are, the name included.
    pub(crate) fn len(&self) -> usize {
        self.argv.len()
    }

    /// Argument `index`; the name is 0.  Nothing if there are fewer.
    pub(crate) fn arg(&self, index: usize) -> &'a Bytes {
        self.argv.get(index).unwrap_or(&NOTHING)
    }

    /// The arguments from `index` on.
    pub(crate) fn rest(&self, index: usize) -> &'a [Bytes] {
        self.argv.get(index..).unwrap_or_default()
    }

    /// Whether argument `index` is this word, in any case.
    pub(crate) fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Argument `index` in capitals, to compare with words.
    pub(crate) fn word(&self, index: usize) -> String {
        String::from_utf8_lossy(self.arg(index)).to_ascii_uppercase()
    }

    /// Argument `index` as an integer.
    pub(crate) fn int(&self, index: usize) -> Result<i64, Fault> {
        parse_int(self.arg(index)).ok_or(Fault::NotInt)
    }

    /// Argument `index` as a float.
    pub(crate) fn float(&self, index: usize) -> Result<f64, Fault> {
        parse_float(self.arg(index)).ok_or(Fault::NotFloat)
    }

    /// A number below `bound` that depends on the seed and on how often this was asked.
    pub(crate) fn random_below(&mut self, bound: usize) -> usize {
        // The generator is splitmix64.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(mixed % bound).unwrap_or(0)
    }

    /// The database the command is sent to.
    pub(crate) fn database(&self) -> Option<&Db> {
        self.keyspace.db(self.db)
    }

    /// A key with all that belongs to it.
    pub(crate) fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entry_in(self.db, key)
    }

    pub(crate) fn entry_in(&self, db: usize, key: &[u8]) -> Option<&Entry> {
        let entry = self.keyspace.db(db)?.entries.get(key)?;
        (!entry.is_over(self.now_ms)).then_some(entry)
    }

    /// The value of a key, which counts as used.
    pub(crate) fn value(&mut self, key: &[u8]) -> Option<&Value> {
        let now_ms = self.now_ms;
        let entry = self.keyspace.dbs.get_mut(self.db)?.entries.get_mut(key)?;
        if entry.is_over(now_ms) {
            return None;
        }
        entry.used_ms = now_ms;
        Some(&entry.value)
    }

    pub(crate) fn exists(&self, key: &[u8]) -> bool {
        self.entry(key).is_some()
    }

    /// The text of a key.
    pub(crate) fn string(&mut self, key: &[u8]) -> Result<Option<&Bytes>, Fault> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::WrongType),
        }
    }

    /// The collection of a key.
    pub(crate) fn collection<T: Collection>(
        &mut self,
        key: &[u8],
    ) -> Result<Option<&Arc<T>>, Fault> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => T::of(value).map(Some).ok_or(Fault::WrongType),
        }
    }

    pub(crate) fn list(&mut self, key: &[u8]) -> Result<Option<&Arc<List>>, Fault> {
        self.collection(key)
    }

    pub(crate) fn hash(&mut self, key: &[u8]) -> Result<Option<&Arc<Hash>>, Fault> {
        self.collection(key)
    }

    pub(crate) fn set(&mut self, key: &[u8]) -> Result<Option<&Arc<Set>>, Fault> {
        self.collection(key)
    }

    pub(crate) fn sorted(&mut self, key: &[u8]) -> Result<Option<&Arc<Sorted>>, Fault> {
        self.collection(key)
    }

    /// Changes the collection of a key, made first if there is none, removed if nothing is left.
    /// The caller says with [`Call::touch`] whether something changed.
    pub(crate) fn edit<T: Collection, R>(
        &mut self,
        key: &Bytes,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Fault> {
        if self.collection::<T>(key)?.is_none() {
            let entry =
                Entry { value: T::default().into_value(), expires_ms: 0, used_ms: self.now_ms };
            self.keyspace.put(self.db, key, entry);
        }
        self.keyspace.edit_collection(self.db, key, edit).ok_or(Fault::WrongType)
    }

    /// The same, but a key that does not exist is left alone.
    pub(crate) fn edit_existing<T: Collection, R>(
        &mut self,
        key: &Bytes,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, Fault> {
        if self.collection::<T>(key)?.is_none() {
            return Ok(None);
        }
        Ok(self.keyspace.edit_collection(self.db, key, edit))
    }

    /// Notes that a key has changed.
    pub(crate) fn touch(&mut self, key: &Bytes) {
        self.touch_in(self.db, key);
    }

    pub(crate) fn touch_in(&mut self, db: usize, key: &Bytes) {
        self.keyspace.changes.push(Change::Key(db, key.clone()));
    }

    /// Makes or replaces a key; its end, if it had one, is gone.
    pub(crate) fn put(&mut self, key: &Bytes, value: Value) {
        self.put_in(self.db, key, value, 0);
    }

    pub(crate) fn put_in(&mut self, db: usize, key: &Bytes, value: Value, expires_ms: u64) {
        let entry = Entry { value, expires_ms, used_ms: self.now_ms };
        self.keyspace.put(db, key, entry);
        self.touch_in(db, key);
    }

    /// Makes or replaces a text.
    pub(crate) fn put_text(&mut self, key: &Bytes, text: &[u8]) {
        self.put(key, Value::Text(own(text)));
    }

    /// Changes a text and keeps the key's end; makes the key if there is none.
    pub(crate) fn edit_text(&mut self, key: &Bytes, edit: impl FnOnce(Bytes) -> Bytes) {
        if self.exists(key) {
            self.keyspace.edit_text(self.db, key, edit);
            self.touch(key);
        } else {
            self.put(key, Value::Text(edit(Bytes::new())));
        }
    }

    /// Removes a key; says whether it existed.
    pub(crate) fn remove(&mut self, key: &Bytes) -> bool {
        self.remove_in(self.db, key).is_some()
    }

    /// Removes a key and gives what it held, unless its time had passed.
    pub(crate) fn remove_in(&mut self, db: usize, key: &Bytes) -> Option<Entry> {
        let entry = self.keyspace.remove(db, key)?;
        self.touch_in(db, key);
        (!entry.is_over(self.now_ms)).then_some(entry)
    }

    /// Sets the end of a key; 0: none.
    pub(crate) fn set_end(&mut self, key: &Bytes, expires_ms: u64) {
        self.keyspace.set_end(self.db, key, expires_ms);
        self.touch(key);
    }

    /// Removes all keys of a database.
    pub(crate) fn clear(&mut self, db: usize) {
        self.keyspace.clear(db);
        self.keyspace.changes.push(Change::Database(db));
    }

    /// Exchanges two databases.
    pub(crate) fn swap(&mut self, one: usize, other: usize) {
        self.keyspace.swap(one, other);
        self.keyspace.changes.push(Change::Database(one));
        self.keyspace.changes.push(Change::Database(other));
    }

    /// Refuses a text that would not fit into the memory that is left.
    pub(crate) fn check_growth(&self, bytes: usize) -> Result<(), Fault> {
        if self.keyspace.used.saturating_add(bytes) > self.keyspace.limit {
            return Err(Fault::OutOfMemory);
        }
        Ok(())
    }

    pub(crate) fn memory_of(&self, key: &[u8]) -> Option<usize> {
        self.entry(key).map(|entry| super::KEY + key.len() + entry.value.memory())
    }
}

/// The range of `start` and `end` as indexes into `len` elements, negative ones counted from the
/// end: first and one after the last, `None` if nothing is in it.
pub(crate) fn index_range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = crate::number::int(len);
    let from = if start < 0 { (start + len).max(0) } else { start };
    let to = if end < 0 { end + len } else { end.min(len - 1) };
    if from > to || from >= len || to < 0 {
        return None;
    }
    Some((usize::try_from(from).ok()?, usize::try_from(to).ok()? + 1))
}
