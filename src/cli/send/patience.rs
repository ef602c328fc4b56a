//! How long a sender goes on without progress.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    stream::{Error, Settings},
    window::Window,
};

/// What a record is tried for when nobody says (the contract's default).
const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long to go on.
pub(super) struct Patience {
    give_up_after: Duration,
    delivery_timeout: Duration,
    /// Since when there is no stream.
    closed_since: Instant,
    /// The last commit, or when the oldest waiting row was read.
    last_progress: Instant,
    /// What stood in the way of a stream last; none while there is one.
    pub(super) trouble: Option<String>,
}

impl Patience {
    pub(super) fn new(settings: &Settings) -> Self {
        let delivery_timeout = settings.open.delivery_timeout;
        Self {
            give_up_after: settings.give_up_after,
            delivery_timeout: delivery_timeout
                .and_then(|timeout| timeout.try_into().ok())
                .unwrap_or(DEFAULT_DELIVERY_TIMEOUT),
            closed_since: Instant::now(),
            last_progress: Instant::now(),
            trouble: None,
        }
    }

    pub(super) fn progress(&mut self) {
        self.last_progress = Instant::now();
    }

    pub(super) fn closed(&mut self) {
        self.closed_since = Instant::now();
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

    pub(super) fn exhausted(&self) -> Error {
        let silent = "the server does not answer";
        Error::GaveUp {
            after: self.give_up_after,
            last: self.trouble.clone().unwrap_or_else(|| silent.into()),
        }
    }
}
