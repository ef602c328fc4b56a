//! Exponential back-off with jitter: how long to wait before the next attempt.

use std::time::Duration;

/// Exponential backoff with full jitter above a floor.
///
/// Jitter is what keeps many lanes that failed together from coming back together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Ceiling of the first delay.
    pub first: Duration,
    /// Ceiling of any delay.
    pub longest: Duration,
}

impl Backoff {
    /// The delay before retry number `attempt` (0 for the first), drawn with `random` in `0.0..1.0`.
    ///
    /// Half of the exponential ceiling is certain, the other half is drawn.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(2u32.saturating_pow(attempt.min(30)))
            .min(self.longest);
        ceiling.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(5),
    };

    #[test]
    fn ceilings_double_up_to_the_longest() {
        let ceilings: Vec<_> = (0..8).map(|n| BACKOFF.delay(n, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(BACKOFF.delay(u32::MAX, 1.0), BACKOFF.longest);
    }

    #[test]
    fn half_of_a_delay_is_certain() {
        assert_eq!(BACKOFF.delay(0, 0.0), Duration::from_millis(50));
    }
}
