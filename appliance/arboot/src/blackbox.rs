//! The black box: a raw ring on a partition of its own, which survives rollback and reset.
//!
//! Block 0 and block 1 (4 KiB each) hold two copies of the header with the machine id; all others hold one record
//! each: its sequence number, its length, a checksum over both and the text, and the text (JSON).  The record with
//! number *n* lies in block `2 + n mod (blocks - 2)`, so nothing but the records themselves says where the newest one
//! is, and no write ever touches a block that holds another record.  A text that does not fit is cut, with a mark.
//!
//! **Invariant:** a record whose `append` returned is read again after any power cut, until the ring has gone round.
//! **Invariant:** a torn or rotten block costs the record in it and no other.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::event::{Event, Record};
use crate::slot::Slot;

/// Bytes of a block.  As large as the largest sector in use, so that one write never tears two records.
pub const BLOCK: usize = 4096;
/// Blocks with copies of the header.
const HEADERS: u64 = 2;
/// Magic, checksum, sequence number, length.
const RECORD_HEADER: usize = 20;
const RECORD_MAGIC: [u8; 4] = *b"ARBR";
const HEADER_MAGIC: [u8; 8] = *b"ARBLKBX1";
/// What stands at the end of a text that was cut.
const CUT: &str = " […]";

/// A store of bytes with a durability barrier: a partition, or a test's simulation of one.
pub trait Disk {
    /// Fills `buf` from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf` at `offset`; durable only after `sync`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Makes every write so far durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes in it.
    fn len(&self) -> io::Result<u64>;
    /// Whether nothing fits into it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Keeps other processes from appending until `unlock`.
    fn lock(&self) -> io::Result<()> {
        Ok(())
    }
    /// Lets the others again.
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        use std::io::Seek;
        // The metadata of a block device says 0.
        let mut file = self;
        file.seek(io::SeekFrom::End(0))
    }

    fn lock(&self) -> io::Result<()> {
        Self::lock(self)
    }

    fn unlock(&self) -> io::Result<()> {
        Self::unlock(self)
    }
}

impl<D: Disk + ?Sized> Disk for &D {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }
    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }
    fn lock(&self) -> io::Result<()> {
        (**self).lock()
    }
    fn unlock(&self) -> io::Result<()> {
        (**self).unlock()
    }
}

/// A step of the black box that failed.
#[derive(Debug, thiserror::Error)]
pub enum BlackBoxError {
    /// It cannot be read.
    #[error("cannot read the black box")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot write the black box")]
    Write(#[source] io::Error),
    /// It has no room for a single record.
    #[error(
        "the black box has {0} bytes, and at least 16384 are needed: enlarge the partition `blackbox`"
    )]
    TooSmall(u64),
    /// No random numbers for a machine id.
    #[error("cannot make a machine id from `/dev/urandom`")]
    Random(#[source] io::Error),
}

/// The black box.
///
/// Several processes may have it open at once; each append looks for what the others appended.
#[derive(Debug)]
pub struct BlackBox<D> {
    disk: D,
    slots: u64,
    /// The next number, once the ring was read.
    next: Cell<Option<u64>>,
}

/// What the header keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    generation: u64,
    machine_id: Option<[u8; 16]>,
}

impl<D: Disk> BlackBox<D> {
    /// Opens it, empty or not, torn or not.
    ///
    /// # Errors
    /// It cannot be read, or is too small for one record.
    pub fn open(disk: D) -> Result<Self, BlackBoxError> {
        let len = disk.len().map_err(BlackBoxError::Read)?;
        let blocks = len / BLOCK as u64;
        if blocks < HEADERS + 2 {
            return Err(BlackBoxError::TooSmall(len));
        }
        Ok(Self { disk, slots: blocks - HEADERS, next: Cell::new(None) })
    }

    /// Every record that can be read, oldest first.
    ///
    /// # Errors
    /// The disk cannot be read at all; a block that cannot be read only costs its record.
    pub fn records(&self) -> Result<Vec<Record>, BlackBoxError> {
        self.scan()
    }

