//! Failed attempts to come in: who fails often is slowed down, and nobody else is.
//!
//! What is counted is an address with what it tries to be: ten failures in a row are free, then one attempt a second
//! is looked at, and the pause doubles up to [`LONGEST`].  Callers at other addresses, or with other names, are not
//! concerned; and what has opened before from the same address opens at any time, so that a stranger behind the same
//! router keeps nobody out.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::credentials::Fingerprint;

/// Failures in a row that cost nothing.
const FREE: u32 = 10;
/// Longest pause.
pub const LONGEST: Duration = Duration::from_secs(16);
/// After so long without a failure they are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// Most that are remembered.
const MOST: usize = 20_000;
/// Most different ones that opened from one address, for example the API keys of an office.
const GOOD: usize = 32;

/// What is known of failed attempts.
#[derive(Debug)]
pub struct Slowing {
    hasher: RandomState,
    tried: Mutex<HashMap<u64, Tried>>,
}

#[derive(Debug)]
struct Tried {
    failures: u32,
    last: Instant,
    /// When the next attempt is looked at.
    next: Instant,
    /// What opened lately.
    good: Vec<Fingerprint>,
}

/// An attempt that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    key: u64,
    what: Fingerprint,
    /// Whether it has opened before.
    is_known: bool,
}

impl Default for Slowing {
    fn default() -> Self {
        Self { hasher: RandomState::new(), tried: Mutex::default() }
    }
}

impl Slowing {
    /// Whether an attempt is looked at now; if not, when the next one is.
    ///
    /// `who` is what the caller tries to be, for example its user name; `what` is what it shows.
    pub fn admit(
        &self,
        addr: IpAddr,
        who: (&str, &str),
        what: Fingerprint,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let key = self.hasher.hash_one((crate::limits::number(addr), who));
        let attempt = Attempt { key, what, is_known: false };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = tried.get_mut(&key) else { return Ok(attempt) };
        if known.good.iter().any(|good| good.is(&what)) {
            return Ok(Attempt { is_known: true, ..attempt });
        }
        if now.duration_since(known.last) >= FORGOTTEN {
            known.failures = 0;
            known.next = now;
        }
        if now < known.next {
            return Err(known.next - now);
        }
        if known.failures >= FREE {
            // Attempts side by side are looked at one by one.
            known.next = now + known.pause();
        }
        Ok(attempt)
    }

    /// The attempt opened.
    pub fn opened(&self, attempt: Attempt, now: Instant) {
        // What opened before says nothing about the others at this address.
        if attempt.is_known {
            return;
        }
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let known = place(&mut tried, attempt.key, now);
        known.failures = 0;
        known.next = now;
        known.last = now;
        if known.good.len() >= GOOD {
            known.good.remove(0);
        }
        known.good.push(attempt.what);
    }

    /// The attempt failed.
    pub fn failed(&self, attempt: Attempt, now: Instant) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let known = place(&mut tried, attempt.key, now);
        if now.duration_since(known.last) >= FORGOTTEN {
            known.failures = 0;
        }
        known.last = now;
        known.failures = known.failures.saturating_add(1);
        if known.failures >= FREE {
            known.next = known.next.max(now + known.pause());
        }
    }
}

/// The place of a key; where there is no room, what is old goes, and then any other.
fn place(tried: &mut HashMap<u64, Tried>, key: u64, now: Instant) -> &mut Tried {
    if tried.len() >= MOST && !tried.contains_key(&key) {
        tried.retain(|_, known| now.duration_since(known.last) < FORGOTTEN);
        if tried.len() >= MOST {
            // Somebody with thousands of addresses.
            let any = tried.keys().next().copied();
            any.map(|any| tried.remove(&any));
        }
    }
    tried.entry(key).or_insert_with(|| Tried {
        failures: 0,
        last: now,
        next: now,
        good: Vec::new(),
    })
}

impl Tried {
    fn pause(&self) -> Duration {
        let doubled = 1_u64 << self.failures.saturating_sub(FREE).min(4);
        Duration::from_secs(doubled).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";

    fn admit(
        slowing: &Slowing,
        addr: &str,
        user: &str,
        what: &str,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        slowing.admit(addr.parse().unwrap(), ("basic", user), Fingerprint::of(what.as_bytes()), now)
    }

    fn fail(slowing: &Slowing, times: u32, now: Instant) {
        for n in 0..times {
            let attempt = admit(slowing, A, "anna", &format!("wrong{n}"), now).unwrap();
            slowing.failed(attempt, now);
        }
    }

    #[test]
    fn who_fails_often_waits_longer_and_longer() {
        let (slowing, now) = (Slowing::default(), Instant::now());
        fail(&slowing, 10, now);
        let mut at = now;
        for seconds in [1, 2, 4, 8, 16, 16] {
            let wait = admit(&slowing, A, "anna", "next", at).unwrap_err();
            assert_eq!(wait, Duration::from_secs(seconds));
            at += wait;
            let attempt = admit(&slowing, A, "anna", "next", at).unwrap();
            // A second one beside it is not looked at.
            assert!(admit(&slowing, A, "anna", "beside", at).is_err());
            slowing.failed(attempt, at);
        }
        // After a while all is forgotten.
        fail(&slowing, 10, at + FORGOTTEN + LONGEST);
    }

    #[test]
    fn nobody_else_is_kept_out() {
        let (slowing, now) = (Slowing::default(), Instant::now());
        fail(&slowing, 3, now);
        let good = admit(&slowing, A, "anna", "right", now).unwrap();
        slowing.opened(good, now);
        fail(&slowing, 10, now);
        assert!(admit(&slowing, A, "anna", "wrong", now).is_err());
        // What has opened before, another user, another address.
        assert!(admit(&slowing, A, "anna", "right", now).is_ok());
        assert!(admit(&slowing, A, "bert", "any", now).is_ok());
        assert!(admit(&slowing, "192.0.2.2", "anna", "any", now).is_ok());
        // Right ones from here do not give the stranger another ten.
        slowing.opened(admit(&slowing, A, "anna", "right", now).unwrap(), now);
        assert!(admit(&slowing, A, "anna", "wrong", now).is_err());
    }

    #[test]
    fn thousands_of_addresses_take_bounded_memory() {
        let (slowing, now) = (Slowing::default(), Instant::now());
        for n in 0..30_000_u32 {
            let addr = IpAddr::V4(n.into());
            let what = Fingerprint::of(b"x");
            slowing.failed(slowing.admit(addr, ("basic", "anna"), what, now).unwrap(), now);
        }
        assert!(slowing.tried.lock().unwrap().len() <= MOST);
    }
}
