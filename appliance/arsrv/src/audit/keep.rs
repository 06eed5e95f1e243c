//! Messages on disk: at most so many of each channel and way, and at most so many bytes of all.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use arapi::messages::{Direction, Message, MessagePage, MessageQuery};
use arapi::names::ObjectName;
use arstore::{Check, Database, OpenError, Options, Schema, StoreError, Tx, Value, params};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The table of messages.  `head` is a [`Message`] without its body; `bytes` what the row takes.
pub const SCHEMA: Schema = Schema {
    name: "messages",
    migrations: &["
CREATE TABLE message (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    channel  TEXT NOT NULL,
    received INTEGER NOT NULL,
    cid      TEXT NOT NULL,
    head     TEXT NOT NULL,
    body     BLOB,
    bytes    INTEGER NOT NULL
) STRICT;
CREATE INDEX message_channel ON message (channel, received, seq);
CREATE TABLE total (bytes INTEGER NOT NULL) STRICT;
INSERT INTO total VALUES (0);
"],
};

/// What a row takes beside its texts.
const OVERHEAD: usize = 200;

/// A message as it goes to disk.
#[derive(Debug)]
pub(super) struct Ready {
    /// Everything but the body.
    pub(super) head: Message,
    /// The body, cut and masked.
    pub(super) body: Option<Vec<u8>>,
    /// How many of the kind are kept.
    pub(super) most: u32,
}

/// Opens or makes the file.
pub(super) fn open(path: &Path, most_bytes: u64) -> Result<Database, OpenError> {
    // Rows are counted as they come; the file may be larger by its index and by what is free in it.
    let max_bytes = most_bytes.saturating_mul(2).max(16 * 1024 * 1024);
    let options = Options { readers: 1, check: Check::Quick, max_bytes: Some(max_bytes) };
    Database::open_with(path, &SCHEMA, &options)
}

/// Writes messages down, and removes what they push out.
pub(super) async fn append(
    database: &Database,
    ready: Vec<Ready>,
    most_bytes: u64,
) -> Result<(), StoreError> {
    database
        .transaction(move |tx| {
            let mut grown = 0_u64;
            let mut touched = BTreeMap::new();
            for Ready { head, body, most } in &ready {
                let received = head.direction == Direction::Received;
                let text = serde_json::to_string(head).unwrap_or_default();
                let bytes = text.len() + body.as_ref().map_or(0, Vec::len) + OVERHEAD;
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                tx.execute(
                    "INSERT INTO message (channel, received, cid, head, body, bytes)
                     VALUES (?, ?, ?, ?, ?, ?)",
                    params![
                        head.channel.as_str(),
                        received,
                        &head.cid,
                        &text,
                        body.as_ref(),
                        bytes
                    ],
                )?;
                grown += bytes;
                touched.insert((head.channel.as_str(), received), *most);
            }
            let mut shrunk = 0;
            for ((channel, received), most) in touched {
                shrunk += removed(
                    tx,
                    "DELETE FROM message WHERE channel = ?1 AND received = ?2 AND seq <= (
                         SELECT seq FROM message WHERE channel = ?1 AND received = ?2
                         ORDER BY seq DESC LIMIT 1 OFFSET ?3)
                     RETURNING bytes",
                    params![channel, received, most],
                )?;
            }
            let mut total = total(tx)?.saturating_add(grown).saturating_sub(shrunk);
            while total > most_bytes {
                let oldest: Vec<(u64, u64)> = tx.query_rows(
                    "SELECT seq, bytes FROM message ORDER BY seq LIMIT 256",
                    params![],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                let Some((mut last, _)) = oldest.first().copied() else {
                    total = 0;
                    break;
                };
                for (seq, bytes) in oldest {
                    if total <= most_bytes {
                        break;
                    }
                    total = total.saturating_sub(bytes);
                    last = seq;
                }
                tx.execute("DELETE FROM message WHERE seq <= ?", params![last])?;
            }
            tx.execute("UPDATE total SET bytes = ?", params![total]).map(drop)
        })
        .await
}

fn total(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.query_row("SELECT bytes FROM total", params![], |row| row.get(0))?.unwrap_or(0))
}

/// Removes rows; says how many bytes they took.
fn removed(tx: &Tx<'_>, sql: &str, given: &[Value<'_>]) -> Result<u64, StoreError> {
    let rows: Vec<u64> = tx.query_rows(sql, given, |row| row.get(0))?;
    Ok(rows.into_iter().sum())
}

/// Removes the messages of all channels but these.
pub(super) async fn leave(
    database: &Database,
    channels: HashSet<ObjectName>,
) -> Result<(), StoreError> {
    database
        .transaction(move |tx| {
            let known: Vec<String> =
                tx.query_rows("SELECT DISTINCT channel FROM message", params![], |row| row.get(0))?;
            let gone = known
                .iter()
                .filter(|name| !ObjectName::parse(name).is_ok_and(|name| channels.contains(&name)));
            let mut total = total(tx)?;
            for name in gone {
                let sql = "DELETE FROM message WHERE channel = ? RETURNING bytes";
                total = total.saturating_sub(removed(tx, sql, params![name])?);
            }
            tx.execute("UPDATE total SET bytes = ?", params![total]).map(drop)
        })
        .await
}

/// Messages of a channel, newest first.
pub(super) async fn page(
    database: &Database,
    channel: String,
    query: MessageQuery,
    most: u32,
) -> Result<MessagePage, StoreError> {
    database
        .read(move |view| {
            let mut sql = "SELECT seq, head, body FROM message WHERE channel = ?".to_owned();
            let mut given = vec![Value::from(&channel)];
            let parts: [(&str, Option<Value<'_>>); 3] = [
                (
                    " AND received = ?",
                    query.direction.map(|way| Value::from(way == Direction::Received)),
                ),
                (" AND cid = ?", query.cid.as_ref().map(Value::from)),
                (" AND seq < ?", query.before.map(Value::from)),
            ];
            for (part, value) in parts {
                if let Some(value) = value {
                    sql.push_str(part);
                    given.push(value);
                }
            }
            sql.push_str(" ORDER BY seq DESC LIMIT ?");
            given.push(Value::from(most));
            let mut last = None;
            let mut count = 0;
            let rows = view.query_rows(&sql, &given, |row| {
                let (seq, head): (u64, String) = (row.get(0)?, row.get(1)?);
                let body: Option<Vec<u8>> = row.get(2)?;
                (last, count) = (Some(seq), count + 1);
                // What a later release wrote and this one cannot read is passed over.
                Ok(serde_json::from_str::<Message>(&head).ok().map(|mut message| {
                    message.seq = seq;
                    match body.map(String::from_utf8) {
                        None => {}
                        Some(Ok(text)) => message.body = Some(text),
                        Some(Err(err)) => {
                            message.body_base64 = Some(BASE64_STANDARD.encode(err.as_bytes()));
                        }
                    }
                    message
                }))
            })?;
            let next = last.filter(|_| count == most);
            Ok(MessagePage { messages: rows.into_iter().flatten().collect(), next })
        })
        .await
}
