//! Adaptive concurrency limit (AIMD): how many calls may be under way, found by trying.
//!
//! As TCP finds its window: it doubles until the first failure, then grows by one a round trip
//! and halves when calls fail.
//!
//! A slow answer alone does not lower it. How long a call takes depends foremost on
//! its members, from one to a thousand, and on what LaunchDarkly does with them: against that
//! noise, a limit that follows latency starves accounts whose calls are merely large. Slowness
//! that matters ends in a time-out, and a time-out counts.

use std::num::NonZeroU16;

use tokio::time::Instant;

/// Where a limit starts, unless the operator allows less: enough for a few segments to be
/// served side by side at once, and little enough to find out cautiously.
const START: f64 = 4.0;

/// The limit of one account, or of one environment.
#[derive(Debug, Clone)]
pub(super) struct ConcurrencyLimit {
    /// Fractional, so that growth by less than one adds up.
    size: f64,
    max_calls: u16,
    /// Below this it doubles in a round trip; above, it grows by one.
    threshold: f64,
    /// When the limit was last seen reached.
    reached: Option<Instant>,
    lowered: Option<Instant>,
}

impl ConcurrencyLimit {
    pub(super) fn new(max_calls: NonZeroU16) -> Self {
        let ceiling = f64::from(max_calls.get());
        Self {
            size: START.min(ceiling),
            max_calls: max_calls.get(),
            threshold: ceiling,
            reached: None,
            lowered: None,
        }
    }

    /// How many calls may be under way; at least one.
    pub(super) fn limit(&self) -> usize {
        // `max_calls` has sixteen bits, and the size is never below one.
        #[expect(clippy::cast_possible_truncation, reason = "rounding down is meant")]
        let limit = self.size as usize;
        limit
    }

    /// The operator's bound.
    pub(super) fn max_calls(&self) -> u16 {
        self.max_calls
    }

    /// So many calls are under way at `now`, one of which starts or ends there.
    pub(super) fn note_use(&mut self, now: Instant, under_way: usize) {
        if under_way >= self.limit() {
            self.reached = Some(now);
        }
    }

    /// A waiting call found no free slot at `now`.
    pub(super) fn note_full(&mut self, now: Instant) {
        self.reached = Some(now);
    }

    /// A call that began at `started` succeeded; it is still counted among those `under_way`. Only
    /// if the limit was reached while it ran is that a sign that more calls would have succeeded.
    pub(super) fn succeeded(&mut self, started: Instant, now: Instant, under_way: usize) {
        // With a limit of one, the call itself began after the limit was reached.
        self.note_use(now, under_way);
        if self.reached.is_none_or(|reached| reached < started) {
            return;
        }
        let step = if self.size < self.threshold {
            1.0
        } else {
            1.0 / self.size
        };
        self.size = (self.size + step).min(f64::from(self.max_calls));
    }

    /// A call that began at `started` failed in a way that fewer calls may prevent. A call that was
    /// under way when the limit fell says nothing about the new limit.
    pub(super) fn failed(&mut self, started: Instant, now: Instant) {
        if self.lowered.is_some_and(|lowered| started < lowered) {
            return;
        }
        self.lowered = Some(now);
        self.threshold = (self.size / 2.0).max(1.0);
        self.size = self.threshold;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);
    /// Between a call's admission and the call.
    const DISPATCH: Duration = Duration::from_millis(1);

    fn limit(max_calls: u16) -> ConcurrencyLimit {
        ConcurrencyLimit::new(NonZeroU16::new(max_calls).unwrap())
    }

    /// One round trip with `calls` under way, all successful; returns the time after it.
    fn round_trip(limit: &mut ConcurrencyLimit, now: Instant, calls: usize) -> Instant {
        (1..=calls).for_each(|under_way| limit.note_use(now, under_way));
        let (started, ended) = (now + DISPATCH, now + ROUND_TRIP);
        for under_way in (1..=calls).rev() {
            limit.succeeded(started, ended, under_way);
        }
        ended
    }

    #[test]
    fn it_doubles_up_to_the_most_while_calls_succeed() {
        let (mut limit, mut now) = (limit(20), Instant::now());
        let mut limits = Vec::new();
        for _ in 0..4 {
            limits.push(limit.limit());
            let all = limit.limit();
            now = round_trip(&mut limit, now, all);
        }
        assert_eq!(limits, [4, 8, 16, 20]);
    }

    #[test]
    fn after_a_failure_it_is_half_and_grows_by_one_a_round_trip() {
        let (mut limit, mut now) = (limit(16), Instant::now());
        for _ in 0..3 {
            let all = limit.limit();
            now = round_trip(&mut limit, now, all);
        }
        limit.failed(now, now);
        assert_eq!(limit.limit(), 8);
        for expected in [8, 9, 10] {
            // Adding a fraction for each call falls a hair short of one a round trip.
            assert!(limit.limit().abs_diff(expected) <= 1, "{limit:?}");
            let all = limit.limit();
            now = round_trip(&mut limit, now, all);
        }
    }

    #[test]
    fn calls_that_left_the_limit_unused_do_not_raise_it() {
        let (mut limit, mut now) = (limit(16), Instant::now());
        for _ in 0..100 {
            now = round_trip(&mut limit, now, 3);
        }
        assert_eq!(limit.limit(), 4);
    }

    #[test]
    fn all_failures_of_one_round_trip_lower_it_once_and_never_below_one() {
        let (mut limit, start) = (limit(4), Instant::now());
        let now = start + ROUND_TRIP;
        (0..4).for_each(|_| limit.failed(start, now));
        assert_eq!(limit.limit(), 2);
        for n in 0..4u32 {
            limit.failed(now + ROUND_TRIP * n, now + ROUND_TRIP * (n + 1));
        }
        assert_eq!(limit.limit(), 1);
    }
}
