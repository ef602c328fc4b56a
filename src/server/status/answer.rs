//! The table of failures: the reason, the retry delay and the details that each is answered with.

use std::{fmt::Display, time::Duration};

use tonic::Code;
use tonic_types::ErrorDetails;

use super::{Blame, DOMAIN, Failure, Reason, Violation, last_error, violation::field_violations};
use crate::domain::{DestinationName, RecordError, SegmentId, TransientError, shown};

/// Type of the resource that `ResourceInfo` names.
const RESOURCE_TYPE: &str = "destinations.cdp/Destination";

/// `cause` of a segment that was refused for want of permission.
const PERMISSION: &str = "PERMISSION";

/// When to try a store again that does not answer. Ours: a lock or a restart is short.
const STORE_PAUSE: Retry = Retry::After(Duration::from_secs(1));
/// When to try again after a lost race of updates. Ours: the other update is done already.
const RACE_PAUSE: Retry = Retry::After(Duration::from_millis(100));
/// When to try again at the limit of streams. Ours: streams last long.
const STREAMS_PAUSE: Retry = Retry::After(Duration::from_secs(5));
/// When to try again after a rate limit: LaunchDarkly counts over ten seconds.
const RATE_PAUSE: Duration = Duration::from_secs(10);
/// When to try again after a failure of LaunchDarkly that came without a time. Ours.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);

/// What a failure is answered with, beside its message.
pub(super) struct Answer<'a> {
    pub(super) reason: Reason,
    pub(super) code: Code,
    retry: Retry,
    detail: Detail<'a>,
    /// The parts of the message that vary.
    metadata: Vec<(&'static str, String)>,
}

/// Whether to try the same again (`RetryInfo`).
enum Retry {
    /// Waiting alone does not help.
    Never,
    After(Duration),
}

