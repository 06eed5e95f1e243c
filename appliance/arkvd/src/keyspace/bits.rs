//! Texts as rows of bits.

use bytes::Bytes;

use super::call::{Call, Fault, Outcome};
use super::strings::{MAX_TEXT, editable};
use crate::number::int;
use crate::resp::Reply;
use crate::value::Value;

fn offset(call: &Call<'_>) -> Result<usize, Fault> {
    let wrong = Fault::text("ERR bit offset is not an integer or out of range");
    let offset = call.int(2).ok().and_then(|offset| usize::try_from(offset).ok());
    match offset {
        Some(offset) if offset / 8 < MAX_TEXT => Ok(offset),
        _ => Err(wrong),
    }
}

fn bit_at(text: &[u8], offset: usize) -> i64 {
    text.get(offset / 8).map_or(0, |byte| i64::from(byte >> (7 - offset % 8) & 1))
}

pub(crate) fn getbit(call: &mut Call<'_>) -> Outcome {
    let offset = offset(call)?;
    Ok(Reply::Int(call.string(call.arg(1))?.map_or(0, |text| bit_at(text, offset))))
}

pub(crate) fn setbit(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let offset = offset(call)?;
    let on = match call.int(3) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(Fault::text("ERR bit is not an integer or out of range")),
    };
    let (len, old) = call.string(key)?.map_or((0, 0), |text| (text.len(), bit_at(text, offset)));
    if call.exists(key) && len > offset / 8 && old == i64::from(on) {
        return Ok(Reply::Int(old));
    }
    call.check_growth((offset / 8 + 1).saturating_sub(len))?;
    call.edit_text(key, |text| {
        let mut text = editable(text);
        if text.len() <= offset / 8 {
            text.resize(offset / 8 + 1, 0);
        }
        if let Some(byte) = text.get_mut(offset / 8) {
            let mask = 1 << (7 - offset % 8);
            *byte = if on { *byte | mask } else { *byte & !mask };
        }
        text.freeze()
    });
    Ok(Reply::Int(old))
}

/// A range of bits: first and last, counted from the start; `None` if nothing is in it.
fn bit_range(start: i64, end: i64, len: usize, of_bits: bool) -> Option<(usize, usize)> {
    let total = int(if of_bits { len * 8 } else { len });
    let from = if start < 0 { (start.saturating_add(total)).max(0) } else { start };
    let to = if end < 0 { (end.saturating_add(total)).max(0) } else { end };
    let to = to.min(total - 1);
    if (start < 0 && end < 0 && start > end) || from > to || total == 0 {
        return None;
    }
    let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
    Some(if of_bits { (from, to) } else { (from * 8, to * 8 + 7) })
}

fn unit(call: &Call<'_>, index: usize) -> Result<bool, Fault> {
    if call.len() <= index || call.is(index, "BYTE") {
        Ok(false)
    } else if call.is(index, "BIT") {
        Ok(true)
    } else {
        Err(Fault::Syntax)
    }
}

pub(crate) fn bitcount(call: &mut Call<'_>) -> Outcome {
    // A key that does not exist is answered before the range is looked at.
    if call.string(call.arg(1))?.is_none() {
        return Ok(Reply::Int(0));
    }
    let range = match call.len() {
        2 => (0, -1, false),
        4 | 5 => {
            let (start, end) = (call.int(2)?, call.int(3)?);
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Int(0));
            }
            (start, end, unit(call, 4)?)
        }
        _ => return Err(Fault::Syntax),
    };
    let Some(text) = call.string(call.arg(1))? else { return Ok(Reply::Int(0)) };
    let Some((from, to)) = bit_range(range.0, range.1, text.len(), range.2) else {
        return Ok(Reply::Int(0));
    };
    let whole = text.get(from / 8..=to / 8).unwrap_or_default();
    let ones: i64 = whole.iter().map(|byte| i64::from(byte.count_ones())).sum();
    let before: i64 = (from / 8 * 8..from).map(|at| bit_at(text, at)).sum();
    let after: i64 = (to + 1..(to / 8 + 1) * 8).map(|at| bit_at(text, at)).sum();
    Ok(Reply::Int(ones - before - after))
}

pub(crate) fn bitpos(call: &mut Call<'_>) -> Outcome {
    let wanted @ (0 | 1) = call.int(2)? else {
        return Err(Fault::text("ERR The bit argument must be 1 or 0."));
    };
    // A key that does not exist is answered before the range is looked at.
    if call.string(call.arg(1))?.is_none() {
        return Ok(Reply::Int(if wanted == 1 { -1 } else { 0 }));
    }
    let (start, end, of_bits) = match call.len() {
        3 => (0, -1, false),
        4 => (call.int(3)?, -1, false),
        5 | 6 => {
            let (start, of_bits) = (call.int(3)?, unit(call, 5)?);
            (start, call.int(4)?, of_bits)
        }
        _ => return Err(Fault::Syntax),
    };
    let end_given = call.len() > 4;
    let Some(text) = call.string(call.arg(1))? else {
        return Ok(Reply::Int(if wanted == 1 { -1 } else { 0 }));
    };
    let total = int(if of_bits { text.len() * 8 } else { text.len() });
    let from = if start < 0 { (start.saturating_add(total)).max(0) } else { start };
    let to = if end < 0 { (end.saturating_add(total)).max(0) } else { end }.min(total - 1);
    if from > to {
        return Ok(Reply::Int(-1));
    }
    let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else {
        return Ok(Reply::Int(-1));
    };
    let (from, to) = if of_bits { (from, to) } else { (from * 8, to * 8 + 7) };
    let skip: u8 = if wanted == 1 { 0 } else { 0xff };
    let mut at = from;
    while at <= to {
        if at.is_multiple_of(8) && at + 7 <= to && text.get(at / 8) == Some(&skip) {
            at += 8;
            continue;
        }
        if bit_at(text, at) == wanted {
            return Ok(Reply::count(at));
        }
        at += 1;
    }
    // Without an end the text goes on with zeros.
    Ok(if wanted == 0 && !end_given { Reply::count(text.len() * 8) } else { Reply::Int(-1) })
}

pub(crate) fn bitop(call: &mut Call<'_>) -> Outcome {
    let operation = call.word(1);
    if !matches!(operation.as_str(), "AND" | "OR" | "XOR" | "NOT") {
        return Err(Fault::Syntax);
    }
    if operation == "NOT" && call.len() != 4 {
        return Err(Fault::text("ERR BITOP NOT must be called with a single source key."));
    }
    let mut texts = Vec::new();
    for key in call.rest(3) {
        texts.push(call.string(key)?.cloned().unwrap_or_default());
    }
    let longest = texts.iter().map(Bytes::len).max().unwrap_or(0);
    let target = call.arg(2);
    if longest == 0 {
        call.remove(target);
        return Ok(Reply::Int(0));
    }
    let byte_of = |text: &Bytes, at: usize| text.get(at).copied().unwrap_or(0);
    let result: Vec<u8> = (0..longest)
        .map(|at| {
            let mut bytes = texts.iter().map(|text| byte_of(text, at));
            let first = bytes.next().unwrap_or(0);
            match operation.as_str() {
                "AND" => bytes.fold(first, |left, right| left & right),
                "OR" => bytes.fold(first, |left, right| left | right),
                "XOR" => bytes.fold(first, |left, right| left ^ right),
                _ => !first,
            }
        })
        .collect();
    call.put(target, Value::Text(Bytes::from(result)));
    Ok(Reply::count(longest))
}
