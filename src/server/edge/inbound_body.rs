//! What a stream may take in, and how its request ended.
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
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
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

/// Largest first message, in bytes: the only one of a call that does not stream. Ours: one with the
/// longest mapping takes a tenth. It counts for no destination yet, so it is read outside the
/// budget: a stream can be opened, and told what is wrong, however much is stuck, and one that is
/// sent in part holds up nobody.
const MAX_FIRST_MESSAGE: usize = 64 * 1024;

/// What gRPC writes before each message, in bytes.
const MESSAGE_PREFIX: usize = 5;

/// Bounds what a call's body takes of the memory, and the body of a stream by the budget; leaves
/// what is not for this service as it is.
pub(crate) fn gate(
    budget: &MemoryBudget,
    request: http::Request<tonic::body::Body>,
) -> http::Request<tonic::body::Body> {
    if !request.uri().path().starts_with(SERVICE_PATH) {
        return request;
    }
    let inbound_body = InboundBody::new(budget);
    let gated = |body| tonic::body::Body::new(BudgetedBody::new(body, inbound_body.clone()));
    let mut request = request.map(gated);
    request.extensions_mut().insert(inbound_body);
    request
}

/// One stream's part of the budget: held by its body, which reserves, and by its session, which
/// keeps what a message really costs.
#[derive(Debug, Clone)]
pub(in crate::server) struct InboundBody {
    shared: Arc<Mutex<InboundState>>,
    budget: MemoryBudget,
}

#[derive(Debug)]
struct InboundState {
    /// Reservation for the message that is being read.
    reserved: Option<Reservation>,
    /// The streams that its messages are counted with, once it has said its destination.
    group: Option<Arc<DestinationShare>>,
    /// Bytes taken in before that.
    unclaimed: usize,
    half_closed: bool,
}

impl InboundBody {
    /// A new stream's intake.
    fn new(budget: &MemoryBudget) -> Self {
        let shared = InboundState {
            reserved: None,
            group: None,
            unclaimed: 0,
            half_closed: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            budget: budget.clone(),
        }
    }

    /// Counts the stream's messages to those of its destination from now on. One that has come
    /// meanwhile is counted when it is kept.
    pub(in crate::server) fn join(&self, uid: DestinationUid) {
        self.lock().group = Some(self.budget.group(uid));
    }

    /// Exchanges the reservation of a decoded message for what it really holds. A message that
    /// came along in another one's last frame has none, and is counted all the same.
    ///
    /// # Panics
    /// If the stream has not [joined](Self::join) a destination.
    pub(in crate::server) fn keep(&self, bytes: usize) -> Reservation {
        let mut shared = self.lock();
        if let Some(mut reserved) = shared.reserved.take() {
            reserved.resize(bytes);
            return reserved;
        }
        let group = shared.group.as_ref().expect("records come after `open`");
        self.budget.reserve_now(group, bytes)
    }

