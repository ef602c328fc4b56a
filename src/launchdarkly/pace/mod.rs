//! Pace of one account: admission control that learns from answers, as plain data. It decides
//! whether one more call may start now. What a lane decides beside this is in [`crate::delivery`].
//!
//! A call starts when all parts that bound it agree:
//!
//! | | of | bounds | learns from |
//! |---|---|---|---|
//! | [`concurrency`] | account and environment | calls under way | what succeeds while the limit is reached, and what fails |
//! | [`fair_share`] | account and environment | how many of these slots one participant may take | calls under way of each |
//! | [`rate_window`] | account | the moment, and calls until a reset | `Retry-After`, `X-Ratelimit-*` |
//! | [`breaker`] | account and environment | whether to call at all | failures in a row |
//! | [`retry_budget`] | account | retries | first attempts, time, successes in a row |
//! | [`batch_size`] | account | members of a call | 413 |
//!
//! LaunchDarkly counts rates by account. But one environment, or one segment, often hangs or fails
//! alone. So a failure first concerns the segment, whose lane backs off. It concerns the
//! environment if several of its segments fail together. It concerns the account only if several
//! environments fail, or if the answer says so: a 429, or no connection at all.
//!
//! What an answer teaches. The fair shares only count calls under way, and the batch size is only
//! told of calls that were too large.
//!
//! | an answer | concurrency | rate window | breaker | retry budget |
//! |---|---|---|---|---|
//! | served, or refused for good | both grow, if they were reached | by its headers | both close | one success more in a row |
//! | 429 | the account's halves | by its headers | both close: the vendor works | the row of successes ends |
//! | 409 | nothing: it concerns the segment alone | by its headers | both close | nothing |
//! | no connection | the account's halves | nothing | the account's: one failure more in a row | the row of successes ends |
//! | 5xx, 408, 425, time-out, broken off | the environment's halves | by its headers | both: one failure more in a row | the row of successes ends |
//! | to a query: a 429 | the account's halves | by its headers | nothing | the row of successes ends |
//! | to a query: anything else | nothing | by its headers | nothing | nothing |
//!
//! Only the rate window and the operator's bound hold a query back. A caller waits for its answer,
//! and the answer says nothing to an open breaker. A query is never a probe.
//!
//! Time is an argument, and a random draw is a number from `0.0..1.0`. So the scenarios beside the
//! tests can simulate hours of LaunchDarkly in a moment.

mod batch_size;
mod breaker;
mod concurrency;
mod environment;
mod fair_share;
mod queue;
mod rate_window;
mod retry_budget;

use std::{cell::Cell, num::NonZeroU16, time::Duration};

use tokio::time::Instant;

pub(super) use self::queue::{CallRequest, Ticket};
use self::{
    batch_size::BatchSizeLimit,
    breaker::{BreakerDecision, CircuitBreaker, Probe},
    concurrency::ConcurrencyLimit,
    environment::EnvironmentPaces,
    fair_share::FairShare,
    queue::{Eligibility, WaitQueue},
    rate_window::RateWindow,
    retry_budget::RetryBudget,
};
use crate::domain::{
    Attempt, ClientSideId, Connection, Hold, PaceState, SegmentId, TransientError,
};

/// The fewest slots of an account that has several environments: one that hangs must not occupy the
/// only slot.
const MIN_SHARED_SLOTS: usize = 2;

/// What a call changes: a segment of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallTarget {
    pub(super) environment: ClientSideId,
    pub(super) segment: SegmentId,
}

impl CallTarget {
    pub(super) fn new(connection: &Connection, segment: &SegmentId) -> Self {
        Self {
            environment: connection.client_side_id.clone(),
            segment: segment.clone(),
        }
    }
}

/// What the answer to one call says about the pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feedback {
    /// What the call was for.
    pub(super) kind: CallKind,
    /// When the call started.
    pub(super) started: Instant,
    /// Why it should be retried; none if the answer is final.
    pub(super) error: Option<TransientError>,
    /// How long the account must wait, by the answer.
    pub(super) wait: Option<Duration>,
    /// How many calls remain, by the answer.
    pub(super) remaining: Option<Remaining>,
}

