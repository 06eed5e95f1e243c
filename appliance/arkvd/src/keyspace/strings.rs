//! Texts and counters.

use bytes::{Bytes, BytesMut};

use super::call::{Call, Fault, Outcome};
use crate::number::{add_floats, parse_float, parse_int};
use crate::resp::Reply;
use crate::value::{Value, own};

/// Longest text, as in Redis.
pub(super) const MAX_TEXT: usize = 512 * 1024 * 1024;
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

fn bulk_or_null(text: Option<&Bytes>) -> Reply {
    text.map_or(Reply::Null, |text| Reply::Bulk(text.clone()))
}

/// How an end is written: its unit, and whether it counts from now.
#[derive(Debug, Clone, Copy)]
pub(super) enum EndForm {
    InSeconds,
    InMillis,
    AtSeconds,
    AtMillis,
}

impl EndForm {
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "EX" => Self::InSeconds,
            "PX" => Self::InMillis,
            "EXAT" => Self::AtSeconds,
            "PXAT" => Self::AtMillis,
            _ => return None,
        })
    }

    /// The moment in Unix milliseconds; `None` if it is out of range.
    pub(super) fn moment(self, number: i64, now_ms: u64) -> Option<i64> {
        let now = i64::try_from(now_ms).ok()?;
        match self {
            Self::InSeconds => number.checked_mul(1000)?.checked_add(now),
            Self::InMillis => number.checked_add(now),
            Self::AtSeconds => number.checked_mul(1000),
            Self::AtMillis => Some(number),
        }
    }

    /// The end given by argument `index`, which must lie after the start of time.
    fn parse(self, call: &Call<'_>, index: usize) -> Result<u64, Fault> {
        let number = call.int(index)?;
        if number <= 0 {
            return Err(Fault::ExpireTime);
        }
        let moment = self.moment(number, call.now_ms).ok_or(Fault::ExpireTime)?;
        u64::try_from(moment).map_err(|_| Fault::ExpireTime)
    }
}

pub(crate) fn get(call: &mut Call<'_>) -> Outcome {
    Ok(bulk_or_null(call.string(call.arg(1))?))
}

pub(crate) fn set(call: &mut Call<'_>) -> Outcome {
    let (key, text) = (call.arg(1), call.arg(2));
    let (mut only_new, mut only_old, mut old_wanted, mut keep_end) = (false, false, false, false);
    let mut end: Option<(EndForm, usize)> = None;
    let mut at = 3;
    while at < call.len() {
        let word = call.word(at);
        match word.as_str() {
            "NX" if !only_old => only_new = true,
            "XX" if !only_new => only_old = true,
            "GET" => old_wanted = true,
            "KEEPTTL" if end.is_none() => keep_end = true,
            _ => match EndForm::of(&word) {
                Some(form) if end.is_none() && !keep_end && at + 1 < call.len() => {
                    at += 1;
                    end = Some((form, at));
                }
                _ => return Err(Fault::Syntax),
            },
        }
        at += 1;
    }
    let end = end.map(|(form, index)| form.parse(call, index)).transpose()?;
    let old = if old_wanted { call.string(key)?.cloned() } else { None };
    let answer = |set: Reply| match (&old, old_wanted) {
        (Some(old), _) => Reply::Bulk(old.clone()),
        (None, true) => Reply::Null,
        (None, false) => set,
    };
    let found = call.entry(key).map(|entry| entry.expires_ms);
    if (only_new && found.is_some()) || (only_old && found.is_none()) {
        return Ok(answer(Reply::Null));
    }
    let kept = if keep_end { found.unwrap_or(0) } else { 0 };
    call.put_in(call.db, key, Value::Text(own(text)), end.unwrap_or(kept));
    Ok(answer(Reply::OK))
}

pub(crate) fn setnx(call: &mut Call<'_>) -> Outcome {
    if call.exists(call.arg(1)) {
        return Ok(Reply::Int(0));
    }
    call.put_text(call.arg(1), call.arg(2));
    Ok(Reply::Int(1))
}

pub(crate) fn setex(call: &mut Call<'_>) -> Outcome {
    set_with_end(call, EndForm::InSeconds)
}

pub(crate) fn psetex(call: &mut Call<'_>) -> Outcome {
    set_with_end(call, EndForm::InMillis)
}

fn set_with_end(call: &mut Call<'_>, form: EndForm) -> Outcome {
    let end = form.parse(call, 2)?;
    call.put_in(call.db, call.arg(1), Value::Text(own(call.arg(3))), end);
    Ok(Reply::OK)
}

pub(crate) fn getset(call: &mut Call<'_>) -> Outcome {
    let old = bulk_or_null(call.string(call.arg(1))?);
    call.put_text(call.arg(1), call.arg(2));
    Ok(old)
}

pub(crate) fn getdel(call: &mut Call<'_>) -> Outcome {
    let old = bulk_or_null(call.string(call.arg(1))?);
    call.remove(call.arg(1));
    Ok(old)
}

pub(crate) fn getex(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let mut end: Option<(EndForm, usize)> = None;
    let mut persist = false;
    let mut at = 2;
    while at < call.len() {
        let word = call.word(at);
        match EndForm::of(&word) {
            Some(form) if end.is_none() && !persist && at + 1 < call.len() => {
                at += 1;
                end = Some((form, at));
            }
            None if word == "PERSIST" && end.is_none() => persist = true,
            _ => return Err(Fault::Syntax),
        }
        at += 1;
    }
    let Some(old) = call.string(key)?.cloned() else { return Ok(Reply::Null) };
    let end = end.map(|(form, index)| form.parse(call, index)).transpose()?;
    match end {
        Some(end) if end <= call.now_ms => {
            call.remove(key);
        }
        Some(end) => call.set_end(key, end),
        None if persist && call.entry(key).is_some_and(|entry| entry.expires_ms != 0) => {
            call.set_end(key, 0);
        }
        None => {}
    }
    Ok(Reply::Bulk(old))
}

