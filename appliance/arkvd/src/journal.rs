//! Where changes go so that they outlive the process.
//!
//! [`Log`] is the seam: the engine appends groups of records and asks how far they are safe.  The
//! local one writes them to SQLite, one commit for all that wait; a replicated one can take its
//! place.  A record holds all [`crate::Keyspace::apply`] needs: applying the records of the log in
//! their order to the state of a snapshot leads to the state there was.
//!
//! **Invariant:** a group is on disk whole or not at all, and never without those before it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use arstore::{Database, Schema, StoreError, Tx, params};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{Notify, watch};

/// The number of a group of records, rising by one.
pub type Seq = u64;

/// One command that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was applied.
    pub now_ms: u64,
    /// The seed it was applied with.
    pub seed: u64,
    /// Its database.
    pub db: usize,
    /// Its name and arguments.
    pub argv: Vec<Bytes>,
}

/// How far the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// All groups up to this one are safe.
    pub safe: Seq,
    /// Why it does not go on, if it does not.
    pub fault: Option<String>,
    /// Whether the fault has lasted so long that nobody should wait for it.
    pub given_up: bool,
}

/// A place for changes.
pub trait Log {
    /// Takes a group of records and gives its number.  Does not wait.
    fn append(&mut self, group: &[Record]) -> Seq;

    /// The number of the last group taken.
    fn last(&self) -> Seq;

    /// How far groups are safe.
    fn progress(&self) -> watch::Receiver<Progress>;

    /// Bytes taken since the start or the last [`Log::truncate`].
    fn grown(&self) -> u64;

    /// Forgets the groups up to `seq`, which a snapshot holds.
    fn truncate(&mut self, seq: Seq);
}

/// Why stored records cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no records of the key-value store")]
pub struct NoRecords;

/// Writes numbers in as few bytes as they need.
pub(crate) fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.put_u8(u8::try_from(number).unwrap_or(0));
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, size(bytes.len()));
    out.extend_from_slice(bytes);
}

