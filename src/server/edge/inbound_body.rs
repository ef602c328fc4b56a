//! The budgeted request body: reads within the memory budget, and knows a half-close from a reset.
//!
//! Both need the raw body. A message takes memory from its first byte on, before it can be decoded.
//! hyper reports a cancelled request like a finished one, as the end of the body; only the body
//! itself can tell them apart.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::memory::{DestinationShare, MemoryBudget, Reservation};
use crate::{
    domain::DestinationUid,
    server::status::{Expiry, Failure},
};

/// Where the paths of the service's calls begin.
const SERVICE_PATH: &str = "/cdp.destinations.v1.DestinationConnector/";
/// How long a message may take from its first frame to its last. Ours: 1 MiB in this time is
/// slower than any link that an executor runs on.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest first message, in bytes; a call that does not stream has no other. Ours: one with the
/// longest mapping takes a tenth. A first message is read outside the budget, since it counts for
/// no destination yet. So a stream can be opened, or refused with its reason, however full the
/// budget is; and a first message that has come in part holds up no other stream.
const MAX_FIRST_MESSAGE: usize = 64 * 1024;

/// The prefix that gRPC writes before each message, in bytes.
const MESSAGE_PREFIX: usize = 5;

/// Wraps the body of a call of this service; leaves any other request as it is.
///
/// The body travels to its method in the request's extensions, where
/// [`Inbound`](crate::server::stream::Inbound) takes it: tonic hands a method nothing else
/// of what a layer has done. The alternative is a service of our own around tonic's, made anew for
/// each request; that is more code than this one lookup.
pub(crate) fn wrap(
    budget: &MemoryBudget,
    request: http::Request<tonic::body::Body>,
) -> http::Request<tonic::body::Body> {
    if !request.uri().path().starts_with(SERVICE_PATH) {
        return request;
    }
    let inbound_body = InboundBody::new(budget);
    let budgeted = |body| tonic::body::Body::new(BudgetedBody::new(body, inbound_body.clone()));
    let mut request = request.map(budgeted);
    request.extensions_mut().insert(inbound_body);
    request
}

/// What a stream's body and its session share. The body reserves memory for a message, and the
/// session takes over as much of it as the message's records need.
#[derive(Debug, Clone)]
pub(in crate::server) struct InboundBody {
    shared: Arc<Mutex<InboundState>>,
    budget: MemoryBudget,
}

#[derive(Debug)]
struct InboundState {
    /// Reservation for the message that is being read.
    reserved: Option<Reservation>,
    /// The share of its destination, once `open` has named it.
    share: Option<Arc<DestinationShare>>,
    /// Bytes read before that.
    unclaimed: usize,
    half_closed: bool,
}

impl InboundState {
    /// Counts bytes of the first message.
    ///
    /// # Errors
    /// It is too large.
    fn take_unclaimed(&mut self, bytes: usize) -> Result<(), Failure> {
        // The frame that ends it may hold the beginning of the next one.
        if self.unclaimed >= MAX_FIRST_MESSAGE + MESSAGE_PREFIX {
            return Err(too_large());
        }
        self.unclaimed += bytes;
        Ok(())
    }
}

impl InboundBody {
    /// The state of a new request.
    fn new(budget: &MemoryBudget) -> Self {
        let shared = InboundState {
            reserved: None,
            share: None,
            unclaimed: 0,
            half_closed: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            budget: budget.clone(),
        }
    }

    /// Counts the stream's messages as held by this destination from now on. A message that came
    /// before is counted when its reservation is taken over.
    pub(in crate::server) fn join(&self, uid: DestinationUid) {
        self.shared.lock().share = Some(self.budget.share(uid));
    }

