//! How much of an answer's body is read: as much as is useful, in bounded size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use tokio::time::{Instant, timeout_at};

use crate::domain::Trouble;

/// A body on its way.
pub type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// A body that did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokenOff(pub Trouble);

/// Most that is read of a body nobody needs. Errors of LaunchDarkly are a few hundred bytes; a
/// connection that has much more to say is cheaper to replace.
const DRAIN_BYTES: usize = 64 * 1024;
/// Longest that a body nobody needs is waited for, while the verdict waits with it.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Largest reply that is decoded. A page of 20 projects with 20 environments each is near 1 MiB.
const REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Why a reply could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than any that is expected.
    TooLarge,
    /// It did not come.
    Trouble(Trouble),
}

/// Reads the rest of a body and forgets it, so that the connection can carry another call.
/// A body that is too long or too slow costs the connection, never the verdict.
pub(super) async fn drain(body: Body, deadline: Instant) {
    let deadline = deadline.min(Instant::now() + DRAIN_TIME);
    let mut body = Limited::new(body, DRAIN_BYTES);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Out of time is as good as read: dropping the body closes what it came on.
    if timeout_at(deadline, rest).await.is_err() {
        tracing::debug!("left the rest of a slow answer unread");
    }
}

/// Reads a reply into memory.
pub(super) async fn read(body: Body, deadline: Instant) -> Result<Bytes, Unread> {
    let whole = Limited::new(body, REPLY_BYTES).collect();
    match timeout_at(deadline, whole).await {
        Ok(Ok(reply)) => Ok(reply.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Ok(Err(error)) => Err(Unread::Trouble(
            error
                .downcast_ref()
                .map_or(Trouble::Connection, |BrokenOff(trouble)| *trouble),
        )),
        Err(_) => Err(Unread::Trouble(Trouble::TimedOut)),
    }
}