    /// Appends one; it is durable when this returns.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn append(
        &mut self,
        time_ms: u64,
        boot_id: &str,
        event: Event,
    ) -> Result<Record, BlackBoxError> {
        self.disk.lock().map_err(BlackBoxError::Write)?;
        let done = self.append_locked(time_ms, boot_id, event);
        self.disk.unlock().map_err(BlackBoxError::Write)?;
        done
    }

    fn append_locked(
        &mut self,
        time_ms: u64,
        boot_id: &str,
        event: Event,
    ) -> Result<Record, BlackBoxError> {
        let mut seq = match self.next.get() {
            Some(next) => next,
            None => next_after(&self.scan()?),
        };
        // Another process may have appended since.
        while self.read_record(seq).is_some_and(|record| record.seq >= seq) {
            seq += 1;
        }
        let mut record = Record { seq, time_ms, boot_id: boot_id.to_owned(), event };
        let block = encode(&mut record);
        self.disk.write_at(self.offset(seq), &block).map_err(BlackBoxError::Write)?;
        self.disk.sync().map_err(BlackBoxError::Write)?;
        self.next.set(Some(seq + 1));
        Ok(record)
    }

    /// The machine id, 32 hexadecimal digits; made at the first use.
    ///
    /// # Errors
    /// The disk cannot be read or written, or there are no random numbers.
    pub fn machine_id(&mut self) -> Result<String, BlackBoxError> {
        match self.header()?.and_then(|header| header.machine_id) {
            Some(id) => Ok(hex(&id)),
            None => self.new_machine_id(),
        }
    }

    /// The machine id if there is one; writes nothing.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn known_machine_id(&self) -> Result<Option<String>, BlackBoxError> {
        Ok(self.header()?.and_then(|header| header.machine_id).map(|id| hex(&id)))
    }

    /// Makes a new machine id, as a factory reset does.
    ///
    /// # Errors
    /// The disk cannot be read or written, or there are no random numbers.
    pub fn new_machine_id(&mut self) -> Result<String, BlackBoxError> {
        let id = random_id().map_err(BlackBoxError::Random)?;
        let generation = self.header()?.map_or(0, |header| header.generation) + 1;
        let block = encode_header(Header { generation, machine_id: Some(id) });
        // One copy after the other: at every moment one is whole.  The older one goes first.
        for copy in [generation % HEADERS, (generation + 1) % HEADERS] {
            self.disk.write_at(copy * BLOCK as u64, &block).map_err(BlackBoxError::Write)?;
            self.disk.sync().map_err(BlackBoxError::Write)?;
        }
        Ok(hex(&id))
    }

    fn header(&self) -> Result<Option<Header>, BlackBoxError> {
        let mut newest: Option<Header> = None;
        let mut failed = None;
        for copy in 0..HEADERS {
            let mut block = vec![0; BLOCK];
            match self.disk.read_at(copy * BLOCK as u64, &mut block) {
                Ok(()) => {
                    let header = decode_header(&block);
                    if header.is_some_and(|h| newest.is_none_or(|n| h.generation > n.generation)) {
                        newest = header;
                    }
                }
                Err(err) => failed = Some(err),
            }
        }
        match (newest, failed) {
            (None, Some(err)) => Err(BlackBoxError::Read(err)),
            (header, _) => Ok(header),
        }
    }

    fn offset(&self, seq: u64) -> u64 {
        (HEADERS + seq % self.slots) * BLOCK as u64
    }

    fn read_record(&self, seq: u64) -> Option<Record> {
        let mut block = vec![0; BLOCK];
        self.disk.read_at(self.offset(seq), &mut block).ok()?;
        decode(&block)
    }

    fn scan(&self) -> Result<Vec<Record>, BlackBoxError> {
        const CHUNK_BLOCKS: u64 = 64;
        let mut records = Vec::new();
        let mut chunk = vec![0; BLOCK * 64];
        let mut first = 0;
        let mut failed = None;
        let mut read = 0u64;
        while first < self.slots {
            let blocks = CHUNK_BLOCKS.min(self.slots - first);
            let len = usize::try_from(blocks).unwrap_or(0) * BLOCK;
            let part = chunk.get_mut(..len).unwrap_or_default();
            let offset = (HEADERS + first) * BLOCK as u64;
            if self.disk.read_at(offset, part).is_ok() {
                read += blocks;
                records.extend(part.chunks_exact(BLOCK).filter_map(decode));
            } else {
                // One block that cannot be read must not hide its neighbours.
                for (block, at) in part.chunks_exact_mut(BLOCK).zip((offset..).step_by(BLOCK)) {
                    match self.disk.read_at(at, block) {
                        Ok(()) => {
                            read += 1;
                            records.extend(decode(block));
                        }
                        Err(err) => failed = Some(err),
                    }
                }
            }
            first += blocks;
        }
        if let (0, Some(err)) = (read, failed) {
            return Err(BlackBoxError::Read(err));
        }
        records.sort_by_key(|record| record.seq);
        self.next.set(Some(next_after(&records)));
        Ok(records)
    }
}

fn next_after(records: &[Record]) -> u64 {
    records.last().map_or(1, |record| record.seq + 1)
}