pub(crate) fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Reads what `put_number` and `put_bytes` wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn byte(&mut self) -> Result<u8, NoRecords> {
        let (first, rest) = self.0.split_first().ok_or(NoRecords)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, NoRecords> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(NoRecords);
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(NoRecords)
    }

    pub(crate) fn len(&mut self) -> Result<usize, NoRecords> {
        usize::try_from(self.number()?).map_err(|_| NoRecords)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, NoRecords> {
        let len = self.len()?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(NoRecords)?;
        self.0 = rest;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// Writes a group.
pub fn encode_group(seq: Seq, group: &[Record], out: &mut BytesMut) {
    put_number(out, seq);
    put_number(out, size(group.len()));
    for record in group {
        put_number(out, record.now_ms);
        out.put_u64_le(record.seed);
        put_number(out, size(record.db));
        put_number(out, size(record.argv.len()));
        for arg in &record.argv {
            put_bytes(out, arg);
        }
    }
}

/// Reads groups; the entry for fuzzing.
pub fn decode_groups(bytes: &[u8]) -> Result<Vec<(Seq, Vec<Record>)>, NoRecords> {
    let mut reader = Reader(bytes);
    let mut groups = Vec::new();
    while !reader.0.is_empty() {
        let seq = reader.number()?;
        let mut group = Vec::new();
        for _ in 0..reader.len()? {
            let now_ms = reader.number()?;
            let (seed, rest) = reader.0.split_first_chunk::<8>().ok_or(NoRecords)?;
            reader.0 = rest;
            let seed = u64::from_le_bytes(*seed);
            let db = reader.len()?;
            let mut argv = Vec::new();
            for _ in 0..reader.len()? {
                argv.push(reader.bytes()?);
            }
            group.push(Record { now_ms, seed, db, argv });
        }
        groups.push((seq, group));
    }
    Ok(groups)
}

/// The tables of the log.
pub const SCHEMA: Schema = Schema {
    name: "arkvd",
    migrations: &["CREATE TABLE log (last INTEGER PRIMARY KEY, groups BLOB NOT NULL) STRICT"],
};

/// A row of the log grows to about this size.
const ROW: usize = 1024 * 1024;
/// Rows removed in one commit, so that no write waits long for it.
const ROWS_CUT: u64 = 64;
/// A disk that fails is tried again after this time.
const RETRY: Duration = Duration::from_millis(500);
/// After so many tries those who wait are told.
const TRIES: u32 = 10;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be opened.
    #[error("cannot open the log")]
    Open(#[source] arstore::OpenError),
    /// It cannot be read.
    #[error("cannot read the log")]
    Read(#[source] StoreError),
    /// What is in it makes no sense.
    #[error("row {row} of the log is damaged; restore a backup")]
    Row {
        /// Its number.
        row: Seq,
        /// Why.
        source: NoRecords,
    },
}

impl From<StoreError> for LogError {
    fn from(err: StoreError) -> Self {
        Self::Read(err)
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Encoded groups that no commit has taken yet, cut into rows.
    rows: Vec<(Seq, BytesMut)>,
    last: Seq,
    grown: u64,
    cut: Option<Seq>,
}

/// The log on this box.
#[derive(Debug)]
pub(crate) struct LocalLog {
    queue: Rc<RefCell<Queue>>,
    wake: Rc<Notify>,
    progress: watch::Sender<Progress>,
}

/// The task that brings the log to disk.
#[derive(Debug)]
pub(crate) struct LogTask {
    db: Database,
    queue: Rc<RefCell<Queue>>,
    wake: Rc<Notify>,
    progress: watch::Sender<Progress>,
    interval: Option<Duration>,
}

/// Opens the log's database.
pub(crate) fn open(path: &std::path::Path) -> Result<Database, LogError> {
    Database::open(path, &SCHEMA).map_err(LogError::Open)
}

/// Reads the groups after `after` in their order and gives the number of the last one, and how many
/// bytes were read.
pub(crate) fn replay(
    db: &Database,
    after: Seq,
    mut apply: impl FnMut(&Record),
) -> Result<(Seq, u64), LogError> {
    let (mut last, mut bytes) = (after, 0);
    db.read_blocking(|view| {
        let mut from = after;
        loop {
            let sql = "SELECT last, groups FROM log WHERE last > ? ORDER BY last LIMIT 16";
            let rows: Vec<(Seq, Vec<u8>)> =
                view.query_rows(sql, params![from], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let Some((end, _)) = rows.last() else { return Ok((last, bytes)) };
            from = *end;
            for (row, blob) in rows {
                bytes += size(blob.len());
                let groups =
                    decode_groups(&blob).map_err(|source| LogError::Row { row, source })?;
                for (seq, group) in groups {
                    if seq > last {
                        group.iter().for_each(&mut apply);
                        last = seq;
                    }
                }
            }
        }
    })
}

impl LocalLog {
    /// A log that goes on after group `last`; the task has to be run.  With an interval nobody
    /// waits for the disk.
    pub(crate) fn new(
        db: Database,
        last: Seq,
        grown: u64,
        interval: Option<Duration>,
    ) -> (Self, LogTask) {
        let queue = Rc::new(RefCell::new(Queue { last, grown, ..Queue::default() }));
        let wake = Rc::new(Notify::new());
        let (progress, _) = watch::channel(Progress { safe: last, ..Progress::default() });
        let task = LogTask {
            db,
            queue: Rc::clone(&queue),
            wake: Rc::clone(&wake),
            progress: progress.clone(),
            interval,
        };
        (Self { queue, wake, progress }, task)
    }
}

impl Log for LocalLog {
    fn append(&mut self, group: &[Record]) -> Seq {
        let mut queue = self.queue.borrow_mut();
        queue.last += 1;
        let seq = queue.last;
        let full = queue.rows.last().is_none_or(|(_, row)| row.len() >= ROW);
        if full {
            queue.rows.push((seq, BytesMut::new()));
        }
        if let Some((last, row)) = queue.rows.last_mut() {
            let before = row.len();
            encode_group(seq, group, row);
            *last = seq;
            let added = size(row.len() - before);
            queue.grown += added;
        }
        self.wake.notify_one();
        seq
    }

    fn last(&self) -> Seq {
        self.queue.borrow().last
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn grown(&self) -> u64 {
        self.queue.borrow().grown
    }

    fn truncate(&mut self, seq: Seq) {
        self.queue.borrow_mut().cut = Some(seq);
        self.wake.notify_one();
    }
}

impl LogTask {
    /// Brings groups to disk until `done` says that no more will come, and then what is left.
    pub(crate) async fn run(self, done: impl Future<Output = ()>) {
        tokio::pin!(done);
        let mut ending = false;
        loop {
            if !ending {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = &mut done => ending = true,
                }
                match self.interval {
                    Some(interval) if !ending => {
                        tokio::select! {
                            () = tokio::time::sleep(interval) => {}
                            () = &mut done => ending = true,
                        }
                    }
                    // All that is ready now gets into the same commit.
                    _ => tokio::task::yield_now().await,
                }
            }
            let rows = std::mem::take(&mut self.queue.borrow_mut().rows);
            if !rows.is_empty() {
                self.write(rows, ending).await;
            }
            let cut = self.queue.borrow_mut().cut.take();
            if let Some(seq) = cut.filter(|_| !ending) {
                self.cut(seq).await;
            }
            if ending && self.queue.borrow().rows.is_empty() {
                return;
            }
        }
    }

    async fn write(&self, rows: Vec<(Seq, BytesMut)>, ending: bool) {
        let Some(last) = rows.last().map(|(last, _)| *last) else { return };
        let rows: std::sync::Arc<Vec<(Seq, Bytes)>> =
            std::sync::Arc::new(rows.into_iter().map(|(last, row)| (last, row.freeze())).collect());
        let mut tries = 0;
        loop {
            let batch = std::sync::Arc::clone(&rows);
            let written = self.db.transaction(move |tx: &Tx<'_>| {
                for (last, row) in batch.iter() {
                    tx.execute("INSERT INTO log VALUES (?, ?)", params![*last, row.as_ref()])?;
                }
                Ok::<(), StoreError>(())
            });
            match written.await {
                Ok(()) => {
                    self.progress.send_replace(Progress { safe: last, ..Progress::default() });
                    return;
                }
                Err(err) => {
                    tries += 1;
                    let fault = arbase::Chain(&err).to_string();
                    if tries == 1 {
                        log::error!(error:% = fault; "cannot write the log, trying again");
                    }
                    self.progress.send_modify(|progress| {
                        progress.fault = Some(fault);
                        progress.given_up = tries >= TRIES || ending;
                    });
                    if ending {
                        log::error!("changes that nobody was promised are lost at the stop");
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn cut(&self, seq: Seq) {
        let removed = self.db.transaction(move |tx: &Tx<'_>| {
            tx.execute(
                "DELETE FROM log WHERE last IN (SELECT last FROM log WHERE last <= ? ORDER BY last LIMIT ?)",
                params![seq, ROWS_CUT],
            )
        });
        match removed.await {
            Ok(0) => self.queue.borrow_mut().grown = 0,
            Ok(_) => {
                let mut queue = self.queue.borrow_mut();
                queue.cut = queue.cut.max(Some(seq));
                self.wake.notify_one();
            }
            Err(err) => log::warn!(error:% = arbase::Chain(&err); "cannot shorten the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_of_and_the_groups_wait_for_room() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let options = arstore::Options { max_bytes: Some(200_000), ..Default::default() };
            let path = dir.path().join("log.sqlite");
            let db = Database::open_with(&path, &SCHEMA, &options).unwrap();
            let (mut log, task) = LocalLog::new(db, 0, 0, None);
            let mut progress = log.progress();
            let running = tokio::task::spawn_local(task.run(std::future::pending()));
            let record =
                Record { now_ms: 1, seed: 0, db: 0, argv: vec![Bytes::from(vec![b'x'; 30_000])] };
            let mut taken = 0;
            let fault = loop {
                let seq = log.append(std::slice::from_ref(&record));
                let seen = progress
                    .wait_for(|progress| progress.safe >= seq || progress.fault.is_some())
                    .await
                    .unwrap();
                if let Some(fault) = &seen.fault {
                    break fault.clone();
                }
                taken = seq;
                assert!(taken < 100);
            };
            assert!(fault.starts_with("no room left for the store `"), "{fault}");
            running.abort();
            running.await.ok();
            // What was safe is there.
            let db = open(&path).unwrap();
            let mut found = 0;
            let (last, _) = replay(&db, 0, |_| found += 1).unwrap();
            assert_eq!((last, found), (taken, taken));
        });
    }

    #[test]
    fn groups_are_read_as_they_were_written() {
        let record = |name: &'static str, number: u64| Record {
            now_ms: 1_795_219_669_001 + number,
            seed: u64::MAX - number,
            db: 3,
            argv: vec![Bytes::from_static(name.as_bytes()), Bytes::from(vec![0; 300])],
        };
        let groups =
            vec![(1, vec![record("a", 0)]), (2, vec![]), (9, vec![record("b", 1), record("c", 2)])];
        let mut bytes = BytesMut::new();
        for (seq, group) in &groups {
            encode_group(*seq, group, &mut bytes);
        }
        assert_eq!(decode_groups(&bytes).unwrap(), groups);
        for end in 0..bytes.len() {
            // A cut anywhere gives fewer groups or an error, never a panic.
            drop(decode_groups(&bytes[..end]));
        }
    }
}
