//! Per-environment pace: concurrency limit, circuit breaker and fair share of each environment of
//! an account.

use std::{collections::HashMap, num::NonZeroU16};

use tokio::time::Instant;

use super::{
    CallTarget, Feedback, WaitReasons,
    breaker::{BreakerDecision, CircuitBreaker, Probe},
    concurrency::ConcurrencyLimit,
    fair_share::FairShare,
    queue::Eligibility,
};
use crate::domain::{ClientSideId, Hold, SegmentId, TransientError};

/// How many are remembered before idle ones are forgotten. Some 500 bytes each.
const SWEEP_ABOVE: usize = 64;

/// The environments of one account.
#[derive(Debug)]
pub(super) struct EnvironmentPaces {
    max_calls: NonZeroU16,
    known: HashMap<ClientSideId, EnvironmentPace>,
    /// Size at which to sweep next: twice what the last sweep had to leave.
    sweep_above: usize,
}

#[derive(Debug)]
struct EnvironmentPace {
    concurrency: ConcurrencyLimit,
    breaker: CircuitBreaker<SegmentId>,
    fair_share: FairShare<SegmentId>,
}

impl EnvironmentPace {
    fn new(max_calls: NonZeroU16) -> Self {
        Self {
            concurrency: ConcurrencyLimit::new(max_calls),
            breaker: CircuitBreaker::new(),
            fair_share: FairShare::new(),
        }
    }
}

impl EnvironmentPaces {
    pub(super) fn new(max_calls: NonZeroU16) -> Self {
        Self {
            max_calls,
            known: HashMap::new(),
            sweep_above: SWEEP_ABOVE,
        }
    }

    /// A call for a segment begins to wait.
    pub(super) fn waits(&mut self, environment: &ClientSideId, segment: &SegmentId, now: Instant) {
        self.sweep(now);
        self.environment(environment).fair_share.waits(segment, now);
    }

    fn environment(&mut self, id: &ClientSideId) -> &mut EnvironmentPace {
        // Most are known: no copy of the ID for them.
        if !self.known.contains_key(id) {
            self.known
                .insert(id.clone(), EnvironmentPace::new(self.max_calls));
        }
        self.known.get_mut(id).expect("it is there, or was put")
    }

    /// Whether a call may start at `now`, as far as its environment is concerned.
    pub(super) fn may_start(
        &mut self,
        environment: &ClientSideId,
        segment: &SegmentId,
        now: Instant,
        reasons: &WaitReasons,
    ) -> Eligibility {
        let EnvironmentPace {
            concurrency,
            breaker,
            fair_share,
        } = self.environment(environment);
        let decision = breaker.decide(now);
        if !reasons.allow(decision) {
            return Eligibility::SkipQueue;
        }
        // A probe needs no free slot: calls from before the breaker opened may have taken them all.
        let closed = decision == BreakerDecision::Allow;
        if closed && !fair_share.has_free_slot(segment, concurrency.limit(), now) {
            concurrency.note_full(now);
            return Eligibility::SkipSegment;
        }
        Eligibility::Go
    }

    /// A call starts.
    pub(super) fn start(
        &mut self,
        target: &CallTarget,
        now: Instant,
        random: f64,
    ) -> Option<Probe> {
        // It is not forgotten while a call is under way.
        let environment = self.environment(&target.environment);
        environment.fair_share.starts(&target.segment, now);
        let under_way = environment.fair_share.under_way();
        environment.concurrency.note_use(now, under_way);
        environment.breaker.start(now, random)
    }

    /// A call has ended, or was never made.
    pub(super) fn leave(&mut self, target: &CallTarget, probe: Option<Probe>) {
        let Some(environment) = self.known.get_mut(&target.environment) else {
            return;
        };
        environment.fair_share.ends(&target.segment);
        if let Some(probe) = probe {
            environment.breaker.ended(probe);
        }
    }

    /// Learns from a call that ended at `now`; `random` is drawn from `0.0..1.0`.
    pub(super) fn observe(
        &mut self,
        target: &CallTarget,
        now: Instant,
        feedback: &Feedback,
        random: f64,
    ) {
        let EnvironmentPace {
            concurrency,
            breaker,
            fair_share,
        } = self.environment(&target.environment);
        let started = feedback.started;
        match feedback.error {
            None => {
                concurrency.succeeded(started, now, fair_share.under_way());
                breaker.succeeded(now);
            }
            Some(TransientError::Conflict | TransientError::RateLimited) => breaker.succeeded(now),
            // The matter of the account.
            Some(TransientError::Connection) => {}
            Some(error) => {
                concurrency.failed(started, now);
                breaker.failed(&target.segment, started, now, error, random);
            }
        }
    }

    /// What holds calls of an environment back at `now`.
    pub(super) fn hold(&self, environment: &ClientSideId, now: Instant) -> Option<Hold> {
        self.known.get(environment)?.breaker.hold(now)
    }

    /// Forgets the environments with no call under way and a closed breaker, once there are many.
    fn sweep(&mut self, now: Instant) {
        if self.known.len() <= self.sweep_above {
            return;
        }
        self.known.retain(|_, environment| {
            environment.fair_share.under_way() > 0 || environment.breaker.hold(now).is_some()
        });
        self.sweep_above = SWEEP_ABOVE.max(2 * self.known.len());
    }
}

#[cfg(test)]
impl EnvironmentPaces {
    /// The concurrency limit of an environment.
    pub(super) fn limit(&self, environment: &ClientSideId) -> usize {
        let known = self.known.get(environment);
        known
            .map_or_else(
                || ConcurrencyLimit::new(self.max_calls),
                |it| it.concurrency.clone(),
            )
            .limit()
    }
}
