//! What one client connection is doing and until when it may.
//!
//! The reading and writing ends of the connection report here; the connection's task asks when it has
//! to look again.  Nothing here owns a timer or reads a clock.
//!
//! **Invariant:** only the task of the connection writes here, so that relaxed atomics do; they are
//! atomics because the parts that share it must be `Send`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::tunnel::Tunnel;

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Open, and no byte came yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// Some of a request's head has come.
    Head,
    /// The service works.
    Working,
    /// The service waits for the client's body.
    Receiving,
    /// The client waits for the rest of an answer that has begun.
    Answering,
    /// The client has something to take.
    Sending,
    /// The last of the answer is on its way.
    Flushing,
}

/// What to do with a connection whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing was promised: close it without a word.
    Close,
    /// The head of a request did not come to its end.
    Head,
    /// The body of a request did not go on.
    Body,
    /// The service did not answer.
    Request,
    /// The backend did not go on with an answer that had begun.
    Answer,
    /// The client does not take its answer.
    Write,
}

/// Why the body of a request ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// It is larger than allowed.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// It comes too slowly.
    #[error("the request body came too slowly")]
    TooSlow,
    /// The client went away, or what it sent is not well-formed.
    #[error("the request body broke off")]
    Broken,
}

const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Watch {
    start: Instant,
    phase: AtomicU8,
    since_ms: AtomicU64,
    blocked_since_ms: AtomicU64,
    /// 0: none; 1: body; 2: request.
    expired: AtomicU8,
    /// 0: none; 1: too large; 2: too slow; 3: broken.
    body_fault: AtomicU8,
    /// The head of the answer is out of the service's hands.
    answered: AtomicBool,
    /// It is about one stream of several: nobody but the body of its answer knows whether the client takes it.
    is_stream: bool,
    /// The rest of what the client sends is to be read and dropped before the connection closes.
    linger: AtomicBool,
    /// Where the connection leads to once its last answer has left.
    tunnel: Mutex<Option<Box<Tunnel>>>,
    /// It has become a tunnel.
    is_tunnel: AtomicBool,
}

impl Watch {
    pub(crate) fn starting_at(start: Instant) -> Self {
        Self {
            start,
            phase: AtomicU8::new(Phase::Fresh as u8),
            since_ms: AtomicU64::new(0),
            blocked_since_ms: AtomicU64::new(NEVER),
            expired: AtomicU8::new(0),
            body_fault: AtomicU8::new(0),
            answered: AtomicBool::new(false),
            is_stream: false,
            linger: AtomicBool::new(false),
            tunnel: Mutex::default(),
            is_tunnel: AtomicBool::new(false),
        }
    }

