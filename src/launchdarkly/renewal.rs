//! Connection renewal: when the connections to a host are replaced.
//!
//! A connection that works may be the wrong one all the same: it is silently dead, or its
//! host is not where the name points by now. All connections to a host are of one generation,
//! and this tells when the next begins:
//!
//! | seen | the generation |
//! |---|---|
//! | an attempt was given up, and nothing was received since it began | ends: what it went over may be dead |
//! | 421 Misdirected Request | ends: the status means "on another connection" |
//! | nothing but 5xx for [`Renewal::failing`] | ends: the name may point elsewhere now |
//! | it is [`Renewal::life`] old | ends: nothing else would ever look the name up again |
//!
//! Calls under way stay where they are, and connections close when their last call has ended.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

/// How long a generation lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    /// In good times.
    pub(super) life: Duration,
    /// While all that it brings is 5xx.
    pub(super) failing: Duration,
}

impl Default for Renewal {
    /// Five minutes: a name that moves keeps its old addresses alive for about as long, and a
    /// handshake every five minutes costs nothing. Ten seconds of failures: longer than a deploy
    /// takes to pass a load balancer, and a handshake every ten seconds costs a failing host
    /// little.
    fn default() -> Self {
        Self {
            life: Duration::from_secs(300),
            failing: Duration::from_secs(10),
        }
    }
}

/// What is known of one generation.
#[derive(Debug)]
pub(super) struct Generation {
    ends: Instant,
    /// The last answer of any kind, or the begin.
    heard: Instant,
    /// The last answer that was not 5xx, or the begin.
    served: Instant,
    over: bool,
}

impl Generation {
    /// Begins at `now`; `random` is drawn from `0.0..1.0`, so that not all hosts' end together.
    pub(super) fn new(renewal: Renewal, now: Instant, random: f64) -> Self {
        Self {
            ends: now + renewal.life.mul_f64(0.9 + random / 5.0),
            heard: now,
            served: now,
            over: false,
        }
    }

    /// Whether a call that starts at `now` needs another generation.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.over || self.ends <= now
    }

    /// An answer of this status came at `now`.
    pub(super) fn answered(&mut self, status: StatusCode, renewal: Renewal, now: Instant) {
        self.heard = now;
        if !status.is_server_error() {
            self.served = now;
        }
        let only_fails = self.served + renewal.failing <= now;
        self.over |= only_fails || status == StatusCode::MISDIRECTED_REQUEST;
    }

    /// An attempt that began at `started` was given up without an answer.
    pub(super) fn gave_up(&mut self, started: Instant) {
        // What has answered others meanwhile is alive, and slow with this one alone.
        self.over |= self.heard <= started;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENEWAL: Renewal = Renewal {
        life: Duration::from_secs(300),
        failing: Duration::from_secs(10),
    };
    const SECOND: Duration = Duration::from_secs(1);
    const OK: StatusCode = StatusCode::NO_CONTENT;
    const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

    fn begun() -> (Generation, Instant) {
        let now = Instant::now();
        (Generation::new(RENEWAL, now, 0.5), now)
    }

    #[test]
    fn it_ends_of_age() {
        let (mut generation, now) = begun();
        generation.answered(OK, RENEWAL, now + SECOND);
        assert!(!generation.is_over(now + 299 * SECOND));
        assert!(generation.is_over(now + 300 * SECOND));
    }

    #[test]
    fn it_ends_with_an_attempt_in_vain_unless_something_was_heard_meanwhile() {
        for (heard, over) in [(1, true), (3, false)] {
            let (mut generation, now) = begun();
            generation.answered(OK, RENEWAL, now + heard * SECOND);
            generation.gave_up(now + 2 * SECOND);
            assert_eq!(generation.is_over(now + 12 * SECOND), over, "{heard}");
        }
        let (mut generation, now) = begun();
        generation.gave_up(now);
        assert!(generation.is_over(now), "it never answered");
    }

    #[test]
    fn it_ends_with_failures_alone_that_last() {
        let (mut generation, now) = begun();
        for second in 0..10 {
            generation.answered(DOWN, RENEWAL, now + second * SECOND);
        }
        generation.answered(OK, RENEWAL, now + 9 * SECOND);
        generation.answered(DOWN, RENEWAL, now + 18 * SECOND);
        assert!(!generation.is_over(now + 18 * SECOND));
        generation.answered(DOWN, RENEWAL, now + 19 * SECOND);
        assert!(generation.is_over(now + 19 * SECOND));
    }

    #[test]
    fn it_ends_where_it_is_misdirected() {
        let (mut generation, now) = begun();
        generation.answered(StatusCode::MISDIRECTED_REQUEST, RENEWAL, now);
        assert!(generation.is_over(now));
    }
}
