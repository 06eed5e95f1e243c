//! Sets.

use std::sync::Arc;

use bytes::Bytes;

use super::call::{Call, Fault, Outcome};
use super::lists::{counted_keys, positive};
use super::scan;
use crate::resp::Reply;
use crate::value::{Collection as _, Set};

pub(crate) fn sadd(call: &mut Call<'_>) -> Outcome {
    let (key, members) = (call.arg(1), call.rest(2));
    let new =
        call.edit(key, |set: &mut Set| members.iter().filter(|member| set.add(member)).count())?;
    if new > 0 {
        call.touch(key);
    }
    Ok(Reply::count(new))
}

pub(crate) fn srem(call: &mut Call<'_>) -> Outcome {
    let (key, members) = (call.arg(1), call.rest(2));
    let gone = call.edit_existing(key, |set: &mut Set| {
        members.iter().filter(|member| set.remove(member)).count()
    })?;
    let gone = gone.unwrap_or(0);
    if gone > 0 {
        call.touch(key);
    }
    Ok(Reply::count(gone))
}

pub(crate) fn sismember(call: &mut Call<'_>) -> Outcome {
    let member = call.arg(2);
    let set = call.set(call.arg(1))?;
    Ok(Reply::Int(i64::from(set.is_some_and(|set| set.contains(member)))))
}

pub(crate) fn smismember(call: &mut Call<'_>) -> Outcome {
    let members = call.rest(2);
    let set = call.set(call.arg(1))?;
    let answers = members
        .iter()
        .map(|member| Reply::Int(i64::from(set.is_some_and(|set| set.contains(member)))));
    Ok(Reply::Array(answers.collect()))
}

pub(crate) fn scard(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.set(call.arg(1))?.map_or(0, |set| set.len())))
}

fn all(members: impl IntoIterator<Item = Bytes>) -> Reply {
    Reply::Set(members.into_iter().map(Reply::Bulk).collect())
}

pub(crate) fn smembers(call: &mut Call<'_>) -> Outcome {
    let set = call.set(call.arg(1))?;
    Ok(all(set.into_iter().flat_map(|set| set.members().iter().cloned())))
}

pub(crate) fn spop(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.len() > 3 {
        return Err(Fault::Syntax);
    }
    let count = if call.len() == 3 { Some(positive(call, 2)?) } else { None };
    let Some(len) = call.set(key)?.map(|set| set.len()) else {
        return Ok(if count.is_some() { Reply::Set(Vec::new()) } else { Reply::Null });
    };
    let wanted = count.unwrap_or(1).min(len);
    let picks: Vec<usize> = (0..wanted).map(|taken| call.random_below(len - taken)).collect();
    let taken = call.edit(key, |set: &mut Set| {
        picks.into_iter().filter_map(|index| set.take(index)).collect::<Vec<_>>()
    })?;
    if !taken.is_empty() {
        call.touch(key);
    }
    Ok(match count {
        Some(_) => all(taken),
        None => taken.into_iter().next().map_or(Reply::Null, Reply::Bulk),
    })
}

pub(crate) fn srandmember(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.len() > 3 {
        return Err(Fault::Syntax);
    }
    if call.len() == 2 {
        let Some(len) = call.set(key)?.map(|set| set.len()) else { return Ok(Reply::Null) };
        let index = call.random_below(len);
        let member = call.set(key)?.and_then(|set| set.members().get_index(index));
        return Ok(member.map_or(Reply::Null, |member| Reply::Bulk(member.clone())));
    }
    let count = call.int(2)?;
    let Some(set) = call.set(key)?.cloned() else { return Ok(Reply::Array(Vec::new())) };
    let picked = scan::pick(call, set.len(), count)?;
    let members = picked.into_iter().filter_map(|index| set.members().get_index(index).cloned());
    Ok(Reply::Array(members.map(Reply::Bulk).collect()))
}

pub(crate) fn smove(call: &mut Call<'_>) -> Outcome {
    let (from, to, member) = (call.arg(1), call.arg(2), call.arg(3));
    if call.set(from)?.is_none() {
        return Ok(Reply::Int(0));
    }
    call.set(to)?;
    if !call.set(from)?.is_some_and(|set| set.contains(member)) {
        return Ok(Reply::Int(0));
    }
    if from == to {
        return Ok(Reply::Int(1));
    }
    call.edit(from, |set: &mut Set| set.remove(member))?;
    call.edit(to, |set: &mut Set| set.add(member))?;
    call.touch(from);
    call.touch(to);
    Ok(Reply::Int(1))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Inter,
    Union,
    Diff,
}

