//! The stream acceptor: admits streams up to the limit, and starts a session for each.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{
    context::StreamContext,
    inbound::Inbound,
    responses::{self, Responses},
    session,
};
use crate::{domain::Caller, server::status::Failure};

/// Accepts streams.
#[derive(Debug)]
pub(crate) struct StreamAcceptor {
    context: Arc<StreamContext>,
    /// One for each open stream.
    permits: Arc<Semaphore>,
    /// Awaited by the process when it stops.
    sessions: TaskTracker,
}

impl StreamAcceptor {
    /// Every session works with `context`, and is tracked by `sessions`.
    #[must_use]
    pub(crate) fn new(context: StreamContext, sessions: TaskTracker) -> Self {
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