    /// Exchanges the reservation of a decoded message for what its records really hold. A message
    /// that came in the last frame of another one has no reservation, and is counted all the same.
    ///
    /// # Panics
    /// If the stream has not [joined](Self::join) a destination.
    pub(in crate::server) fn take_reservation(&self, bytes: usize) -> Reservation {
        let mut shared = self.shared.lock();
        if let Some(mut reserved) = shared.reserved.take() {
            reserved.resize(bytes);
            return reserved;
        }
        let share = shared.share.as_ref().expect("records come after `open`");
        self.budget.reserve_now(share, bytes)
    }

    /// Whether the client half-closed the stream, rather than going away.
    pub(in crate::server) fn half_closed(&self) -> bool {
        self.shared.lock().half_closed
    }
}

/// A request body that reads only within the budget.
struct BudgetedBody {
    inner: tonic::body::Body,
    inbound_body: InboundBody,
    /// Pending while a frame waits.
    reservation: Option<BoxFuture<'static, Reservation>>,
    /// A frame that has arrived and waits for its reservation.
    waiting: Option<Frame<Bytes>>,
    /// The time-out of a message that has come in part.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl BudgetedBody {
    fn new(inner: tonic::body::Body, inbound_body: InboundBody) -> Self {
        Self {
            inner,
            inbound_body,
            reservation: None,
            waiting: None,
            stalled: None,
        }
    }

    /// Waits until a frame with so many bytes may be handed on.
    ///
    /// # Errors
    /// A first message that is too large.
    fn poll_reserve(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut shared = self.inbound_body.shared.lock();
        // An empty frame takes no memory, and is how many clients half-close.
        if bytes == 0 || shared.reserved.is_some() {
            return Poll::Ready(Ok(()));
        }
        let Some(share) = &shared.share else {
            return Poll::Ready(shared.take_unclaimed(bytes));
        };
        let start = || {
            let budget = self.inbound_body.budget.clone();
            Box::pin(budget.reserve(Arc::clone(share))) as BoxFuture<_>
        };
        let reservation = self.reservation.get_or_insert_with(start);
        shared.reserved = Some(ready!(reservation.as_mut().poll(cx)));
        self.reservation = None;
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// Waits for the time-out of a message, while nothing comes. A message that has come in part
    /// must not hold its reservation for ever, and the first message of a call must come.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.inbound_body.shared.lock();
        if shared.share.is_some() && shared.reserved.is_none() {
            self.stalled = None;
            return Poll::Pending;
        }
        drop(shared);
        let new = || Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT));
        self.stalled.get_or_insert_with(new).as_mut().poll(cx)
    }

    fn end(&self) {
        let mut shared = self.inbound_body.shared.lock();
        shared.reserved = None;
        // A stream that was reset ends its body too, but never reaches its end of stream.
        shared.half_closed = self.inner.is_end_stream();
    }

    fn release(&self) {
        self.inbound_body.shared.lock().reserved = None;
    }
}

impl Body for BudgetedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        // Reading → waiting: a frame arrives, unless the body ends or fails.
        if this.waiting.is_none() {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => {
                    ready!(this.poll_stalled(cx));
                    this.release();
                    // No stream rule is broken: the network may be at fault.
                    let late = Failure::StreamExpired(Expiry::Stalled(MESSAGE_TIMEOUT));
                    return Poll::Ready(Some(Err(late.into_status())));
                }
                Poll::Ready(Some(Ok(frame))) => this.waiting = Some(frame),
                Poll::Ready(Some(Err(status))) => {
                    this.release();
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
            }
        }
        // Waiting → reading: the frame has its reservation, and is handed on.
        let data = this.waiting.as_ref().and_then(Frame::data_ref);
        let bytes = data.map_or(0, Bytes::len);
        if let Err(failure) = ready!(this.poll_reserve(bytes, cx)) {
            this.waiting = None;
            return Poll::Ready(Some(Err(failure.into_status())));
        }
        Poll::Ready(this.waiting.take().map(Ok))
    }
}

