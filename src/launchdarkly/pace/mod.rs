//! Whether a call of an account may start now: what is learned from answers, as plain data.
//!
//! Four things must agree, and each is fed by every answer:
//!
//! | | bounds | learns from |
//! |---|---|---|
//! | [`limit`] | calls under way | what succeeds while every place is taken, and what fails |
//! | [`gate`] | the moment, and calls until a reset | `Retry-After`, `X-Ratelimit-*` |
//! | [`breaker`] | whether to call at all | failures in a row |
//! | [`budget`] | repeated attempts | first attempts, time, successes in a row |
//!
//! What counts as what:
//!
//! | an answer | limit | gate | breaker | budget |
//! |---|---|---|---|---|
//! | served, or refused for good | grows, if it was used | by its headers | closes | one more in a row |
//! | 429 | halves | by its headers | closes: the vendor works | its row ends |
//! | 409 | nothing: the segment's matter, not the account's | by its headers | closes | nothing |
//! | 5xx, 408, 425, time-out, no connection | halves | by its headers | one more in a row | its row ends |
//! | to a question: a 429 | halves | by its headers | nothing | its row ends |
//! | to a question: anything else | nothing | by its headers | nothing | nothing |
//!
//! A question is held back by the gate alone, and by the operator's bound: someone waits for its
//! answer, which would tell an open breaker nothing, and where it must not stand in a probe's way.
//!
//! Time comes in as an argument, chance as a number from `0.0..1.0`, so that a whole afternoon
//! of LaunchDarkly can be played through in a moment: the scenarios beside the tests do.

mod breaker;
mod budget;
mod gate;
mod limit;

use std::{num::NonZeroU16, time::Duration};

use tokio::time::Instant;

use self::{
    breaker::{Breaker, Passage, Probe},
    budget::Budget,
    gate::Gate,
    limit::Limit,
};
use crate::domain::{Attempt, Trouble};

/// What one call taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feedback {
    /// What was called.
    pub(super) errand: Errand,
    /// When it was.
    pub(super) started: Instant,
    /// Why it should be tried again; none if it was answered for good.
    pub(super) trouble: Option<Trouble>,
    /// How long the account was told to wait.
    pub(super) wait: Option<Duration>,
    /// What the answer said of the calls that remain.
    pub(super) remaining: Option<Remaining>,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To change a segment.
    Delivery,
    /// To ask something. That it succeeds or fails proves nothing for deliveries, which go to
    /// another route; only a limit may be the account's.
    Question,
}

/// How many calls remain, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) calls: u64,
    pub(super) until_reset: Duration,
}

/// No call starts before a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// The moment.
    pub(super) until: Instant,
    /// Why.
    pub(super) trouble: Trouble,
}

/// Whether a call may start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may, and is counted from now on.
    Go(Departure),
    /// Ask again then, or when something was observed or has ended.
    Wait(Instant),
    /// Ask again when something was observed or has ended.
    Full,
}

/// A call that is counted among those under way; to be given back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not given back counts for ever"]
pub(super) struct Departure {
    probe: Option<Probe>,
}

/// The pace of one account.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Limit,
    gate: Gate,
    breaker: Breaker,
    budget: Budget,
    under_way: usize,
}

impl Pace {
    /// Starts with nothing known, for at most this many calls under way.
    pub(super) fn new(most: NonZeroU16, now: Instant) -> Self {
        Self {
            limit: Limit::new(most),
            gate: Gate::default(),
            breaker: Breaker::new(),
            budget: Budget::new(now),
            under_way: 0,
        }
    }

    /// Pays for a repeated attempt, or tells when to ask again.
    pub(super) fn afford(&mut self, now: Instant) -> Result<(), Instant> {
        self.budget.withdraw(now)
    }

    /// A repeated attempt that was paid for is not made.
    pub(super) fn refund(&mut self) {
        self.budget.refund();
    }

    /// Lets a delivery start at `now`, or not; a repeated attempt has been
    /// [afforded](Self::afford) before. `unit` is drawn from `0.0..1.0`.
    pub(super) fn admit(&mut self, now: Instant, attempt: Attempt, unit: f64) -> Admission {
        if let Some(not_yet) = self.outer_bounds(now, unit) {
            return not_yet;
        }
        // Last, since a probe that passes must leave.
        let probe = match self.breaker.pass(now) {
            Passage::Free if self.under_way >= self.limit.places() => return Admission::Full,
            Passage::Free => None,
            // Whatever places stragglers and questions have taken.
            Passage::AsProbe(probe) => Some(probe),
            Passage::NotBefore(at) => return Admission::Wait(at),
            Passage::AfterProbe => return Admission::Full,
        };
        if attempt == Attempt::First {
            self.budget.deposit();
        }
        Admission::Go(self.depart(now, probe, unit))
    }

