//! Keys, whatever they hold: their names, ends and databases.

use bytes::Bytes;

use super::DATABASES;
use super::call::{Call, Fault, Outcome};
use super::scan;
use super::strings::EndForm;
use crate::glob;
use crate::number::parse_int;
use crate::resp::Reply;
use crate::value::Value;

pub(crate) fn del(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.rest(1).iter().filter(|key| call.remove(key)).count()))
}

pub(crate) fn exists(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.rest(1).iter().filter(|key| call.value(key).is_some()).count()))
}

pub(crate) fn expire(call: &mut Call<'_>) -> Outcome {
    set_end(call, EndForm::InSeconds)
}

pub(crate) fn pexpire(call: &mut Call<'_>) -> Outcome {
    set_end(call, EndForm::InMillis)
}

pub(crate) fn expireat(call: &mut Call<'_>) -> Outcome {
    set_end(call, EndForm::AtSeconds)
}

pub(crate) fn pexpireat(call: &mut Call<'_>) -> Outcome {
    set_end(call, EndForm::AtMillis)
}

fn set_end(call: &mut Call<'_>, form: EndForm) -> Outcome {
    let key = call.arg(1);
    let (mut none, mut some, mut later, mut sooner) = (false, false, false, false);
    for index in 3..call.len() {
        match call.word(index).as_str() {
            "NX" => none = true,
            "XX" => some = true,
            "GT" => later = true,
            "LT" => sooner = true,
            _ => {
                let option = String::from_utf8_lossy(call.arg(index)).into_owned();
                return Err(Fault::Text(format!("ERR Unsupported option {option}").into()));
            }
        }
    }
    if none && (some || later || sooner) {
        return Err(Fault::text(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if later && sooner {
        return Err(Fault::text("ERR GT and LT options at the same time are not compatible"));
    }
    let moment = form.moment(call.int(2)?, call.now_ms).ok_or(Fault::ExpireTime)?;
    let Some(old) = call.entry(key).map(|entry| entry.expires_ms) else {
        return Ok(Reply::Int(0));
    };
    let new = u64::try_from(moment).unwrap_or(0);
    // Without an end a key lasts for ever: nothing is later, everything is sooner.
    let refused = (none && old != 0)
        || (some && old == 0)
        || (later && (old == 0 || new <= old))
        || (sooner && old != 0 && new >= old);
    if refused {
        return Ok(Reply::Int(0));
    }
    if new <= call.now_ms {
        call.remove(key);
    } else {
        call.set_end(key, new);
    }
    Ok(Reply::Int(1))
}

/// What is known of a key's end.
fn end_of(call: &Call<'_>, known: impl FnOnce(u64) -> u64) -> Outcome {
    let answer = match call.entry(call.arg(1)).map(|entry| entry.expires_ms) {
        None => -2,
        Some(0) => -1,
        Some(end) => i64::try_from(known(end)).unwrap_or(i64::MAX),
    };
    Ok(Reply::Int(answer))
}

pub(crate) fn ttl(call: &mut Call<'_>) -> Outcome {
    let now_ms = call.now_ms;
    end_of(call, |end| (end.saturating_sub(now_ms) + 500) / 1000)
}

pub(crate) fn pttl(call: &mut Call<'_>) -> Outcome {
    let now_ms = call.now_ms;
    end_of(call, |end| end.saturating_sub(now_ms))
}

pub(crate) fn expiretime(call: &mut Call<'_>) -> Outcome {
    end_of(call, |end| (end + 500) / 1000)
}

pub(crate) fn pexpiretime(call: &mut Call<'_>) -> Outcome {
    end_of(call, |end| end)
}

pub(crate) fn persist(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.entry(key).is_none_or(|entry| entry.expires_ms == 0) {
        return Ok(Reply::Int(0));
    }
    call.set_end(key, 0);
    Ok(Reply::Int(1))
}

pub(crate) fn type_of(call: &mut Call<'_>) -> Outcome {
    let name = call.entry(call.arg(1)).map_or("none", |entry| entry.value.type_name());
    Ok(Reply::Status(name.into()))
}

pub(crate) fn keys(call: &mut Call<'_>) -> Outcome {
    let (pattern, now_ms) = (call.arg(1), call.now_ms);
    let Some(db) = call.database() else { return Ok(Reply::Array(Vec::new())) };
    let found = db
        .entries
        .iter()
        .filter(|(key, entry)| !entry.is_over(now_ms) && glob::matches(pattern, key))
        .map(|(key, _)| Reply::Bulk(key.clone()));
    Ok(Reply::Array(found.collect()))
}

pub(crate) fn scan(call: &mut Call<'_>) -> Outcome {
    let cursor = scan::cursor(call.arg(1))?;
    let options = scan::Options::parse(call, 2)?;
    let now_ms = call.now_ms;
    let Some(db) = call.database() else { return Ok(scan::nothing()) };
    let mut found = Vec::new();
    let next = scan::pass(db.entries.len(), cursor, options.count, |index| {
        let Some((key, entry)) = db.entries.get_index(index) else { return };
        let type_fits = options
            .type_name
            .is_none_or(|name| entry.value.type_name().as_bytes().eq_ignore_ascii_case(name));
        if !entry.is_over(now_ms) && type_fits && options.fits(key) {
            found.push(Reply::Bulk(key.clone()));
        }
    });
    Ok(scan::answer(next, found))
}

pub(crate) fn randomkey(call: &mut Call<'_>) -> Outcome {
    let len = call.database().map_or(0, |db| db.entries.len());
    if len == 0 {
        return Ok(Reply::Null);
    }
    let start = call.random_below(len);
    let now_ms = call.now_ms;
    let Some(db) = call.database() else { return Ok(Reply::Null) };
    let from_start = (start..len).chain(0..start);
    let key = from_start
        .filter_map(|index| db.entries.get_index(index))
        .find(|(_, entry)| !entry.is_over(now_ms));
    Ok(key.map_or(Reply::Null, |(key, _)| Reply::Bulk(key.clone())))
}

pub(crate) fn rename(call: &mut Call<'_>) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    if !call.exists(from) {
        return Err(Fault::NoKey);
    }
    if from != to {
        move_key(call, from, to);
    }
    Ok(Reply::OK)
}

pub(crate) fn renamenx(call: &mut Call<'_>) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    if !call.exists(from) {
        return Err(Fault::NoKey);
    }
    if call.exists(to) {
        return Ok(Reply::Int(0));
    }
    move_key(call, from, to);
    Ok(Reply::Int(1))
}

fn move_key(call: &mut Call<'_>, from: &Bytes, to: &Bytes) {
    if let Some(entry) = call.remove_in(call.db, from) {
        call.put_in(call.db, to, entry.value, entry.expires_ms);
    }
}

/// Argument `index` as a number of a database.
fn database(call: &Call<'_>, index: usize) -> Result<usize, Fault> {
    let number = usize::try_from(call.int(index)?).ok().filter(|number| *number < DATABASES);
    number.ok_or(Fault::text("ERR DB index is out of range"))
}

pub(crate) fn copy(call: &mut Call<'_>) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    let (mut target, mut replace) = (call.db, false);
    let mut at = 3;
    while at < call.len() {
        match call.word(at).as_str() {
            "REPLACE" => replace = true,
            "DB" if at + 1 < call.len() => {
                at += 1;
                target = database(call, at)?;
            }
            _ => return Err(Fault::Syntax),
        }
        at += 1;
    }
    if from == to && target == call.db {
        return Err(Fault::text("ERR source and destination objects are the same"));
    }
    let Some(entry) = call.entry(from) else { return Ok(Reply::Int(0)) };
    let (value, expires_ms, memory) = (entry.value.clone(), entry.expires_ms, entry.value.memory());
    if call.entry_in(target, to).is_some() && !replace {
        return Ok(Reply::Int(0));
    }
    call.check_growth(memory)?;
    call.put_in(target, to, value, expires_ms);
    Ok(Reply::Int(1))
}

pub(crate) fn move_to(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let target = database(call, 2)?;
    if target == call.db {
        return Err(Fault::text("ERR source and destination objects are the same"));
    }
    if !call.exists(key) || call.entry_in(target, key).is_some() {
        return Ok(Reply::Int(0));
    }
    if let Some(entry) = call.remove_in(call.db, key) {
        call.put_in(target, key, entry.value, entry.expires_ms);
    }
    Ok(Reply::Int(1))
}

pub(crate) fn swapdb(call: &mut Call<'_>) -> Outcome {
    let one = parse_int(call.arg(1)).ok_or(Fault::text("ERR invalid first DB index"))?;
    let other = parse_int(call.arg(2)).ok_or(Fault::text("ERR invalid second DB index"))?;
    let known = |number: i64| usize::try_from(number).ok().filter(|number| *number < DATABASES);
    let (Some(one), Some(other)) = (known(one), known(other)) else {
        return Err(Fault::text("ERR DB index is out of range"));
    };
    if one != other {
        call.swap(one, other);
    }
    Ok(Reply::OK)
}

fn flush_mode(call: &Call<'_>) -> Result<(), Fault> {
    match call.len() {
        1 => Ok(()),
        2 if call.is(1, "ASYNC") || call.is(1, "SYNC") => Ok(()),
        _ => Err(Fault::Syntax),
    }
}

pub(crate) fn flushdb(call: &mut Call<'_>) -> Outcome {
    flush_mode(call)?;
    call.clear(call.db);
    Ok(Reply::OK)
}

pub(crate) fn flushall(call: &mut Call<'_>) -> Outcome {
    flush_mode(call)?;
    for db in 0..DATABASES {
        call.clear(db);
    }
    Ok(Reply::OK)
}

pub(crate) fn dbsize(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.database().map_or(0, |db| db.entries.len())))
}