/// The detail beside `ErrorInfo` and `RetryInfo`.
enum Detail<'a> {
    Nothing,
    /// `BadRequest`.
    Fields(&'a [Violation]),
    /// `ResourceInfo`.
    Destination(&'a DestinationName),
    /// `ResourceInfo`, and `PreconditionFailure`: the destination must be mended first.
    BrokenDestination(&'a DestinationName),
    /// `PreconditionFailure`: the segment must be mended first.
    BrokenSegment(&'a SegmentId),
    /// `QuotaFailure`.
    Quota(&'static str),
}

impl Failure {
    /// The table. A new failure needs a row.
    pub(super) fn answer(&self) -> Answer<'_> {
        use Detail::{BrokenDestination, BrokenSegment, Destination, Fields, Nothing, Quota};
        use Retry::{After, Never};
        match self {
            Self::InvalidFields(violations) => {
                Answer::new(Reason::InvalidField, Never, Fields(violations))
            }
            Self::StreamProtocol(_) => Answer::new(Reason::StreamProtocol, Never, Nothing),
            Self::SequenceMismatch { expected, got } => {
                Answer::new(Reason::SequenceMismatch, Never, Nothing)
                    .with("expected_sequence", expected)
                    .with("received_sequence", got)
            }
            Self::DestinationNotFound(name) | Self::DestinationDeletedSince(name) => {
                Answer::new(Reason::DestinationNotFound, Never, Destination(name))
            }
            Self::DestinationExists(name) => {
                Answer::new(Reason::DestinationExists, Never, Destination(name))
            }
            Self::DestinationDeleted(name) => {
                Answer::new(Reason::DestinationDeleted, Never, BrokenDestination(name))
            }
            Self::RequestIdReused => Answer::new(Reason::RequestIdReused, Never, Nothing),
            Self::EtagMismatch(name) => Answer::new(Reason::EtagMismatch, Never, Destination(name)),
            Self::Contended(name) => {
                Answer::new(Reason::EtagMismatch, RACE_PAUSE, Destination(name))
            }
            Self::StreamSuperseded(stream_id) => {
                Answer::new(Reason::StreamSuperseded, Never, Nothing).with("stream_id", stream_id)
            }
            Self::StreamExpired(_) => {
                Answer::new(Reason::StreamExpired, After(Duration::ZERO), Nothing)
            }
            Self::CredentialsRejected(name) => {
                Answer::new(Reason::CredentialsRejected, Never, BrokenDestination(name))
            }
            Self::SegmentRejected(segment) => {
                Answer::new(Reason::SegmentRejected, Never, BrokenSegment(segment))
            }
            Self::SegmentForbidden(segment) => {
                Answer::new(Reason::SegmentRejected, Never, BrokenSegment(segment))
                    .with("cause", PERMISSION)
            }
            Self::DestinationUnavailable(unavailable) => {
                let pause = pause_after(Some(unavailable.error));
                let retry = After(unavailable.retry_after.unwrap_or(pause));
                Answer::new(Reason::DestinationUnavailable, retry, Nothing)
            }
            Self::PermissionDenied => Answer::new(Reason::PermissionDenied, Never, Nothing),
            Self::TooManyStreams { limit } => {
                Answer::new(Reason::TooManyStreams, STREAMS_PAUSE, Quota("streams"))
                    .with("limit", limit)
            }
            Self::Draining { retry_after } => {
                Answer::new(Reason::ServerDraining, After(*retry_after), Nothing)
            }
            Self::StoreUnavailable => Answer::new(Reason::StoreUnavailable, STORE_PAUSE, Nothing),
            Self::Internal => Answer::new(Reason::Internal, Never, Nothing),
            Self::Record(RecordError::IdentifierMissing { sources, .. }) => {
                Answer::new(Reason::IdentifierMissing, Never, Nothing)
                    .with("sources", shown(sources).join(","))
            }
            Self::Record(RecordError::IdentifierInvalid { source_name, .. }) => {
                Answer::new(Reason::IdentifierInvalid, Never, Nothing).with("source", source_name)
            }
            Self::RejectedByDestination(blame) => {
                let is_proven = matches!(blame, Blame::Record);
                Answer::new(Reason::RejectedByDestination, Never, Nothing).with("proven", is_proven)
            }
            Self::DeliveryTimeout {
                error,
                tried_for,
                attempts,
            } => {
                let retry = After(pause_after(*error));
                let answer = Answer::new(Reason::DeliveryTimeout, retry, Nothing)
                    .with("trouble", last_error(*error))
                    .with("tried_for_seconds", tried_for.as_secs())
                    .with("attempts", attempts);
                if is_rate_limit(*error) {
                    answer.with_code(Code::ResourceExhausted)
                } else {
                    answer
                }
            }
        }
    }
}

impl<'a> Answer<'a> {
    fn new(reason: Reason, retry: Retry, detail: Detail<'a>) -> Self {
        Self {
            reason,
            code: reason.codes()[0],
            retry,
            detail,
            metadata: vec![],
        }
    }

    fn with(mut self, key: &'static str, value: impl Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The details, with `message` where one has a description.
    pub(super) fn details(self, message: &str) -> ErrorDetails {
        let reason = self.reason.as_str();
        let mut details = ErrorDetails::new();
        let mut metadata = self.metadata;
        match self.detail {
            Detail::Nothing => {}
            Detail::Fields(violations) => {
                details.set_bad_request(field_violations(violations));
            }
            Detail::Destination(name) => {
                metadata.push(("destination", name.to_string()));
                details.set_resource_info(RESOURCE_TYPE, name.to_string(), "", message);
            }
            Detail::BrokenDestination(name) => {
                let name = name.to_string();
                metadata.push(("destination", name.clone()));
                details.set_resource_info(RESOURCE_TYPE, &name, "", message);
                details.add_precondition_failure_violation(reason, name, message);
            }
            Detail::BrokenSegment(segment) => {
                metadata.push(("segment_id", segment.to_string()));
                details.add_precondition_failure_violation(reason, segment.to_string(), message);
            }
            Detail::Quota(subject) => {
                details.add_quota_failure_violation(subject, message);
            }
        }
        let metadata = metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        details.set_error_info(
            reason,
            DOMAIN,
            metadata.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Retry::After(delay) = self.retry {
            details.set_retry_info(Some(delay));
        }
        details
    }
}

fn is_rate_limit(error: Option<TransientError>) -> bool {
    error == Some(TransientError::RateLimited)
}

fn pause_after(error: Option<TransientError>) -> Duration {
    if is_rate_limit(error) {
        RATE_PAUSE
    } else {
        OUTAGE_PAUSE
    }
}
