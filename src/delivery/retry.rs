//! Exponential back-off of one lane: the moment before which its segment is not called again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{backoff::Backoff, domain::Hold};

/// Delay between a lane's attempts while its calls fail. It starts near one round trip and stays
/// short: the account's pace spares a vendor that fails as a whole, and a longer delay on top would
/// only notice the recovery late.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
};

/// When a lane may ask for its next slot.
#[derive(Debug)]
pub(super) struct RetrySchedule {
    /// Failures in a row.
    failures: u32,
    not_before: Instant,
}

impl RetrySchedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            failures: 0,
            not_before: now,
        }
    }

    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// A call has succeeded: the next failure is the first again.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A call has failed at `now`: when the next is due, by back-off, or later if the answer asked
    /// for that.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, now: Instant) -> Instant {
        let delay = BACKOFF.delay(self.failures, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        now + delay.max(retry_after.unwrap_or_default())
    }

    /// Waits at least for `hold`; returns what the lane waits for now. A wait is never shortened.
    pub(super) fn wait_for(&mut self, hold: Hold) -> Hold {
        self.not_before = self.not_before.max(hold.until);
        Hold {
            until: self.not_before,
            ..hold
        }
    }
}
