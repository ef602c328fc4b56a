//! The events of a transfer, for a reporter, and the errors that end it early.

use std::time::Duration;

use tonic::Status;

use super::window::{ProtocolViolation, SettledRow};
use crate::{cli::remote, pb};

/// An event of a transfer, for a reporter.
#[derive(Debug)]
pub(crate) enum SendEvent<'a> {
    /// A stream is open.
    Opened,
    /// These records have their final results; each record comes once.
    Settled(&'a [SettledRow]),
    /// The server says how delivery is going.
    Notice(&'a pb::Notice),
    /// The server asks to move; another stream follows.
    Drain,
    /// There is no stream; another is tried.
    Lost {
        /// What happened.
        why: &'a str,
        /// After this pause; none if there is nothing to send, until there is.
        pause: Option<Duration>,
    },
}

/// A transfer that ended before every record had a result.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// Why.
    pub error: SendError,
    /// Where the first record without one begins in the input, if it was read.
    pub next_line: Option<u64>,
}

/// Why not every record has a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The server refuses the stream; what it says must be corrected first.
    #[error("{}", remote::describe(.0))]
    Refused(Box<Status>),
    /// It took too long.
    #[error("gave up after {:.1} s without {without}: {last}", .waited.as_secs_f64())]
    GaveUp {
        /// How long it really took.
        waited: Duration,
        /// What was missing.
        without: &'static str,
        /// The last failure.
        last: String,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ProtocolViolation),
    /// A signal asked for the end.
    #[error("stopped by {0}")]
    Stopped(&'static str),
    /// The reporter failed; it has the error.
    #[error("the results can no longer be reported")]
    NotReported,
}
