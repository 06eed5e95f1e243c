//! Rate limits: requests are counted here, against what is configured on channels, securities and services.
//!
//! Windows are aligned to the clock, as in 3.2: `1000/m` is a thousand in each minute of UTC.  All workers are behind
//! this one process, so what is counted is exact for the box.  A cluster that wants one count for all its boxes
//! puts it behind [`Counter`], which is the only place that knows how much was used.
//!
//! **Invariant:** memory is bounded whoever calls: a line that counts each address keeps [`ADDRESSES`] of them, and
//! those beyond share [`SHARED`] counts, so that a flood of addresses gets less, never more.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arapi::limits::{Definition, Line, Rate};
use arapi::names::{Kind, ObjectName};
use arapi::objects::{RateLimit, Spec};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::security::attempts::Attempts;
use crate::world::World;

/// Addresses that a line with `each` counts one by one in a window.
pub const ADDRESSES: usize = 16_384;
/// Counts that all further addresses share.
pub const SHARED: usize = 1024;

/// Where a definition is given and cannot be read, nobody may come in.
const NOBODY: &str = "* = none";

/// All limits there are, by the object that has them.
#[derive(Debug, Default)]
pub struct Limits(BTreeMap<(Kind, ObjectName), Arc<Limiter>>);

/// The limit of one object.
#[derive(Debug)]
pub struct Limiter {
    /// Whose, for people: ``channel `orders` ``.
    pub what: String,
    /// What it has refused.
    pub refused: Arc<AtomicU64>,
    definition: Definition,
    counters: Vec<Arc<Counter>>,
    log: Attempts,
}

/// What was used of one line.
#[derive(Debug)]
struct Counter {
    /// Which line it is: counts go on while whom, when and the window's length stay the same.
    key: String,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// When the window began, Unix milliseconds.
    since: u64,
    all: u32,
    each: HashMap<u128, u32>,
    shared: Vec<u32>,
}

/// How a caller stands with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests of a window.
    pub limit: u32,
    /// How many are left.
    pub remaining: u32,
    /// When the next window begins.
    pub reset: Duration,
}

/// Why a request may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose limit it is.
    pub what: String,
    /// How the caller stands; None: it may never come in.
    pub standing: Option<Standing>,
}

/// What one request has taken from limits.
#[derive(Debug)]
pub struct Ticket {
    /// The caller's address; None: it comes from inside.
    pub addr: Option<IpAddr>,
    /// When it came.
    pub now: SystemTime,
    taken: Vec<Arc<Limiter>>,
    /// How the caller stands with the limit that has the least left.
    pub tightest: Option<Standing>,
}

impl Limits {
    /// The limits of a world; counts go on from `before`.
    pub fn plan(world: &World, before: &Self) -> Self {
        let mut limits = BTreeMap::new();
        for kind in [Kind::Channel, Kind::Security, Kind::Service] {
            for object in world.of_kind(kind) {
                let limit = match &object.spec {
                    Spec::Channel(spec) => spec.rate_limit.as_ref(),
                    Spec::Security(spec) => spec.rate_limit(),
                    Spec::Service(spec) => spec.rate_limit.as_ref(),
                    _ => None,
                };
                let Some(limit) = limit.filter(|limit| limit.is_active) else { continue };
                let key = (kind, object.name.clone());
                let what = format!("{} `{}`", kind.as_str().to_lowercase(), object.name);
                let known = before.0.get(&key);
                let limiter = match definition(limit, world) {
                    Ok(definition) => Limiter::new(what, definition, known.map(Arc::as_ref)),
                    Err(reason) => {
                        log::error!(name = what, reason; "rate limit cannot be read; nobody may come in");
                        let Ok(nobody) = NOBODY.parse() else { continue };
                        Limiter::new(what, nobody, None)
                    }
                };
                limits.insert(key, Arc::new(limiter));
            }
        }
        Self(limits)
    }

    /// The limit of an object.
    pub fn of(&self, kind: Kind, name: &ObjectName) -> Option<&Arc<Limiter>> {
        // Most nodes have none, and then no key has to be made.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(kind, name.clone()))
    }
}

fn definition(limit: &RateLimit, world: &World) -> Result<Definition, String> {
    let text = match (&limit.definition, &limit.tier) {
        (Some(text), _) => text,
        (None, Some(tier)) => {
            match world.object(Kind::QuotaTier, tier).map(|object| &object.spec) {
                Some(Spec::QuotaTier(spec)) => &spec.definition,
                _ => return Err(format!("quota tier `{tier}` does not exist")),
            }
        }
        (None, None) => return Err("it has neither a definition nor a tier".to_owned()),
    };
    text.parse().map_err(|err: arapi::limits::DefinitionError| err.to_string())
}

impl Limiter {
    /// A limit; where a line goes on from `before`, so does its count.
    fn new(what: String, definition: Definition, before: Option<&Self>) -> Self {
        let counter = |line: &Line| {
            let key = key_of(line);
            let known = before.and_then(|before| before.counters.iter().find(|one| one.key == key));
            known.cloned().unwrap_or_else(|| Arc::new(Counter { key, used: Mutex::default() }))
        };
        let counters = definition.lines().iter().map(counter).collect();
        let refused = before.map(|before| Arc::clone(&before.refused)).unwrap_or_default();
        Self { what, refused, definition, counters, log: Attempts::default() }
    }

