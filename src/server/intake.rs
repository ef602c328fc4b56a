//! What a stream may take in: a process-wide budget of buffered bytes, and how its request ended.
//!
//! Both need the raw request body. A message costs memory from its first byte on, before it can
//! be decoded; and hyper reports a cancelled request like a finished one, as the end of the
//! body, which only the body itself can tell apart.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::sync::PollSemaphore;

use super::status::Failure;

/// Path of the one call that streams.
const STREAM_PATH: &str = "/cdp.destinations.v1.DestinationConnector/SendIdentifiers";
/// How long a message may take from its first frame to its last. Ours: 1 MiB in this time is
/// slower than any link that an executor runs on.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
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
    half_closed: bool,
}

impl Intake {
    /// Exchanges the reservation of a decoded message for what it really holds. A message that
    /// came along in another one's last frame finds none: at most a frame goes uncounted.
    pub(super) fn keep(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mut reserved = self.lock().reserved.take()?;
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
    /// Runs while a message has come in part.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Gated {
    fn new(inner: tonic::body::Body, intake: Intake) -> Self {
        let semaphore = PollSemaphore::new(Arc::clone(&intake.budget.units));
        Self {
            inner,
            intake,
            semaphore,
            waiting: None,
            stalled: None,
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
        self.intake.lock().reserved = permit;
        self.stalled = None;
        Poll::Ready(())
    }

    /// Nothing is coming. A message that has come in part holds its reservation, and must not
    /// hold it for ever.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.intake.lock().reserved.is_none() {
            self.stalled = None;
            return Poll::Pending;
        }
        let new = || Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT));
        self.stalled.get_or_insert_with(new).as_mut().poll(cx)
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
                    ready!(this.poll_stalled(cx));
                    this.intake.lock().reserved = None;
                    let late = format!("a message must arrive whole within {MESSAGE_TIMEOUT:?}");
                    return Poll::Ready(Some(Err(Failure::StreamProtocol(late).into_status())));
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
    use tokio_stream::StreamExt;

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
    async fn streams_that_wait_for_their_next_message_leave_the_budget_alone() {
        let budget = Budget::new(1024 * 1024, 1024 * 1024);
        for _ in 0..3 {
            let (mut body, intake) = gated(&budget);
            body.frame().now_or_never().unwrap().unwrap().unwrap();
            drop(intake.keep(0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stays_in_parts_ends_its_stream_and_gives_its_room_back() {
        let budget = Budget::new(1024 * 1024, 1024 * 1024);
        let part = http_body_util::StreamBody::new(
            tokio_stream::once(Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(
                b"part",
            ))))
            .chain(tokio_stream::pending()),
        );
        let mut body = Gated::new(tonic::body::Body::new(part), budget.intake());
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(budget.units.available_permits(), 1024);
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
