//! Rate window: what LaunchDarkly said of its rate limit, as `Retry-After` and `X-Ratelimit-*`.
//!
//! | told by | means |
//! |---|---|
//! | `Retry-After`, a 429, nothing remaining | a hold: no call starts before a moment |
//! | some calls remaining until a reset | an allowance: no more calls than those, counting the ones under way |

use std::time::Duration;

use tokio::time::Instant;

use super::{Feedback, Remaining};
use crate::domain::{Hold, TransientError};

/// How much later than the stated moment an account may begin, so that many accounts, and many
/// processes, do not begin together. Short beside the ten seconds of a window, so that little
/// of its allowance is lost.
const SPREAD: Duration = Duration::from_millis(250);
/// Over how long the first calls of an account are spread that waited for the same moment: some
/// milliseconds between two are enough not to arrive as one.
const OPENING: Duration = Duration::from_millis(100);
/// Resets that differ by less are of the same window: clocks are read in milliseconds, and
/// LaunchDarkly's machines may differ by some.
const SAME_RESET: Duration = Duration::from_millis(100);
/// How long a window that has begun is taken to be as the last one was, while no answer has told
/// what it has. Ours: ten times what an answer takes.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Longest wait after limits in a row that name no moment to come: a fifth of a window.
const LONGEST_UNDATED: Duration = Duration::from_secs(2);

/// What an account was told.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    /// The latest; it may be over.
    hold: Option<Hold>,
    window: Option<WindowCount>,
    /// The most that was known to remain in the window told of last. The next begins with no more
    /// calls under way, until an answer tells what it has.
    usual: Option<u64>,
    /// The last reset that has passed.
    opened: Option<Instant>,
    /// Limits met in a row that named no moment to come.
    undated: u32,
    /// The opening whose first calls are being spread, and how many of them are still to come.
    opening: Option<(Instant, u16)>,
    /// Earliest next start while they are.
    next: Option<Instant>,
}

/// LaunchDarkly's count of an account's calls, which starts anew at each reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowCount {
    reset: Instant,
    /// The least that any answer of this window spoke of. Every call under way may have been
    /// counted or not, so no more may be under way than this: then all of them find a place.
    remaining: u64,
}

impl RateWindow {
    /// Learns from a call that ended at `now`; `unit` is drawn from `0.0..1.0`.
    pub(super) fn observe(&mut self, now: Instant, feedback: &Feedback, unit: f64) {
        self.count(now, feedback.remaining);
        if feedback.error.is_none() {
            self.undated = 0;
        }
        if let Some(wait) = feedback.wait {
            let wait = self.stretched(wait, feedback.error);
            // A success with nothing remaining is a limit announced ahead.
            let error = feedback.error.unwrap_or(TransientError::RateLimited);
            self.hold_until(now + wait + SPREAD.mul_f64(unit), error);
        }
    }

    /// Answers overtake each other: within a window the least that was told counts, and what is
    /// told of an older one does not.
    fn count(&mut self, now: Instant, told: Option<Remaining>) {
        if let Some(over) = self.window.take_if(|window| window.reset <= now) {
            self.opened = Some(over.reset);
        }
        let told = told.map(|told| WindowCount {
            reset: now + told.until_reset,
            remaining: told.calls,
        });
        self.remember(told);
        self.window = match (self.window, told) {
            (None, told) => told,
            // It may have been counted, and does not say.
            (Some(known), None) => Some(WindowCount {
                remaining: known.remaining.saturating_sub(1),
                ..known
            }),
            (Some(known), Some(told)) if told.reset > known.reset + SAME_RESET => Some(told),
            (Some(known), Some(told)) if told.reset + SAME_RESET < known.reset => Some(known),
            (Some(known), Some(told)) => Some(WindowCount {
                remaining: known.remaining.min(told.remaining),
                ..known
            }),
        };
    }

    fn remember(&mut self, told: Option<WindowCount>) {
        let Some(told) = told else {
            return;
        };
        // The call itself was one of them.
        let had = told.remaining.saturating_add(1);
        let is_known = self
            .window
            .is_some_and(|known| told.reset <= known.reset + SAME_RESET);
        self.usual = match self.usual {
            Some(most) if is_known => Some(most.max(had)),
            _ => Some(had),
        };
    }

