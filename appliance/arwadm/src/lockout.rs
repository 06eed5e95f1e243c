//! Slowing down who guesses: after a few wrong attempts the next one has to wait, longer each time.
//!
//! This module keeps the counts and does nothing else: it reads no clock (`now` is an argument).
//!
//! **Invariant:** an attempt is counted as wrong before it is known to be right, so a hundred attempts at
//! one moment are no way around the limit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Counts are forgotten this long after the last wrong attempt.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Most names whose counts are kept; beyond it those longest quiet are forgotten.
const MOST_KEYS: usize = 10_000;

/// What is counted, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Attempts to log in as a user.
    User(String),
    /// Attempts to log in from an address.
    Address(String),
    /// Attempts to claim the box.
    Claim,
}

impl Key {
    /// How many wrong attempts are free, and the longest wait.
    fn patience(&self) -> (u32, Duration) {
        match self {
            // Short enough that nobody can lock a user out by guessing under his name.
            Self::User(_) => (5, Duration::from_secs(60)),
            // An address may be a whole office behind one gateway.
            Self::Address(_) => (20, Duration::from_secs(900)),
            Self::Claim => (5, Duration::from_secs(900)),
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Lockout(HashMap<Key, Count>);

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    last: Instant,
}

/// Too many wrong attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong attempts; wait {} s and try again", .0.as_secs().max(1))]
pub(crate) struct Wait(pub(crate) Duration);

impl Lockout {
    /// Allows one attempt under all of `keys`, or says how long to wait.
    pub(crate) fn attempt(&mut self, keys: &[Key], now: Instant) -> Result<(), Wait> {
        let wait = keys.iter().filter_map(|key| self.remaining(key, now)).max();
        if let Some(wait) = wait {
            return Err(Wait(wait));
        }
        for key in keys {
            let count = self.0.entry(key.clone()).or_insert(Count { wrong: 0, last: now });
            if now.duration_since(count.last) > FORGET_AFTER {
                count.wrong = 0;
            }
            count.wrong = count.wrong.saturating_add(1);
            count.last = now;
        }
        if self.0.len() > MOST_KEYS {
            self.shrink(now);
        }
        Ok(())
    }

    /// The attempt was right.
    pub(crate) fn succeeded(&mut self, keys: &[Key]) {
        for key in keys {
            self.0.remove(key);
        }
    }

    fn remaining(&self, key: &Key, now: Instant) -> Option<Duration> {
        let count = self.0.get(key)?;
        let (free, longest) = key.patience();
        let beyond = count.wrong.checked_sub(free)?;
        let wait = Duration::from_secs(1u64 << beyond.min(20)).min(longest);
        (count.last + wait).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn shrink(&mut self, now: Instant) {
        self.0.retain(|_, count| now.duration_since(count.last) <= FORGET_AFTER);
        if self.0.len() > MOST_KEYS {
            let mut ages: Vec<Instant> = self.0.values().map(|count| count.last).collect();
            ages.sort_unstable();
            let middle = ages.get(ages.len() / 2).copied().unwrap_or(now);
            self.0.retain(|_, count| count.last > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn five_wrong_attempts_are_free_then_the_wait_doubles() {
        let mut lockout = Lockout::default();
        let keys = [Key::Claim];
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(lockout.attempt(&keys, start), Ok(()));
        }
        assert_eq!(lockout.attempt(&keys, start), Err(Wait(seconds(1))));
        assert_eq!(lockout.attempt(&keys, start + seconds(1)), Ok(()));
        assert_eq!(lockout.attempt(&keys, start + seconds(1)), Err(Wait(seconds(2))));
        assert_eq!(lockout.attempt(&keys, start + seconds(3)), Ok(()));
        assert_eq!(
            lockout.attempt(&keys, start + seconds(3)).unwrap_err().to_string(),
            "too many wrong attempts; wait 4 s and try again"
        );
    }

    #[test]
    fn the_wait_has_a_limit_and_ends_by_itself() {
        let mut lockout = Lockout::default();
        let keys = [Key::User("anna".to_owned())];
        let mut now = Instant::now();
        for _ in 0..60 {
            now += seconds(60);
            assert_eq!(lockout.attempt(&keys, now), Ok(()));
        }
        assert_eq!(lockout.attempt(&keys, now), Err(Wait(seconds(60))));
        now += seconds(3601);
        for _ in 0..5 {
            assert_eq!(lockout.attempt(&keys, now), Ok(()));
        }
    }

    #[test]
    fn a_right_attempt_clears_the_count() {
        let mut lockout = Lockout::default();
        let keys = [Key::User("anna".to_owned()), Key::Address("10.0.0.1".to_owned())];
        let now = Instant::now();
        for _ in 0..50 {
            assert_eq!(lockout.attempt(&keys, now), Ok(()));
            lockout.succeeded(&keys);
        }
    }

    #[test]
    fn many_names_do_not_fill_the_memory() {
        let mut lockout = Lockout::default();
        let start = Instant::now();
        for number in 0..25_000u64 {
            let key = Key::User(format!("user-{number}"));
            assert_eq!(lockout.attempt(&[key], start + Duration::from_millis(number)), Ok(()));
        }
        assert!(lockout.0.len() <= MOST_KEYS);
    }
}