pub(crate) fn mget(call: &mut Call<'_>) -> Outcome {
    let texts = call.rest(1).iter().map(|key| match call.value(key) {
        Some(Value::Text(text)) => Reply::Bulk(text.clone()),
        _ => Reply::Null,
    });
    Ok(Reply::Array(texts.collect()))
}

fn set_many(call: &mut Call<'_>) {
    let mut rest = call.rest(1);
    while let [key, text, after @ ..] = rest {
        call.put_text(key, text);
        rest = after;
    }
}

pub(crate) fn mset(call: &mut Call<'_>) -> Outcome {
    if call.len().is_multiple_of(2) {
        return Err(Fault::Arity);
    }
    set_many(call);
    Ok(Reply::OK)
}

pub(crate) fn msetnx(call: &mut Call<'_>) -> Outcome {
    if call.len().is_multiple_of(2) {
        return Err(Fault::Arity);
    }
    if call.rest(1).iter().step_by(2).any(|key| call.exists(key)) {
        return Ok(Reply::Int(0));
    }
    set_many(call);
    Ok(Reply::Int(1))
}

pub(crate) fn append(call: &mut Call<'_>) -> Outcome {
    let (key, more) = (call.arg(1), call.arg(2));
    let len = call.string(key)?.map_or(0, Bytes::len);
    if len + more.len() > MAX_TEXT {
        return Err(Fault::text(TOO_LONG));
    }
    call.check_growth(more.len())?;
    call.edit_text(key, |text| {
        if text.is_empty() {
            return own(more);
        }
        let mut text = editable(text);
        text.extend_from_slice(more);
        text.freeze()
    });
    Ok(Reply::count(len + more.len()))
}

/// The text to change in place if nobody else has it, otherwise a copy.
pub(super) fn editable(text: Bytes) -> BytesMut {
    text.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()))
}

pub(crate) fn strlen(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.string(call.arg(1))?.map_or(0, Bytes::len)))
}

pub(crate) fn getrange(call: &mut Call<'_>) -> Outcome {
    let (start, end) = (call.int(2)?, call.int(3)?);
    let Some(text) = call.string(call.arg(1))? else { return Ok(Reply::Bulk(Bytes::new())) };
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Bulk(Bytes::new()));
    }
    let len = crate::number::int(text.len());
    // Unlike in lists, an end before the start of the text means its first byte.
    let from = if start < 0 { (start + len).max(0) } else { start };
    let to = if end < 0 { (end + len).max(0) } else { end.min(len - 1) };
    if from > to || len == 0 {
        return Ok(Reply::Bulk(Bytes::new()));
    }
    let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
    Ok(Reply::Bulk(text.slice(from..=to)))
}

pub(crate) fn setrange(call: &mut Call<'_>) -> Outcome {
    let (key, patch) = (call.arg(1), call.arg(3));
    let offset = call.int(2)?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(Fault::text("ERR offset is out of range"));
    };
    let len = call.string(key)?.map_or(0, Bytes::len);
    if patch.is_empty() {
        return Ok(Reply::count(len));
    }
    let end = offset.saturating_add(patch.len());
    if end > MAX_TEXT {
        return Err(Fault::text(TOO_LONG));
    }
    call.check_growth(end.saturating_sub(len))?;
    call.edit_text(key, |text| {
        let mut text = editable(text);
        if text.len() < end {
            text.resize(end, 0);
        }
        if let Some(place) = text.get_mut(offset..end) {
            place.copy_from_slice(patch);
        }
        text.freeze()
    });
    Ok(Reply::count(len.max(end)))
}

pub(crate) fn incr(call: &mut Call<'_>) -> Outcome {
    add(call, 1)
}

pub(crate) fn decr(call: &mut Call<'_>) -> Outcome {
    add(call, -1)
}

pub(crate) fn incrby(call: &mut Call<'_>) -> Outcome {
    let by = call.int(2)?;
    add(call, by)
}

pub(crate) fn decrby(call: &mut Call<'_>) -> Outcome {
    let by = call.int(2)?;
    let by = by.checked_neg().ok_or(Fault::text("ERR decrement would overflow"))?;
    add(call, by)
}

fn add(call: &mut Call<'_>, by: i64) -> Outcome {
    let key = call.arg(1);
    let old = match call.string(key)? {
        Some(text) => parse_int(text).ok_or(Fault::NotInt)?,
        None => 0,
    };
    let new =
        old.checked_add(by).ok_or(Fault::text("ERR increment or decrement would overflow"))?;
    call.edit_text(key, |_| Bytes::from(new.to_string()));
    Ok(Reply::Int(new))
}

pub(crate) fn incrbyfloat(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let old = call.string(key)?.cloned().unwrap_or(Bytes::from_static(b"0"));
    parse_float(&old).ok_or(Fault::NotFloat)?;
    call.float(2)?;
    let sum = add_floats(&old, call.arg(2))
        .ok_or(Fault::text("ERR increment would produce NaN or Infinity"))?;
    let sum = Bytes::from(sum);
    call.edit_text(key, |_| sum.clone());
    Ok(Reply::Bulk(sum))
}
