//! What a stream may take in: a process-wide budget of buffered bytes, and how its request ended.
//!
//! Both need the raw request body. A message costs memory from its first byte on, before it can
//! be decoded; and hyper reports a cancelled request like a finished one, as the end of the
//! body, which only the body itself can tell apart.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Path of the one call that streams.
const STREAM_PATH: &str = "/cdp.destinations.v1.DestinationConnector/SendIdentifiers";
/// Unit in which bytes are counted, since semaphores count in 32 bits.
const UNIT: usize = 1024;

/// The bytes of records that all streams together may hold.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    /// Units of the largest message.
    message: u32,
}

impl Budget {
    /// A budget of `bytes`, at least that of one message of `message_limit` bytes.
    pub(crate) fn new(bytes: usize, message_limit: usize) -> Self {
        let message = units(message_limit);
        let total = units(bytes).max(message);
        Self {
            units: Arc::new(Semaphore::new(total as usize)),
            message,
        }
    }

    /// Puts the body of a stream behind the budget; leaves other requests as they are.
    pub(crate) fn gate(
        &self,
        request: http::Request<tonic::body::Body>,
    ) -> http::Request<tonic::body::Body> {
        if request.uri().path() != STREAM_PATH {
            return request;
        }
        let intake = self.intake();
        let gated = |body| tonic::body::Body::new(Gated::new(body, intake.clone()));
        let mut request = request.map(gated);
        request.extensions_mut().insert(intake);
        request
    }

    /// A new stream's intake.
    fn intake(&self) -> Intake {
        Intake {
            shared: Arc::default(),
            budget: self.clone(),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// One stream's share: held by its body, which reserves, and by its session, which keeps what a
/// message really costs.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    shared: Arc<Mutex<Shared>>,
    budget: Budget,
}

#[derive(Debug, Default)]
struct Shared {
    /// Room for the message that is being read.
    reserved: Option<OwnedSemaphorePermit>,
    /// Whether the session has taken from the reservation since it was made.
    taken: bool,
    half_closed: bool,
}

impl Intake {
    /// Takes what a decoded message really holds out of its reservation. A message that came
    /// along in an earlier one's last frame may find less there: at most one frame's worth.
    pub(super) fn keep(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mut shared = self.lock();
        shared.taken = true;
        let reserved = shared.reserved.as_mut()?;
        reserved.split((units(bytes) as usize).min(reserved.num_permits()))
    }

    /// Whether the client half-closed the stream, rather than going away.
    pub(super) fn half_closed(&self) -> bool {
        self.lock().half_closed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request body that reads only within the budget.
struct Gated {
    inner: tonic::body::Body,
    intake: Intake,
    semaphore: PollSemaphore,
    /// A frame that has arrived and waits for room.
    waiting: Option<Frame<Bytes>>,
}

impl Gated {
    fn new(inner: tonic::body::Body, intake: Intake) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&intake.budget.units));
        Self {
            inner,
            intake,
            semaphore,
            waiting: None,
        }
    }

    fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.intake.lock().reserved.is_some() {
            return Poll::Ready(());
        }
        let permit = ready!(
            self.semaphore
                .poll_acquire_many(cx, self.intake.budget.message)
        );
        let mut shared = self.intake.lock();
        shared.reserved = permit;
        shared.taken = false;
        Poll::Ready(())
    }

    /// Nothing is coming: give back what was reserved, unless a message has only come in part.
    fn pause(&self) {
        let mut shared = self.intake.lock();
        if shared.taken {
            shared.reserved = None;
        }
    }

    fn end(&self) {
        let mut shared = self.intake.lock();
        shared.reserved = None;
        // A stream that was reset ends its body too, but never reaches its end of stream.
        shared.half_closed = self.inner.is_end_stream();
    }
}

impl Body for Gated {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => {
                    this.pause();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => this.waiting = Some(frame),
                Poll::Ready(Some(Err(status))) => {
                    this.intake.lock().reserved = None;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
            }
        }
        ready!(this.poll_reserve(cx));
        Poll::Ready(this.waiting.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn gated(budget: &Budget) -> (Gated, Intake) {
        let intake = budget.intake();
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(b"message")));
        (Gated::new(body, intake.clone()), intake)
    }

    #[tokio::test]
    async fn a_frame_waits_until_the_budget_has_room_for_a_message() {
        let budget = Budget::new(1024 * 1024, 1024 * 1024);
        let (mut first, first_intake) = gated(&budget);
        first.frame().await.unwrap().unwrap();
        let kept = first_intake.keep(10 * 1024).unwrap();
        assert_eq!(kept.num_permits(), 10);

        let (mut second, _) = gated(&budget);
        let mut frame = second.frame();
        assert!((&mut frame).now_or_never().is_none());
        // The first stream ends, but its records are still on their way.
        assert!(first.frame().await.is_none());
        assert!((&mut frame).now_or_never().is_none());
        drop(kept);
        assert!(frame.await.is_some());
    }

    #[tokio::test]
    async fn a_finished_body_counts_as_half_closed() {
        let (mut body, intake) = gated(&Budget::new(1, 1));
        body.frame().await.unwrap().unwrap();
        assert!(!intake.half_closed());
        assert!(body.frame().await.is_none());
        assert!(intake.half_closed());
    }
}