    /// For one stream of a connection that has several.
    pub(crate) fn of_stream(start: Instant) -> Self {
        Self { is_stream: true, ..Self::starting_at(start) }
    }

    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(NEVER)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Fresh,
            1 => Phase::Idle,
            2 => Phase::Head,
            3 => Phase::Working,
            4 => Phase::Receiving,
            5 => Phase::Answering,
            6 => Phase::Sending,
            _ => Phase::Flushing,
        }
    }

    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.phase.store(phase as u8, Relaxed);
        self.since_ms.store(self.ms(now), Relaxed);
    }

    /// Enters a phase that has no limit of time of its own, unless it is about a stream.
    pub(crate) fn enter_untimed(&self, phase: Phase) {
        if self.is_stream {
            return self.enter(phase, Instant::now());
        }
        self.phase.store(phase as u8, Relaxed);
    }

    /// A request's head is complete.
    pub(crate) fn begin_request(&self, now: Instant) {
        self.expired.store(0, Relaxed);
        self.body_fault.store(0, Relaxed);
        self.answered.store(false, Relaxed);
        self.enter(Phase::Working, now);
    }

    /// Whether there was a request before the one that is being read.
    pub(crate) fn had_request(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Whether nothing of a request has come.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase(), Phase::Fresh | Phase::Idle)
    }

    /// Whether no request is in the service's or the client's hands.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.phase(), Phase::Fresh | Phase::Idle | Phase::Head)
    }

    pub(crate) fn write_blocked(&self, now: Instant) {
        if self.blocked_since_ms.load(Relaxed) == NEVER {
            self.blocked_since_ms.store(self.ms(now), Relaxed);
        }
    }

    pub(crate) fn write_went_on(&self) {
        if self.blocked_since_ms.load(Relaxed) != NEVER {
            self.blocked_since_ms.store(NEVER, Relaxed);
        }
    }

    pub(crate) fn set_expired(&self, overdue: Overdue) {
        self.expired.store(if overdue == Overdue::Body { 1 } else { 2 }, Relaxed);
    }

    pub(crate) fn expired(&self) -> Option<Overdue> {
        match self.expired.load(Relaxed) {
            0 => None,
            1 => Some(Overdue::Body),
            _ => Some(Overdue::Request),
        }
    }

    pub(crate) fn set_body_fault(&self, fault: BodyFault) {
        let code = match fault {
            BodyFault::TooLarge => 1,
            BodyFault::TooSlow => 2,
            BodyFault::Broken => 3,
        };
        self.body_fault.store(code, Relaxed);
    }

    pub(crate) fn body_fault(&self) -> Option<BodyFault> {
        match self.body_fault.load(Relaxed) {
            0 => None,
            1 => Some(BodyFault::TooLarge),
            2 => Some(BodyFault::TooSlow),
            _ => Some(BodyFault::Broken),
        }
    }

    pub(crate) fn set_answered(&self) {
        self.answered.store(true, Relaxed);
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    pub(crate) fn set_linger(&self) {
        self.linger.store(true, Relaxed);
    }

    pub(crate) fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    pub(crate) fn set_tunnel(&self, tunnel: Box<Tunnel>) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    pub(crate) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        let tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.is_tunnel.store(tunnel.is_some(), Relaxed);
        tunnel
    }

    /// Whether the connection is HTTP no more.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Relaxed)
    }

    fn allowed(&self, limits: &Limits) -> Option<Duration> {
        match self.phase() {
            Phase::Fresh | Phase::Head => Some(limits.header_timeout),
            Phase::Idle => Some(limits.keep_alive_timeout),
            Phase::Working => (self.expired.load(Relaxed) == 0).then_some(limits.request_timeout),
            Phase::Receiving => (self.expired.load(Relaxed) == 0).then_some(limits.body_timeout),
            Phase::Answering => Some(limits.request_timeout),
            Phase::Sending | Phase::Flushing => self.is_stream.then_some(limits.write_timeout),
        }
    }

    /// When the connection has to be looked at, in milliseconds of [`Watch::ms`]; `u64::MAX`: never.
    pub(crate) fn deadline_ms(&self, limits: &Limits) -> u64 {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(NEVER);
        let own = self
            .allowed(limits)
            .map_or(NEVER, |limit| self.since_ms.load(Relaxed).saturating_add(millis(limit)));
        let write =
            self.blocked_since_ms.load(Relaxed).saturating_add(millis(limits.write_timeout));
        own.min(write)
    }

    /// The moment of [`Watch::deadline_ms`].
    pub(crate) fn instant(&self, ms: u64) -> Instant {
        // Far enough for "never", and no overflow.
        self.start + Duration::from_millis(ms.min(1 << 40))
    }

    /// What is overdue at `now`, if anything is.
    pub(crate) fn overdue(&self, limits: &Limits, now: Instant) -> Option<Overdue> {
        if self.ms(now) < self.deadline_ms(limits) {
            return None;
        }
        let blocked = self.blocked_since_ms.load(Relaxed) != NEVER;
        Some(match self.phase() {
            Phase::Fresh | Phase::Idle => Overdue::Close,
            Phase::Head => Overdue::Head,
            _ if blocked => Overdue::Write,
            Phase::Working => Overdue::Request,
            Phase::Receiving => Overdue::Body,
            Phase::Answering => Overdue::Answer,
            Phase::Sending | Phase::Flushing => Overdue::Write,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            max_connections: 1,
            max_header_count: 1,
            max_header_bytes: 1,
            max_body_bytes: 1,
            header_timeout: SECOND,
            body_timeout: 2 * SECOND,
            min_body_rate: 0,
            keep_alive_timeout: 3 * SECOND,
            request_timeout: 4 * SECOND,
            write_timeout: 5 * SECOND,
            stop_grace: SECOND,
        }
    }

    #[track_caller]
    fn check(phase: Phase, limit: u32, expected: Overdue) {
        let start = Instant::now();
        let watch = Watch::starting_at(start);
        let entered = start + 10 * SECOND;
        watch.enter(phase, entered);
        let end = entered + limit * SECOND;
        assert_eq!(watch.overdue(&limits(), end - Duration::from_millis(1)), None);
        assert_eq!(watch.overdue(&limits(), end), Some(expected));
        assert_eq!(watch.instant(watch.deadline_ms(&limits())), end);
    }

    #[test]
    fn each_phase_has_its_limit() {
        check(Phase::Fresh, 1, Overdue::Close);
        check(Phase::Head, 1, Overdue::Head);
        check(Phase::Receiving, 2, Overdue::Body);
        check(Phase::Idle, 3, Overdue::Close);
        check(Phase::Working, 4, Overdue::Request);
        check(Phase::Answering, 4, Overdue::Answer);
    }

    #[test]
    fn a_client_that_takes_nothing_is_overdue_whatever_the_backend_does() {
        let start = Instant::now();
        let watch = Watch::starting_at(start);
        watch.enter(Phase::Sending, start);
        assert_eq!(watch.deadline_ms(&limits()), u64::MAX);
        watch.write_blocked(start + SECOND);
        watch.write_blocked(start + 3 * SECOND);
        assert_eq!(watch.overdue(&limits(), start + 6 * SECOND), Some(Overdue::Write));
        watch.write_went_on();
        assert_eq!(watch.overdue(&limits(), start + 60 * SECOND), None);
    }

    #[test]
    fn an_expired_request_is_told_once() {
        let start = Instant::now();
        let watch = Watch::starting_at(start);
        watch.begin_request(start);
        assert_eq!(watch.overdue(&limits(), start + 4 * SECOND), Some(Overdue::Request));
        watch.set_expired(Overdue::Request);
        assert_eq!(watch.overdue(&limits(), start + 5 * SECOND), None);
        watch.begin_request(start + 5 * SECOND);
        assert_eq!(watch.expired(), None);
    }
}
