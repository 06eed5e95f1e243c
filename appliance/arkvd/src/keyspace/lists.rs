//! Lists.  The blocking commands are here as if nobody waited: they answer nothing where there is
//! nothing, and whoever calls decides to wait.

use bytes::Bytes;

use super::call::{Call, Fault, Outcome, index_range};
use crate::number::int;
use crate::resp::Reply;
use crate::value::{End, List, own};

fn push(call: &mut Call<'_>, end: End, only_existing: bool) -> Outcome {
    let (key, items) = (call.arg(1), call.rest(2));
    if call.list(key)?.is_none() && only_existing {
        return Ok(Reply::Int(0));
    }
    let len = call.edit(key, |list: &mut List| {
        for item in items {
            list.push(end, own(item));
        }
        list.len()
    })?;
    call.touch(key);
    Ok(Reply::count(len))
}

pub(crate) fn lpush(call: &mut Call<'_>) -> Outcome {
    push(call, End::Left, false)
}

pub(crate) fn rpush(call: &mut Call<'_>) -> Outcome {
    push(call, End::Right, false)
}

pub(crate) fn lpushx(call: &mut Call<'_>) -> Outcome {
    push(call, End::Left, true)
}

pub(crate) fn rpushx(call: &mut Call<'_>) -> Outcome {
    push(call, End::Right, true)
}

/// Takes up to `count` elements from an end; `None` if there is no such list.
fn take(
    call: &mut Call<'_>,
    key: &Bytes,
    end: End,
    count: usize,
) -> Result<Option<Vec<Bytes>>, Fault> {
    let taken = call.edit_existing(key, |list: &mut List| {
        let count = count.min(list.len());
        (0..count).filter_map(|_| list.pop(end)).collect::<Vec<_>>()
    })?;
    if taken.as_ref().is_some_and(|taken| !taken.is_empty()) {
        call.touch(key);
    }
    Ok(taken)
}

fn pop(call: &mut Call<'_>, end: End) -> Outcome {
    let key = call.arg(1);
    if call.len() > 3 {
        return Err(Fault::Arity);
    }
    if call.len() == 2 {
        let item = take(call, key, end, 1)?.and_then(|mut items| items.pop());
        return Ok(item.map_or(Reply::Null, Reply::Bulk));
    }
    let count = positive(call, 2)?;
    Ok(match take(call, key, end, count)? {
        None => Reply::NullArray,
        Some(items) => Reply::Array(items.into_iter().map(Reply::Bulk).collect()),
    })
}

/// Argument `index` as a count that may not be negative.
pub(super) fn positive(call: &Call<'_>, index: usize) -> Result<usize, Fault> {
    let count = call.int(index).ok().and_then(|count| usize::try_from(count).ok());
    count.ok_or(Fault::text("ERR value is out of range, must be positive"))
}

pub(crate) fn lpop(call: &mut Call<'_>) -> Outcome {
    pop(call, End::Left)
}

pub(crate) fn rpop(call: &mut Call<'_>) -> Outcome {
    pop(call, End::Right)
}

pub(crate) fn llen(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.list(call.arg(1))?.map_or(0, |list| list.len())))
}

/// An index, negative ones counted from the end.
fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(int(len))? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

pub(crate) fn lindex(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.list(key)?.is_none() {
        return Ok(Reply::Null);
    }
    let index = call.int(2)?;
    let item = call
        .list(key)?
        .and_then(|list| place(index, list.len()).and_then(|index| list.items().get(index)));
    Ok(item.map_or(Reply::Null, |item| Reply::Bulk(item.clone())))
}

pub(crate) fn lset(call: &mut Call<'_>) -> Outcome {
    let (key, item) = (call.arg(1), call.arg(3));
    if !call.exists(key) {
        return Err(Fault::NoKey);
    }
    call.list(key)?;
    let index = call.int(2)?;
    let done = call.edit_existing(key, |list: &mut List| {
        place(index, list.len()).is_some_and(|index| list.replace(index, own(item)))
    })?;
    if done != Some(true) {
        return Err(Fault::text("ERR index out of range"));
    }
    call.touch(key);
    Ok(Reply::OK)
}

pub(crate) fn lrange(call: &mut Call<'_>) -> Outcome {
    let (start, end) = (call.int(2)?, call.int(3)?);
    let Some(list) = call.list(call.arg(1))? else { return Ok(Reply::Array(Vec::new())) };
    let Some((from, to)) = index_range(start, end, list.len()) else {
        return Ok(Reply::Array(Vec::new()));
    };
    Ok(Reply::Array(list.items().range(from..to).cloned().map(Reply::Bulk).collect()))
}

