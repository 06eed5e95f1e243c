//! Hashes: fields with values.

use bytes::Bytes;

use super::call::{Call, Fault, Outcome};
use super::scan;
use crate::number::{add_floats, parse_float, parse_int};
use crate::resp::Reply;
use crate::value::Hash;

pub(crate) fn hset(call: &mut Call<'_>) -> Outcome {
    set_fields(call).map(Reply::count)
}

pub(crate) fn hmset(call: &mut Call<'_>) -> Outcome {
    set_fields(call).map(|_| Reply::OK)
}

fn set_fields(call: &mut Call<'_>) -> Result<usize, Fault> {
    if !call.len().is_multiple_of(2) {
        return Err(Fault::Arity);
    }
    let (key, mut rest) = (call.arg(1), call.rest(2));
    let new = call.edit(key, |hash: &mut Hash| {
        let mut new = 0;
        while let [field, value, after @ ..] = rest {
            new += usize::from(hash.set(field, value));
            rest = after;
        }
        new
    })?;
    call.touch(key);
    Ok(new)
}

pub(crate) fn hsetnx(call: &mut Call<'_>) -> Outcome {
    let (key, field, value) = (call.arg(1), call.arg(2), call.arg(3));
    if call.hash(key)?.is_some_and(|hash| hash.get(field).is_some()) {
        return Ok(Reply::Int(0));
    }
    call.edit(key, |hash: &mut Hash| hash.set(field, value))?;
    call.touch(key);
    Ok(Reply::Int(1))
}

pub(crate) fn hget(call: &mut Call<'_>) -> Outcome {
    let field = call.arg(2);
    let value = call.hash(call.arg(1))?.and_then(|hash| hash.get(field));
    Ok(value.map_or(Reply::Null, |value| Reply::Bulk(value.clone())))
}

pub(crate) fn hmget(call: &mut Call<'_>) -> Outcome {
    let fields = call.rest(2);
    let hash = call.hash(call.arg(1))?;
    let values = fields.iter().map(|field| {
        let value = hash.and_then(|hash| hash.get(field));
        value.map_or(Reply::Null, |value| Reply::Bulk(value.clone()))
    });
    Ok(Reply::Array(values.collect()))
}

pub(crate) fn hgetall(call: &mut Call<'_>) -> Outcome {
    let Some(hash) = call.hash(call.arg(1))? else { return Ok(Reply::Map(Vec::new())) };
    let pairs = hash
        .fields()
        .iter()
        .map(|(field, value)| (Reply::Bulk(field.clone()), Reply::Bulk(value.clone())));
    Ok(Reply::Map(pairs.collect()))
}

pub(crate) fn hkeys(call: &mut Call<'_>) -> Outcome {
    let Some(hash) = call.hash(call.arg(1))? else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::Array(hash.fields().keys().cloned().map(Reply::Bulk).collect()))
}

pub(crate) fn hvals(call: &mut Call<'_>) -> Outcome {
    let Some(hash) = call.hash(call.arg(1))? else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::Array(hash.fields().values().cloned().map(Reply::Bulk).collect()))
}

pub(crate) fn hlen(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.hash(call.arg(1))?.map_or(0, |hash| hash.len())))
}

pub(crate) fn hstrlen(call: &mut Call<'_>) -> Outcome {
    let field = call.arg(2);
    let hash = call.hash(call.arg(1))?;
    Ok(Reply::count(hash.and_then(|hash| hash.get(field)).map_or(0, Bytes::len)))
}

pub(crate) fn hexists(call: &mut Call<'_>) -> Outcome {
    let field = call.arg(2);
    let hash = call.hash(call.arg(1))?;
    Ok(Reply::Int(i64::from(hash.is_some_and(|hash| hash.get(field).is_some()))))
}

pub(crate) fn hdel(call: &mut Call<'_>) -> Outcome {
    let (key, fields) = (call.arg(1), call.rest(2));
    let gone = call.edit_existing(key, |hash: &mut Hash| {
        fields.iter().filter(|field| hash.remove(field)).count()
    })?;
    let gone = gone.unwrap_or(0);
    if gone > 0 {
        call.touch(key);
    }
    Ok(Reply::count(gone))
}

pub(crate) fn hincrby(call: &mut Call<'_>) -> Outcome {
    let (key, field) = (call.arg(1), call.arg(2));
    let by = call.int(3)?;
    let old = match call.hash(key)?.and_then(|hash| hash.get(field)) {
        Some(text) => parse_int(text).ok_or(Fault::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let new =
        old.checked_add(by).ok_or(Fault::text("ERR increment or decrement would overflow"))?;
    call.edit(key, |hash: &mut Hash| hash.set(field, new.to_string().as_bytes()))?;
    call.touch(key);
    Ok(Reply::Int(new))
}

pub(crate) fn hincrbyfloat(call: &mut Call<'_>) -> Outcome {
    let (key, field) = (call.arg(1), call.arg(2));
    let by = call.float(3)?;
    if by.is_infinite() {
        return Err(Fault::text("ERR value is NaN or Infinity"));
    }
    let old = match call.hash(key)?.and_then(|hash| hash.get(field)) {
        Some(text) => {
            parse_float(text).ok_or(Fault::text("ERR hash value is not a float"))?;
            text.clone()
        }
        None => Bytes::from_static(b"0"),
    };
    let sum = add_floats(&old, call.arg(3))
        .ok_or(Fault::text("ERR increment would produce NaN or Infinity"))?;
    call.edit(key, |hash: &mut Hash| hash.set(field, sum.as_bytes()))?;
    call.touch(key);
    Ok(Reply::text(sum))
}

pub(crate) fn hscan(call: &mut Call<'_>) -> Outcome {
    let cursor = scan::cursor(call.arg(2))?;
    let key = call.arg(1);
    let Some(hash) = call.hash(key)?.cloned() else { return Ok(scan::nothing()) };
    let options = scan::Options::parse(call, 3)?;
    let mut items = Vec::new();
    let next = scan::pass(hash.len(), cursor, options.count, |index| {
        let Some((field, value)) = hash.fields().get_index(index) else { return };
        if options.fits(field) {
            items.push(Reply::Bulk(field.clone()));
            items.push(Reply::Bulk(value.clone()));
        }
    });
    Ok(scan::answer(next, items))
}

pub(crate) fn hrandfield(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.len() == 2 {
        let Some(len) = call.hash(key)?.map(|hash| hash.len()) else { return Ok(Reply::Null) };
        let index = call.random_below(len);
        let field = call.hash(key)?.and_then(|hash| hash.fields().get_index(index));
        return Ok(field.map_or(Reply::Null, |(field, _)| Reply::Bulk(field.clone())));
    }
    let count = call.int(2)?;
    let with_values = match call.len() {
        3 => false,
        4 if call.is(3, "WITHVALUES") => true,
        _ => return Err(Fault::Syntax),
    };
    if with_values && !(-(i64::MAX / 2)..=i64::MAX / 2).contains(&count) {
        return Err(Fault::text("ERR value is out of range"));
    }
    let Some(hash) = call.hash(key)?.cloned() else { return Ok(Reply::Array(Vec::new())) };
    let picked = scan::pick(call, hash.len(), count)?;
    let found = picked.into_iter().filter_map(|index| hash.fields().get_index(index));
    Ok(if with_values {
        Reply::Pairs(found.map(|(f, v)| (Reply::Bulk(f.clone()), Reply::Bulk(v.clone()))).collect())
    } else {
        Reply::Array(found.map(|(field, _)| Reply::Bulk(field.clone())).collect())
    })
}
