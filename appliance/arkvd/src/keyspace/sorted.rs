//! Sorted sets.

use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;

use super::call::{Call, Fault, Outcome, index_range};
use super::lists::{counted_keys, pop_count, timeout};
use super::scan;
use super::sets::{count_limit, cut};
use crate::number::{format_float, parse_float};
use crate::resp::Reply;
use crate::value::{Collection as _, Hashing, Sorted, Value};

fn scored((score, member): &(f64, Bytes)) -> (Reply, Reply) {
    (Reply::Bulk(member.clone()), Reply::Double(*score))
}

pub(crate) fn zadd(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    let (mut only_new, mut only_old, mut greater, mut less) = (false, false, false, false);
    let (mut count_changed, mut incr) = (false, false);
    let mut at = 2;
    loop {
        match call.word(at).as_str() {
            "NX" => only_new = true,
            "XX" => only_old = true,
            "GT" => greater = true,
            "LT" => less = true,
            "CH" => count_changed = true,
            "INCR" => incr = true,
            _ => break,
        }
        at += 1;
    }
    let pairs = call.rest(at);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Fault::Syntax);
    }
    if only_new && only_old {
        return Err(Fault::text("ERR XX and NX options at the same time are not compatible"));
    }
    if (only_new && (greater || less)) || (greater && less) {
        return Err(Fault::text(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if incr && pairs.len() > 2 {
        return Err(Fault::text("ERR INCR option supports a single increment-element pair"));
    }
    let mut wanted = Vec::with_capacity(pairs.len() / 2);
    let mut rest = pairs;
    while let [score, member, after @ ..] = rest {
        wanted.push((parse_float(score).ok_or(Fault::NotFloat)?, member));
        rest = after;
    }
    if call.sorted(key)?.is_none() && only_old {
        return Ok(if incr { Reply::Null } else { Reply::Int(0) });
    }
    let (mut added, mut updated) = (0_usize, 0_usize);
    let mut incremented = None;
    let mut not_a_number = false;
    call.edit(key, |sorted: &mut Sorted| {
        for (score, member) in wanted {
            let old = sorted.score(member);
            let mut score = score;
            if let Some(old) = old {
                if only_new {
                    continue;
                }
                if incr {
                    score += old;
                    if score.is_nan() {
                        not_a_number = true;
                        return;
                    }
                }
                if (less && score >= old) || (greater && score <= old) {
                    continue;
                }
                if score != old {
                    sorted.set(member, score);
                    updated += 1;
                }
            } else {
                if only_old {
                    continue;
                }
                sorted.set(member, score);
                added += 1;
            }
            incremented = Some(score);
        }
    })?;
    if not_a_number {
        return Err(Fault::text("ERR resulting score is not a number (NaN)"));
    }
    if added + updated > 0 {
        call.touch(key);
    }
    Ok(if incr {
        incremented.map_or(Reply::Null, Reply::Double)
    } else if count_changed {
        Reply::count(added + updated)
    } else {
        Reply::count(added)
    })
}

pub(crate) fn zincrby(call: &mut Call<'_>) -> Outcome {
    let (key, member) = (call.arg(1), call.arg(3));
    let by = call.float(2)?;
    let score = call.sorted(key)?.and_then(|sorted| sorted.score(member)).unwrap_or(0.0) + by;
    if score.is_nan() {
        return Err(Fault::text("ERR resulting score is not a number (NaN)"));
    }
    call.edit(key, |sorted: &mut Sorted| sorted.set(member, score))?;
    call.touch(key);
    Ok(Reply::Double(score))
}

pub(crate) fn zrem(call: &mut Call<'_>) -> Outcome {
    let (key, members) = (call.arg(1), call.rest(2));
    let gone = call.edit_existing(key, |sorted: &mut Sorted| {
        members.iter().filter(|member| sorted.remove(member)).count()
    })?;
    let gone = gone.unwrap_or(0);
    if gone > 0 {
        call.touch(key);
    }
    Ok(Reply::count(gone))
}

pub(crate) fn zscore(call: &mut Call<'_>) -> Outcome {
    let member = call.arg(2);
    let score = call.sorted(call.arg(1))?.and_then(|sorted| sorted.score(member));
    Ok(score.map_or(Reply::Null, Reply::Double))
}

pub(crate) fn zmscore(call: &mut Call<'_>) -> Outcome {
    let members = call.rest(2);
    let sorted = call.sorted(call.arg(1))?;
    let scores = members.iter().map(|member| {
        let score = sorted.and_then(|sorted| sorted.score(member));
        score.map_or(Reply::Null, Reply::Double)
    });
    Ok(Reply::Array(scores.collect()))
}

pub(crate) fn zcard(call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(call.sorted(call.arg(1))?.map_or(0, |sorted| sorted.len())))
}

fn rank_of(call: &mut Call<'_>, from_end: bool) -> Outcome {
    let member = call.arg(2);
    let Some(sorted) = call.sorted(call.arg(1))? else { return Ok(Reply::Null) };
    let Some(score) = sorted.score(member) else { return Ok(Reply::Null) };
    let rank = sorted.order().rank(score, member);
    Ok(Reply::count(if from_end { sorted.len() - 1 - rank } else { rank }))
}

pub(crate) fn zrank(call: &mut Call<'_>) -> Outcome {
    rank_of(call, false)
}

pub(crate) fn zrevrank(call: &mut Call<'_>) -> Outcome {
    rank_of(call, true)
}

/// A range of scores or of bytes, as ranks: from, and up to without.
type Ranks = (usize, usize);

/// One end of a range of scores.
fn score_end(text: &[u8]) -> Option<(f64, bool)> {
    match text {
        [b'(', number @ ..] => parse_float(number).map(|score| (score, true)),
        number => parse_float(number).map(|score| (score, false)),
    }
}

#[derive(Debug, Clone, Copy)]
struct ScoreRange {
    min: (f64, bool),
    max: (f64, bool),
}

impl ScoreRange {
    fn parse(min: &[u8], max: &[u8]) -> Result<Self, Fault> {
        match (score_end(min), score_end(max)) {
            (Some(min), Some(max)) => Ok(Self { min, max }),
            _ => Err(Fault::text("ERR min or max is not a float")),
        }
    }

    fn ranks(&self, sorted: &Sorted) -> Ranks {
        let (min, after_min) = self.min;
        let (max, before_max) = self.max;
        let order = sorted.order();
        let from =
            order.rank_where(|(score, _)| if after_min { *score > min } else { *score >= min });
        let to =
            order.rank_where(|(score, _)| if before_max { *score >= max } else { *score > max });
        (from, to.max(from))
    }
}

/// One end of a range of bytes.
#[derive(Debug, Clone, Copy)]
enum LexEnd<'a> {
    Lowest,
    Highest,
    At(&'a [u8]),
    Beyond(&'a [u8]),
}

impl<'a> LexEnd<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            b"-" => Some(Self::Lowest),
            b"+" => Some(Self::Highest),
            [b'[', rest @ ..] => Some(Self::At(rest)),
            [b'(', rest @ ..] => Some(Self::Beyond(rest)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct LexRange<'a> {
    min: LexEnd<'a>,
    max: LexEnd<'a>,
}

impl<'a> LexRange<'a> {
    fn parse(min: &'a [u8], max: &'a [u8]) -> Result<Self, Fault> {
        match (LexEnd::parse(min), LexEnd::parse(max)) {
            (Some(min), Some(max)) => Ok(Self { min, max }),
            _ => Err(Fault::text("ERR min or max not valid string range item")),
        }
    }

    fn ranks(&self, sorted: &Sorted) -> Ranks {
        let order = sorted.order();
        let from = order.rank_where(|(_, member)| match self.min {
            LexEnd::Lowest => true,
            LexEnd::Highest => false,
            LexEnd::At(min) => member.as_ref() >= min,
            LexEnd::Beyond(min) => member.as_ref() > min,
        });
        let to = order.rank_where(|(_, member)| match self.max {
            LexEnd::Lowest => true,
            LexEnd::Highest => false,
            LexEnd::At(max) => member.as_ref() > max,
            LexEnd::Beyond(max) => member.as_ref() >= max,
        });
        (from, to.max(from))
    }
}

/// Finds the ranks a range stands for.
type Selection<'a> = dyn Fn(&Sorted) -> Option<Ranks> + 'a;

/// How `ZRANGE` and its older forms choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// What a range command asks for.
struct Wanted {
    by: By,
    reverse: bool,
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

/// Reads the options of a range command from argument `at` on.
fn range_options(
    call: &Call<'_>,
    mut at: usize,
    fixed: Option<(By, bool)>,
    storing: bool,
) -> Result<Wanted, Fault> {
    let (by, reverse) = fixed.unwrap_or((By::Rank, false));
    let mut wanted = Wanted { by, reverse, limit: None, with_scores: false };
    while at < call.len() {
        match call.word(at).as_str() {
            "WITHSCORES" if !storing => wanted.with_scores = true,
            "LIMIT" if at + 2 < call.len() => {
                wanted.limit = Some((call.int(at + 1)?, call.int(at + 2)?));
                at += 2;
            }
            "REV" if fixed.is_none() => wanted.reverse = true,
            "BYSCORE" if fixed.is_none() => wanted.by = By::Score,
            "BYLEX" if fixed.is_none() => wanted.by = By::Lex,
            _ => return Err(Fault::Syntax),
        }
        at += 1;
    }
    if wanted.limit.is_some() && wanted.by == By::Rank {
        return Err(Fault::text(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if wanted.with_scores && wanted.by == By::Lex {
        return Err(Fault::text(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    Ok(wanted)
}

/// The places a range command asks for; the range is in arguments `at` and the next.
fn range_places(
    call: &mut Call<'_>,
    key: &Bytes,
    at: usize,
    wanted: &Wanted,
) -> Result<Vec<(f64, Bytes)>, Fault> {
    let (first, second) = (call.arg(at), call.arg(at + 1));
    // Backwards the range is written from its upper end, unless it is one of ranks.
    let (min, max) = if wanted.reverse { (second, first) } else { (first, second) };
    let select: Box<Selection<'_>> = match wanted.by {
        By::Rank => {
            let (start, end) = (call.int(at)?, call.int(at + 1)?);
            let reverse = wanted.reverse;
            Box::new(move |sorted| {
                let (from, to) = index_range(start, end, sorted.len())?;
                Some(if reverse { (sorted.len() - to, sorted.len() - from) } else { (from, to) })
            })
        }
        By::Score => {
            let range = ScoreRange::parse(min, max)?;
            Box::new(move |sorted| Some(range.ranks(sorted)))
        }
        By::Lex => {
            let range = LexRange::parse(min, max)?;
            Box::new(move |sorted| Some(range.ranks(sorted)))
        }
    };
    let Some(sorted) = call.sorted(key)? else { return Ok(Vec::new()) };
    let Some((mut from, mut to)) = select(sorted) else { return Ok(Vec::new()) };
    if let Some((offset, count)) = wanted.limit {
        let Ok(offset) = usize::try_from(offset) else { return Ok(Vec::new()) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let offset = offset.min(to - from);
        if wanted.reverse {
            to -= offset;
            from = from.max(to.saturating_sub(count));
        } else {
            from += offset;
            to = to.min(from.saturating_add(count));
        }
    }
    let places = sorted.order().range(from, to).cloned();
    Ok(if wanted.reverse { places.rev().collect() } else { places.collect() })
}

fn range(call: &mut Call<'_>, fixed: Option<(By, bool)>) -> Outcome {
    let wanted = range_options(call, 4, fixed, false)?;
    let places = range_places(call, call.arg(1), 2, &wanted)?;
    Ok(if wanted.with_scores {
        Reply::Pairs(places.iter().map(scored).collect())
    } else {
        Reply::Array(places.into_iter().map(|(_, member)| Reply::Bulk(member)).collect())
    })
}

pub(crate) fn zrange(call: &mut Call<'_>) -> Outcome {
    range(call, None)
}

pub(crate) fn zrevrange(call: &mut Call<'_>) -> Outcome {
    range(call, Some((By::Rank, true)))
}

pub(crate) fn zrangebyscore(call: &mut Call<'_>) -> Outcome {
    range(call, Some((By::Score, false)))
}

pub(crate) fn zrevrangebyscore(call: &mut Call<'_>) -> Outcome {
    range(call, Some((By::Score, true)))
}

pub(crate) fn zrangebylex(call: &mut Call<'_>) -> Outcome {
    range(call, Some((By::Lex, false)))
}

pub(crate) fn zrevrangebylex(call: &mut Call<'_>) -> Outcome {
    range(call, Some((By::Lex, true)))
}

fn store(
    call: &mut Call<'_>,
    target: &Bytes,
    places: impl IntoIterator<Item = (f64, Bytes)>,
) -> Outcome {
    let mut result = Sorted::default();
    for (score, member) in places {
        result.set(&member, score);
    }
    let len = result.len();
    if len == 0 {
        call.remove(target);
    } else {
        call.put(target, result.into_value());
    }
    Ok(Reply::count(len))
}

pub(crate) fn zrangestore(call: &mut Call<'_>) -> Outcome {
    let wanted = range_options(call, 5, None, true)?;
    let places = range_places(call, call.arg(2), 3, &wanted)?;
    store(call, call.arg(1), places)
}

pub(crate) fn zcount(call: &mut Call<'_>) -> Outcome {
    let range = ScoreRange::parse(call.arg(2), call.arg(3))?;
    let Some(sorted) = call.sorted(call.arg(1))? else { return Ok(Reply::Int(0)) };
    let (from, to) = range.ranks(sorted);
    Ok(Reply::count(to - from))
}

pub(crate) fn zlexcount(call: &mut Call<'_>) -> Outcome {
    let range = LexRange::parse(call.arg(2), call.arg(3))?;
    let Some(sorted) = call.sorted(call.arg(1))? else { return Ok(Reply::Int(0)) };
    let (from, to) = range.ranks(sorted);
    Ok(Reply::count(to - from))
}

fn remove_ranks(call: &mut Call<'_>, select: impl FnOnce(&Sorted) -> Option<Ranks>) -> Outcome {
    let key = call.arg(1);
    let Some(sorted) = call.sorted(key)? else { return Ok(Reply::Int(0)) };
    let Some((from, to)) = select(sorted).filter(|(from, to)| from < to) else {
        return Ok(Reply::Int(0));
    };
    call.edit(key, |sorted: &mut Sorted| {
        let members: Vec<Bytes> =
            sorted.order().range(from, to).map(|(_, member)| member.clone()).collect();
        for member in members {
            sorted.remove(&member);
        }
    })?;
    call.touch(key);
    Ok(Reply::count(to - from))
}

pub(crate) fn zremrangebyrank(call: &mut Call<'_>) -> Outcome {
    let (start, end) = (call.int(2)?, call.int(3)?);
    remove_ranks(call, |sorted| index_range(start, end, sorted.len()))
}

pub(crate) fn zremrangebyscore(call: &mut Call<'_>) -> Outcome {
    let range = ScoreRange::parse(call.arg(2), call.arg(3))?;
    remove_ranks(call, |sorted| Some(range.ranks(sorted)))
}

pub(crate) fn zremrangebylex(call: &mut Call<'_>) -> Outcome {
    let range = LexRange::parse(call.arg(2), call.arg(3))?;
    remove_ranks(call, |sorted| Some(range.ranks(sorted)))
}

/// Takes up to `count` members from an end; `None` if there is no such sorted set.
fn take(
    call: &mut Call<'_>,
    key: &Bytes,
    highest: bool,
    count: usize,
) -> Result<Vec<(f64, Bytes)>, Fault> {
    let taken = call.edit_existing(key, |sorted: &mut Sorted| {
        let len = sorted.len();
        let count = count.min(len);
        let places: Vec<(f64, Bytes)> = if highest {
            sorted.order().range(len - count, len).rev().cloned().collect()
        } else {
            sorted.order().range(0, count).cloned().collect()
        };
        for (_, member) in &places {
            sorted.remove(member);
        }
        places
    })?;
    let taken = taken.unwrap_or_default();
    if !taken.is_empty() {
        call.touch(key);
    }
    Ok(taken)
}

fn flat(places: &[(f64, Bytes)]) -> Vec<Reply> {
    places
        .iter()
        .flat_map(|(score, member)| [Reply::Bulk(member.clone()), Reply::Double(*score)])
        .collect()
}

fn pop(call: &mut Call<'_>, highest: bool) -> Outcome {
    if call.len() > 3 {
        return Err(Fault::Syntax);
    }
    if call.len() == 2 {
        return Ok(Reply::Array(flat(&take(call, call.arg(1), highest, 1)?)));
    }
    let count = super::lists::positive(call, 2)?;
    let places = take(call, call.arg(1), highest, count)?;
    Ok(Reply::Pairs(places.iter().map(scored).collect()))
}

pub(crate) fn zpopmin(call: &mut Call<'_>) -> Outcome {
    pop(call, false)
}

pub(crate) fn zpopmax(call: &mut Call<'_>) -> Outcome {
    pop(call, true)
}

fn blocking_pop(call: &mut Call<'_>, highest: bool) -> Outcome {
    timeout(call.arg(call.len() - 1))?;
    let keys = call.rest(1);
    for key in keys.iter().take(keys.len() - 1) {
        let places = take(call, key, highest, 1)?;
        if !places.is_empty() {
            let mut items = vec![Reply::Bulk(key.clone())];
            items.extend(flat(&places));
            return Ok(Reply::Array(items));
        }
    }
    Ok(Reply::NullArray)
}

pub(crate) fn bzpopmin(call: &mut Call<'_>) -> Outcome {
    blocking_pop(call, false)
}

pub(crate) fn bzpopmax(call: &mut Call<'_>) -> Outcome {
    blocking_pop(call, true)
}

fn pop_from_many(call: &mut Call<'_>, at: usize) -> Outcome {
    let (keys, after) = counted_keys(call, at)?;
    let highest = match call.word(after).as_str() {
        "MIN" => false,
        "MAX" => true,
        _ => return Err(Fault::Syntax),
    };
    let count = pop_count(call, after + 1)?;
    for key in keys {
        let places = take(call, key, highest, count)?;
        if !places.is_empty() {
            let pairs = places.iter().map(|(score, m)| {
                Reply::Array(vec![Reply::Bulk(m.clone()), Reply::Double(*score)])
            });
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), Reply::Array(pairs.collect())]));
        }
    }
    Ok(Reply::NullArray)
}

pub(crate) fn zmpop(call: &mut Call<'_>) -> Outcome {
    pop_from_many(call, 1)
}

pub(crate) fn bzmpop(call: &mut Call<'_>) -> Outcome {
    timeout(call.arg(1))?;
    pop_from_many(call, 2)
}

pub(crate) fn zrandmember(call: &mut Call<'_>) -> Outcome {
    let key = call.arg(1);
    if call.len() == 2 {
        let Some(len) = call.sorted(key)?.map(|sorted| sorted.len()) else {
            return Ok(Reply::Null);
        };
        let index = call.random_below(len);
        let member = call.sorted(key)?.and_then(|sorted| sorted.scores().get_index(index));
        return Ok(member.map_or(Reply::Null, |(member, _)| Reply::Bulk(member.clone())));
    }
    let count = call.int(2)?;
    let with_scores = match call.len() {
        3 => false,
        4 if call.is(3, "WITHSCORES") => true,
        _ => return Err(Fault::Syntax),
    };
    if with_scores && !(-(i64::MAX / 2)..=i64::MAX / 2).contains(&count) {
        return Err(Fault::text("ERR value is out of range"));
    }
    let Some(sorted) = call.sorted(key)?.cloned() else { return Ok(Reply::Array(Vec::new())) };
    let picked = scan::pick(call, sorted.len(), count)?;
    let found = picked.into_iter().filter_map(|index| sorted.scores().get_index(index));
    Ok(if with_scores {
        Reply::Pairs(found.map(|(m, s)| (Reply::Bulk(m.clone()), Reply::Double(*s))).collect())
    } else {
        Reply::Array(found.map(|(member, _)| Reply::Bulk(member.clone())).collect())
    })
}

pub(crate) fn zscan(call: &mut Call<'_>) -> Outcome {
    let cursor = scan::cursor(call.arg(2))?;
    let Some(sorted) = call.sorted(call.arg(1))?.cloned() else { return Ok(scan::nothing()) };
    let options = scan::Options::parse(call, 3)?;
    let mut items = Vec::new();
    let next = scan::pass(sorted.len(), cursor, options.count, |index| {
        let Some((member, score)) = sorted.scores().get_index(index) else { return };
        if options.fits(member) {
            items.push(Reply::Bulk(member.clone()));
            items.push(Reply::text(format_float(*score)));
        }
    });
    Ok(scan::answer(next, items))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// Members with scores, from a sorted set or (score 1) a set.
enum Source {
    Sorted(Arc<Sorted>),
    Set(Arc<crate::value::Set>),
    Nothing,
}

impl Source {
    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Sorted(sorted) => sorted.score(member),
            Self::Set(set) => set.contains(member).then_some(1.0),
            Self::Nothing => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Sorted(sorted) => sorted.len(),
            Self::Set(set) => set.len(),
            Self::Nothing => 0,
        }
    }

    fn each(&self, mut see: impl FnMut(&Bytes, f64)) {
        match self {
            Self::Sorted(sorted) => {
                for (member, score) in sorted.scores() {
                    see(member, *score);
                }
            }
            Self::Set(set) => {
                for member in set.members() {
                    see(member, 1.0);
                }
            }
            Self::Nothing => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Sum => {
                let sum = left + right;
                // Plus and minus infinity cancel out.
                if sum.is_nan() { 0.0 } else { sum }
            }
            Self::Min => left.min(right),
            Self::Max => left.max(right),
        }
    }
}

/// The keys counted by argument `at`, with the complaint for this command.
fn operands<'a>(call: &Call<'a>, at: usize) -> Result<(&'a [Bytes], usize), Fault> {
    let count = call.int(at)?;
    if count < 1 {
        let name = String::from_utf8_lossy(call.arg(0)).to_ascii_lowercase();
        return Err(Fault::Text(
            format!("ERR at least 1 input key is needed for '{name}' command").into(),
        ));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let keys = call.rest(at + 1).get(..count).ok_or(Fault::Syntax)?;
    Ok((keys, at + 1 + count))
}

fn combine(
    call: &mut Call<'_>,
    at: usize,
    operation: Operation,
    storing: bool,
) -> Result<(Sorted, bool), Fault> {
    let (keys, mut at) = operands(call, at)?;
    let mut sources = Vec::with_capacity(keys.len());
    for key in keys {
        sources.push(match call.value(key) {
            None => Source::Nothing,
            Some(Value::Sorted(sorted)) => Source::Sorted(Arc::clone(sorted)),
            Some(Value::Set(set)) => Source::Set(Arc::clone(set)),
            Some(_) => return Err(Fault::WrongType),
        });
    }
    let mut weights = vec![1.0; keys.len()];
    let (mut aggregate, mut with_scores) = (Aggregate::Sum, false);
    while at < call.len() {
        match call.word(at).as_str() {
            "WEIGHTS" if operation != Operation::Diff && call.len() - at > keys.len() => {
                for (index, weight) in weights.iter_mut().enumerate() {
                    *weight = parse_float(call.arg(at + 1 + index))
                        .ok_or(Fault::text("ERR weight value is not a float"))?;
                }
                at += keys.len();
            }
            "AGGREGATE" if operation != Operation::Diff && call.len() - at > 1 => {
                aggregate = match call.word(at + 1).as_str() {
                    "SUM" => Aggregate::Sum,
                    "MIN" => Aggregate::Min,
                    "MAX" => Aggregate::Max,
                    _ => return Err(Fault::Syntax),
                };
                at += 1;
            }
            "WITHSCORES" if !storing => with_scores = true,
            _ => return Err(Fault::Syntax),
        }
        at += 1;
    }
    let weighted = |score: f64, weight: f64| {
        let product = score * weight;
        if product.is_nan() { 0.0 } else { product }
    };
    let mut scores: IndexMap<Bytes, f64, Hashing> = IndexMap::default();
    match operation {
        Operation::Union => {
            for (source, weight) in sources.iter().zip(&weights) {
                source.each(|member, score| {
                    let score = weighted(score, *weight);
                    scores
                        .entry(member.clone())
                        .and_modify(|old| *old = aggregate.of(*old, score))
                        .or_insert(score);
                });
            }
        }
        Operation::Inter => {
            if let Some(smallest) = sources.iter().min_by_key(|source| source.len()) {
                smallest.each(|member, _| {
                    let mut total: Option<f64> = None;
                    for (source, weight) in sources.iter().zip(&weights) {
                        let Some(score) = source.score(member) else { return };
                        let score = weighted(score, *weight);
                        total = Some(total.map_or(score, |old| aggregate.of(old, score)));
                    }
                    if let Some(total) = total {
                        scores.insert(member.clone(), total);
                    }
                });
            }
        }
        Operation::Diff => {
            if let Some((first, others)) = sources.split_first() {
                first.each(|member, score| {
                    if !others.iter().any(|other| other.score(member).is_some()) {
                        scores.insert(member.clone(), score);
                    }
                });
            }
        }
    }
    let mut result = Sorted::default();
    for (member, score) in scores {
        result.set(&member, score);
    }
    Ok((result, with_scores))
}

fn combined(call: &mut Call<'_>, operation: Operation) -> Outcome {
    let (result, with_scores) = combine(call, 1, operation, false)?;
    let places = result.order().range(0, result.len());
    Ok(if with_scores {
        Reply::Pairs(places.map(scored).collect())
    } else {
        Reply::Array(places.map(|(_, member)| Reply::Bulk(member.clone())).collect())
    })
}

fn stored(call: &mut Call<'_>, operation: Operation) -> Outcome {
    let (result, _) = combine(call, 2, operation, true)?;
    let target = call.arg(1);
    let len = result.len();
    if len == 0 {
        call.remove(target);
    } else {
        call.put(target, result.into_value());
    }
    Ok(Reply::count(len))
}

pub(crate) fn zunion(call: &mut Call<'_>) -> Outcome {
    combined(call, Operation::Union)
}

pub(crate) fn zinter(call: &mut Call<'_>) -> Outcome {
    combined(call, Operation::Inter)
}

pub(crate) fn zdiff(call: &mut Call<'_>) -> Outcome {
    combined(call, Operation::Diff)
}

pub(crate) fn zunionstore(call: &mut Call<'_>) -> Outcome {
    stored(call, Operation::Union)
}

pub(crate) fn zinterstore(call: &mut Call<'_>) -> Outcome {
    stored(call, Operation::Inter)
}

pub(crate) fn zdiffstore(call: &mut Call<'_>) -> Outcome {
    stored(call, Operation::Diff)
}

pub(crate) fn zintercard(call: &mut Call<'_>) -> Outcome {
    let (keys, after) = operands(call, 1)?;
    let mut sources = Vec::new();
    for key in keys {
        sources.push(match call.value(key) {
            None => Source::Nothing,
            Some(Value::Sorted(sorted)) => Source::Sorted(Arc::clone(sorted)),
            Some(Value::Set(set)) => Source::Set(Arc::clone(set)),
            Some(_) => return Err(Fault::WrongType),
        });
    }
    let limit = count_limit(call, after)?;
    let mut count = 0;
    if let Some(smallest) = sources.iter().min_by_key(|source| source.len()) {
        smallest.each(|member, _| {
            count += usize::from(sources.iter().all(|source| source.score(member).is_some()));
        });
    }
    Ok(cut(count, limit))
}
