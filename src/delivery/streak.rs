//! Streak: how long the same failure has lasted, without a success between.

use std::time::Duration;

use tokio::time::Instant;

/// An unbroken run of the same failure, by its begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Streak(Option<Instant>);

impl Streak {
    /// The streak begins or continues at `now`; returns how long it has lasted.
    pub(super) fn extend(&mut self, now: Instant) -> Duration {
        now.duration_since(*self.0.get_or_insert(now))
    }

    /// The streak ends.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_lasts_from_its_first_failure_until_it_is_ended() {
        let (mut streak, began) = (Streak::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(streak.extend(began), Duration::ZERO);
        assert_eq!(streak.extend(began + 2 * second), 2 * second);
        streak.end();
        assert_eq!(streak.extend(began + 3 * second), Duration::ZERO);
    }
}
