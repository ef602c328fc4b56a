//! Errors of reqwest: what they mean for a call, and their text.

use std::error::Error as _;

use crate::domain::TransientError;

/// What an error means for the call.
pub(super) fn transient_error(error: &reqwest::Error) -> TransientError {
    // A connection that is not made in time has carried nothing: that is not a time-out.
    if error.is_connect() {
        TransientError::Connection
    } else if error.is_timeout() {
        TransientError::TimedOut
    } else {
        TransientError::Broken
    }
}

/// An error in words, with its causes: reqwest keeps there what an operator needs to know. None of
/// them holds headers or bodies.
pub(super) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
