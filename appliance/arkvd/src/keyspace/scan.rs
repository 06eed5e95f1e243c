//! Walking through keys and collections in steps, and picking from them by chance.
//!
//! A cursor is the number of elements still to be seen, counted from the start: elements are seen
//! from the last to the first.  A removal moves the last element into the gap, that is, only
//! elements that were seen move upwards; so none that is there all the time is missed.

use bytes::Bytes;

use super::call::{Call, Fault};
use crate::glob;
use crate::number::int;
use crate::resp::Reply;

/// Most elements one command picks, with repetition.
const MAX_PICKS: usize = 1 << 20;

pub(super) struct Options<'a> {
    pattern: Option<&'a [u8]>,
    pub(super) count: usize,
    pub(super) type_name: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Reads `MATCH`, `COUNT` and `TYPE` from argument `at` on.
    pub(super) fn parse(call: &Call<'a>, mut at: usize) -> Result<Self, Fault> {
        let mut options = Self { pattern: None, count: 10, type_name: None };
        while at < call.len() {
            if at + 1 >= call.len() {
                return Err(Fault::Syntax);
            }
            match call.word(at).as_str() {
                "MATCH" => options.pattern = Some(call.arg(at + 1)),
                "COUNT" => {
                    let count = call.int(at + 1)?;
                    if count < 1 {
                        return Err(Fault::Syntax);
                    }
                    options.count = usize::try_from(count).unwrap_or(usize::MAX);
                }
                "TYPE" if call.is(0, "SCAN") => options.type_name = Some(call.arg(at + 1)),
                _ => return Err(Fault::Syntax),
            }
            at += 2;
        }
        Ok(options)
    }

    pub(super) fn fits(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

pub(super) fn cursor(text: &Bytes) -> Result<usize, Fault> {
    let cursor = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    let cursor = cursor.ok_or(Fault::text("ERR invalid cursor"))?;
    Ok(usize::try_from(cursor).unwrap_or(usize::MAX))
}

/// Sees up to `count` of `len` elements and gives the next cursor.
pub(super) fn pass(len: usize, cursor: usize, count: usize, mut see: impl FnMut(usize)) -> usize {
    let from = if cursor == 0 { len } else { cursor.min(len) };
    let to = from.saturating_sub(count);
    for index in (to..from).rev() {
        see(index);
    }
    to
}

pub(super) fn answer(next: usize, items: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(items)])
}

pub(super) fn nothing() -> Reply {
    answer(0, Vec::new())
}

/// Indexes below `len` by chance: at most `count` different ones, or exactly `-count` with
/// repetition.
pub(super) fn pick(call: &mut Call<'_>, len: usize, count: i64) -> Result<Vec<usize>, Fault> {
    if len == 0 || count == 0 {
        return Ok(Vec::new());
    }
    if count < 0 {
        let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        if wanted > MAX_PICKS {
            return Err(Fault::text("ERR value is out of range"));
        }
        return Ok((0..wanted).map(|_| call.random_below(len)).collect());
    }
    if count >= int(len) {
        return Ok((0..len).collect());
    }
    // The first steps of a shuffle.
    let wanted = usize::try_from(count).unwrap_or(0);
    let mut indexes: Vec<usize> = (0..len).collect();
    for at in 0..wanted {
        let other = at + call.random_below(len - at);
        indexes.swap(at, other);
    }
    indexes.truncate(wanted);
    Ok(indexes)
}