/// What a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallKind {
    /// To change a segment.
    Delivery(CallTarget),
    /// To ask something. Its success or failure says nothing about deliveries, which go to another
    /// route. Only a rate limit may be the account's.
    Query,
}

/// How many calls remain, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) calls: u64,
    pub(super) until_reset: Duration,
}

/// Whether a call may start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// This call may start. It counts among the calls under way from now on.
    Go(Ticket, AdmittedCall),
    /// No call may. Ask again then, or when a call was observed, has ended or begins to wait.
    Wait(Instant),
    /// No call may. Ask again when a call was observed, has ended or begins to wait.
    Full,
}

/// A call that counts among those under way until it [leaves](Pace::leave).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that never leaves counts for ever"]
pub(super) struct AdmittedCall {
    /// None for a query.
    target: Option<CallTarget>,
    /// If it is a probe of the account's breaker.
    account_probe: Option<Probe>,
    /// If it is a probe of the environment's breaker.
    environment_probe: Option<Probe>,
}

/// The pace of one account.
#[derive(Debug)]
pub(super) struct Pace {
    queue: WaitQueue,
    concurrency: ConcurrencyLimit,
    rate_window: RateWindow,
    breaker: CircuitBreaker<ClientSideId>,
    retry_budget: RetryBudget,
    batch_size: BatchSizeLimit,
    fair_share: FairShare<ClientSideId>,
    environments: EnvironmentPaces,
    /// Queries under way.
    queries: usize,
}

impl Pace {
    /// A pace that has learned nothing yet, for at most this many calls under way.
    pub(super) fn new(max_calls: NonZeroU16, now: Instant) -> Self {
        Self {
            queue: WaitQueue::default(),
            concurrency: ConcurrencyLimit::new(max_calls),
            rate_window: RateWindow::default(),
            breaker: CircuitBreaker::new(),
            retry_budget: RetryBudget::new(now),
            batch_size: BatchSizeLimit::default(),
            fair_share: FairShare::new(),
            environments: EnvironmentPaces::new(max_calls),
            queries: 0,
        }
    }

    /// A call begins to wait.
    pub(super) fn enqueue(&mut self, request: CallRequest, now: Instant) -> Ticket {
        if let CallRequest::Delivery(
            CallTarget {
                environment,
                segment,
            },
            _,
        ) = &request
        {
            self.fair_share.waits(environment, now);
            self.environments.waits(environment, segment, now);
        }
        self.queue.enqueue(request)
    }