pub(crate) fn ltrim(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let (start, end) = (call.int(2)?, call.int(3)?);
    let changed = call.edit_existing(key, |list: &mut List| {
        let (from, to) = index_range(start, end, list.len()).unwrap_or((0, 0));
        let all = from == 0 && to == list.len();
        if !all {
            list.keep(from, to);
        }
        !all
    })?;
    if changed == Some(true) {
        call.touch(key);
    }
    Ok(Reply::OK)
}

pub(crate) fn linsert(call: &mut Call<'_>) -> Outcome {
    let (key, pivot, item) = (call.arg(1), call.arg(3), call.arg(4));
    let after = match call.word(2).as_str() {
        "AFTER" => 1,
        "BEFORE" => 0,
        _ => return Err(Fault::Syntax),
    };
    let Some(list) = call.list(key)? else { return Ok(Reply::Int(0)) };
    let Some(at) = list.items().iter().position(|found| found == pivot) else {
        return Ok(Reply::Int(-1));
    };
    let len = call.edit(key, |list: &mut List| {
        list.insert(at + after, own(item));
        list.len()
    })?;
    call.touch(key);
    Ok(Reply::count(len))
}

pub(crate) fn lrem(call: &mut Call<'_>) -> Outcome {
    let (key, item) = (call.arg(1), call.arg(3));
    let count = call.int(2)?;
    let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let gone = call.edit_existing(key, |list: &mut List| {
        let fits = |(index, found): (usize, &Bytes)| (found == item).then_some(index);
        let all = list.items().iter().enumerate();
        let mut indexes: Vec<usize> = if count < 0 {
            all.rev().filter_map(fits).take(most).collect()
        } else {
            all.filter_map(fits).take(most).collect()
        };
        indexes.sort_unstable();
        list.remove_all(&indexes);
        indexes.len()
    })?;
    let gone = gone.unwrap_or(0);
    if gone > 0 {
        call.touch(key);
    }
    Ok(Reply::count(gone))
}

pub(crate) fn lpos(call: &mut Call<'_>) -> Outcome {
    let (key, item) = (call.arg(1), call.arg(2));
    let (mut rank, mut count, mut most) = (1, None, 0);
    let mut at = 3;
    while at < call.len() {
        if at + 1 >= call.len() {
            return Err(Fault::Syntax);
        }
        match call.word(at).as_str() {
            "RANK" => {
                rank = call.int(at + 1)?;
                if rank == 0 {
                    return Err(Fault::text(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                    ));
                }
                if rank == i64::MIN {
                    return Err(Fault::text(
                        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                    ));
                }
            }
            "COUNT" => {
                let given = usize::try_from(call.int(at + 1)?);
                count = Some(given.map_err(|_| Fault::text("ERR COUNT can't be negative"))?);
            }
            "MAXLEN" => {
                let given = usize::try_from(call.int(at + 1)?);
                most = given.map_err(|_| Fault::text("ERR MAXLEN can't be negative"))?;
            }
            _ => return Err(Fault::Syntax),
        }
        at += 2;
    }
    let nothing = if count.is_some() { Reply::Array(Vec::new()) } else { Reply::Null };
    let Some(list) = call.list(key)? else { return Ok(nothing) };
    let most = if most == 0 { list.len() } else { most };
    let skip = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let fits = |(index, found): (usize, &Bytes)| (found == item).then_some(index);
    let all = list.items().iter().enumerate();
    let found: Vec<usize> = if rank < 0 {
        all.rev().take(most).filter_map(fits).skip(skip).take(wanted).collect()
    } else {
        all.take(most).filter_map(fits).skip(skip).take(wanted).collect()
    };
    Ok(match count {
        Some(_) => Reply::Array(found.into_iter().map(Reply::count).collect()),
        None => found.first().map_or(Reply::Null, |index| Reply::count(*index)),
    })
}

fn end(call: &Call<'_>, index: usize) -> Result<End, Fault> {
    if call.is(index, "LEFT") {
        Ok(End::Left)
    } else if call.is(index, "RIGHT") {
        Ok(End::Right)
    } else {
        Err(Fault::Syntax)
    }
}

