//! The door: lets streams in up to the limit, and starts a session for each.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_stream::Stream;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tonic::{Request, Status, Streaming, async_trait, codegen::BoxStream};

use super::{fences::Fences, session};
use crate::{
    delivery::{Dispatcher, LiveDestinations},
    metrics::Metrics,
    pb,
    server::{edge::inbound_body::InboundBody, service::Streams, status::Failure},
    store::Store,
};

/// Responses under way between a session and its connection. One would do; a few let the
/// session go on while the connection writes.
const OUTBOUND: usize = 4;

/// The limits of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most streams open at once.
    pub max_streams: usize,
    /// Most records in one batch.
    pub max_batch_records: usize,
    /// Most records beyond the last committed one.
    pub max_in_flight_records: usize,
    /// How long a record may be tried, unless its stream says otherwise.
    pub default_delivery_timeout: Duration,
    /// How long a stream may live before it is drained; each gets up to 10 % more or less.
    pub max_stream_age: Duration,
    /// How long a stream may be silent before it is drained.
    pub max_stream_idle: Duration,
    /// How long a drained stream may still take.
    pub drain_timeout: Duration,
}

/// What every session works with.
#[derive(Debug)]
pub struct StreamContext {
    /// Where destinations are kept.
    pub store: Arc<dyn Store>,
    /// What is known about those in use.
    pub live: Arc<LiveDestinations>,
    /// Where changes go.
    pub dispatcher: Dispatcher,
    /// What streams may ask for.
    pub limits: StreamLimits,
    /// When the process stops taking records, once it is asked to stop.
    pub drain: watch::Receiver<Option<Instant>>,
    /// What is counted.
    pub metrics: Metrics,
    pub(super) fences: Fences,
}

impl StreamContext {
    /// Puts the parts together.
    pub fn new(
        store: Arc<dyn Store>,
        live: Arc<LiveDestinations>,
        dispatcher: Dispatcher,
        limits: StreamLimits,
        drain: watch::Receiver<Option<Instant>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            live,
            dispatcher,
            limits,
            drain,
            metrics,
            fences: Fences::default(),
        }
    }
}

/// The door.
#[derive(Debug)]
pub struct StreamAcceptor {
    context: Arc<StreamContext>,
    places: Arc<Semaphore>,
    /// Awaited by whoever was given it to watch over the sessions.
    sessions: TaskTracker,
}

impl StreamAcceptor {
    /// A door into `house`; every session is tracked by `sessions`.
    #[must_use]
    pub fn new(context: StreamContext, sessions: TaskTracker) -> Self {
        let places = Arc::new(Semaphore::new(context.limits.max_streams));
        Self {
            context: Arc::new(context),
            places,
            sessions,
        }
    }
}

#[async_trait]
impl Streams for StreamAcceptor {
    async fn serve(
        &self,
        request: Request<Streaming<pb::SendIdentifiersRequest>>,
    ) -> Result<BoxStream<pb::SendIdentifiersResponse>, Failure> {
        let limit = self.context.limits.max_streams;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Failure::TooManyStreams { limit })?;
        let inbound_body = request
            .extensions()
            .get::<InboundBody>()
            .cloned()
            .ok_or(Failure::Internal)?;
        let (outbound, responses) = mpsc::channel(OUTBOUND);
        let (ending, ended) = oneshot::channel();
        let line = session::StreamIo {
            inbound: request.into_inner(),
            outbound,
            inbound_body,
        };
        let context = Arc::clone(&self.context);
        let counted = context.metrics.stream();
        self.sessions.spawn(async move {
            session::run(context, line, ending).await;
            drop((place, counted));
        });
        Ok(Box::pin(Responses {
            responses,
            ended: Some(ended),
            _unread: self.sessions.token(),
        }))
    }
}

/// A session's responses, and then how it ended.
///
/// The status comes by a way of its own: a client that does not read must still find it, and a
/// session that panics must not look like one that ended well.
struct Responses {
    responses: mpsc::Receiver<pb::SendIdentifiersResponse>,
    ended: Option<oneshot::Receiver<Result<(), Status>>>,
    /// A stream counts as open until its connection has taken its last message.
    _unread: TaskTrackerToken,
}

impl Stream for Responses {
    type Item = Result<pb::SendIdentifiersResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(response) = ready!(self.responses.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(response)));
        }
        let Some(ended) = &mut self.ended else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(ended).poll(cx));
        self.ended = None;
        let ending = ended.unwrap_or_else(|_| Err(Failure::Internal.into_status()));
        Poll::Ready(ending.err().map(Err))
    }
}
