//! Whether the other side is there: found by a regular check, by hand, and by every call.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arapi::arsrv::PingResult;
use arbase::time::now_ms;

use super::connection::Rest;

/// Longest wait before the first check: enough that a hundred connections do not all check at once.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// What was last found.
#[derive(Debug, Default)]
pub struct Health {
    is_up: Option<bool>,
    /// What the last failure was; None once it went well.
    pub last_error: Option<String>,
    /// When it was last looked, Unix milliseconds.
    pub checked_ms: Option<u64>,
    /// How long the last check took.
    pub ping_ms: Option<f64>,
}

impl Health {
    /// `up`, `down` or `unknown`.
    pub fn word(&self) -> &'static str {
        match self.is_up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        }
    }

    /// The other side answered; `ping_ms` if it was a check.
    pub fn well(&mut self, connection: &str, ping_ms: Option<f64>) {
        if self.is_up == Some(false) {
            log::info!(connection; "outgoing connection is up again");
        }
        self.is_up = Some(true);
        self.last_error = None;
        self.looked(ping_ms);
    }

    /// The other side did not answer, or not as it should.
    pub fn badly(&mut self, connection: &str, error: &str, ping_ms: Option<f64>) {
        if self.is_up != Some(false) {
            log::warn!(connection, error; "outgoing connection is down");
        }
        self.is_up = Some(false);
        self.last_error = Some(error.to_owned());
        self.looked(ping_ms);
    }

    fn looked(&mut self, ping_ms: Option<f64>) {
        self.checked_ms = Some(now_ms());
        self.ping_ms = ping_ms.or(self.ping_ms);
    }
}

impl Rest {
    /// Checks now, and keeps what was found.
    pub async fn check_health(&self) -> PingResult {
        let started = Instant::now();
        let deadline = started + Duration::from_millis(self.basis.spec.timeout_ms);
        let found = self.ping_once(deadline, None).await;
        let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
        let (status, message) = match &found {
            Ok(answered) => (
                Some(answered.status.as_u16()),
                format!("`{}` answered with {}", self.address(), answered.status),
            ),
            Err(err) => (None, arbase::Chain(err).to_string()),
        };
        // Below 500 somebody is there, even if he does not like the method or the credentials.
        let ok = status.is_some_and(|status| status < 500);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if ok {
            health.well(&self.name, Some(elapsed_ms));
        } else {
            health.badly(&self.name, &message, Some(elapsed_ms));
        }
        PingResult { ok, status, message, elapsed_ms }
    }
}

/// Checks again and again; ends by being dropped.
pub async fn keep_checking(rest: Arc<Rest>) {
    let interval = Duration::from_secs(rest.basis.spec.ping_interval_s.into());
    if interval.is_zero() || !rest.basis.spec.is_active {
        return;
    }
    tokio::time::sleep(FIRST_WITHIN.min(interval).mul_f64(rand::random())).await;
    loop {
        rest.check_health().await;
        // A tenth of jitter keeps many connections, and many boxes, from checking in step.
        tokio::time::sleep(interval.mul_f64(0.95 + 0.1 * rand::random::<f64>())).await;
    }
}
