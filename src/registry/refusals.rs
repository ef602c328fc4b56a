//! Refusal recorder: it stores which destinations' credentials were refused.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::error;

use super::Registry;
use crate::{
    backoff::Backoff,
    delivery::{LiveState, RefusedCredentials},
    domain::DestinationState,
};

/// Between attempts to store a refusal. Ours: a store that fails is looked at about this often
/// anyway.
const RECORD_AGAIN: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
};

/// Stores the refusals that lanes meet.
#[derive(Debug)]
pub(crate) struct RefusalRecorder {
    registry: Registry,
    /// Bounded: at most one message per destination and revision.
    refused: mpsc::UnboundedReceiver<RefusedCredentials>,
}

impl RefusalRecorder {
    pub(super) fn new(
        registry: Registry,
        refused: mpsc::UnboundedReceiver<RefusedCredentials>,
    ) -> Self {
        Self { registry, refused }
    }

    /// Stores each refusal, as often as it takes: no stream would find it out again. Those that
    /// come meanwhile wait; they need the same store. What is stored is passed on to `recorded`.
    pub(crate) async fn run(mut self, recorded: mpsc::UnboundedSender<RefusedCredentials>) {
        while let Some(refusal) = self.refused.recv().await {
            let mut attempt = 0;
            while let Err(failure) = self.record(refusal).await {
                let uid = refusal.uid;
                error!(destination.uid = %uid, error = %failure, "refusal is not stored yet");
                tokio::time::sleep(RECORD_AGAIN.delay(attempt, fastrand::f64())).await;
                attempt += 1;
            }
            // After the shutdown nothing asks again.
            recorded.send(refusal).ok();
        }
    }

    async fn record(&self, refusal: RefusedCredentials) -> Result<(), super::Error> {
        let RefusedCredentials { uid, revision } = refusal;
        let state = DestinationState::CredentialsRejected;
        let stored = self
            .registry
            .set_state(uid, revision, state, LiveState::Rejected);
        stored.await.map(drop)
    }
}
