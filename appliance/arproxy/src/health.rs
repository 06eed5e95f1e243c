//! Whether a backend gets requests: probes that succeed and fail, counted.
//!
//! Pure: no clock, no I/O; [`crate::backend`] feeds it.

/// How many probes in a row change a backend's mind.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Successes in a row after which a backend gets requests again.
    pub rise: u32,
    /// Failures in a row after which it gets none.
    pub fall: u32,
}

/// A backend's health as seen from here.
#[derive(Debug, Clone)]
pub struct Health {
    thresholds: Thresholds,
    up: bool,
    /// The first probe decides alone.
    known: bool,
    successes: u32,
    failures: u32,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It gets requests from now on.
    Up,
    /// It gets none from now on.
    Down,
}

impl Health {
    /// A backend nobody has asked yet: it gets no requests.
    pub fn unknown(thresholds: Thresholds) -> Self {
        Self { thresholds, up: false, known: false, successes: 0, failures: 0 }
    }

    /// Whether it gets requests.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// A probe succeeded.
    pub fn succeeded(&mut self) -> Option<Turn> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let enough = !self.known || self.successes >= self.thresholds.rise;
        self.known = true;
        if enough && !self.up {
            self.up = true;
            return Some(Turn::Up);
        }
        None
    }

    /// A probe failed.
    pub fn failed(&mut self) -> Option<Turn> {
        self.known = true;
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.up && self.failures >= self.thresholds.fall {
            self.up = false;
            return Some(Turn::Down);
        }
        None
    }

    /// Nobody listens at its address: there is nothing to count.
    pub fn gone(&mut self) -> Option<Turn> {
        self.known = true;
        self.successes = 0;
        self.failures = self.thresholds.fall;
        std::mem::replace(&mut self.up, false).then_some(Turn::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Health {
        Health::unknown(Thresholds { rise: 2, fall: 2 })
    }

    #[test]
    fn the_first_probe_decides_alone() {
        let mut health = unknown();
        assert!(!health.is_up());
        assert_eq!(health.succeeded(), Some(Turn::Up));
        assert!(health.is_up());
        assert_eq!(health.succeeded(), None);
    }

    #[test]
    fn one_failure_changes_nothing_and_two_in_a_row_do() {
        let mut health = unknown();
        health.succeeded();
        assert_eq!(health.failed(), None);
        assert_eq!(health.succeeded(), None);
        assert_eq!(health.failed(), None);
        assert_eq!(health.failed(), Some(Turn::Down));
        assert_eq!(health.failed(), None);
        assert_eq!(health.succeeded(), None);
        assert!(!health.is_up());
        assert_eq!(health.succeeded(), Some(Turn::Up));
    }

    #[test]
    fn a_backend_that_is_gone_is_down_at_once() {
        let mut health = unknown();
        health.succeeded();
        assert_eq!(health.gone(), Some(Turn::Down));
        assert_eq!(health.gone(), None);
        assert_eq!(health.succeeded(), None);
        assert_eq!(health.succeeded(), Some(Turn::Up));
    }
}
