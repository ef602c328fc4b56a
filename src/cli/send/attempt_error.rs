//! Errors of one attempt: transient ones, which are retried, and final ones.
//!
//! The service says which of its own statuses are transient. Any other status comes from a proxy
//! between, which starts, sheds load, or has lost its upstream. Whatever its code, it says nothing
//! about the records or the destination, so it is transient too. A server's certificate
//! that is refused is final: it stays the same.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{outcome::SendError, window::ProtocolViolation};
use crate::cli::remote;

/// Why a stream, or a call before it, ended before its time.
pub(super) enum AttemptError {
    /// Transient: a retry may help.
    Transient(TransientFailure),
    /// Final: a retry cannot help.
    Final(SendError),
}

/// An error that may pass by itself.
pub(super) struct TransientFailure {
    /// What happened, for people.
    pub(super) why: String,
    /// The delay that the service asks for before the next attempt.
    pub(super) not_before: Duration,
}

/// Classifies a status.
pub(super) fn classify(status: Status) -> AttemptError {
    let delay = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let transient = match status.code() {
        _ if remote::is_certificate_refused(&status) => false,
        _ if !remote::is_from_service(&status) => true,
        Code::Unavailable => true,
        Code::ResourceExhausted => delay.is_some(),
        _ => false,
    };
    if !transient {
        return AttemptError::Final(SendError::Refused(Box::new(status)));
    }
    AttemptError::Transient(TransientFailure {
        why: remote::describe(&status),
        not_before: delay.unwrap_or_default(),
    })
}

impl AttemptError {
    pub(super) fn transient(why: &str) -> Self {
        Self::Transient(TransientFailure {
            why: why.into(),
            not_before: Duration::ZERO,
        })
    }

    /// When every record has its result, a connection that broke afterwards is no failure.
    pub(super) fn unless_transient(self) -> Result<(), SendError> {
        match self {
            Self::Transient(_) => Ok(()),
            Self::Final(error) => Err(error),
        }
    }
}

impl From<ProtocolViolation> for AttemptError {
    fn from(broken: ProtocolViolation) -> Self {
        Self::Final(broken.into())
    }
}

impl From<SendError> for AttemptError {
    fn from(error: SendError) -> Self {
        Self::Final(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn from_service(code: Code, delay: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info("REASON", "destinations.cdp", HashMap::new());
        if delay.is_some() {
            details.set_retry_info(delay);
        }
        Status::with_error_details(code, "", details)
    }

    /// The pause in seconds, if the error is transient.
    fn pause(status: Status) -> Option<u64> {
        match classify(status) {
            AttemptError::Transient(transient) => Some(transient.not_before.as_secs()),
            AttemptError::Final(_) => None,
        }
    }

    #[test]
    fn the_service_says_what_passes() {
        let delay = Some(Duration::from_secs(7));
        for (code, delay, expected) in [
            (Code::Unavailable, delay, Some(7)),
            (Code::Unavailable, None, Some(0)),
            (Code::ResourceExhausted, delay, Some(7)),
            (Code::ResourceExhausted, None, None),
            (Code::Internal, None, None),
            (Code::Unknown, None, None),
            (Code::Cancelled, None, None),
            (Code::Aborted, None, None),
            (Code::NotFound, None, None),
        ] {
            assert_eq!(pause(from_service(code, delay)), expected, "{code:?}");
        }
    }

    #[test]
    fn no_status_of_another_speaker_is_final() {
        for code in 1..=16 {
            let code = Code::from_i32(code);
            assert_eq!(pause(Status::new(code, "")), Some(0), "{code:?}");
            let mut details = ErrorDetails::new();
            details.set_error_info("RBAC", "mesh.example", HashMap::new());
            let foreign = Status::with_error_details(code, "", details);
            assert_eq!(pause(foreign), Some(0), "{code:?}");
        }
    }
}