fn combine(call: &mut Call<'_>, keys: &[Bytes], operation: Operation) -> Result<Set, Fault> {
    let mut sets: Vec<Option<Arc<Set>>> = Vec::with_capacity(keys.len());
    for key in keys {
        sets.push(call.set(key)?.cloned());
    }
    let mut result = Set::default();
    let mut first = sets.iter();
    let start = first.next().and_then(Option::as_ref);
    match operation {
        Operation::Union => {
            for member in sets.iter().flatten().flat_map(|set| set.members()) {
                result.add(member);
            }
        }
        Operation::Inter => {
            let smallest = sets.iter().map(Option::as_ref).collect::<Option<Vec<_>>>();
            let Some(sets) = smallest else { return Ok(result) };
            let Some(smallest) = sets.iter().min_by_key(|set| set.len()) else {
                return Ok(result);
            };
            let in_all = |member: &&Bytes| sets.iter().all(|set| set.contains(member));
            for member in smallest.members().iter().filter(in_all) {
                result.add(member);
            }
        }
        Operation::Diff => {
            let others: Vec<&Arc<Set>> = first.flatten().collect();
            let in_none = |member: &&Bytes| !others.iter().any(|set| set.contains(member));
            for member in start.into_iter().flat_map(|set| set.members()).filter(in_none) {
                result.add(member);
            }
        }
    }
    Ok(result)
}

fn answer(call: &mut Call<'_>, operation: Operation) -> Outcome {
    let result = combine(call, call.rest(1), operation)?;
    Ok(all(result.members().iter().cloned()))
}

fn store(call: &mut Call<'_>, operation: Operation) -> Outcome {
    let target = call.arg(1);
    let result = combine(call, call.rest(2), operation)?;
    let len = result.len();
    if len == 0 {
        call.remove(target);
    } else {
        call.put(target, result.into_value());
    }
    Ok(Reply::count(len))
}

pub(crate) fn sinter(call: &mut Call<'_>) -> Outcome {
    answer(call, Operation::Inter)
}

pub(crate) fn sunion(call: &mut Call<'_>) -> Outcome {
    answer(call, Operation::Union)
}

pub(crate) fn sdiff(call: &mut Call<'_>) -> Outcome {
    answer(call, Operation::Diff)
}

pub(crate) fn sinterstore(call: &mut Call<'_>) -> Outcome {
    store(call, Operation::Inter)
}

pub(crate) fn sunionstore(call: &mut Call<'_>) -> Outcome {
    store(call, Operation::Union)
}

pub(crate) fn sdiffstore(call: &mut Call<'_>) -> Outcome {
    store(call, Operation::Diff)
}

/// The option `LIMIT n` of the counting commands; 0: none.
pub(super) fn count_limit(call: &Call<'_>, at: usize) -> Result<usize, Fault> {
    if call.len() == at {
        return Ok(0);
    }
    if !call.is(at, "LIMIT") || call.len() != at + 2 {
        return Err(Fault::Syntax);
    }
    let limit = call.int(at + 1).ok().and_then(|limit| usize::try_from(limit).ok());
    limit.ok_or(Fault::text("ERR LIMIT can't be negative"))
}

pub(super) fn cut(count: usize, limit: usize) -> Reply {
    Reply::count(if limit == 0 { count } else { count.min(limit) })
}

pub(crate) fn sintercard(call: &mut Call<'_>) -> Outcome {
    if call.rest(2).len() < call.int(1).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0) {
        return Err(Fault::text("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, after) = counted_keys(call, 1)?;
    let limit = count_limit(call, after)?;
    let count = combine(call, keys, Operation::Inter)?.len();
    Ok(cut(count, limit))
}

pub(crate) fn sscan(call: &mut Call<'_>) -> Outcome {
    let cursor = scan::cursor(call.arg(2))?;
    let key = call.arg(1);
    let Some(set) = call.set(key)?.cloned() else { return Ok(scan::nothing()) };
    let options = scan::Options::parse(call, 3)?;
    let mut items = Vec::new();
    let next = scan::pass(set.len(), cursor, options.count, |index| {
        let member = set.members().get_index(index);
        if let Some(member) = member.filter(|member| options.fits(member)) {
            items.push(Reply::Bulk(member.clone()));
        }
    });
    Ok(scan::answer(next, items))
}