fn encode(record: &mut Record) -> Vec<u8> {
    let room = BLOCK - RECORD_HEADER;
    let mut keep = room;
    let text = loop {
        match serde_json::to_vec(record) {
            Ok(text) if text.len() <= room => break text,
            _ if keep < 16 => break Vec::new(),
            // Escapes make a text longer than its letters; so less is kept until it fits.
            _ => {
                keep = keep * 3 / 4;
                cut_texts(&mut record.event, keep);
            }
        }
    };
    let mut block = vec![0; BLOCK];
    let len = u32::try_from(text.len()).unwrap_or(0);
    let parts: [(usize, &[u8]); 4] = [
        (0, &RECORD_MAGIC),
        (8, &record.seq.to_le_bytes()),
        (16, &len.to_le_bytes()),
        (RECORD_HEADER, &text),
    ];
    for (at, part) in parts {
        put(&mut block, at, part);
    }
    let crc = crc32fast::hash(block.get(8..RECORD_HEADER + text.len()).unwrap_or_default());
    put(&mut block, 4, &crc.to_le_bytes());
    block
}

fn decode(block: &[u8]) -> Option<Record> {
    if block.get(..4)? != RECORD_MAGIC {
        return None;
    }
    let crc = u32::from_le_bytes(block.get(4..8)?.try_into().ok()?);
    let seq = u64::from_le_bytes(block.get(8..16)?.try_into().ok()?);
    let len = u32::from_le_bytes(block.get(16..RECORD_HEADER)?.try_into().ok()?);
    let end = RECORD_HEADER.checked_add(usize::try_from(len).ok()?)?;
    if crc32fast::hash(block.get(8..end)?) != crc {
        return None;
    }
    let mut record: Record = serde_json::from_slice(block.get(RECORD_HEADER..end)?).ok()?;
    record.seq = seq;
    Some(record)
}

fn encode_header(header: Header) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    put(&mut block, 0, &HEADER_MAGIC);
    put(&mut block, 8, &header.generation.to_le_bytes());
    put(&mut block, 16, &[u8::from(header.machine_id.is_some())]);
    put(&mut block, 17, &header.machine_id.unwrap_or_default());
    let crc = crc32fast::hash(block.get(..33).unwrap_or_default());
    put(&mut block, 33, &crc.to_le_bytes());
    block
}

fn decode_header(block: &[u8]) -> Option<Header> {
    if block.get(..8)? != HEADER_MAGIC {
        return None;
    }
    let crc = u32::from_le_bytes(block.get(33..37)?.try_into().ok()?);
    if crc32fast::hash(block.get(..33)?) != crc {
        return None;
    }
    let id: [u8; 16] = block.get(17..33)?.try_into().ok()?;
    Some(Header {
        generation: u64::from_le_bytes(block.get(8..16)?.try_into().ok()?),
        machine_id: (*block.get(16)? == 1).then_some(id),
    })
}

fn put(block: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = block.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

/// Cuts every free text of an event to at most `keep` bytes.
fn cut_texts(event: &mut Event, keep: usize) {
    let texts: [Option<&mut String>; 3] = match event {
        Event::Started { entry, version, cause, .. } => {
            [Some(entry), Some(version), cause.as_mut()]
        }
        Event::FirstStageFailed { version, reason, .. } => [Some(version), Some(reason), None],
        Event::ProbeFailed { version, probe, reason, .. } => {
            [Some(version), Some(probe), Some(reason)]
        }
        Event::Confirmed { version, .. } => [Some(version), None, None],
        Event::Chosen { version, by, .. } => [Some(version), Some(by), None],
        Event::MarkedBad { reason, .. } => [Some(reason), None, None],
        Event::Stopping { how } => [Some(how), None, None],
        Event::Panicked { text } | Event::Note { text } => [Some(text), None, None],
        Event::FactoryReset { fingerprint, by } => [Some(fingerprint), Some(by), None],
    };
    for text in texts.into_iter().flatten() {
        if text.len() > keep {
            text.truncate(text.floor_char_boundary(keep.saturating_sub(CUT.len())));
            text.push_str(CUT);
        }
    }
}

fn random_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut id)?;
    // As systemd does it: a UUID of version 4.
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut id;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    Ok(id)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many starts of this slot in a row, up to now, were neither confirmed nor ended in order.
///
/// A new choice of the slot begins anew, as does a confirmation; an orderly end takes its own start out of the count,
/// because nothing failed in it.
pub fn unconfirmed_starts(records: &[Record], slot: Slot) -> u32 {
    let mut count = 0;
    let mut orderly = false;
    for record in records.iter().rev() {
        match &record.event {
            Event::Stopping { .. } => orderly = true,
            Event::Started { slot: started, .. } => {
                if *started != slot {
                    // Another slot ran in between: its end says nothing about this one's starts.
                    orderly = false;
                } else if !std::mem::take(&mut orderly) {
                    count += 1;
                }
            }
            Event::Confirmed { slot: of, .. } | Event::Chosen { slot: of, .. } if *of == slot => {
                break;
            }
            Event::ProbeFailed { slot: of, .. } if *of == slot => orderly = false,
            _ => {}
        }
    }
    count
}

