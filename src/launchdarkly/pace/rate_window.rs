//! Rate window: LaunchDarkly's rate limit, as its answers report it in `Retry-After` and
//! `X-Ratelimit-*`.
//!
//! | reported by | means |
//! |---|---|
//! | `Retry-After`, a 429, nothing remaining | a hold: no call starts before a moment |
//! | some calls remaining until a reset | an allowance: no more calls than those, counting the ones under way |

use std::time::Duration;

use tokio::time::Instant;

use super::{Feedback, Remaining};
use crate::domain::{Hold, TransientError};

/// Longest jitter after the end of a hold or a window, so that many accounts, and many processes,
/// do not begin together. Short beside the ten seconds of a window, so that little of its allowance
/// is lost.
const JITTER: Duration = Duration::from_millis(250);
/// Over how long the first calls after a hold or a reset are spread: some milliseconds between two
/// are enough that they do not arrive as one burst.
const BURST_SPREAD: Duration = Duration::from_millis(100);
/// Resets that differ by less are of the same window: clocks are read in milliseconds, and
/// LaunchDarkly's machines may differ by some.
const SAME_RESET: Duration = Duration::from_millis(100);
/// How long a new window is assumed to have the allowance of the last one, while no answer has
/// reported its own. Ours: ten times what an answer takes.
const ASSUMED_FOR: Duration = Duration::from_secs(1);
/// Longest wait after 429s in a row whose reset has passed: a fifth of a window.
const LONGEST_STALE_WAIT: Duration = Duration::from_secs(2);

/// The rate window of an account.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    /// The latest; it may be over.
    hold: Option<Hold>,
    window: Option<WindowCount>,
    /// The most calls that were known to remain in the last reported window. The next window begins
    /// with no more calls under way, until an answer reports its own.
    last_allowance: Option<u64>,
    /// The last reset that has passed.
    last_reset: Option<Instant>,
    /// 429s in a row whose reset has passed.
    stale_resets: u32,
    /// The end of a hold or window after which the calls are being spread, and how many of them are
    /// still to start.
    burst: Option<(Instant, u16)>,
    /// Earliest start of the next of them.
    next_start: Option<Instant>,
}

/// LaunchDarkly's count of an account's calls, which starts anew at each reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowCount {
    reset: Instant,
    /// The least that any answer of this window reported. A call under way may be counted in it or
    /// not, so no more calls than this may be under way: then none of them meets the limit.
    remaining: u64,
}

impl RateWindow {
    /// Learns from a call that ended at `now`; `random` is drawn from `0.0..1.0`.
    pub(super) fn observe(&mut self, now: Instant, feedback: &Feedback, random: f64) {
        self.count(now, feedback.remaining);
        if feedback.error.is_none() {
            self.stale_resets = 0;
        }
        if let Some(wait) = feedback.wait {
            let wait = self.with_backoff(wait, feedback.error);
            // A success with nothing remaining announces the limit.
            let error = feedback.error.unwrap_or(TransientError::RateLimited);
            self.hold_until(now + wait + JITTER.mul_f64(random), error);
        }
    }

    /// Answers overtake each other. Within a window the least that was reported counts, and a
    /// report of an older window does not.
    fn count(&mut self, now: Instant, reported: Option<Remaining>) {
        if let Some(over) = self.window.take_if(|window| window.reset <= now) {
            self.last_reset = Some(over.reset);
        }
        let reported = reported.map(|remaining| WindowCount {
            reset: now + remaining.until_reset,
            remaining: remaining.calls,
        });
        self.remember(reported);
        self.window = match (self.window, reported) {
            (None, reported) => reported,
            // The answer reports nothing, and its call may have been counted.
            (Some(known), None) => Some(WindowCount {
                remaining: known.remaining.saturating_sub(1),
                ..known
            }),
            (Some(known), Some(new)) if new.reset > known.reset + SAME_RESET => Some(new),
            (Some(known), Some(new)) if new.reset + SAME_RESET < known.reset => Some(known),
            (Some(known), Some(new)) => Some(WindowCount {
                remaining: known.remaining.min(new.remaining),
                ..known
            }),
        };
    }

    fn remember(&mut self, reported: Option<WindowCount>) {
        let Some(reported) = reported else {
            return;
        };
        // The answered call was one of them.
        let allowance = reported.remaining.saturating_add(1);
        let is_known = self
            .window
            .is_some_and(|known| reported.reset <= known.reset + SAME_RESET);
        self.last_allowance = match self.last_allowance {
            Some(known) if is_known => Some(known.max(allowance)),
            _ => Some(allowance),
        };
    }

