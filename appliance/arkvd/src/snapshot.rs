//! The whole keyspace as one file, so that the log need not be read from its beginning.
//!
//! A file is written beside the old one, brought to disk, and then takes its name: whatever dies
//! when, there is one whole snapshot.  It ends with a checksum; a damaged one is refused, never
//! half used.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::journal::{NoRecords, Reader, Seq, put_bytes, put_number, size};
use crate::keyspace::{Db, Keyspace};
use crate::value::{Collection as _, End, Hash, List, Set, Sorted, Value};

/// The first bytes of the file; the digit is the version of the form.
const MAGIC: &[u8; 8] = b"ARKVD\x00\x001";
const FILE: &str = "snapshot.arkvd";
const END: u8 = 0xff;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be written; the one before is still there.
    #[error("cannot write the snapshot `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be read.
    #[error("cannot read the snapshot `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no snapshot, or not what was written.
    #[error("the snapshot `{}` is damaged; restore a backup of the folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Writes the databases as they were after group `seq`.  Blocks.
pub(crate) fn write(dir: &Path, seq: Seq, dbs: &[Db]) -> Result<(), SnapshotError> {
    let path = dir.join(FILE);
    let temp = dir.join(".snapshot.new");
    let write = || -> std::io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        let mut sum = crc32fast::Hasher::new();
        let mut chunk = BytesMut::new();
        let mut send = |chunk: &mut BytesMut| {
            sum.update(chunk);
            let written = out.write_all(chunk);
            chunk.clear();
            written
        };
        chunk.put_slice(MAGIC);
        put_number(&mut chunk, seq);
        for (index, db) in dbs.iter().enumerate() {
            for (key, entry) in &db.entries {
                chunk.put_u8(u8::try_from(index).unwrap_or(END - 1));
                put_number(&mut chunk, entry.expires_ms);
                put_bytes(&mut chunk, key);
                put_value(&mut chunk, &entry.value);
                if chunk.len() >= 64 * 1024 {
                    send(&mut chunk)?;
                }
            }
        }
        chunk.put_u8(END);
        send(&mut chunk)?;
        out.write_all(&sum.finalize().to_le_bytes())?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&temp, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| SnapshotError::Write { path, source })
}

/// Reads the snapshot of a folder into an empty keyspace; gives the group it was made after, 0 if
/// there is none.  Blocks.
pub(crate) fn read(dir: &Path, keyspace: &mut Keyspace) -> Result<Seq, SnapshotError> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(SnapshotError::Read { path, source }),
    };
    let mut bytes = Vec::new();
    BufReader::new(file)
        .read_to_end(&mut bytes)
        .map_err(|source| SnapshotError::Read { path: path.clone(), source })?;
    let seq = decode(&bytes, |db, key, expires_ms, value| {
        keyspace.restore(db, key, value, expires_ms);
    });
    seq.map_err(|NoRecords| SnapshotError::Damaged { path })
}

fn decode(
    bytes: &[u8],
    mut restore: impl FnMut(usize, Bytes, u64, Value),
) -> Result<Seq, NoRecords> {
    let (content, mut sum) =
        bytes.split_last_chunk::<4>().map(|(c, s)| (c, &s[..])).ok_or(NoRecords)?;
    if crc32fast::hash(content) != sum.get_u32_le() {
        return Err(NoRecords);
    }
    let mut reader = Reader(content.strip_prefix(MAGIC).ok_or(NoRecords)?);
    let seq = reader.number()?;
    loop {
        let db = reader.byte()?;
        if db == END {
            return if reader.0.is_empty() { Ok(seq) } else { Err(NoRecords) };
        }
        let expires_ms = reader.number()?;
        let key = reader.bytes()?;
        let value = value(&mut reader)?;
        restore(usize::from(db), key, expires_ms, value);
    }
}

fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Text(text) => {
            out.put_u8(0);
            put_bytes(out, text);
        }
        Value::List(list) => {
            out.put_u8(1);
            put_number(out, size(list.len()));
            for item in list.items() {
                put_bytes(out, item);
            }
        }
        Value::Hash(hash) => {
            out.put_u8(2);
            put_number(out, size(hash.len()));
            for (field, value) in hash.fields() {
                put_bytes(out, field);
                put_bytes(out, value);
            }
        }
        Value::Set(set) => {
            out.put_u8(3);
            put_number(out, size(set.len()));
            for member in set.members() {
                put_bytes(out, member);
            }
        }
        Value::Sorted(sorted) => {
            out.put_u8(4);
            put_number(out, size(sorted.len()));
            for (member, score) in sorted.scores() {
                put_bytes(out, member);
                out.put_u64_le(score.to_bits());
            }
        }
    }
}

fn value(reader: &mut Reader<'_>) -> Result<Value, NoRecords> {
    Ok(match reader.byte()? {
        0 => Value::Text(reader.bytes()?),
        1 => {
            let mut list = List::default();
            for _ in 0..reader.len()? {
                list.push(End::Right, reader.bytes()?);
            }
            list.into_value()
        }
        2 => {
            let mut hash = Hash::default();
            for _ in 0..reader.len()? {
                let field = reader.bytes()?;
                hash.set(&field, &reader.bytes()?);
            }
            hash.into_value()
        }
        3 => {
            let mut set = Set::default();
            for _ in 0..reader.len()? {
                set.add(&reader.bytes()?);
            }
            set.into_value()
        }
        4 => {
            let mut sorted = Sorted::default();
            for _ in 0..reader.len()? {
                let member = reader.bytes()?;
                let (bits, rest) = reader.0.split_first_chunk::<8>().ok_or(NoRecords)?;
                reader.0 = rest;
                sorted.set(&member, f64::from_bits(u64::from_le_bytes(*bits)));
            }
            sorted.into_value()
        }
        _ => return Err(NoRecords),
    })
}
