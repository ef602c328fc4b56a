//! What came of a play, in figures.

use std::{fmt, time::Duration};

use serde::Deserialize;

use super::vendor::Phase;
use crate::domain::{Attempt, TransientError};

/// A call that was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) environment: usize,
    pub(super) wanted: Duration,
    pub(super) started: Duration,
    pub(super) ended: Duration,
    pub(super) attempt: Attempt,
    pub(super) error: Option<TransientError>,
}

/// What a figure must lie between, over a span of seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    what: Figure,
    /// Of this environment alone; of all unless told.
    environment: Option<usize>,
    from: u32,
    to: u32,
    min: Option<f64>,
    max: Option<f64>,
}

/// What can be asked about a span.
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
    /// Share of the answers that were any trouble.
    Troubled,
    /// Calls that went well, per call that the vendor would have served.
    Goodput,
    /// Repeated attempts beyond a fifth of the first ones and ten a second.
    BeyondBudget,
    /// Seconds from the span's begin to the first call that went well.
    Recovery,
    /// Longest that a first attempt which went well had to wait for its turn, in seconds.
    LongestWait,
}

impl Expectation {
    pub(super) fn holds(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, from, to, .. } = self;
        if let Some(environment) = self.environment {
            write!(f, "environment {environment}: ")?;
        }
        let min = self.min.unwrap_or(f64::NEG_INFINITY);
        let max = self.max.unwrap_or(f64::INFINITY);
        write!(
            f,
            "{what:?} from {from} to {to} s, expected in {min}..={max},"
        )
    }
}

/// A play's calls, and how the vendor behaved.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    pub(super) made: &'a [Made],
    pub(super) phases: &'a [Phase],
}

impl Figures<'_> {
    pub(super) fn of(&self, span: &Expectation) -> f64 {
        let from = Duration::from_secs(span.from.into());
        let to = Duration::from_secs(span.to.into());
        let count = |of: &dyn Fn(&Made) -> bool| {
            let calls = self.of_span(span).filter(|made| of(made)).count();
            f64::from(u32::try_from(calls).unwrap())
        };
        let answers =
            |of: fn(&Made) -> bool| count(&|made| (from..to).contains(&made.ended) && of(made));
        let starts =
            |of: fn(&Made) -> bool| count(&|made| (from..to).contains(&made.started) && of(made));
        match span.what {
            Figure::MeanUnderWay => self.time_under_way(from, to) / (to - from).as_secs_f64(),
            Figure::MostUnderWay => self.most_under_way(from, to),
            Figure::Calls => starts(|_| true),
            Figure::Limited => answers(Made::was_limited) / answers(|_| true),
            Figure::Troubled => answers(|made| made.error.is_some()) / answers(|_| true),
            Figure::Goodput => answers(Made::went_well) / self.ceiling(span),
            Figure::BeyondBudget => {
                let again = starts(|made| made.attempt == Attempt::Retry);
                let first = starts(|made| made.attempt == Attempt::First);
                again - 0.2 * first - 10.0 * (to - from).as_secs_f64()
            }
            Figure::Recovery => self.recovery(span, from),
            Figure::LongestWait => self
                .of_span(span)
                .filter(|made| (from..to).contains(&made.ended) && made.went_well())
                .filter(|made| made.attempt == Attempt::First)
                .map(|made| (made.started - made.wanted).as_secs_f64())
                .fold(0.0, f64::max),
        }
    }

    /// The calls of the environment that is asked about.
    fn of_span(&self, span: &Expectation) -> impl Iterator<Item = &Made> {
        let environment = span.environment;
        let is_of = move |made: &&Made| environment.is_none_or(|it| made.environment == it);
        self.made.iter().filter(is_of)
    }

    fn ceiling(&self, span: &Expectation) -> f64 {
        (span.from..span.to)
            .map(|second| Phase::at(self.phases, Duration::from_secs(second.into())).ceiling())
            .sum()
    }

    fn time_under_way(&self, from: Duration, to: Duration) -> f64 {
        let within = |made: &Made| made.ended.min(to).saturating_sub(made.started.max(from));
        let all: Duration = self.made.iter().map(within).sum();
        all.as_secs_f64()
    }

    fn most_under_way(&self, from: Duration, to: Duration) -> f64 {
        let starts = self.made.iter().map(|made| (made.started, 1));
        let ends = self.made.iter().map(|made| (made.ended, -1));
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
            .filter(|made| made.ended >= from && made.went_well())
            .map(|made| (made.ended - from).as_secs_f64())
            .fold(f64::INFINITY, f64::min)
    }
}

impl Made {
    fn went_well(&self) -> bool {
        self.error.is_none()
    }

    fn was_limited(&self) -> bool {
        self.error == Some(TransientError::RateLimited)
    }
}