    /// Counts a request.  Ok(None): there is no limit for this caller.
    fn take(
        &self,
        addr: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Option<Standing>, Option<Standing>> {
        let now = millis(now);
        let Some((line, counter)) = self.line(addr, now) else { return Err(None) };
        match line.rate {
            Rate::Unlimited => Ok(None),
            Rate::Refused => Err(None),
            Rate::Limited { requests, unit, each } => {
                counter.take(each.then_some(addr).flatten(), now, unit.millis(), requests)
            }
        }
    }

    fn give_back(&self, addr: Option<IpAddr>, now: SystemTime) {
        let now = millis(now);
        if let Some((line, counter)) = self.line(addr, now)
            && let Rate::Limited { unit, each, .. } = line.rate
        {
            counter.give_back(each.then_some(addr).flatten(), now, unit.millis());
        }
    }

    fn line(&self, addr: Option<IpAddr>, now: u64) -> Option<(&Line, &Counter)> {
        let minute = u16::try_from(now / 60_000 % 1440).unwrap_or(0);
        let at = self.definition.find(addr, minute)?;
        Some((self.definition.lines().get(at)?, self.counters.get(at)?))
    }
}

fn key_of(line: &Line) -> String {
    let rate = match line.rate {
        Rate::Limited { unit, each, .. } => Rate::Limited { requests: 1, unit, each },
        other => other,
    };
    Line { rate, ..line.clone() }.to_string()
}

fn millis(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Counter {
    fn take(
        &self,
        addr: Option<IpAddr>,
        now: u64,
        window: u64,
        limit: u32,
    ) -> Result<Option<Standing>, Option<Standing>> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.turn(now, window);
        let reset = Duration::from_millis((used.since + window).saturating_sub(now));
        let count = used.count(addr);
        let standing = |remaining| Some(Standing { limit, remaining, reset });
        if *count >= limit {
            return Err(standing(0));
        }
        *count += 1;
        Ok(standing(limit - *count))
    }

    fn give_back(&self, addr: Option<IpAddr>, now: u64, window: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.turn(now, window);
        let count = used.count(addr);
        *count = count.saturating_sub(1);
    }
}

impl Used {
    /// Begins a new window where the last one is over, or where the clock was set back by more than one.
    fn turn(&mut self, now: u64, window: u64) {
        let since = now - now.checked_rem(window).unwrap_or(0);
        let is_same = self.since == since || (self.since > now && self.since - now < window);
        if !is_same {
            *self = Self { since, ..Self::default() };
        }
    }

    fn count(&mut self, addr: Option<IpAddr>) -> &mut u32 {
        let Some(addr) = addr else { return &mut self.all };
        let key = number(addr);
        if self.each.len() < ADDRESSES || self.each.contains_key(&key) {
            return self.each.entry(key).or_default();
        }
        if self.shared.is_empty() {
            self.shared = vec![0; SHARED];
        }
        let at = usize::try_from(hasher().hash_one(key) % 1024).unwrap_or(0);
        match self.shared.get_mut(at) {
            Some(count) => count,
            None => &mut self.all,
        }
    }
}

/// Nobody outside can choose which count an address shares.
fn hasher() -> &'static RandomState {
    static HASHER: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    HASHER.get_or_init(RandomState::new)
}

/// The number that stands for an address; of IPv6 only the network, because one caller has a whole one.
pub fn number(addr: IpAddr) -> u128 {
    match addr.to_canonical() {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits() & !u128::from(u64::MAX) | 1 << 32,
    }
}

/// The address in a text such as `192.0.2.7:50112`, `[2001:db8::1]:50112` or `192.0.2.7`.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
        return Some(addr.ip().to_canonical());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

impl Ticket {
    /// For a caller at an address, now.  Without an address it comes from inside.
    pub fn new(addr: Option<IpAddr>, now: SystemTime) -> Self {
        Self { addr, now, taken: Vec::new(), tightest: None }
    }

    /// Counts the request on a limit, if there is one.  Where it is above, what it took elsewhere is given back.
    pub fn take(&mut self, limiter: Option<&Arc<Limiter>>) -> Result<(), Exceeded> {
        let Some(limiter) = limiter else { return Ok(()) };
        match limiter.take(self.addr, self.now) {
            Ok(standing) => {
                self.taken.push(Arc::clone(limiter));
                self.tightest = match (self.tightest, standing) {
                    (Some(known), Some(new)) if known.remaining <= new.remaining => Some(known),
                    (known, new) => new.or(known),
                };
                Ok(())
            }
            Err(standing) => {
                for taken in self.taken.drain(..) {
                    taken.give_back(self.addr, self.now);
                }
                // What the caller is told is how it stands with the limit that refused it.
                self.tightest = standing;
                limiter.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = limiter.log.count(Instant::now()) {
                    let remote =
                        self.addr.map_or_else(|| "inside".to_owned(), |addr| addr.to_string());
                    let reason = match standing {
                        Some(standing) => {
                            format!("{} requests a window are used up", standing.limit)
                        }
                        None => "no line lets this address in".to_owned(),
                    };
                    log::warn!(name = limiter.what, remote, reason, left_out; "request is above a rate limit");
                }
                Err(Exceeded { what: limiter.what.clone(), standing })
            }
        }
    }
}

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

impl Standing {
    /// Whole seconds to the next window, never too few.
    pub fn seconds(&self) -> u64 {
        (self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0)).max(1)
    }

    /// Tells the caller: `RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.seconds()));
    }
}

#[cfg(test)]
mod tests;
