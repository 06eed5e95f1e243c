//! Keeps a flood of equal log lines from becoming a second fault: so many a second, the rest counted.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Lets a number of lines pass each second.
#[derive(Debug)]
pub struct LineGate {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second: Instant,
    passed: u32,
    dropped: u64,
}

impl LineGate {
    /// A gate for `per_second` lines.
    pub fn new(per_second: u32) -> Self {
        let state = State { second: Instant::now(), passed: 0, dropped: 0 };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Whether a line may pass now; if so, how many were dropped since the last that did.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.second) >= Duration::from_secs(1) {
            state.second = now;
            state.passed = 0;
        }
        if state.passed >= self.per_second {
            state.dropped += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_rate_are_counted_and_told_with_the_next() {
        let gate = LineGate::new(2);
        let now = Instant::now();
        assert_eq!(gate.pass(now), Some(0));
        assert_eq!(gate.pass(now), Some(0));
        assert_eq!(gate.pass(now), None);
        assert_eq!(gate.pass(now), None);
        assert_eq!(gate.pass(now + Duration::from_secs(2)), Some(2));
        assert_eq!(gate.pass(now + Duration::from_secs(2)), Some(0));
    }
}
