//! Figures of a simulation, and the range that each must lie in.

use std::{fmt, time::Duration};

use serde::Deserialize;

use super::vendor::Phase;
use crate::domain::{Attempt, TransientError};

/// A call that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedCall {
    pub(super) environment: usize,
    /// When it began to wait.
    pub(super) enqueued: Duration,
    pub(super) started: Duration,
    pub(super) ended: Duration,
    pub(super) attempt: Attempt,
    pub(super) error: Option<TransientError>,
}

/// The range that a figure must lie in, over a span of seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    figure: Figure,
    /// Of this environment alone; of all if there is none.
    environment: Option<usize>,
    from: u32,
    to: u32,
    min: Option<f64>,
    max: Option<f64>,
}

/// What is computed over a span.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Figure {
    /// Calls under way, on average over time.
    MeanUnderWay,
    /// Most calls under way at any moment.
    MostUnderWay,
    /// Calls started.
    Calls,
    /// Share of the answers that were 429.
    Limited,
    /// Share of the calls that failed in any way.
    Failed,
    /// Calls that succeeded, per call that the vendor would have served.
    Goodput,
    /// Retries above a fifth of the first attempts and ten a second.
    OverBudget,
    /// Seconds from the span's begin to the first call that succeeded.
    Recovery,
    /// Longest time that a first attempt that succeeded had to wait for its start, in seconds.
    LongestWait,
}

impl Expectation {
    pub(super) fn holds(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            figure, from, to, ..
        } = self;
        if let Some(environment) = self.environment {
            write!(f, "environment {environment}: ")?;
        }
        let min = self.min.unwrap_or(f64::NEG_INFINITY);
        let max = self.max.unwrap_or(f64::INFINITY);
        write!(
            f,
            "{figure:?} from {from} to {to} s, expected in {min}..={max},"
        )
    }
}

/// The calls of a simulation, and the phases of the vendor.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    pub(super) calls: &'a [EndedCall],
    pub(super) phases: &'a [Phase],
}

impl Figures<'_> {
    pub(super) fn of(&self, span: &Expectation) -> f64 {
        let from = Duration::from_secs(span.from.into());
        let to = Duration::from_secs(span.to.into());
        let count = |of: &dyn Fn(&EndedCall) -> bool| {
            let calls = self.of_span(span).filter(|call| of(call)).count();
            f64::from(u32::try_from(calls).unwrap())
        };
        let answers = |of: fn(&EndedCall) -> bool| {
            count(&|call| (from..to).contains(&call.ended) && of(call))
        };
        let starts = |of: fn(&EndedCall) -> bool| {
            count(&|call| (from..to).contains(&call.started) && of(call))
        };
        match span.figure {
            Figure::MeanUnderWay => self.time_under_way(from, to) / (to - from).as_secs_f64(),
            Figure::MostUnderWay => self.most_under_way(from, to),
            Figure::Calls => starts(|_| true),
            Figure::Limited => answers(EndedCall::was_limited) / answers(|_| true),
            Figure::Failed => answers(|call| call.error.is_some()) / answers(|_| true),
            Figure::Goodput => answers(EndedCall::succeeded) / self.ceiling(span),
            Figure::OverBudget => {
                let retries = starts(|call| call.attempt == Attempt::Retry);
                let first = starts(|call| call.attempt == Attempt::First);
                retries - 0.2 * first - 10.0 * (to - from).as_secs_f64()
            }
            Figure::Recovery => self.recovery(span, from),
            Figure::LongestWait => self
                .of_span(span)
                .filter(|call| (from..to).contains(&call.ended) && call.succeeded())
                .filter(|call| call.attempt == Attempt::First)
                .map(|call| (call.started - call.enqueued).as_secs_f64())
                .fold(0.0, f64::max),
        }
    }

    /// The calls of the span's environment.
    fn of_span(&self, span: &Expectation) -> impl Iterator<Item = &EndedCall> {
        let environment = span.environment;
        let is_of = move |call: &&EndedCall| environment.is_none_or(|it| call.environment == it);
        self.calls.iter().filter(is_of)
    }

    fn ceiling(&self, span: &Expectation) -> f64 {
        (span.from..span.to)
            .map(|second| Phase::at(self.phases, Duration::from_secs(second.into())).ceiling())
            .sum()
    }

    fn time_under_way(&self, from: Duration, to: Duration) -> f64 {
        let within = |call: &EndedCall| call.ended.min(to).saturating_sub(call.started.max(from));
        let all: Duration = self.calls.iter().map(within).sum();
        all.as_secs_f64()
    }

    fn most_under_way(&self, from: Duration, to: Duration) -> f64 {
        let starts = self.calls.iter().map(|call| (call.started, 1));
        let ends = self.calls.iter().map(|call| (call.ended, -1));
        let mut steps: Vec<_> = starts.chain(ends).collect();
        steps.sort_unstable();
        let (mut under_way, mut most) = (0, 0);
        for (at, step) in steps {
            under_way += step;
            if (from..to).contains(&at) {
                most = most.max(under_way);
            }
        }
        f64::from(most)
    }

    fn recovery(&self, span: &Expectation, from: Duration) -> f64 {
        self.of_span(span)
            .filter(|call| call.ended >= from && call.succeeded())
            .map(|call| (call.ended - from).as_secs_f64())
            .fold(f64::INFINITY, f64::min)
    }
}

impl EndedCall {
    fn succeeded(&self) -> bool {
        self.error.is_none()
    }

    fn was_limited(&self) -> bool {
        self.error == Some(TransientError::RateLimited)
    }
}
