//! The context of streams: the limits and the services that every session shares.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::fences::Fencing;
use crate::{delivery::Dispatcher, domain::Action, metrics::Metrics, registry::Registry};

/// The limits of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most streams open at once.
    pub max_streams: usize,
    /// Most records in one batch.
    pub max_batch_records: usize,
    /// The window: while fewer records than this are uncommitted, another message is read, however
    /// many records it has.
    pub max_in_flight_records: usize,
    /// How long a record may be tried, unless its stream says otherwise.
    pub default_delivery_timeout: Duration,
    /// How long a stream may live before it is drained; each gets up to 10 % more or less.
    pub max_stream_age: Duration,
    /// How long a stream may be without a message and a verdict, and without records under way,
    /// before it is drained.
    pub max_stream_idle: Duration,
    /// How long a drained stream may still take.
    pub drain_timeout: Duration,
}

/// What every session works with.
#[derive(Debug)]
pub(crate) struct StreamContext {
    pub(super) registry: Registry,
    pub(super) dispatcher: Dispatcher,
    /// What an activation may say.
    pub(super) actions: Vec<Action>,
    pub(super) limits: StreamLimits,
    /// The drain deadline, once the process is asked to stop.
    pub(super) drain: watch::Receiver<Option<Instant>>,
    pub(super) metrics: Metrics,
    /// Which stream of an id may write.
    pub(super) fencing: Arc<dyn Fencing>,
}

impl StreamContext {
    pub(crate) fn new(
        registry: Registry,
        dispatcher: Dispatcher,
        actions: Vec<Action>,
        limits: StreamLimits,
        drain: watch::Receiver<Option<Instant>>,
        metrics: Metrics,
        fencing: Arc<dyn Fencing>,
    ) -> Self {
        Self {
            registry,
            dispatcher,
            actions,
            limits,
            drain,
            metrics,
            fencing,
        }
    }
}
