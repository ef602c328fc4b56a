//! The lifetime of a stream: age limit, idle time-out and drain deadline, as functions of the time.
//!
//! | the stream | wakes | and then |
//! |---|---|---|
//! | is open | at its age limit | drains |
//! | is open, every record settled | at its idle time-out | drains |
//! | is open, records under way | at its idle time-out | waits for another idle time |
//! | is draining | at the drain's deadline | ends |
//!
//! The process may also ask a stream to drain. A stream that drains already keeps its deadline.

use std::time::Duration;

use tokio::time::Instant;

use super::context::StreamLimits;
use crate::server::status::{Expiry, Failure};

/// When one stream drains, and when it ends.
#[derive(Debug)]
pub(super) struct Lifetime {
    /// The age limit of this stream.
    expires: Instant,
    idle_at: Instant,
    idle: Duration,
    drain_timeout: Duration,
    drain: Option<PendingDrain>,
}

/// A stream that was asked to move.
#[derive(Debug)]
struct PendingDrain {
    deadline: Instant,
    then: Failure,
}

/// What a stream does when it wakes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WakeAction {
    /// It goes on.
    Continue,
    /// It asks its client to move before this moment.
    Drain(Instant),
    /// It ends.
    End(Failure),
}

impl Lifetime {
    /// The lifetime of a stream that opens now. `spread`, from 0 to 1, shortens or lengthens its age
    /// by up to 10 %, so that streams opened together do not all move together.
    pub(super) fn new(limits: &StreamLimits, spread: f64, now: Instant) -> Self {
        Self {
            expires: now + limits.max_stream_age.mul_f64(0.9 + 0.2 * spread),
            idle_at: now + limits.max_stream_idle,
            idle: limits.max_stream_idle,
            drain_timeout: limits.drain_timeout,
            drain: None,
        }
    }

    /// A message or a verdict came: the idle time starts anew.
    pub(super) fn note_activity(&mut self, now: Instant) {
        self.idle_at = now + self.idle;
    }

    /// When the stream must [`wake`](Self::wake) next.
    pub(super) fn next_wake(&self) -> Instant {
        match &self.drain {
            Some(drain) => drain.deadline,
            None => self.expires.min(self.idle_at),
        }
    }

    /// What the stream does at its time to wake.
    pub(super) fn wake(&mut self, now: Instant, is_settled: bool) -> WakeAction {
        // Draining → ended.
        if let Some(drain) = &self.drain {
            return WakeAction::End(drain.then.clone());
        }
        // Open → draining, by age.
        if now >= self.expires {
            return self.expire(Expiry::Age, now);
        }
        // Open → draining, by idleness.
        if is_settled {
            return self.expire(Expiry::Idle, now);
        }
        // Open → open: waiting for LaunchDarkly is not idleness.
        self.note_activity(now);
        WakeAction::Continue
    }

    fn expire(&mut self, expiry: Expiry, now: Instant) -> WakeAction {
        let deadline = now + self.drain_timeout;
        self.drain_until(deadline, Failure::StreamExpired(expiry));
        WakeAction::Drain(deadline)
    }

    /// Open → draining. A stream that has not moved by the deadline ends with `then`.
    pub(super) fn drain_until(&mut self, deadline: Instant, then: Failure) {
        self.drain = Some(PendingDrain { deadline, then });
    }

    /// Whether the client was asked to move.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(1000);
    const IDLE: Duration = Duration::from_secs(60);
    const DRAIN: Duration = Duration::from_secs(30);

    fn opened(now: Instant) -> Lifetime {
        let limits = StreamLimits {
            max_streams: 1,
            max_batch_records: 1,
            max_in_flight_records: 1,
            default_delivery_timeout: Duration::from_secs(1),
            max_stream_age: AGE,
            max_stream_idle: IDLE,
            drain_timeout: DRAIN,
        };
        Lifetime::new(&limits, 0.5, now)
    }

    #[test]
    fn an_idle_stream_drains_and_then_ends() {
        let now = Instant::now();
        let mut lifetime = opened(now);
        assert_eq!(lifetime.next_wake(), now + IDLE);
        let now = now + IDLE;
        assert_eq!(lifetime.wake(now, true), WakeAction::Drain(now + DRAIN));
        assert_eq!(lifetime.next_wake(), now + DRAIN);
        let idle = Failure::StreamExpired(Expiry::Idle);
        assert_eq!(lifetime.wake(now + DRAIN, true), WakeAction::End(idle));
    }

    #[test]
    fn a_stream_whose_records_are_under_way_is_not_idle_but_has_an_age() {
        let start = Instant::now();
        let mut lifetime = opened(start);
        let mut now = start;
        while lifetime.next_wake() < start + AGE {
            now = lifetime.next_wake();
            assert_eq!(lifetime.wake(now, false), WakeAction::Continue);
            assert_eq!(lifetime.next_wake(), (now + IDLE).min(start + AGE));
        }
        assert!(now > start + AGE - IDLE);
        let now = start + AGE;
        assert_eq!(lifetime.wake(now, false), WakeAction::Drain(now + DRAIN));
        let old = Failure::StreamExpired(Expiry::Age);
        assert_eq!(lifetime.wake(now + DRAIN, false), WakeAction::End(old));
    }

    #[test]
    fn activity_starts_the_idle_time_anew_and_does_not_delay_a_drain() {
        let now = Instant::now();
        let mut lifetime = opened(now);
        lifetime.note_activity(now + IDLE / 2);
        assert_eq!(lifetime.next_wake(), now + IDLE + IDLE / 2);
        let deadline = now + DRAIN;
        lifetime.drain_until(deadline, Failure::Internal);
        lifetime.note_activity(now + IDLE);
        assert!(lifetime.is_draining());
        assert_eq!(lifetime.next_wake(), deadline);
    }
}