    /// Lets a question start at `now`, or not. `unit` is drawn from `0.0..1.0`.
    pub(super) fn admit_question(&mut self, now: Instant, unit: f64) -> Admission {
        match self.outer_bounds(now, unit) {
            Some(not_yet) => not_yet,
            None => Admission::Go(self.depart(now, None, unit)),
        }
    }

    /// What no call may pass, whatever it is for.
    fn outer_bounds(&self, now: Instant, unit: f64) -> Option<Admission> {
        if let Some(at) = self.gate.not_before(now, self.under_way, unit) {
            return Some(Admission::Wait(at));
        }
        let full = self.under_way >= usize::from(self.limit.most());
        full.then_some(Admission::Full)
    }

    fn depart(&mut self, now: Instant, probe: Option<Probe>, unit: f64) -> Departure {
        self.under_way += 1;
        self.limit.note_use(now, self.under_way);
        self.gate.departs(now, self.limit.most(), unit);
        Departure { probe }
    }

    /// A call has ended, or was never made. What it taught is [observed](Self::observe) before:
    /// a probe that is gone without a lesson gives its place to the next at once.
    pub(super) fn leave(&mut self, departure: &Departure) {
        self.under_way -= 1;
        if let Some(probe) = departure.probe {
            self.breaker.ended(probe);
        }
    }

    /// Whether a call of no urgency could be made at `now` without taking what a delivery may
    /// need: nothing holds calls back, and more remain than are under way.
    pub(super) fn is_at_ease(&self, now: Instant) -> bool {
        self.hold(now).is_none() && self.gate.not_before(now, self.under_way + 1, 0.0).is_none()
    }

    /// Learns from a call that ended at `now`; `unit` is drawn from `0.0..1.0`.
    pub(super) fn observe(&mut self, now: Instant, feedback: &Feedback, unit: f64) {
        self.gate.observe(now, feedback, unit);
        let started = feedback.started;
        match (feedback.trouble, feedback.errand) {
            (Some(Trouble::RateLimited), _) => self.limit.failed(started, now),
            (_, Errand::Question) | (Some(Trouble::Conflict), _) => {}
            (None, Errand::Delivery) => self.limit.succeeded(started, now, self.under_way),
            (Some(_), Errand::Delivery) => self.limit.failed(started, now),
        }
        match (feedback.trouble, feedback.errand) {
            (Some(Trouble::RateLimited), _) => self.budget.failed(),
            (_, Errand::Question) | (Some(Trouble::Conflict), _) => {}
            (None, Errand::Delivery) => self.budget.succeeded(),
            (Some(_), Errand::Delivery) => self.budget.failed(),
        }
        match (feedback.trouble, feedback.errand) {
            (_, Errand::Question) => {}
            (
                None | Some(Trouble::RateLimited | Trouble::Conflict | Trouble::Unconfirmed(_)),
                Errand::Delivery,
            ) => self.breaker.succeeded(now),
            (
                Some(trouble @ (Trouble::Status(_) | Trouble::TimedOut | Trouble::Connection)),
                Errand::Delivery,
            ) => self.breaker.failed(started, now, trouble, unit),
        }
    }

    /// What holds calls back at `now`, whatever is under way.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        let holds = [self.told_to_wait(now), self.breaker.hold(now)];
        holds.into_iter().flatten().max_by_key(|hold| hold.until)
    }

    /// What the account was told to wait for at `now`; not the breaker, which lets probes pass.
    pub(super) fn told_to_wait(&self, now: Instant) -> Option<Hold> {
        self.gate.hold(now)
    }

    /// Takes over a hold from another pace, which turned out to be the same account's.
    pub(super) fn inherit(&mut self, hold: Hold) {
        self.gate.hold_until(hold.until, hold.trouble);
    }
}

#[cfg(test)]
impl Feedback {
    /// A delivery that was made.
    pub(super) fn success(started: Instant) -> Self {
        Self {
            errand: Errand::Delivery,
            started,
            trouble: None,
            wait: None,
            remaining: None,
        }
    }

    /// A delivery that was not.
    pub(super) fn failure(started: Instant, trouble: Trouble) -> Self {
        Self {
            trouble: Some(trouble),
            ..Self::success(started)
        }
    }
}

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