/// Moves one element; nothing if there is none.
fn move_item(call: &mut Call<'_>, from_end: End, to_end: End) -> Outcome {
    let (from, to) = (call.arg(1), call.arg(2));
    if call.list(from)?.is_none() {
        return Ok(Reply::Null);
    }
    call.list(to)?;
    if from == to {
        // In one step, so that a list of one element keeps its end of life.
        let item = call.edit(from, |list: &mut List| {
            let item = list.pop(from_end);
            if let Some(item) = &item {
                list.push(to_end, item.clone());
            }
            item
        })?;
        call.touch(from);
        return Ok(item.map_or(Reply::Null, Reply::Bulk));
    }
    let Some(item) = take(call, from, from_end, 1)?.and_then(|mut items| items.pop()) else {
        return Ok(Reply::Null);
    };
    call.edit(to, |list: &mut List| list.push(to_end, item.clone()))?;
    call.touch(to);
    Ok(Reply::Bulk(item))
}

pub(crate) fn lmove(call: &mut Call<'_>) -> Outcome {
    let (from_end, to_end) = (end(call, 3)?, end(call, 4)?);
    move_item(call, from_end, to_end)
}

pub(crate) fn blmove(call: &mut Call<'_>) -> Outcome {
    let (from_end, to_end) = (end(call, 3)?, end(call, 4)?);
    timeout(call.arg(5))?;
    move_item(call, from_end, to_end)
}

pub(crate) fn rpoplpush(call: &mut Call<'_>) -> Outcome {
    move_item(call, End::Right, End::Left)
}

pub(crate) fn brpoplpush(call: &mut Call<'_>) -> Outcome {
    timeout(call.arg(3))?;
    move_item(call, End::Right, End::Left)
}

/// How long a blocking command waits, in milliseconds; 0: for ever.
pub(crate) fn timeout(text: &[u8]) -> Result<u64, Fault> {
    let seconds = crate::number::parse_float(text)
        .filter(|seconds| seconds.is_finite() && seconds.abs() < 9_223_372_036_854_775.0)
        .ok_or(Fault::text("ERR timeout is not a float or out of range"))?;
    let millis = crate::number::truncate((seconds * 1000.0).ceil());
    u64::try_from(millis).map_err(|_| Fault::text("ERR timeout is negative"))
}

fn blocking_pop(call: &mut Call<'_>, end: End) -> Outcome {
    timeout(call.arg(call.len() - 1))?;
    let keys = call.rest(1);
    for key in keys.iter().take(keys.len() - 1) {
        if let Some(item) = take(call, key, end, 1)?.and_then(|mut items| items.pop()) {
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), Reply::Bulk(item)]));
        }
    }
    Ok(Reply::NullArray)
}

pub(crate) fn blpop(call: &mut Call<'_>) -> Outcome {
    blocking_pop(call, End::Left)
}

pub(crate) fn brpop(call: &mut Call<'_>) -> Outcome {
    blocking_pop(call, End::Right)
}

/// Keys counted by argument `at`, and where the options after them begin.
pub(super) fn counted_keys<'a>(call: &Call<'a>, at: usize) -> Result<(&'a [Bytes], usize), Fault> {
    let count = call.int(at).ok().and_then(|count| usize::try_from(count).ok());
    let count = count
        .filter(|count| *count > 0)
        .ok_or(Fault::text("ERR numkeys should be greater than 0"))?;
    let end = count.saturating_add(at + 1);
    let keys = call.rest(at + 1).get(..count).ok_or(Fault::Syntax)?;
    Ok((keys, end))
}

/// The option `COUNT n` at argument `at`, the last one there may be.
pub(super) fn pop_count(call: &Call<'_>, at: usize) -> Result<usize, Fault> {
    if call.len() == at {
        return Ok(1);
    }
    if !call.is(at, "COUNT") || call.len() != at + 2 {
        return Err(Fault::Syntax);
    }
    let count = call.int(at + 1).ok().and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count > 0).ok_or(Fault::text("ERR count should be greater than 0"))
}

fn pop_from_many(call: &mut Call<'_>, at: usize) -> Outcome {
    let (keys, after) = counted_keys(call, at)?;
    let end = end(call, after)?;
    let count = pop_count(call, after + 1)?;
    for key in keys {
        let items = take(call, key, end, count)?.unwrap_or_default();
        if !items.is_empty() {
            let items = items.into_iter().map(Reply::Bulk).collect();
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), Reply::Array(items)]));
        }
    }
    Ok(Reply::NullArray)
}

pub(crate) fn lmpop(call: &mut Call<'_>) -> Outcome {
    pop_from_many(call, 1)
}

pub(crate) fn blmpop(call: &mut Call<'_>) -> Outcome {
    timeout(call.arg(1))?;
    pop_from_many(call, 2)
}
