//! The stream acceptor: admits streams up to the limit, and starts a session for each.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    fences::{Fencing, InProcessFences},
    inbound::Inbound,
    responses::{self, Responses},
    session,
};
use crate::{
    delivery::Dispatcher, domain::Caller, metrics::Metrics, registry::Registry,
    server::status::Failure,
};

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
    /// Where destinations are opened.
    pub registry: Registry,
    /// Where changes go.
    pub dispatcher: Dispatcher,
    /// What streams may ask for.
    pub limits: StreamLimits,
    /// When the process stops taking records, once it is asked to stop.
    pub drain: watch::Receiver<Option<Instant>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Which stream of an id may write.
    pub(super) fencing: Arc<dyn Fencing>,
}

impl StreamContext {
    /// Puts the parts together.
    pub fn new(
        registry: Registry,
        dispatcher: Dispatcher,
        limits: StreamLimits,
        drain: watch::Receiver<Option<Instant>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            registry,
            dispatcher,
            limits,
            drain,
            metrics,
            fencing: Arc::new(InProcessFences::default()),
        }
    }
}

/// Accepts streams.
#[derive(Debug)]
pub struct StreamAcceptor {
    context: Arc<StreamContext>,
    /// One for each open stream.
    permits: Arc<Semaphore>,
    /// Awaited by the process when it stops.
    sessions: TaskTracker,
}

impl StreamAcceptor {
    /// Every session works with `context`, and is tracked by `sessions`.
    #[must_use]
    pub fn new(context: StreamContext, sessions: TaskTracker) -> Self {
        let permits = Arc::new(Semaphore::new(context.limits.max_streams));
        Self {
            context: Arc::new(context),
            permits,
            sessions,
        }
    }

    /// Starts the session of one stream; returns its responses.
    ///
    /// # Errors
    /// As many streams are open as may be.
    pub(in crate::server) fn accept(
        &self,
        caller: Caller,
        inbound: Inbound,
    ) -> Result<Responses, Failure> {
        let limit = self.context.limits.max_streams;
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Failure::TooManyStreams { limit })?;
        let (sender, responses) = responses::channel(self.sessions.token());
        let context = Arc::clone(&self.context);
        let counted = context.metrics.stream();
        self.sessions.spawn(async move {
            session::run(context, caller, inbound, sender).await;
            drop((permit, counted));
        });
        Ok(responses)
    }
}
