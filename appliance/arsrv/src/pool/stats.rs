//! How often a service was called, and how long that took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arbase::metrics::{Histogram, Seen};

/// Times kept for the percentiles.
const KEPT: usize = 1024;

/// The figures of one service since the core's start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    calls: AtomicU64,
    failures: AtomicU64,
    histogram: Histogram,
    times: Mutex<Times>,
}

/// The last times, microseconds, in a ring.
#[derive(Debug, Default)]
struct Times {
    ring: Vec<u32>,
    next: usize,
}

/// What [`Stats`] say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Calls.
    pub(crate) calls: u64,
    /// Those that failed (5xx).
    pub(crate) failures: u64,
    /// Median, milliseconds.
    pub(crate) p50_ms: f64,
    /// The slowest hundredth.
    pub(crate) p99_ms: f64,
}

impl Stats {
    /// Notes one call.
    pub(crate) fn note(&self, took: Duration, has_failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if has_failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.histogram.note(took);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let next = times.next;
        match times.ring.get_mut(next) {
            Some(place) => *place = micros,
            None => times.ring.push(micros),
        }
        times.next = (next + 1) % KEPT;
    }

    /// Failures, and all durations since the core's start.
    pub(crate) fn seen(&self) -> (u64, Seen) {
        (self.failures.load(Ordering::Relaxed), self.histogram.seen())
    }

    /// The figures now.
    pub(crate) fn figures(&self) -> Figures {
        let mut ring = self.times.lock().unwrap_or_else(PoisonError::into_inner).ring.clone();
        ring.sort_unstable();
        let at = |hundredths: usize| {
            let last = ring.len().saturating_sub(1);
            ring.get(last * hundredths / 100).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        Figures {
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            p50_ms: at(50),
            p99_ms: at(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_last_thousand_or_so() {
        let stats = Stats::default();
        assert_eq!(stats.figures().p99_ms.to_bits(), 0.0f64.to_bits());
        for _ in 0..KEPT {
            stats.note(Duration::from_secs(5), true);
        }
        for ms in 1..=KEPT {
            stats.note(Duration::from_millis(u64::try_from(ms).unwrap()), false);
        }
        let figures = stats.figures();
        assert_eq!((figures.calls, figures.failures), (2048, 1024));
        assert!((512.0..=513.0).contains(&figures.p50_ms), "{figures:?}");
        assert!((1012.0..=1015.0).contains(&figures.p99_ms), "{figures:?}");
    }
}
