//! Deadlines and retries of a transfer: when the next attempt is due, and when to give up.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    attempt_error::TransientFailure, options::TransferOptions, outcome::SendError,
    window::UnackedWindow,
};
use crate::backoff::Backoff;

/// How long a record is tried by default, as in the contract.
const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long before the deadline the last attempt is made, if the pauses leave no later one. Ours: a
/// reachable server answers within it.
const LAST_TRY: Duration = Duration::from_millis(500);

/// How long to go on.
pub(super) struct RetryTimer {
    give_up_after: Duration,
    delivery_timeout: Duration,
    backoff: Backoff,
    /// Since when there is no stream.
    closed_since: Instant,
    /// The last commit, or when the oldest waiting row was read.
    last_progress: Instant,
    /// Failures in a row.
    failures: u32,
    /// The last failure to open a stream; none while a stream is open.
    last_failure: Option<String>,
}

impl RetryTimer {
    pub(super) fn new(options: &TransferOptions) -> Self {
        let delivery_timeout = options.open.delivery_timeout;
        Self {
            give_up_after: options.give_up_after,
            delivery_timeout: delivery_timeout
                .and_then(|timeout| timeout.try_into().ok())
                .unwrap_or(DEFAULT_DELIVERY_TIMEOUT),
            backoff: options.backoff,
            closed_since: Instant::now(),
            last_progress: Instant::now(),
            failures: 0,
            last_failure: None,
        }
    }

    pub(super) fn progress(&mut self) {
        self.last_progress = Instant::now();
    }

    pub(super) fn opened(&mut self) {
        self.last_failure = None;
    }

    pub(super) fn closed(&mut self) {
        self.closed_since = Instant::now();
    }

    /// A stream made progress: the next pause is short again.
    pub(super) fn recovered(&mut self) {
        self.failures = 0;
    }

    /// Records a failure, and draws the pause after it.
    pub(super) fn pause(&mut self, transient: &TransientFailure) -> Duration {
        let drawn = self.backoff.delay(self.failures, fastrand::f64());
        self.failures += 1;
        self.last_failure = Some(transient.why.clone());
        drawn.max(transient.not_before)
    }

    /// When the next attempt is due. If the pause would outlast the deadline, shortly before the
    /// deadline; at the deadline if the service asks for a delay until then.
    pub(super) fn next_try(
        &mut self,
        transient: &TransientFailure,
        window: &UnackedWindow,
    ) -> Instant {
        let now = Instant::now();
        let next = now + self.pause(transient);
        let deadline = self.deadline_closed(window);
        let last = deadline.checked_sub(LAST_TRY).unwrap_or(now);
        if next < deadline {
            next
        } else if last > now + transient.not_before {
            last
        } else {
            deadline
        }
    }

    /// A server may try a record for its whole delivery time-out: waiting so long is no failure.
    pub(super) fn deadline_open(&self) -> Instant {
        self.last_progress + self.delivery_timeout + self.give_up_after
    }

    pub(super) fn deadline_closed(&self, window: &UnackedWindow) -> Instant {
        let deadline = self.closed_since + self.give_up_after;
        if window.is_empty() {
            deadline
        } else {
            // A server that always accepts streams and loses them makes no progress either.
            deadline.min(self.deadline_open())
        }
    }

    /// The error, once a deadline has passed.
    pub(super) fn exhausted(&self) -> SendError {
        let now = Instant::now();
        let (since, without) = if now >= self.closed_since + self.give_up_after {
            (self.closed_since, "a stream")
        } else {
            (self.last_progress, "a result")
        };
        let silent = "the server does not answer";
        SendError::GaveUp {
            waited: now - since,
            without,
            last: self.last_failure.clone().unwrap_or_else(|| silent.into()),
        }
    }

    /// The error after the deadline of an open stream that had no other failure than silence.
    pub(super) fn exhausted_open(&self) -> SendError {
        SendError::GaveUp {
            waited: self.last_progress.elapsed(),
            without: "a result",
            last: "the server does not answer".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;
    use crate::{
        cli::{remote::Server, send::BACKOFF},
        pb,
    };

    const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

    fn retries() -> RetryTimer {
        RetryTimer::new(&TransferOptions {
            server: Server::at("http://127.0.0.1:1").unwrap(),
            open: pb::OpenStream::default(),
            give_up_after: GIVE_UP_AFTER,
            backoff: BACKOFF,
        })
    }

    /// Fails at every attempt until the timer gives up; returns how long that took, when the last
    /// attempt was, and the error.
    async fn fail(not_before: Duration) -> (Duration, Duration, SendError) {
        let transient = TransientFailure {
            why: "starting".into(),
            not_before,
        };
        let (mut retries, nothing) = (retries(), UnackedWindow::default());
        let started = Instant::now();
        let mut last_try = Duration::ZERO;
        loop {
            let next = retries.next_try(&transient, &nothing);
            sleep_until(next).await;
            if next >= retries.deadline_closed(&nothing) {
                return (started.elapsed(), last_try, retries.exhausted());
            }
            last_try = started.elapsed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_when_it_says_and_tries_until_then() {
        for _ in 0..100 {
            let (elapsed, last_try, error) = fail(Duration::ZERO).await;
            assert_eq!(elapsed, GIVE_UP_AFTER);
            assert!(last_try >= GIVE_UP_AFTER - 2 * LAST_TRY, "{last_try:?}");
            let said = "gave up after 5.0 s without a stream: starting";
            assert_eq!(error.to_string(), said);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_wants_to_be_left_alone_is() {
        for (not_before, last_try) in [(60, 0), (3, 3)] {
            let not_before = Duration::from_secs(not_before);
            let (elapsed, last, _) = fail(not_before).await;
            assert_eq!(elapsed, GIVE_UP_AFTER);
            assert_eq!(last, Duration::from_secs(last_try));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_results_is_told_with_the_time_it_took() {
        let mut retries = retries();
        retries.opened();
        sleep_until(retries.deadline_open()).await;
        let said = "gave up after 305.0 s without a result: the server does not answer";
        assert_eq!(retries.exhausted_open().to_string(), said);
    }
}