fn too_large() -> Failure {
    let most = MAX_FIRST_MESSAGE / 1024;
    let rule = format!("must have at most {most} KiB, as must the first message of a stream");
    Failure::invalid("request", rule)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full};
    use tokio_stream::StreamExt;

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// A stream whose `open` has named its destination.
    fn joined(budget: &MemoryBudget) -> (BudgetedBody, InboundBody) {
        let inbound_body = InboundBody::new(budget);
        inbound_body.join(DestinationUid::generate());
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(b"message")));
        (BudgetedBody::new(body, inbound_body.clone()), inbound_body)
    }

    fn streamed<S>(frames: S, inbound_body: InboundBody) -> BudgetedBody
    where
        S: tokio_stream::Stream<Item = Result<Frame<Bytes>, tonic::Status>> + Send + 'static,
    {
        let body = tonic::body::Body::new(http_body_util::StreamBody::new(frames));
        BudgetedBody::new(body, inbound_body)
    }

    #[tokio::test]
    async fn a_frame_waits_until_the_budget_grants_a_message() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut first, first_state) = joined(&budget);
        first.frame().await.unwrap().unwrap();
        let held = first_state.take_reservation(10 * 1024);

        let (mut second, _) = joined(&budget);
        let mut frame = second.frame();
        assert!((&mut frame).now_or_never().is_none());
        // The first stream ends, but its records are still on their way.
        assert!(first.frame().await.is_none());
        assert!((&mut frame).now_or_never().is_none());
        drop(held);
        assert!(frame.await.is_some());
    }

    #[tokio::test]
    async fn messages_that_share_a_frame_are_counted_each() {
        let budget = MemoryBudget::new(4 * MIB, MIB);
        let (mut body, inbound_body) = joined(&budget);
        body.frame().await.unwrap().unwrap();
        let held = [10, 20, 30].map(|bytes| inbound_body.take_reservation(bytes));
        assert_eq!(budget.free(), 4 * 1024 * 1024 - 60);
        drop(held);
        assert_eq!(budget.free(), 4 * 1024 * 1024);
    }

    #[tokio::test]
    async fn a_half_close_needs_no_reservation() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut stuck, _) = joined(&budget);
        stuck.frame().await.unwrap().unwrap();
        let (_, inbound_body) = joined(&budget);
        let empty = tokio_stream::once(Ok(Frame::data(Bytes::new())));
        let mut body = streamed(empty, inbound_body);
        assert!(body.frame().now_or_never().is_some());
    }

    #[tokio::test]
    async fn first_messages_need_no_reservation_and_are_small() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut stuck, _) = joined(&budget);
        stuck.frame().await.unwrap().unwrap();
        let frame = || Ok(Frame::data(Bytes::from_static(&[0; 16 * 1024])));
        let frames = tokio_stream::iter(std::iter::repeat_with(frame));
        let mut body = streamed(frames, InboundBody::new(&budget));
        for _ in 0..5 {
            body.frame().now_or_never().unwrap().unwrap().unwrap();
        }
        let status = body.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_message_must_come_whole_in_time() {
        let budget = MemoryBudget::new(MIB, MIB);
        let mut body = streamed(tokio_stream::pending(), InboundBody::new(&budget));
        let late = tokio::time::timeout(2 * MESSAGE_TIMEOUT, body.frame()).await;
        let status = late.expect("it waits for ever").unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stays_in_parts_ends_its_stream_and_gives_its_reservation_back() {
        let budget = MemoryBudget::new(MIB, MIB);
        let part = tokio_stream::once(Ok(Frame::data(Bytes::from_static(b"part"))));
        let (_, inbound_body) = joined(&budget);
        let mut body = streamed(part.chain(tokio_stream::pending()), inbound_body);
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
        let (mut next, _) = joined(&budget);
        assert!(next.frame().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_finished_body_counts_as_half_closed() {
        let (mut body, inbound_body) = joined(&MemoryBudget::new(1, 1));
        body.frame().await.unwrap().unwrap();
        assert!(!inbound_body.half_closed());
        assert!(body.frame().await.is_none());
        assert!(inbound_body.half_closed());
    }
}