/// The encodings of Redis, for clients that ask; nothing is kept that way here.
pub(crate) fn object(call: &mut Call<'_>) -> Outcome {
    let what = call.word(1);
    if !matches!(what.as_str(), "ENCODING" | "IDLETIME" | "REFCOUNT" | "FREQ") {
        let given = String::from_utf8_lossy(call.arg(1)).into_owned();
        return Err(Fault::Text(
            format!("ERR unknown subcommand '{given}'. Try OBJECT HELP.").into(),
        ));
    }
    if call.len() != 3 {
        let what = what.to_ascii_lowercase();
        return Err(Fault::Text(
            format!("ERR wrong number of arguments for 'object|{what}' command").into(),
        ));
    }
    let now_ms = call.now_ms;
    let Some(entry) = call.entry(call.arg(2)) else { return Ok(Reply::Null) };
    Ok(match what.as_str() {
        "ENCODING" => Reply::fixed(encoding(&entry.value)),
        "IDLETIME" => {
            let idle = now_ms.saturating_sub(entry.used_ms) / 1000;
            Reply::Int(i64::try_from(idle).unwrap_or(i64::MAX))
        }
        "REFCOUNT" => Reply::Int(1),
        _ => {
            return Err(Fault::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    })
}

fn encoding(value: &Value) -> &'static str {
    /// Redis keeps up to this many elements, of up to 64 bytes, as one block.
    const SMALL: usize = 128;
    let short = |bytes: &Bytes| bytes.len() <= 64;
    match value {
        Value::Text(text) if parse_int(text).is_some() => "int",
        Value::Text(text) if text.len() <= 44 => "embstr",
        Value::Text(_) => "raw",
        Value::List(_) => "quicklist",
        Value::Hash(hash) => {
            let small = hash.len() <= SMALL
                && hash.fields().iter().all(|(field, value)| short(field) && short(value));
            if small { "listpack" } else { "hashtable" }
        }
        Value::Set(set) => {
            let numbers = set.len() <= 512 && set.members().iter().all(|m| parse_int(m).is_some());
            if numbers { "intset" } else { "hashtable" }
        }
        Value::Sorted(sorted) => {
            let small = sorted.len() <= SMALL && sorted.scores().keys().all(short);
            if small { "listpack" } else { "skiplist" }
        }
    }
}

pub(crate) fn memory(call: &mut Call<'_>) -> Outcome {
    if !call.is(1, "USAGE") || !matches!(call.len(), 3 | 5) {
        return Err(Fault::text(
            "ERR unknown subcommand or wrong number of arguments for 'memory'; only MEMORY USAGE <key> is served",
        ));
    }
    Ok(call.memory_of(call.arg(2)).map_or(Reply::Null, Reply::count))
}