    /// The wait after a 429. If its reset has passed, as where the clocks differ, the next call may
    /// meet the limit again: each time in a row the wait doubles.
    fn with_backoff(&mut self, wait: Duration, error: Option<TransientError>) -> Duration {
        if error != Some(TransientError::RateLimited) || !wait.is_zero() {
            return wait;
        }
        let doubled = JITTER.saturating_mul(2u32.saturating_pow(self.stale_resets.min(16)));
        let wait = if self.stale_resets == 0 {
            wait
        } else {
            doubled.min(LONGEST_STALE_WAIT)
        };
        self.stale_resets = self.stale_resets.saturating_add(1);
        wait
    }

    /// Holds calls back until a moment. A hold is never shortened.
    pub(super) fn hold_until(&mut self, until: Instant, error: TransientError) {
        if self.hold.is_none_or(|hold| hold.until < until) {
            self.hold = Some(Hold { until, error });
        }
    }

    /// The hold at `now`, which does not depend on the calls under way.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        let spent = self.window.filter(|window| window.remaining == 0);
        let spent = spent.map(|window| Hold {
            until: window.reset,
            error: TransientError::RateLimited,
        });
        self.hold
            .into_iter()
            .chain(spent)
            .filter(|hold| now < hold.until)
            .max_by_key(|hold| hold.until)
    }

    /// None if a call may start at `now` beside `under_way` others; otherwise when to ask again.
    /// `random` is drawn from `0.0..1.0` for this call, so that waiting calls, here and in other
    /// processes, do not wake together.
    pub(super) fn not_before(
        &self,
        now: Instant,
        under_way: usize,
        random: f64,
    ) -> Option<Instant> {
        let later = |at: Instant| at + JITTER.mul_f64(random);
        // A hold has its jitter already.
        if let Some(hold) = self.hold.filter(|hold| now < hold.until) {
            return Some(hold.until);
        }
        let under_way = u64::try_from(under_way).unwrap_or(u64::MAX);
        match self.window {
            Some(WindowCount { reset, remaining }) if now < reset && under_way >= remaining => {
                Some(later(reset))
            }
            Some(WindowCount { reset, .. })
                if (reset..reset + ASSUMED_FOR).contains(&now)
                    && self.uses_last_allowance(under_way) =>
            {
                Some(reset + ASSUMED_FOR)
            }
            _ => self.next_start.filter(|next| now < *next),
        }
    }

    /// Whether so many calls use up the allowance of the last window.
    fn uses_last_allowance(&self, under_way: u64) -> bool {
        self.last_allowance
            .is_some_and(|allowance| under_way >= allowance)
    }

    /// A call starts at `now`. Soon after the end of a hold or a window, the next does not follow
    /// at once: the first `max_calls` calls, as many as may be under way, are spread over about
    /// [`BURST_SPREAD`].
    pub(super) fn starts(&mut self, now: Instant, max_calls: u16, random: f64) {
        let hold = self.hold.map(|hold| hold.until);
        let window = self.window.map(|window| window.reset);
        let ends = [hold, window, self.last_reset];
        let end = ends.into_iter().flatten().filter(|at| *at <= now).max();
        let recent = end.filter(|end| now < *end + 2 * JITTER);
        self.burst = recent.map(|end| match self.burst {
            Some((known, left)) if known == end => (end, left.saturating_sub(1)),
            _ => (end, max_calls.saturating_sub(1)),
        });
        let gap = 2 * BURST_SPREAD / u32::from(max_calls.max(1));
        let spreads = self.burst.is_some_and(|(_, left)| left > 0);
        self.next_start = spreads.then(|| now + gap.mul_f64(random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(10);

    fn answer() -> Feedback {
        Feedback::success(Instant::now())
    }

    fn retry_after(wait: Duration) -> Feedback {
        Feedback {
            wait: Some(wait),
            ..answer()
        }
    }

    fn limited(wait: Duration) -> Feedback {
        Feedback {
            error: Some(TransientError::RateLimited),
            ..retry_after(wait)
        }
    }

    fn remaining(calls: u64, until_reset: Duration) -> Feedback {
        Feedback {
            remaining: Some(Remaining { calls, until_reset }),
            ..answer()
        }
    }

    /// How many calls may be under way at once.
    fn most_under_way(window: &RateWindow, now: Instant) -> usize {
        (0..100)
            .find(|under_way| window.not_before(now, *under_way, 0.0).is_some())
            .unwrap_or(100)
    }

    #[test]
    fn no_call_starts_before_the_hold_ends_nor_all_at_once() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        assert_eq!(window.not_before(now, 0, 0.0), None);
        window.observe(now, &retry_after(SECOND), 0.0);
        assert_eq!(window.not_before(now, 0, 0.0), Some(now + SECOND));
        let end = now + SECOND;
        assert_eq!(window.not_before(end, 0, 0.5), None);
        for _ in 1..10 {
            window.starts(end, 10, 0.5);
            assert_eq!(
                window.not_before(end, 1, 0.5),
                Some(end + BURST_SPREAD / 10)
            );
        }
        window.starts(end, 10, 0.5);
        assert_eq!(window.not_before(end, 1, 0.5), None);
        let long_after = end + SECOND;
        window.starts(long_after, 10, 0.5);
        assert_eq!(window.not_before(long_after, 1, 0.5), None);
    }

    #[test]
    fn a_hold_is_never_shortened() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        let down = TransientError::Status(503);
        let throttled = Feedback {
            error: Some(down),
            ..retry_after(SECOND * 5)
        };
        window.observe(now, &throttled, 0.0);
        window.observe(now + SECOND, &retry_after(SECOND), 0.0);
        let hold = Hold {
            until: now + SECOND * 5,
            error: down,
        };
        assert_eq!(window.hold(now + SECOND), Some(hold));
    }

    #[test]
    fn a_wait_of_zero_has_jitter_and_doubles_with_each_429_in_a_row() {
        let (mut window, mut now) = (RateWindow::default(), Instant::now());
        window.observe(now, &limited(Duration::ZERO), 1.0);
        assert_eq!(window.hold(now).unwrap().until, now + JITTER);
        let mut waits = Vec::new();
        for _ in 0..5 {
            now += SECOND * 10;
            window.observe(now, &limited(Duration::ZERO), 0.0);
            waits.push(window.hold(now).unwrap().until - now);
        }
        assert_eq!(waits, [2, 4, 8, 8, 8].map(|n| JITTER * n));
        window.observe(now, &answer(), 0.0);
        now += SECOND * 10;
        window.observe(now, &limited(Duration::ZERO), 0.0);
        assert_eq!(window.hold(now), None);
    }

    #[test]
    fn no_more_calls_are_under_way_than_remain_until_the_reset() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(3, SECOND), 0.0);
        assert_eq!(most_under_way(&window, now), 3);
        assert_eq!(window.not_before(now, 3, 0.0), Some(now + SECOND));
        let half = Some(now + SECOND + JITTER / 2);
        assert_eq!(window.not_before(now, 3, 0.5), half);
        assert_eq!(most_under_way(&window, now + SECOND + ASSUMED_FOR), 100);
        window.observe(now, &remaining(0, SECOND), 0.0);
        assert_eq!(window.hold(now).unwrap().until, now + SECOND);
    }

    #[test]
    fn a_window_begins_with_the_last_allowance_until_an_answer_reports_its_own() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(19, SECOND), 0.0);
        window.observe(now, &remaining(3, SECOND), 0.0);
        let next = now + SECOND;
        assert_eq!(most_under_way(&window, next), 20);
        window.observe(next + MOMENT, &remaining(49, 10 * SECOND), 0.0);
        assert_eq!(most_under_way(&window, next + MOMENT), 49);
        // The last window without a call says nothing about this one.
        assert_eq!(most_under_way(&window, next + 20 * SECOND), 100);
    }

    #[test]
    fn answers_that_overtake_each_other_never_widen_an_allowance() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(3, SECOND), 0.0);
        // Counted earlier, answered later, by a machine whose clock is a little off.
        window.observe(now + MOMENT, &remaining(9, SECOND), 0.0);
        assert_eq!(most_under_way(&window, now + MOMENT), 3);
        // Of a window that has passed.
        let now = now + SECOND;
        window.observe(now, &remaining(50, SECOND * 10), 0.0);
        window.observe(now, &remaining(1, MOMENT), 0.0);
        assert_eq!(most_under_way(&window, now), 50);
    }

    #[test]
    fn a_later_reset_starts_a_new_allowance_and_an_answer_without_headers_costs_one() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(1, SECOND), 0.0);
        window.observe(now, &remaining(7, SECOND * 2), 0.0);
        assert_eq!(most_under_way(&window, now), 7);
        window.observe(now, &answer(), 0.0);
        assert_eq!(most_under_way(&window, now), 6);
    }
}
