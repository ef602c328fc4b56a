//! When an account may be called again: what is learned from answers, as plain data.
//!
//! This is where the pace will adapt: every answer comes in as [`Feedback`], with its latency.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Trouble;

/// Over how long the calls that waited for the same moment are spread. Short beside the ten
/// seconds of a window, so that little of its allowance is lost.
const SPREAD: Duration = Duration::from_millis(250);

/// What one call taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feedback {
    /// Why it should be tried again; none if it was answered for good.
    pub(super) trouble: Option<Trouble>,
    /// How long the account was told to wait.
    pub(super) wait: Option<Duration>,
    /// How long the answer took.
    pub(super) latency: Duration,
}

/// The pace of one account.
#[derive(Debug, Default)]
pub(super) struct Pace {
    hold: Option<Hold>,
}

/// No call starts before a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// The moment.
    pub(super) until: Instant,
    /// Why.
    pub(super) trouble: Trouble,
}

impl Pace {
    /// Learns from a call that ended at `now`; `unit` is drawn from `0.0..1.0`.
    ///
    /// A hold is only ever made longer: answers overtake each other.
    pub(super) fn observe(&mut self, now: Instant, feedback: &Feedback, unit: f64) {
        let Some(wait) = feedback.wait else { return };
        let until = now + wait + SPREAD.mul_f64(unit);
        if self.hold.is_none_or(|hold| hold.until < until) {
            // A success with nothing remaining is a limit announced ahead.
            let trouble = feedback.trouble.unwrap_or(Trouble::RateLimited);
            self.hold = Some(Hold { until, trouble });
        }
    }

    /// What holds calls back at `now`.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        self.hold.filter(|hold| now < hold.until)
    }

    /// When a caller that comes at `now` may look again; none if it may go. `unit` is the
    /// caller's own draw from `0.0..1.0`, which keeps those who wait from waking together.
    pub(super) fn departure(&self, now: Instant, unit: f64) -> Option<Instant> {
        self.hold(now).map(|hold| hold.until + SPREAD.mul_f64(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told_to_wait(wait: Duration) -> Feedback {
        Feedback {
            trouble: None,
            wait: Some(wait),
            latency: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_departs_before_the_stated_time_nor_all_at_once() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.departure(now, 0.0), None);
        pace.observe(now, &told_to_wait(SECOND), 0.0);
        assert_eq!(pace.departure(now, 0.0), Some(now + SECOND));
        assert_eq!(pace.departure(now, 0.5), Some(now + SECOND + SPREAD / 2));
        assert_eq!(pace.departure(now + SECOND, 0.5), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_never_shortened() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let throttled = Feedback {
            trouble: Some(Trouble::Status(503)),
            ..told_to_wait(SECOND * 5)
        };
        pace.observe(now, &throttled, 0.0);
        pace.observe(now + SECOND, &told_to_wait(SECOND), 0.0);
        let hold = Hold {
            until: now + SECOND * 5,
            trouble: Trouble::Status(503),
        };
        assert_eq!(pace.hold(now + SECOND), Some(hold));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_of_zero_still_has_its_jitter() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.observe(now, &told_to_wait(Duration::ZERO), 1.0);
        assert_eq!(pace.departure(now, 0.0), Some(now + SPREAD));
    }
}
