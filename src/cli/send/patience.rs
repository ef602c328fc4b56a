//! How long a sender goes on without progress, and when it tries again.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    stream::{Error, Settings},
    trouble::Passing,
    window::Window,
};
use crate::backoff::Backoff;

/// What a record is tried for when nobody says (the contract's default).
const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long before the end the last try is made, if the pauses leave none later. Ours: a server
/// that is there answers within it.
const LAST_TRY: Duration = Duration::from_millis(500);

/// How long to go on.
pub(super) struct Patience {
    give_up_after: Duration,
    delivery_timeout: Duration,
    backoff: Backoff,
    /// Since when there is no stream.
    closed_since: Instant,
    /// The last commit, or when the oldest waiting row was read.
    last_progress: Instant,
    /// Troubles in a row.
    failures: u32,
    /// What stood in the way of a stream last; none while there is one.
    trouble: Option<String>,
}

impl Patience {
    pub(super) fn new(settings: &Settings) -> Self {
        let delivery_timeout = settings.open.delivery_timeout;
        Self {
            give_up_after: settings.give_up_after,
            delivery_timeout: delivery_timeout
                .and_then(|timeout| timeout.try_into().ok())
                .unwrap_or(DEFAULT_DELIVERY_TIMEOUT),
            backoff: settings.backoff,
            closed_since: Instant::now(),
            last_progress: Instant::now(),
            failures: 0,
            trouble: None,
        }
    }

    pub(super) fn progress(&mut self) {
        self.last_progress = Instant::now();
    }

    pub(super) fn opened(&mut self) {
        self.trouble = None;
    }

    pub(super) fn closed(&mut self) {
        self.closed_since = Instant::now();
    }

    /// A stream did what it is for: the next pause is short again.
    pub(super) fn recovered(&mut self) {
        self.failures = 0;
    }

    /// Notes a trouble, and draws the pause after it.
    pub(super) fn pause(&mut self, passing: &Passing) -> Duration {
        let drawn = self.backoff.delay(self.failures, fastrand::f64());
        self.failures += 1;
        self.trouble = Some(passing.why.clone());
        drawn.max(passing.not_before)
    }

    /// When to try again. Where the pause would outlast the deadline, once more shortly before it;
    /// the deadline itself if the service wants to be left alone until then.
    pub(super) fn next_try(&mut self, passing: &Passing, window: &Window) -> Instant {
        let now = Instant::now();
        let next = now + self.pause(passing);
        let deadline = self.deadline_closed(window);
        let last = deadline.checked_sub(LAST_TRY).unwrap_or(now);
        if next < deadline {
            next
        } else if last > now + passing.not_before {
            last
        } else {
            deadline
        }
    }

    /// A server may try a record for its whole delivery time-out: waiting so long is no trouble.
    pub(super) fn deadline_open(&self) -> Instant {
        self.last_progress + self.delivery_timeout + self.give_up_after
    }

    pub(super) fn deadline_closed(&self, window: &Window) -> Instant {
        let deadline = self.closed_since + self.give_up_after;
        if window.is_empty() {
            deadline
        } else {
            // A server that takes streams and loses them, for ever, makes no progress either.
            deadline.min(self.deadline_open())
        }
    }

    /// Why it ends, once a deadline is over.
    pub(super) fn exhausted(&self) -> Error {
        let now = Instant::now();
        let (since, without) = if now >= self.closed_since + self.give_up_after {
            (self.closed_since, "a stream")
        } else {
            (self.last_progress, "a result")
        };
        let silent = "the server does not answer";
        Error::GaveUp {
            waited: now - since,
            without,
            last: self.trouble.clone().unwrap_or_else(|| silent.into()),
        }
    }

    /// For a deadline of an open stream, which had no trouble but silence.
    pub(super) fn exhausted_open(&self) -> Error {
        Error::GaveUp {
            waited: self.last_progress.elapsed(),
            without: "a result",
            last: "the server does not answer".into(),
        }
    }
}
