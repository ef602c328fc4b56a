//! Retry budget: retries are a share of the first attempts, so that they cannot multiply the load
//! of a vendor that fails. Once the vendor has recovered, retries are free.

use std::time::Duration;

use tokio::time::Instant;

/// Retries that each first attempt pays for: failures add at most a fifth to the load.
const RETRIES_PER_FIRST_ATTEMPT: f64 = 0.2;
/// Retries per second that need no first attempts, so that records are delivered even if no new
/// ones arrive.
const MIN_RETRIES_PER_SECOND: f64 = 10.0;
/// Largest balance: as little as lets whole retries be paid in fifths, so that a long time without
/// failures pays for no burst of retries.
const MAX_BALANCE: f64 = 2.0;
/// Successes in a row after which the vendor counts as recovered, and retries cost nothing. Without
/// that, a backlog of nothing but retries would leave at ten a second. Where every second call fails
/// by chance, sixteen successes in a row come once in 130,000 calls. A vendor that has recovered
/// reaches them in a second or two.
const RECOVERED_AFTER: u32 = 16;
/// Added to a wait, so that rounding does not wake a waiting call too early again and again.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// The balance of one account, in retries.
///
/// Over any `t` seconds without a recovery, retries are at most a fifth of the first attempts, plus
/// ten for each second, plus the two of the largest balance.
#[derive(Debug)]
pub(super) struct RetryBudget {
    balance: f64,
    /// When the balance last grew with time.
    updated: Instant,
    successes_in_a_row: u32,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            balance: 0.0,
            updated: now,
            successes_in_a_row: 0,
        }
    }

    /// A first attempt starts.
    pub(super) fn deposit(&mut self) {
        self.add(RETRIES_PER_FIRST_ATTEMPT);
    }

    /// Whether the balance pays for a retry at `now`, or when to ask again.
    pub(super) fn affords(&mut self, now: Instant) -> Result<(), Instant> {
        self.add(
            MIN_RETRIES_PER_SECOND * now.saturating_duration_since(self.updated).as_secs_f64(),
        );
        self.updated = self.updated.max(now);
        if self.has_recovered() || self.balance >= 1.0 {
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - self.balance) / MIN_RETRIES_PER_SECOND);
        Err(now + wait + TIMER_RESOLUTION)
    }

    /// A retry starts that the balance [pays for](Self::affords).
    pub(super) fn withdraw(&mut self) {
        if !self.has_recovered() {
            self.balance -= 1.0;
        }
    }

    /// A call succeeded.
    pub(super) fn succeeded(&mut self) {
        self.successes_in_a_row = self.successes_in_a_row.saturating_add(1);
    }

    /// A call failed.
    pub(super) fn failed(&mut self) {
        self.successes_in_a_row = 0;
    }

    fn has_recovered(&self) -> bool {
        self.successes_in_a_row >= RECOVERED_AFTER
    }

    fn add(&mut self, amount: f64) {
        self.balance = (self.balance + amount).min(MAX_BALANCE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Withdraws one retry, if the balance pays for it.
    fn pays(budget: &mut RetryBudget, now: Instant) -> bool {
        let affords = budget.affords(now).is_ok();
        if affords {
            budget.withdraw();
        }
        affords
    }

    #[test]
    fn a_refused_retry_learns_when_to_ask_again() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let later = budget.affords(now).unwrap_err();
        assert_eq!(later - now, Duration::from_millis(101));
        assert!(pays(&mut budget, later));
        assert!(!pays(&mut budget, later));
    }

    #[test]
    fn retries_are_free_from_a_run_of_successes_to_the_next_failure() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (1..RECOVERED_AFTER).for_each(|_| budget.succeeded());
        assert!(budget.affords(now).is_err());
        budget.succeeded();
        assert!((0..1000).all(|_| pays(&mut budget, now)));
        budget.failed();
        assert!(
            budget.affords(now).is_err(),
            "free retries are not saved up"
        );
        (1..RECOVERED_AFTER).for_each(|_| budget.succeeded());
        assert!(budget.affords(now).is_err(), "the run starts over");
    }

    proptest! {
        #[test]
        fn without_recovery_retries_stay_within_the_budget_in_any_order(
            steps in prop::collection::vec((0..500u64, any::<bool>()), 1..400),
        ) {
            let start = Instant::now();
            let (mut now, mut budget) = (start, RetryBudget::new(start));
            let (mut first_attempts, mut retries) = (0.0, 0.0);
            for (pause, is_retry) in steps {
                now += Duration::from_millis(pause);
                if !is_retry {
                    budget.deposit();
                    first_attempts += 1.0;
                } else if pays(&mut budget, now) {
                    retries += 1.0;
                }
                let floor = MIN_RETRIES_PER_SECOND * (now - start).as_secs_f64();
                let share = RETRIES_PER_FIRST_ATTEMPT * first_attempts;
                prop_assert!(retries <= share + floor + 1e-6);
            }
        }

        #[test]
        fn any_time_without_failures_saves_two_retries_at_most(millis in 0..100_000u64) {
            let start = Instant::now();
            let mut budget = RetryBudget::new(start);
            (0..millis / 100).for_each(|_| budget.deposit());
            let later = start + Duration::from_millis(millis);
            let at_once = (0..1000).take_while(|_| pays(&mut budget, later)).count();
            prop_assert!(at_once <= 2, "{}", at_once);
        }
    }
}
