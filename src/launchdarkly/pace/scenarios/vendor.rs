//! A LaunchDarkly that is simulated: how it answers a call that arrives at a moment.

use std::time::Duration;

use serde::Deserialize;

use crate::{domain::TransientError, launchdarkly::pace::Remaining};

/// LaunchDarkly's fixed windows.
const WINDOW: Duration = Duration::from_secs(10);
/// Where the first window ends, which has begun before the play.
const FIRST_RESET: Duration = Duration::from_millis(6500);
/// What an attempt may take.
const TIME_OUT: Duration = Duration::from_secs(10);

/// How it behaves from a moment on, until the next phase.
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
    /// What it says of its windows.
    #[serde(default)]
    pub(super) told: Told,
    /// Calls a second that somebody else makes for the same account.
    #[serde(default)]
    pub(super) others_per_second: u32,
    /// Share of calls that it answers with 503.
    #[serde(default)]
    pub(super) failing: f64,
    /// Whether it never answers.
    #[serde(default)]
    pub(super) silent: bool,
    /// So many environments, the first ones, never get an answer.
    #[serde(default)]
    pub(super) silent_environments: usize,
}

/// What answers say of windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Told {
    /// What remains, and the reset.
    #[default]
    Remaining,
    /// The reset, on a 429 alone, always a moment ago: the clocks differ.
    PastReset,
    /// `Retry-After` on a 429, alone: the time left, in whole seconds.
    RetryAfter,
}

/// What it answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answer {
    pub(super) after: Duration,
    pub(super) error: Option<TransientError>,
    /// Before when no call may start.
    pub(super) stated: Option<Duration>,
    /// Whether it names a reset that has passed.
    stale: bool,
    window: Option<(u64, Duration)>,
    working: bool,
}

impl Answer {
    /// How long to wait, as read when the answer has come.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let left = self.stated.map(|stated| stated.saturating_sub(now));
        left.or(self.stale.then_some(Duration::ZERO))
    }

    /// What remains, as read when the answer has come.
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
    /// The window that is being counted, by its end, and what it has had.
    reset: Duration,
    counted: u32,
}

impl Phase {
    /// Of these, the one that holds at `now`.
    pub(super) fn at(phases: &[Self], now: Duration) -> &Self {
        let begun = |phase: &&Self| Duration::from_secs(phase.at) <= now;
        phases.iter().rfind(begun).unwrap_or(&phases[0])
    }

    /// Most calls a second that it serves us.
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

    /// How long a call is on its way there.
    pub(super) fn way(&self, now: Duration, chance: &mut fastrand::Rng) -> Duration {
        let latency = Duration::from_millis(Phase::at(&self.phases, now).latency_ms);
        latency.mul_f64(0.05 + 0.2 * chance.f64())
    }

    /// Answers a call for an environment that arrives at `now`.
    pub(super) fn answer(
        &mut self,
        environment: usize,
        now: Duration,
        chance: &mut fastrand::Rng,
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
        let after = latency.mul_f64(0.35 + chance.f64());
        let answer = self.count(now, &phase, after);
        if answer.error.is_some() {
            return answer;
        }
        let overloaded = phase.at_once.is_some_and(|most| self.working >= most);
        if overloaded || chance.f64() < phase.failing {
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
        match phase.told {
            Told::Remaining => Answer {
                window: Some((left, self.reset)),
                stated: (left == 0).then_some(self.reset),
                ..answer
            },
            Told::PastReset => Answer {
                stale: limited,
                ..answer
            },
            Told::RetryAfter => {
                // Counted from when the answer is read.
                let wait = Duration::from_secs((self.reset - now).as_secs() + 1);
                Answer {
                    stated: limited.then_some(now + after + wait),
                    ..answer
                }
            }
        }
    }
}
