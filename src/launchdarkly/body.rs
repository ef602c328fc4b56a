//! Response bodies, read within bounds of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use crate::domain::TransientError;

/// A body on its way.
pub type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// A body that did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokenOff(pub TransientError);

/// Most bytes read of a body that is not needed. Errors of LaunchDarkly are a few hundred bytes; a
/// connection that has much more to say is cheaper to replace.
const DRAIN_BYTES: usize = 64 * 1024;
/// Longest wait for a body that is not needed, while the verdict waits with it.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Largest reply that is decoded. A page of 20 projects with 20 environments each is near 1 MiB.
const REPLY_BYTES: usize = 4 * 1024 * 1024;

/// What an answer's body is, apart from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing, or blanks.
    Empty,
    /// JSON, as LaunchDarkly writes.
    Json,
    /// Something else, such as a page.
    Other,
    /// More than LaunchDarkly ever writes here, which begins as JSON may.
    TooLong,
}

/// Why a reply could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than any that is expected.
    TooLarge,
    /// It did not come.
    TransientError(TransientError),
}

/// Reads the rest of a body and forgets it, so that the connection can carry another call.
/// A body that is too long or too slow costs the connection, never the verdict.
pub(super) async fn drain(body: Body, deadline: Instant) {
    // What comes of it does not matter.
    form_of_refusal(body, deadline).await.ok();
}

/// Tells the form of a body on which the verdict does not wait long.
///
/// # Errors
/// It did not come to its end in time, or broke off.
pub(super) async fn form_of_refusal(body: Body, deadline: Instant) -> Result<Form, TransientError> {
    form(body, deadline.min(Instant::now() + DRAIN_TIME)).await
}

/// Tells the form of a body; of a long one, by its beginning.
///
/// # Errors
/// It did not come to its end in time, or broke off.
pub(super) async fn form(body: Body, deadline: Instant) -> Result<Form, TransientError> {
    let mut body = Limited::new(body, DRAIN_BYTES);
    let mut text = BytesMut::new();
    let rest = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.extend(frame.into_data().unwrap_or_default()),
                Err(error) => return Err(unread(&*error)),
            }
        }
        Ok(())
    };
    // Dropping a body that has not ended closes what it came on.
    match timeout_at(deadline, rest).await {
        Ok(Ok(())) => Ok(form_of(&text)),
        Ok(Err(Unread::TooLarge)) if begins_as_json(&text) => Ok(Form::TooLong),
        Ok(Err(Unread::TooLarge)) => Ok(Form::Other),
        Ok(Err(Unread::TransientError(error))) => Err(error),
        Err(_) => Err(TransientError::TimedOut),
    }
}

fn form_of(text: &[u8]) -> Form {
    if text.trim_ascii().is_empty() {
        Form::Empty
    } else if serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        Form::Json
    } else {
        Form::Other
    }
}

fn begins_as_json(text: &[u8]) -> bool {
    let first = text.trim_ascii_start().first();
    first.is_none_or(|first| matches!(first, b'{' | b'['))
}

fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Unread {
    if error.is::<LengthLimitError>() {
        return Unread::TooLarge;
    }
    let broken_off = error.downcast_ref();
    Unread::TransientError(broken_off.map_or(TransientError::Broken, |BrokenOff(error)| *error))
}

/// Reads a reply into memory.
pub(super) async fn read(body: Body, deadline: Instant) -> Result<Bytes, Unread> {
    let whole = Limited::new(body, REPLY_BYTES).collect();
    match timeout_at(deadline, whole).await {
        Ok(Ok(reply)) => Ok(reply.to_bytes()),
        Ok(Err(error)) => Err(unread(&*error)),
        Err(_) => Err(Unread::TransientError(TransientError::TimedOut)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bodys_form_is_told() {
        for (text, form) in [
            ("", Form::Empty),
            (" \r\n", Form::Empty),
            ("{\"code\":\"forbidden\"}", Form::Json),
            (" [1]\n", Form::Json),
            ("<!doctype html><html>", Form::Other),
            ("OK", Form::Other),
            ("{\"code\":", Form::Other),
            ("{}{}", Form::Other),
            ("\u{feff}{}", Form::Other),
        ] {
            assert_eq!(form_of(text.as_bytes()), form, "{text:?}");
        }
    }
}