    /// A limit whose reset has passed names no moment. Should the clocks differ, the next call
    /// may meet it again: each time in a row the wait doubles.
    fn stretched(&mut self, wait: Duration, error: Option<TransientError>) -> Duration {
        if error != Some(TransientError::RateLimited) || !wait.is_zero() {
            return wait;
        }
        let doubled = SPREAD.saturating_mul(2u32.saturating_pow(self.undated.min(16)));
        let wait = if self.undated == 0 {
            wait
        } else {
            doubled.min(LONGEST_UNDATED)
        };
        self.undated = self.undated.saturating_add(1);
        wait
    }

    /// A hold is only ever made longer.
    pub(super) fn hold_until(&mut self, until: Instant, error: TransientError) {
        if self.hold.is_none_or(|hold| hold.until < until) {
            self.hold = Some(Hold { until, error });
        }
    }

    /// What holds calls back at `now`, if anything does whatever is under way.
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

    /// When a call that wants to start at `now` beside `under_way` others may look again; none
    /// if it may start. `unit` is its own draw from `0.0..1.0`, which keeps waiting calls,
    /// here and in other processes, from waking together.
    pub(super) fn not_before(&self, now: Instant, under_way: usize, unit: f64) -> Option<Instant> {
        let later = |at: Instant| at + SPREAD.mul_f64(unit);
        // It was drawn at random already.
        if let Some(hold) = self.hold.filter(|hold| now < hold.until) {
            return Some(hold.until);
        }
        let under_way = u64::try_from(under_way).unwrap_or(u64::MAX);
        match self.window {
            Some(WindowCount { reset, remaining }) if now < reset && under_way >= remaining => {
                Some(later(reset))
            }
            Some(WindowCount { reset, .. })
                if (reset..reset + FIRST_ANSWER).contains(&now) && self.is_as_usual(under_way) =>
            {
                Some(reset + FIRST_ANSWER)
            }
            _ => self.next.filter(|next| now < *next),
        }
    }

    /// Whether so many calls are all that a window was seen to have.
    fn is_as_usual(&self, under_way: u64) -> bool {
        self.usual.is_some_and(|usual| under_way >= usual)
    }

    /// A call starts at `now`. If it may have waited, the next does not follow at once: the first
    /// `most`, as many as may ever be under way, leave within about [`OPENING`].
    pub(super) fn starts(&mut self, now: Instant, most: u16, unit: f64) {
        let hold = self.hold.map(|hold| hold.until);
        let window = self.window.map(|window| window.reset);
        let known = [hold, window, self.opened];
        let opened = known.into_iter().flatten().filter(|at| *at <= now).max();
        let recent = opened.filter(|opened| now < *opened + 2 * SPREAD);
        self.opening = recent.map(|opened| match self.opening {
            Some((known, left)) if known == opened => (opened, left.saturating_sub(1)),
            _ => (opened, most.saturating_sub(1)),
        });
        let gap = 2 * OPENING / u32::from(most.max(1));
        let spreads = self.opening.is_some_and(|(_, left)| left > 0);
        self.next = spreads.then(|| now + gap.mul_f64(unit));
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

    fn told_to_wait(wait: Duration) -> Feedback {
        Feedback {
            wait: Some(wait),
            ..answer()
        }
    }

    fn limited(wait: Duration) -> Feedback {
        Feedback {
            error: Some(TransientError::RateLimited),
            ..told_to_wait(wait)
        }
    }

    fn remaining(calls: u64, until_reset: Duration) -> Feedback {
        Feedback {
            remaining: Some(Remaining { calls, until_reset }),
            ..answer()
        }
    }

    /// How many calls may be under way at once.
    fn room(window: &RateWindow, now: Instant) -> usize {
        (0..100)
            .find(|under_way| window.not_before(now, *under_way, 0.0).is_some())
            .unwrap_or(100)
    }

    #[test]
    fn nobody_departs_before_the_stated_time_nor_all_at_once() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        assert_eq!(window.not_before(now, 0, 0.0), None);
        window.observe(now, &told_to_wait(SECOND), 0.0);
        assert_eq!(window.not_before(now, 0, 0.0), Some(now + SECOND));
        let opened = now + SECOND;
        assert_eq!(window.not_before(opened, 0, 0.5), None);
        for _ in 1..10 {
            window.starts(opened, 10, 0.5);
            assert_eq!(
                window.not_before(opened, 1, 0.5),
                Some(opened + OPENING / 10)
            );
        }
        window.starts(opened, 10, 0.5);
        assert_eq!(window.not_before(opened, 1, 0.5), None);
        let long_after = opened + SECOND;
        window.starts(long_after, 10, 0.5);
        assert_eq!(window.not_before(long_after, 1, 0.5), None);
    }

