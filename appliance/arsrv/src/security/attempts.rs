//! Failed attempts in the log: each one, but not a flood of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines in one window.
const LINES: u32 = 10;

/// Decides, for one channel, which failed attempts get a log line.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Attempts {
    /// Counts an attempt.  If it is to be logged, gives how many were left out before it.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            window.since = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let logged = (0..100).filter(|_| attempts.count(start) == Some(0)).count();
        assert_eq!(logged, 10);
        assert_eq!(attempts.count(start + WINDOW), Some(90));
        assert_eq!(attempts.count(start + WINDOW), Some(0));
    }
}