/// Whether the last start is one into the recovery system that somebody asked for.
fn was_asked_for(records: &[Record]) -> bool {
    let started = records.iter().rposition(|r| matches!(r.event, Event::Started { .. }));
    let before = started.and_then(|at| records.get(at.checked_sub(1)?));
    matches!(before.map(|r| &r.event), Some(Event::Stopping { how }) if how == "recovery")
}

/// One sentence that answers why the box does not run in the slot that was chosen last, or why it left it.
///
/// Nothing if it runs where it was told to.
pub fn why(records: &[Record], booted: Slot) -> Option<String> {
    if booted == Slot::Recovery && was_asked_for(records) {
        return None;
    }
    // The newest choice; without one, the slot that was confirmed last before another one started.
    let chosen_at = records.iter().rposition(|r| matches!(&r.event, Event::Chosen { .. }));
    let (slot, version, from) = match chosen_at.and_then(|at| Some((at, &records.get(at)?.event))) {
        Some((at, Event::Chosen { slot, version, .. })) => (*slot, version.clone(), at),
        _ => records.iter().enumerate().rev().find_map(|(at, record)| match &record.event {
            // From the recovery system a box comes back; that needs no reason.
            Event::Started { slot, version, .. } if *slot != booted && *slot != Slot::Recovery => {
                Some((*slot, version.clone(), at))
            }
            _ => None,
        })?,
    };
    if slot == booted {
        return None;
    }
    // What was said of that slot before its first start after the choice is not about this choice.
    let first = match chosen_at {
        Some(_) => from,
        None => records
            .iter()
            .rposition(|r| matches!(&r.event, Event::Confirmed { slot: s, .. } if *s == slot))
            .unwrap_or(0),
    };
    let since = records.get(first..).unwrap_or_default();
    let mut starts = 0u32;
    let mut confirmed = false;
    let mut last: Option<String> = None;
    let mut marked: Option<String> = None;
    let mut running: Option<Slot> = None;
    for record in since {
        match &record.event {
            Event::Started { slot: s, cause, .. } => {
                // What is known only at the next start tells how the one before ended.
                if running == Some(slot)
                    && last.is_none()
                    && let Some(cause @ ("watchdog" | "panic")) = cause.as_deref()
                {
                    last = Some(match cause {
                        "watchdog" => "was ended by the watchdog".to_owned(),
                        _ => "ended in a kernel panic".to_owned(),
                    });
                }
                running = Some(*s);
                if *s == slot {
                    starts += 1;
                    last = None;
                }
            }
            Event::Confirmed { slot: s, .. } if *s == slot => {
                confirmed = true;
                starts = 0;
                last = None;
                marked = None;
            }
            Event::ProbeFailed { slot: s, probe, reason, .. } if *s == slot => {
                last = Some(format!("failed at probe `{probe}`: {reason}"));
            }
            Event::FirstStageFailed { slot: s, reason, .. } if *s == slot => {
                last = Some(format!("failed in the first stage: {reason}"));
            }
            // Written at the start after the panic, by whichever slot that was.
            Event::Panicked { text }
                if starts > 0
                    && last
                        .as_deref()
                        .is_none_or(|last| last.starts_with("ended in a kernel panic")) =>
            {
                last = Some(format!(
                    "ended in a kernel panic: {}",
                    text.lines().next().unwrap_or_default()
                ));
            }
            Event::MarkedBad { slot: s, reason } if *s == slot => marked = Some(reason.clone()),
            _ => {}
        }
    }
    let head = format!("slot {slot} (version {version})");
    Some(match (starts, last, marked) {
        (0, None, Some(reason)) => format!("{head} was left because it was marked bad: {reason}"),
        (0, Some(last), _) => format!("{head} was left; it {last}"),
        (0, None, None) if confirmed => {
            format!("{head} was left after it had been confirmed, and nothing says why")
        }
        (0, None, None) => format!("{head} was chosen and has not been started yet"),
        (1, Some(last), _) => {
            format!("{head} was left after 1 start that was not confirmed; it {last}")
        }
        (1, None, Some(reason)) => {
            format!(
                "{head} was left after 1 start that was not confirmed; it was marked bad: {reason}"
            )
        }
        (1, None, None) => {
            format!(
                "{head} was left after 1 start that was not confirmed; how it ended is not known (power cut or reset)"
            )
        }
        (n, Some(last), _) => {
            format!("{head} was left after {n} starts that were not confirmed; the last one {last}")
        }
        (n, None, Some(reason)) => {
            format!(
                "{head} was left after {n} starts that were not confirmed; it was marked bad: {reason}"
            )
        }
        (n, None, None) => format!(
            "{head} was left after {n} starts that were not confirmed; how the last one ended is not known (power cut or reset)"
        ),
    })
}

#[cfg(test)]
pub(crate) mod tests;