    /// A call that has not started waits no longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.queue.withdraw(ticket);
    }

    /// Admits the next waiting call at `now`, or returns when to ask again. `random` is drawn from
    /// `0.0..1.0`.
    pub(super) fn admit(&mut self, now: Instant, random: f64) -> Admission {
        if self.queue.is_empty() {
            return Admission::Full;
        }
        if let Some(at) = self.rate_window.not_before(now, self.under_way(), random) {
            return Admission::Wait(at);
        }
        if self.under_way() >= usize::from(self.concurrency.max_calls()) {
            self.concurrency.note_use(now, self.under_way());
            return Admission::Full;
        }
        if let Some(ticket) = self.queue.next_query() {
            self.queries += 1;
            self.note_start(now, random);
            let admitted = AdmittedCall {
                target: None,
                account_probe: None,
                environment_probe: None,
            };
            return Admission::Go(ticket, admitted);
        }
        self.admit_delivery(now, random)
    }

    fn admit_delivery(&mut self, now: Instant, random: f64) -> Admission {
        let funded = self.retry_budget.affords(now);
        let reasons = WaitReasons::default();
        let Self {
            queue,
            concurrency,
            breaker,
            fair_share,
            environments,
            ..
        } = self;
        let slots = delivery_slots(concurrency, fair_share, self.queries);
        let account = breaker.decide(now);
        let chosen = queue.choose(|environment, segment, attempt| {
            if !reasons.allow(account) {
                return Eligibility::SkipQueue;
            }
            let closed = account == BreakerDecision::Allow;
            if closed && !fair_share.has_free_slot(environment, slots, now) {
                reasons.full.set(true);
                return Eligibility::SkipQueue;
            }
            if attempt == Attempt::Retry && !reasons.allow_retry(funded) {
                return Eligibility::SkipQueue;
            }
            environments.may_start(environment, segment, now, &reasons)
        });
        if reasons.full.get() {
            self.concurrency.note_full(now);
        }
        match chosen {
            Some((ticket, target, attempt)) => {
                Admission::Go(ticket, self.start(target, attempt, now, random))
            }
            None => reasons.admission(),
        }
    }

    fn start(
        &mut self,
        target: CallTarget,
        attempt: Attempt,
        now: Instant,
        random: f64,
    ) -> AdmittedCall {
        match attempt {
            Attempt::First => self.retry_budget.deposit(),
            Attempt::Retry => self.retry_budget.withdraw(),
        }
        self.fair_share.starts(&target.environment, now);
        let admitted = AdmittedCall {
            account_probe: self.breaker.start(now, random),
            environment_probe: self.environments.start(&target, now, random),
            target: Some(target),
        };
        self.note_start(now, random);
        admitted
    }

    fn note_start(&mut self, now: Instant, random: f64) {
        self.concurrency.note_use(now, self.under_way());
        self.rate_window
            .starts(now, self.concurrency.max_calls(), random);
    }

    /// Deliveries and queries under way.
    fn under_way(&self) -> usize {
        self.fair_share.under_way() + self.queries
    }

    /// A call has ended, or was never made. Its answer is [observed](Self::observe) before: after a
    /// probe without an answer, the next probe is due at once.
    pub(super) fn leave(&mut self, admitted: &AdmittedCall) {
        let Some(target) = &admitted.target else {
            self.queries -= 1;
            return;
        };
        self.fair_share.ends(&target.environment);
        if let Some(probe) = admitted.account_probe {
            self.breaker.ended(probe);
        }
        self.environments.leave(target, admitted.environment_probe);
    }

    /// Whether a call of low priority may be made at `now` without delaying a delivery: there is no
    /// hold, and more calls remain than are under way.
    pub(super) fn has_spare_capacity(&self, environment: &ClientSideId, now: Instant) -> bool {
        let spare = self.rate_window.not_before(now, self.under_way() + 1, 0.0);
        self.hold(environment, now).is_none() && spare.is_none()
    }

    /// Learns from a call that ended at `now`; `random` is drawn from `0.0..1.0`.
    pub(super) fn observe(&mut self, now: Instant, feedback: &Feedback, random: f64) {
        self.rate_window.observe(now, feedback, random);
        match &feedback.kind {
            CallKind::Query => {
                if feedback.error == Some(TransientError::RateLimited) {
                    self.concurrency.failed(feedback.started, now);
                    self.retry_budget.failed();
                }
            }
            CallKind::Delivery(target) => self.observe_delivery(target, now, feedback, random),
        }
    }

    fn observe_delivery(
        &mut self,
        target: &CallTarget,
        now: Instant,
        feedback: &Feedback,
        random: f64,
    ) {
        let (started, under_way) = (feedback.started, self.under_way());
        match feedback.error {
            None => {
                self.concurrency.succeeded(started, now, under_way);
                self.breaker.succeeded(now);
                self.retry_budget.succeeded();
            }
            Some(TransientError::Conflict) => self.breaker.succeeded(now),
            Some(TransientError::RateLimited) => {
                self.concurrency.failed(started, now);
                self.breaker.succeeded(now);
                self.retry_budget.failed();
            }
            Some(error) => {
                if error == TransientError::Connection {
                    self.concurrency.failed(started, now);
                }
                self.breaker
                    .failed(&target.environment, started, now, error, random);
                self.retry_budget.failed();
            }
        }
        self.environments.observe(target, now, feedback, random);
    }

    /// The pace of an environment's calls at `now`, as it is reported.
    pub(super) fn state(&self, environment: &ClientSideId, now: Instant) -> PaceState {
        PaceState {
            concurrency: self.concurrency.limit(),
            held_for: self.hold(environment, now).map(|hold| hold.error),
        }
    }

    /// The hold on calls of an environment at `now`, by the account or the environment.
    pub(super) fn hold(&self, environment: &ClientSideId, now: Instant) -> Option<Hold> {
        let own = self.environments.hold(environment, now);
        let holds = [self.account_hold(now), own];
        holds.into_iter().flatten().max_by_key(|hold| hold.until)
    }

    /// The hold on all calls at `now`.
    pub(super) fn account_hold(&self, now: Instant) -> Option<Hold> {
        let holds = [self.server_hold(now), self.breaker.hold(now)];
        holds.into_iter().flatten().max_by_key(|hold| hold.until)
    }

    /// The hold that LaunchDarkly asked for, as by `Retry-After`, at `now`. An open breaker is
    /// none: it lets probes pass.
    pub(super) fn server_hold(&self, now: Instant) -> Option<Hold> {
        self.rate_window.hold(now)
    }

    /// Most members to put into a call at `now`, if a limit is known.
    pub(super) fn max_members(&mut self, now: Instant) -> Option<usize> {
        self.batch_size.limit(now)
    }

    /// No more than so many members seem to fit into a call.
    pub(super) fn learn_max_members(&mut self, members: usize, now: Instant) {
        if self.batch_size.learn(members, now) {
            tracing::info!(
                members,
                "a call was too large: calls of the account get smaller"
            );
        }
    }

    /// Takes over the hold of another pace of the same account.
    pub(super) fn inherit(&mut self, hold: Hold) {
        self.rate_window.hold_until(hold.until, hold.error);
    }
}