    /// Whether the client half-closed the stream, rather than going away.
    pub(in crate::server) fn half_closed(&self) -> bool {
        self.lock().half_closed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InboundState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request body that reads only within the budget.
struct BudgetedBody {
    inner: tonic::body::Body,
    inbound_body: InboundBody,
    /// Under way while a frame waits.
    reservation: Option<BoxFuture<'static, Reservation>>,
    /// A frame that has arrived and waits for room.
    waiting: Option<Frame<Bytes>>,
    /// Runs while a message has come in part.
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

    /// Whether a frame with so many bytes may be handed on.
    ///
    /// # Errors
    /// A first message that is too large.
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut shared = self.inbound_body.lock();
        // Nothing to keep: an empty frame is how many clients half-close.
        if bytes == 0 || shared.reserved.is_some() {
            return Poll::Ready(Ok(()));
        }
        let Some(group) = &shared.group else {
            // The frame that ends it may hold the beginning of the next one.
            if shared.unclaimed >= MAX_FIRST_MESSAGE + MESSAGE_PREFIX {
                return Poll::Ready(Err(too_large()));
            }
            shared.unclaimed += bytes;
            return Poll::Ready(Ok(()));
        };
        let start = || {
            let budget = self.inbound_body.budget.clone();
            Box::pin(budget.reserve(Arc::clone(group))) as BoxFuture<_>
        };
        let reservation = self.reservation.get_or_insert_with(start);
        shared.reserved = Some(ready!(reservation.as_mut().poll(cx)));
        self.reservation = None;
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// Nothing is coming. A message that has come in part holds its reservation, and must not
    /// hold it for ever; and the first message of a call must come.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.inbound_body.lock();
        if shared.group.is_some() && shared.reserved.is_none() {
            self.stalled = None;
            return Poll::Pending;
        }
        drop(shared);
        let new = || Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT));
        self.stalled.get_or_insert_with(new).as_mut().poll(cx)
    }

    fn end(&self) {
        let mut shared = self.inbound_body.lock();
        shared.reserved = None;
        // A stream that was reset ends its body too, but never reaches its end of stream.
        shared.half_closed = self.inner.is_end_stream();
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
        if this.waiting.is_none() {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => {
                    ready!(this.poll_stalled(cx));
                    this.inbound_body.lock().reserved = None;
                    // Not against the rules: the network may be to blame.
                    let late = Failure::StreamExpired(Expiry::Stalled(MESSAGE_TIMEOUT));
                    return Poll::Ready(Some(Err(late.into_status())));
                }
                Poll::Ready(Some(Ok(frame))) => this.waiting = Some(frame),
                Poll::Ready(Some(Err(status))) => {
                    this.inbound_body.lock().reserved = None;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
            }
        }
        let data = this.waiting.as_ref().and_then(Frame::data_ref);
        let bytes = data.map_or(0, Bytes::len);
        if let Err(failure) = ready!(this.poll_room(bytes, cx)) {
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

    /// A stream that has said its destination.
    fn gated(budget: &MemoryBudget) -> (BudgetedBody, InboundBody) {
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
    async fn a_frame_waits_until_the_budget_has_room_for_a_message() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut first, first_intake) = gated(&budget);
        first.frame().await.unwrap().unwrap();
        let kept = first_intake.keep(10 * 1024);

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
    async fn messages_that_share_a_frame_are_counted_each() {
        let budget = MemoryBudget::new(4 * MIB, MIB);
        let (mut body, inbound_body) = gated(&budget);
        body.frame().await.unwrap().unwrap();
        let kept = [10, 20, 30].map(|bytes| inbound_body.keep(bytes));
        assert_eq!(budget.free(), 4 * 1024 * 1024 - 60);
        drop(kept);
        assert_eq!(budget.free(), 4 * 1024 * 1024);
    }

    #[tokio::test]
    async fn a_half_close_needs_no_room() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut stuck, _) = gated(&budget);
        stuck.frame().await.unwrap().unwrap();
        let (_, inbound_body) = gated(&budget);
        let empty = tokio_stream::once(Ok(Frame::data(Bytes::new())));
        let mut body = streamed(empty, inbound_body);
        assert!(body.frame().now_or_never().is_some());
    }

    #[tokio::test]
    async fn first_messages_need_no_room_and_are_small() {
        let budget = MemoryBudget::new(MIB, MIB);
        let (mut stuck, _) = gated(&budget);
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
    async fn a_message_that_stays_in_parts_ends_its_stream_and_gives_its_room_back() {
        let budget = MemoryBudget::new(MIB, MIB);
        let part = tokio_stream::once(Ok(Frame::data(Bytes::from_static(b"part"))));
        let (_, inbound_body) = gated(&budget);
        let mut body = streamed(part.chain(tokio_stream::pending()), inbound_body);
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
        let (mut next, _) = gated(&budget);
        assert!(next.frame().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_finished_body_counts_as_half_closed() {
        let (mut body, inbound_body) = gated(&MemoryBudget::new(1, 1));
        body.frame().await.unwrap().unwrap();
        assert!(!inbound_body.half_closed());
        assert!(body.frame().await.is_none());
        assert!(inbound_body.half_closed());
    }
}
