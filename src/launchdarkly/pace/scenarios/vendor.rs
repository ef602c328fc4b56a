//! Simulated LaunchDarkly: its answer to a call that arrives at a moment.

use std::time::Duration;

use serde::Deserialize;

use crate::{domain::TransientError, launchdarkly::pace::Remaining};

/// LaunchDarkly's fixed windows.
const WINDOW: Duration = Duration::from_secs(10);
/// Where the first window ends, which began before the simulation.
const FIRST_RESET: Duration = Duration::from_millis(6500);
/// The time-out of an attempt.
const TIME_OUT: Duration = Duration::from_secs(10);

/// The vendor's behaviour from a moment on, until the next phase.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phase {
    /// From when on, in seconds.
    #[serde(default)]
    pub(super) at: u64,
    /// What a call takes; each its own, up to a half more or less.
    pub(super) latency_ms: u64,
    /// Calls that it works on at once; it answers 503 to more.
    pub(super) at_once: Option<u32>,
    /// Calls that a window may have.
    pub(super) per_window: Option<u32>,
    /// The rate-limit headers of its answers.
    #[serde(default)]
    pub(super) headers: RateHeaders,
    /// Calls a second that other clients make for the same account.
    #[serde(default)]
    pub(super) others_per_second: u32,
    /// Share of calls that it answers with 503.
    #[serde(default)]
    pub(super) failing: f64,
    /// Whether it never answers.
    #[serde(default)]
    pub(super) silent: bool,
    /// The first so many environments never get an answer.
    #[serde(default)]
    pub(super) silent_environments: usize,
}

/// The rate-limit headers of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RateHeaders {
    /// What remains, and the reset.
    #[default]
    Remaining,
    /// The reset, on a 429 alone. It has always passed: the clocks differ.
    PastReset,
    /// `Retry-After` on a 429, alone: the time left, in whole seconds.
    RetryAfter,
}

/// An answer of the vendor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answer {
    pub(super) after: Duration,
    pub(super) error: Option<TransientError>,
    /// No call may start before this.
    pub(super) not_before: Option<Duration>,
    /// Whether it names a reset that has passed.
    stale: bool,
    window: Option<(u64, Duration)>,
    working: bool,
}

impl Answer {
    /// How long to wait, as read when the answer has arrived.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let left = self.not_before.map(|at| at.saturating_sub(now));
        left.or(self.stale.then_some(Duration::ZERO))
    }

    /// What remains, as read when the answer has arrived.
    pub(super) fn remaining(&self, now: Duration) -> Option<Remaining> {
        let (calls, reset) = self.window?;
        let until_reset = reset.saturating_sub(now);
        (!until_reset.is_zero()).then_some(Remaining { calls, until_reset })
    }
}

#[derive(Debug)]
pub(super) struct Vendor {
    phases: Vec<Phase>,
    working: u32,
    /// The end of the current window, and the calls counted in it.
    reset: Duration,
    counted: u32,
}

impl Phase {
    /// The phase at `now`.
    pub(super) fn at(phases: &[Self], now: Duration) -> &Self {
        let begun = |phase: &&Self| Duration::from_secs(phase.at) <= now;
        phases.iter().rfind(begun).unwrap_or(&phases[0])
    }

    /// Most calls a second that it serves this client.
    pub(super) fn ceiling(&self) -> f64 {
        let each = Duration::from_millis(self.latency_ms).as_secs_f64();
        let others = f64::from(self.others_per_second);
        let by_window = |calls| f64::from(calls) / WINDOW.as_secs_f64() - others;
        let by_work = |calls| f64::from(calls) / each;
        let window = self.per_window.map_or(f64::INFINITY, by_window);
        window.min(self.at_once.map_or(f64::INFINITY, by_work))
    }
}

impl Vendor {
    pub(super) fn new(phases: Vec<Phase>) -> Self {
        Self {
            phases,
            working: 0,
            reset: FIRST_RESET,
            counted: 0,
        }
    }

    /// How long a call takes to arrive.
    pub(super) fn network_delay(&self, now: Duration, rng: &mut fastrand::Rng) -> Duration {
        let latency = Duration::from_millis(Phase::at(&self.phases, now).latency_ms);
        latency.mul_f64(0.05 + 0.2 * rng.f64())
    }

    /// Answers a call for an environment that arrives at `now`.
    pub(super) fn answer(
        &mut self,
        environment: usize,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) -> Answer {
        let phase = Phase::at(&self.phases, now).clone();
        if phase.silent || environment < phase.silent_environments {
            return Answer {
                after: TIME_OUT,
                error: Some(TransientError::TimedOut),
                ..Answer::default()
            };
        }
        let latency = Duration::from_millis(phase.latency_ms);
        let after = latency.mul_f64(0.35 + rng.f64());
        let answer = self.count(now, &phase, after);
        if answer.error.is_some() {
            return answer;
        }
        let overloaded = phase.at_once.is_some_and(|most| self.working >= most);
        if overloaded || rng.f64() < phase.failing {
            return Answer {
                error: Some(TransientError::Status(503)),
                ..answer
            };
        }
        self.working += 1;
        Answer {
            working: true,
            ..answer
        }
    }

    /// An answer has left.
    pub(super) fn release(&mut self, answer: &Answer) {
        self.working -= u32::from(answer.working);
    }

    fn count(&mut self, now: Duration, phase: &Phase, after: Duration) -> Answer {
        let plain = Answer {
            after,
            ..Answer::default()
        };
        let Some(most) = phase.per_window else {
            return plain;
        };
        while self.reset <= now {
            self.reset += WINDOW;
            self.counted = 0;
        }
        self.counted += 1;
        let into = (now + WINDOW).saturating_sub(self.reset);
        let others = into.mul_f64(f64::from(phase.others_per_second)).as_secs();
        let left = u64::from(most).checked_sub(u64::from(self.counted) + others);
        let limited = left.is_none();
        let answer = Answer {
            error: limited.then_some(TransientError::RateLimited),
            ..plain
        };
        let left = left.unwrap_or(0);
        match phase.headers {
            RateHeaders::Remaining => Answer {
                window: Some((left, self.reset)),
                not_before: (left == 0).then_some(self.reset),
                ..answer
            },
            RateHeaders::PastReset => Answer {
                stale: limited,
                ..answer
            },
            RateHeaders::RetryAfter => {
                // It counts from when the answer is read.
                let wait = Duration::from_secs((self.reset - now).as_secs() + 1);
                Answer {
                    not_before: limited.then_some(now + after + wait),
                    ..answer
                }
            }
        }
    }
}
