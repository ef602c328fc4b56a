//! Retry budget: retries are a share of the first attempts, so that they cannot
//! multiply the load of a vendor in trouble. When the trouble is over, what it left behind is free.

use std::time::Duration;

use tokio::time::Instant;

/// Repeated attempts that each first attempt pays for: trouble adds a fifth to the load.
const SHARE: f64 = 0.2;
/// Repeated attempts per second that need no first ones, so that what is left when nothing new
/// arrives is still delivered.
const FLOOR_PER_SECOND: f64 = 10.0;
/// Most that is saved up: as little as lets whole attempts be paid in fifths, so that a calm
/// pays for no storm.
const MOST_SAVED: f64 = 2.0;
/// Successes in a row after which the trouble counts as over. Where every second call fails by
/// chance, a run of sixteen comes once in 130,000 calls; a vendor that is back answers as many
/// in a second or two, though few calls may be tried, and then a backlog that consists of
/// repeats alone must not trickle away at ten a second.
const RECOVERED: u32 = 16;
/// Added to a wait, so that rounding does not wake a waiting call a moment too early, again and again.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// The balance of one account, in attempts.
///
/// Over any `t` seconds of trouble, repeated attempts are at most a fifth of the first ones, plus
/// ten for each second, plus the two that may have been saved.
#[derive(Debug)]
pub(super) struct RetryBudget {
    balance: f64,
    at: Instant,
    /// Successes in a row.
    run: u32,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            balance: 0.0,
            at: now,
            run: 0,
        }
    }

    /// A first attempt starts.
    pub(super) fn deposit(&mut self) {
        self.add(SHARE);
    }

    /// Whether a repeated attempt can be paid for at `now`, or when to ask again.
    pub(super) fn affords(&mut self, now: Instant) -> Result<(), Instant> {
        self.add(FLOOR_PER_SECOND * now.saturating_duration_since(self.at).as_secs_f64());
        self.at = self.at.max(now);
        if self.run >= RECOVERED || self.balance >= 1.0 {
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - self.balance) / FLOOR_PER_SECOND);
        Err(now + wait + TIMER_GRAIN)
    }

    /// A repeated attempt starts that was [afforded](Self::affords).
    pub(super) fn withdraw(&mut self) {
        if self.run < RECOVERED {
            self.balance -= 1.0;
        }
    }

    /// A call went well.
    pub(super) fn succeeded(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// A call failed.
    pub(super) fn failed(&mut self) {
        self.run = 0;
    }

    fn add(&mut self, amount: f64) {
        self.balance = (self.balance + amount).min(MOST_SAVED);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a repeated attempt could be paid for; it was then.
    fn pays(budget: &mut RetryBudget, now: Instant) -> bool {
        let affords = budget.affords(now).is_ok();
        if affords {
            budget.withdraw();
        }
        affords
    }

    #[test]
    fn what_is_not_covered_is_told_when_it_will_be() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let later = budget.affords(now).unwrap_err();
        assert_eq!(later - now, Duration::from_millis(101));
        assert!(pays(&mut budget, later));
        assert!(!pays(&mut budget, later));
    }

    #[test]
    fn repeats_are_free_from_a_run_of_successes_to_the_next_failure() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (1..RECOVERED).for_each(|_| budget.succeeded());
        assert!(budget.affords(now).is_err());
        budget.succeeded();
        assert!((0..1000).all(|_| pays(&mut budget, now)));
        budget.failed();
        assert!(budget.affords(now).is_err(), "what was free is not saved");
        (1..RECOVERED).for_each(|_| budget.succeeded());
        assert!(budget.affords(now).is_err(), "the run starts over");
    }

    proptest! {
        #[test]
        fn in_trouble_repeats_stay_below_the_share_and_the_floor_whatever_comes_when(
            steps in prop::collection::vec((0..500u64, any::<bool>()), 1..400),
        ) {
            let start = Instant::now();
            let (mut now, mut budget) = (start, RetryBudget::new(start));
            let (mut first, mut again) = (0.0, 0.0);
            for (pause, repeats) in steps {
                now += Duration::from_millis(pause);
                if !repeats {
                    budget.deposit();
                    first += 1.0;
                } else if pays(&mut budget, now) {
                    again += 1.0;
                }
                let floor = FLOOR_PER_SECOND * (now - start).as_secs_f64();
                prop_assert!(again <= SHARE * first + floor + 1e-6);
            }
        }

        #[test]
        fn a_calm_of_any_length_saves_next_to_nothing(calm in 0..100_000u64) {
            let start = Instant::now();
            let mut budget = RetryBudget::new(start);
            (0..calm / 100).for_each(|_| budget.deposit());
            let later = start + Duration::from_millis(calm);
            let at_once = (0..1000).take_while(|_| pays(&mut budget, later)).count();
            prop_assert!(at_once <= 2, "{}", at_once);
        }
    }
}
