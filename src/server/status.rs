//! The error model: what every failure is answered with, as `tonic::Status` or
//! `google.rpc.Status`.
//!
//! The rest of the server says *what happened* with a [`Failure`]; code, message and details are
//! decided here. Each such status carries one `ErrorInfo`, whose reason is one of [`Reason`] or,
//! for a credential check, that of the check. Statuses without one are those for messages that
//! cannot be decoded, tonic's and [`undecodable`], and that of the health service for a name that it does not know. No
//! message holds a token, an identifier's value, or a text that LaunchDarkly answered; some name the
//! HTTP status of its answer.

use std::{fmt, time::Duration};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::{
    domain::{
        CheckOutcome, CredentialsUnavailable, DestinationName, RecordError, SegmentId,
        TransientError,
    },
    pb::batch::EncodingError,
};

mod answer;
mod reason;
mod violation;

pub(crate) use reason::Reason;
pub(crate) use violation::Violation;
use violation::summary;

/// Domain of every reason.
pub(crate) const DOMAIN: &str = "destinations.cdp";

/// Whether a refusal is known to be the record's own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// LaunchDarkly accepts other records for this segment.
    Record,
    /// LaunchDarkly has accepted none yet, so the request itself may be at fault.
    Unproven,
}

/// Which of its limits a stream reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It was open for as long as a stream may be.
    Age,
    /// Nothing came for as long as a stream may be silent.
    Idle,
    /// Its `open` did not come in this time.
    Unopened(Duration),
    /// A message did not come whole in this time. This ends a unary call too.
    Stalled(Duration),
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resend = "open a new stream and resend what follows the last committed_sequence";
        match self {
            Self::Age => write!(f, "the stream was open for its longest time; {resend}"),
            Self::Idle => write!(f, "the stream was idle for too long; {resend}"),
            Self::Unopened(time) => {
                write!(f, "the first message, `open`, did not come within {time:?}")
            }
            Self::Stalled(time) => {
                write!(
                    f,
                    "a message did not arrive whole within {time:?}; try again"
                )
            }
        }
    }
}

/// What happened to a call, a stream or one record. `Display` is the message that callers see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Malformed fields, all of them.
    #[error("{}", summary(.0))]
    InvalidFields(Vec<Violation>),
    /// A stream rule was broken: which one.
    #[error("{0}")]
    StreamProtocol(String),
    #[error("the batch begins at sequence {got}, but the next one is {expected}")]
    SequenceMismatch { expected: i64, got: i64 },
    /// No such destination.
    #[error("there is no destination {0}")]
    DestinationNotFound(DestinationName),
    #[error("this request was carried out before, and its destination {0} was deleted since")]
    DestinationDeletedSince(DestinationName),
    #[error("there is a destination {0} already")]
    DestinationExists(DestinationName),
    #[error("the destination {0} was deleted")]
    DestinationDeleted(DestinationName),
    #[error("this request_id was used for another request; use a new UUID for each request")]
    RequestIdReused,
    #[error("the destination {0} has changed; read it again and send its new etag")]
    EtagMismatch(DestinationName),
    #[error("the destination {0} is being changed by others at the same time; try again")]
    Contended(DestinationName),
    #[error("a newer stream with the stream_id {0} took over")]
    StreamSuperseded(String),
    #[error("{0}")]
    StreamExpired(Expiry),
    #[error(
        "LaunchDarkly refuses the credentials of {0}: its access token is not accepted, or may \
         not write in the environment of its client-side ID; ValidateCredentials says what to mend"
    )]
    CredentialsRejected(DestinationName),
    #[error(
        "LaunchDarkly refuses to change the segment {0}, whatever its members; check that its \
         plan has synced segments, and the segment's state in LaunchDarkly"
    )]
    SegmentRejected(SegmentId),
    #[error(
        "LaunchDarkly answers 403 to changes of the segment {0}, for want of permission: an \
         approval may guard it, the role of the access token may exclude it, or the client-side \
         ID may be that of another environment; check these, other segments may go on"
    )]
    SegmentForbidden(SegmentId),
    #[error("{0}; try again later")]
    DestinationUnavailable(#[from] CredentialsUnavailable),
    #[error("the caller may not do this")]
    PermissionDenied,
    #[error("{limit} streams are open, which is the limit; close one or try again later")]
    TooManyStreams { limit: usize },
    #[error("the server is going away; open a new stream, another server will take it")]
    Draining { retry_after: Duration },
    #[error("destinations cannot be read or written at the moment; try again later")]
    StoreUnavailable,
    #[error("an internal error; the server's log says more")]
    Internal,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("LaunchDarkly refused {}", match .0 {
        Blame::Record => "this record, and accepts others for the same segment",
        Blame::Unproven => "the call with this record, and has accepted none for this segment \
                            yet: the record may be innocent",
    })]
    RejectedByDestination(Blame),
    #[error(
        "not delivered within {} s, {}: {}",
        .tried_for.as_secs(), counted(*.attempts), last_error(*.error)
    )]
    DeliveryTimeout {
        /// What went wrong last, as in [`DeliveryAttempts`](crate::domain::DeliveryAttempts).
        error: Option<TransientError>,
        tried_for: Duration,
        attempts: u32,
    },
}

impl Failure {
    /// One malformed field.
    pub(crate) fn invalid(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self::InvalidFields(vec![Violation::new(field, description)])
    }

    /// What a caller can branch on.
    #[must_use]
    pub(crate) fn reason(&self) -> Reason {
        self.answer().reason
    }

    /// The status that ends a call or a stream.
    #[must_use]
    pub(crate) fn into_status(self) -> Status {
        let (answer, message) = (self.answer(), self.to_string());
        let code = answer.code;
        let details = answer.details(&message);
        Status::with_error_details(code, message, details)
    }

    /// The same as a message, for one record's result.
    #[must_use]
    pub(crate) fn to_rpc(&self) -> pb::Status {
        embed(self.clone().into_status())
    }
}

/// Why a credential check failed or cannot be decided, marked at its form field; none for a check
/// that passed or was not run.
pub(super) fn check_status(outcome: &CheckOutcome, field: &str) -> Option<pb::Status> {
    let (code, finding) = match outcome {
        CheckOutcome::Failed(finding) => (Code::InvalidArgument, finding),
        CheckOutcome::Unknown(finding) => (Code::Unknown, finding),
        CheckOutcome::Passed | CheckOutcome::Skipped => return None,
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(
        finding.reason,
        DOMAIN,
        [("field".to_owned(), field.to_owned())],
    );
    details.add_bad_request_violation(field, &finding.message);
    let status = Status::with_error_details(code, &finding.message, details);
    Some(embed(status))
}

/// The health service's answer about what it does not know. Its clients know nothing of reasons.
pub(super) fn unknown_service() -> Status {
    Status::not_found("there is no such service")
}

fn embed(status: Status) -> pb::Status {
    pb::Status::decode(status.details()).expect("with_error_details encodes such a message")
}

fn counted(attempts: u32) -> String {
    match attempts {
        0 => "before its first attempt".to_owned(),
        1 => "after 1 attempt".to_owned(),
        more => format!("after {more} attempts"),
    }
}

fn last_error(error: Option<TransientError>) -> String {
    match error {
        Some(error) => error.to_string(),
        None => "no call could be started in this time".to_owned(),
    }
}

/// The status of a batch that cannot be decoded: as tonic answers any other such message.
pub(crate) fn undecodable(error: &EncodingError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests;
