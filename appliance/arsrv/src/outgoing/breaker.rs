//! The circuit breaker: stops calling a system that fails every time, and tries again by itself.
//!
//! Closed, calls go through; so many failures in a row open it; open, calls are refused at once; after a
//! while one call is let through (half-open), and its end closes or opens it again.
//!
//! It reads no clock: `now` is an argument.
//!
//! **Invariant:** half-open lets one call through at a time, and a call that is given up does not keep
//! others out.

use std::time::{Duration, Instant};

/// One connection's breaker.
#[derive(Debug)]
pub struct Breaker {
    /// Failures in a row that open it; 0: it never opens.
    limit: u32,
    open_for: Duration,
    state: State,
    /// Counts openings and closings: what was let through before tells nothing about now.
    era: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// Lets one attempt through; to be handed back with how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    era: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The other side answered as it should.
    Well,
    /// It did not.
    Badly,
    /// Nobody waited for it.
    GivenUp,
}

/// The circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When the next attempt will be let through; zero: another attempt is being made just now.
    pub again_in: Duration,
}

impl Breaker {
    /// A closed one.
    pub fn new(limit: u32, open_for: Duration) -> Self {
        Self { limit, open_for, state: State::Closed { failures: 0 }, era: 0 }
    }

    /// Asks to let an attempt through.
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Refused> {
        match self.state {
            State::Closed { .. } => Ok(Pass { era: self.era }),
            State::Open { until } if now < until => Err(Refused { again_in: until - now }),
            State::Open { .. } => {
                self.state = State::HalfOpen;
                self.era += 1;
                Ok(Pass { era: self.era })
            }
            State::HalfOpen => Err(Refused { again_in: Duration::ZERO }),
        }
    }

    /// Hands a pass back.  Returns whether this opened or closed the circuit.
    pub fn report(&mut self, pass: Pass, ended: Ended, now: Instant) -> Option<bool> {
        if pass.era != self.era {
            return None;
        }
        let half_open = matches!(self.state, State::HalfOpen);
        match (self.state, ended) {
            (State::Closed { .. }, Ended::Well) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, Ended::Badly) => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                if self.limit > 0 && failures >= self.limit {
                    self.open_until(now + self.open_for);
                    return Some(true);
                }
            }
            (State::HalfOpen, Ended::Well) => {
                self.state = State::Closed { failures: 0 };
                self.era += 1;
                return Some(false);
            }
            (State::HalfOpen, Ended::Badly) => self.open_until(now + self.open_for),
            // The next one tries.
            (State::HalfOpen, Ended::GivenUp) => self.open_until(now),
            (State::Closed { .. } | State::Open { .. }, _) => {}
        }
        (half_open && ended == Ended::Badly).then_some(true)
    }

    fn open_until(&mut self, until: Instant) {
        self.state = State::Open { until };
        self.era += 1;
    }

    /// How many failures in a row open it.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// `closed`, `open` or `half-open`.
    pub fn state(&self, now: Instant) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { until } if now < until => "open",
            State::Open { .. } | State::HalfOpen => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);
    const ONE_MS: Duration = Duration::from_millis(1);

    struct Fixture {
        breaker: Breaker,
        now: Instant,
    }

    impl Fixture {
        fn with_limit(limit: u32) -> Self {
            Self { breaker: Breaker::new(limit, OPEN_FOR), now: Instant::now() }
        }

        #[track_caller]
        fn call(&mut self, ended: Ended) {
            let pass = self.breaker.admit(self.now).unwrap();
            self.breaker.report(pass, ended, self.now);
        }

        fn state(&self) -> &'static str {
            self.breaker.state(self.now)
        }
    }

    #[test]
    fn so_many_failures_in_a_row_open_it() {
        let mut fx = Fixture::with_limit(3);
        fx.call(Ended::Badly);
        fx.call(Ended::Badly);
        fx.call(Ended::Well);
        fx.call(Ended::Badly);
        fx.call(Ended::Badly);
        assert_eq!(fx.state(), "closed");
        fx.call(Ended::Badly);
        assert_eq!(fx.state(), "open");
        assert_eq!(fx.breaker.admit(fx.now), Err(Refused { again_in: OPEN_FOR }));
    }

    #[test]
    fn after_a_while_one_call_tries_and_its_success_closes_it() {
        let mut fx = Fixture::with_limit(1);
        fx.call(Ended::Badly);
        fx.now += OPEN_FOR - ONE_MS;
        assert_eq!(fx.breaker.admit(fx.now), Err(Refused { again_in: ONE_MS }));
        fx.now += ONE_MS;
        let pass = fx.breaker.admit(fx.now).unwrap();
        assert_eq!(fx.state(), "half-open");
        assert_eq!(fx.breaker.admit(fx.now), Err(Refused { again_in: Duration::ZERO }));
        assert_eq!(fx.breaker.report(pass, Ended::Well, fx.now), Some(false));
        assert_eq!(fx.state(), "closed");
    }

    #[test]
    fn a_failed_try_opens_it_again() {
        let mut fx = Fixture::with_limit(1);
        fx.call(Ended::Badly);
        fx.now += OPEN_FOR;
        fx.call(Ended::Badly);
        assert_eq!(fx.breaker.admit(fx.now), Err(Refused { again_in: OPEN_FOR }));
    }

    #[test]
    fn a_try_that_is_given_up_leaves_the_next_one_to_try() {
        let mut fx = Fixture::with_limit(1);
        fx.call(Ended::Badly);
        fx.now += OPEN_FOR;
        fx.call(Ended::GivenUp);
        fx.call(Ended::Well);
        assert_eq!(fx.state(), "closed");
    }

    #[test]
    fn calls_from_before_tell_nothing_about_now() {
        let mut fx = Fixture::with_limit(1);
        let old = fx.breaker.admit(fx.now).unwrap();
        let late = fx.breaker.admit(fx.now).unwrap();
        fx.call(Ended::Badly);
        assert_eq!(fx.breaker.report(old, Ended::Well, fx.now), None);
        assert_eq!(fx.state(), "open");
        fx.now += OPEN_FOR;
        fx.call(Ended::Well);
        assert_eq!(fx.breaker.report(late, Ended::Badly, fx.now), None);
        assert_eq!(fx.state(), "closed");
    }

    #[test]
    fn a_limit_of_0_never_opens() {
        let mut fx = Fixture::with_limit(0);
        for _ in 0..1000 {
            fx.call(Ended::Badly);
        }
        assert_eq!(fx.state(), "closed");
    }
}