/// How many slots an account has for deliveries.
fn delivery_slots(
    limit: &ConcurrencyLimit,
    fair_share: &FairShare<ClientSideId>,
    queries: usize,
) -> usize {
    let max_calls = usize::from(limit.max_calls());
    let least = if fair_share.size() > 1 {
        MIN_SHARED_SLOTS
    } else {
        1
    };
    let slots = limit.limit().max(least.min(max_calls));
    // Queries occupy the rest.
    slots.min(max_calls.saturating_sub(queries))
}

/// Why waiting calls may not start yet, collected while the queue is searched.
#[derive(Debug, Default)]
struct WaitReasons {
    /// When to ask again.
    wake: Cell<Option<Instant>>,
    /// Whether a call found no free slot.
    full: Cell<bool>,
}

impl WaitReasons {
    /// Whether a breaker lets a call pass.
    fn allow(&self, decision: BreakerDecision) -> bool {
        match decision {
            BreakerDecision::Allow | BreakerDecision::AllowAsProbe => true,
            BreakerDecision::TooManyProbes => false,
            BreakerDecision::NotBefore(at) => {
                self.ask_again_at(at);
                false
            }
        }
    }

    /// Whether the retry budget lets a retry pass.
    fn allow_retry(&self, funded: Result<(), Instant>) -> bool {
        if let Err(at) = funded {
            self.ask_again_at(at);
        }
        funded.is_ok()
    }

    fn ask_again_at(&self, at: Instant) {
        let earliest = self.wake.get().map_or(at, |known| known.min(at));
        self.wake.set(Some(earliest));
    }

    fn admission(&self) -> Admission {
        self.wake.get().map_or(Admission::Full, Admission::Wait)
    }
}

#[cfg(test)]
impl CallTarget {
    pub(super) fn of(environment: &str, segment: &str) -> Self {
        Self {
            environment: ClientSideId::new(environment.to_owned()),
            segment: SegmentId::new(segment).unwrap(),
        }
    }
}

#[cfg(test)]
impl Feedback {
    /// Of a delivery that succeeded.
    pub(super) fn success(started: Instant) -> Self {
        Self {
            kind: CallKind::Delivery(CallTarget::of("env", "vip")),
            started,
            error: None,
            wait: None,
            remaining: None,
        }
    }

    /// The same, of another target.
    pub(super) fn of(self, target: &CallTarget) -> Self {
        Self {
            kind: CallKind::Delivery(target.clone()),
            ..self
        }
    }

    /// Of a delivery that failed.
    pub(super) fn failure(started: Instant, error: TransientError) -> Self {
        Self {
            error: Some(error),
            ..Self::success(started)
        }
    }
}

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
