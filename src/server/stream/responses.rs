//! The responses of a stream: its messages, and then its status.
//!
//! The status has a channel of its own: it reaches a client that does not read its messages, and a
//! session that panics does not look like one that ended well.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::{
    mpsc::{self, error::SendError},
    oneshot,
};
use tokio_stream::Stream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use crate::{pb, server::status::Failure};

/// Messages under way between a session and its connection. One would do; a few let the session go
/// on while the connection writes.
const BUFFERED_MESSAGES: usize = 4;

/// How a session ends.
pub(super) enum SessionEnd {
    /// Every record has a result that was sent.
    Complete,
    /// The client went away.
    Gone,
    /// With a status of ours.
    Failed(Failure),
    /// With tonic's status for a request it could not read.
    Unreadable(Status),
}

impl SessionEnd {
    fn into_status(self) -> Result<(), Status> {
        match self {
            Self::Complete => Ok(()),
            // No client reads it; if one did, it must not be OK.
            Self::Gone => Err(Failure::Internal.into_status()),
            Self::Failed(failure) => Err(failure.into_status()),
            Self::Unreadable(status) => Err(status),
        }
    }
}

/// The session's side.
pub(super) struct ResponseSender {
    messages: mpsc::Sender<pb::SendIdentifiersResponse>,
    status: oneshot::Sender<Result<(), Status>>,
}

/// The connection's side.
#[derive(Debug)]
pub(crate) struct Responses {
    messages: mpsc::Receiver<pb::SendIdentifiersResponse>,
    /// `None` once it was taken.
    status: Option<oneshot::Receiver<Result<(), Status>>>,
    /// A shutdown waits for the stream until its connection has taken its last message, or is gone.
    /// The limit of streams and the metric count it until its session has ended.
    _awaited_at_shutdown: TaskTrackerToken,
}

/// Both sides of one stream, which a shutdown waits for as long as `awaited_at_shutdown` lives.
pub(super) fn channel(awaited_at_shutdown: TaskTrackerToken) -> (ResponseSender, Responses) {
    let (message_sender, messages) = mpsc::channel(BUFFERED_MESSAGES);
    let (status_sender, status) = oneshot::channel();
    let sender = ResponseSender {
        messages: message_sender,
        status: status_sender,
    };
    let responses = Responses {
        messages,
        status: Some(status),
        _awaited_at_shutdown: awaited_at_shutdown,
    };
    (sender, responses)
}

impl ResponseSender {
    /// Waits until a message can be sent. Cancel safe.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) async fn reserve(
        &self,
    ) -> Result<mpsc::Permit<'_, pb::SendIdentifiersResponse>, SendError<()>> {
        self.messages.reserve().await
    }

    /// Waits until the client is gone. Cancel safe.
    pub(super) async fn closed(&self) {
        self.messages.closed().await;
    }

    /// Ends the responses with the session's status.
    pub(super) fn end(self, end: SessionEnd) {
        // A connection that is gone needs none.
        self.status.send(end.into_status()).ok();
    }
}

impl Stream for Responses {
    type Item = Result<pb::SendIdentifiersResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(self.messages.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(status) = &mut self.status else {
            return Poll::Ready(None);
        };
        let status = ready!(Pin::new(status).poll(cx));
        self.status = None;
        // A session that ends without a status has panicked.
        let status = status.unwrap_or_else(|_| Err(Failure::Internal.into_status()));
        Poll::Ready(status.err().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;
    use tokio_util::task::TaskTracker;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn the_status_comes_after_the_messages_that_a_client_has_not_read_yet() {
        let (sender, mut responses) = channel(TaskTracker::new().token());
        let message = pb::SendIdentifiersResponse::default();
        sender.reserve().await.unwrap().send(message.clone());
        sender.end(SessionEnd::Failed(Failure::StoreUnavailable));
        assert_eq!(responses.next().await.unwrap().unwrap(), message);
        let status = responses.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(responses.next().await.is_none());
    }

    #[tokio::test]
    async fn a_session_that_panics_does_not_look_like_one_that_ended_well() {
        let ended = |end: Option<SessionEnd>| {
            let (sender, responses) = channel(TaskTracker::new().token());
            if let Some(end) = end {
                sender.end(end);
            }
            responses.collect::<Vec<_>>()
        };
        assert!(ended(Some(SessionEnd::Complete)).await.is_empty());
        let panicked = ended(None).await;
        assert_eq!(panicked[0].as_ref().unwrap_err().code(), Code::Internal);
    }
}