    #[test]
    fn a_hold_is_never_shortened() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        let down = TransientError::Status(503);
        let throttled = Feedback {
            error: Some(down),
            ..told_to_wait(SECOND * 5)
        };
        window.observe(now, &throttled, 0.0);
        window.observe(now + SECOND, &told_to_wait(SECOND), 0.0);
        let hold = Hold {
            until: now + SECOND * 5,
            error: down,
        };
        assert_eq!(window.hold(now + SECOND), Some(hold));
    }

    #[test]
    fn a_wait_of_zero_still_has_its_jitter_and_doubles_while_it_does_not_help() {
        let (mut window, mut now) = (RateWindow::default(), Instant::now());
        window.observe(now, &limited(Duration::ZERO), 1.0);
        assert_eq!(window.hold(now).unwrap().until, now + SPREAD);
        let mut waits = Vec::new();
        for _ in 0..5 {
            now += SECOND * 10;
            window.observe(now, &limited(Duration::ZERO), 0.0);
            waits.push(window.hold(now).unwrap().until - now);
        }
        assert_eq!(waits, [2, 4, 8, 8, 8].map(|n| SPREAD * n));
        window.observe(now, &answer(), 0.0);
        now += SECOND * 10;
        window.observe(now, &limited(Duration::ZERO), 0.0);
        assert_eq!(window.hold(now), None);
    }

    #[test]
    fn no_more_calls_are_under_way_than_remain_until_the_reset() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(3, SECOND), 0.0);
        assert_eq!(room(&window, now), 3);
        assert_eq!(window.not_before(now, 3, 0.0), Some(now + SECOND));
        let half = Some(now + SECOND + SPREAD / 2);
        assert_eq!(window.not_before(now, 3, 0.5), half);
        assert_eq!(room(&window, now + SECOND + FIRST_ANSWER), 100);
        window.observe(now, &remaining(0, SECOND), 0.0);
        assert_eq!(window.hold(now).unwrap().until, now + SECOND);
    }

    #[test]
    fn a_window_begins_with_what_the_last_one_had_until_an_answer_tells() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(19, SECOND), 0.0);
        window.observe(now, &remaining(3, SECOND), 0.0);
        let next = now + SECOND;
        assert_eq!(room(&window, next), 20);
        window.observe(next + MOMENT, &remaining(49, 10 * SECOND), 0.0);
        assert_eq!(room(&window, next + MOMENT), 49);
        // Nobody asked in the last window, or it does not answer: that says nothing of now.
        assert_eq!(room(&window, next + 20 * SECOND), 100);
    }

    #[test]
    fn answers_that_overtake_each_other_never_widen_an_allowance() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(3, SECOND), 0.0);
        // Counted earlier, answered later, by a machine whose clock is a little off.
        window.observe(now + MOMENT, &remaining(9, SECOND), 0.0);
        assert_eq!(room(&window, now + MOMENT), 3);
        // Of a window that has passed.
        let now = now + SECOND;
        window.observe(now, &remaining(50, SECOND * 10), 0.0);
        window.observe(now, &remaining(1, MOMENT), 0.0);
        assert_eq!(room(&window, now), 50);
    }

    #[test]
    fn a_later_reset_starts_a_new_allowance_and_an_answer_that_is_silent_costs_one() {
        let (mut window, now) = (RateWindow::default(), Instant::now());
        window.observe(now, &remaining(1, SECOND), 0.0);
        window.observe(now, &remaining(7, SECOND * 2), 0.0);
        assert_eq!(room(&window, now), 7);
        window.observe(now, &answer(), 0.0);
        assert_eq!(room(&window, now), 6);
    }
}
