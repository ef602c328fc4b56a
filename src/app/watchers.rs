//! What runs beside the streams: the store's health is watched, and refused credentials are kept,
//! and asked about again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

use super::revival;
use crate::{
    backoff::Backoff,
    clock,
    delivery::RefusedCredentials,
    domain::DestinationState,
    server::{
        edge::health::{Reporter, Serving},
        unary::Control,
    },
    shutdown::Shutdown,
    store::Store,
};

/// How often the store is asked whether it answers. Ours: orchestrators probe about as often.
const STORE_CHECK: Duration = Duration::from_secs(5);
/// Between attempts to write a refusal down. Ours: a store that fails is looked at this often
/// anyway.
const RECORD_AGAIN: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: STORE_CHECK,
};

/// Their tasks; they end with this, or with the process.
pub(super) struct Watchers {
    health: JoinHandle<Option<()>>,
    reporter: Reporter,
    _guard: DropGuard,
}

impl Watchers {
    /// Starts them; health is told, and LaunchDarkly asked, until `shutdown`. Health is known when
    /// this returns.
    pub(super) async fn start(
        store: &Arc<dyn Store>,
        reporter: Reporter,
        condemned: mpsc::UnboundedReceiver<RefusedCredentials>,
        control: Control,
        shutdown: Shutdown,
    ) -> Self {
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        // Bounded as what it passes on is: a message per destination and revision.
        let (recorded, refused) = mpsc::unbounded_channel();
        let record = record(condemned, Arc::clone(store), recorded);
        tokio::spawn(end.clone().run_until_cancelled_owned(record));
        let revive = revive(control, Arc::clone(store), refused, shutdown.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(revive));
        // Whoever is served first may ask for it first.
        check_store(&reporter, store).await;
        let watch = watch_store(reporter.clone(), Arc::clone(store), shutdown);
        let health = tokio::spawn(end.run_until_cancelled_owned(watch));
        Self {
            health,
            reporter,
            _guard: guard,
        }
    }

    /// Says that the service does not serve any more. For use after the shutdown.
    pub(super) async fn say_not_serving(&mut self) {
        // Ended first, so that it cannot say otherwise afterwards.
        (&mut self.health).await.ok();
        self.reporter.say(Serving::No);
    }
}

/// Writes down which destinations' credentials were refused, each until it is written: no stream
/// would find it out again. Those that come meanwhile wait; they need the same store.
async fn record(
    mut condemned: mpsc::UnboundedReceiver<RefusedCredentials>,
    store: Arc<dyn Store>,
    recorded: mpsc::UnboundedSender<RefusedCredentials>,
) {
    let state = DestinationState::CredentialsRejected;
    while let Some(refusal) = condemned.recv().await {
        let RefusedCredentials { uid, revision } = refusal;
        let mut attempt = 0;
        while let Err(failure) = store.set_state(uid, revision, state, clock::now()).await {
            error!(destination.uid = %uid, error = %failure, "refusal could not be recorded yet");
            tokio::time::sleep(RECORD_AGAIN.delay(attempt, fastrand::f64())).await;
            attempt += 1;
        }
        // After the shutdown nobody asks any more.
        recorded.send(refusal).ok();
    }
}

/// Asks about refused destinations until the shutdown.
async fn revive(
    control: Control,
    store: Arc<dyn Store>,
    refused: mpsc::UnboundedReceiver<RefusedCredentials>,
    shutdown: Shutdown,
) {
    tokio::select! {
        // Whoever asks to stop does not wait for an answer.
        biased;
        () = shutdown.triggered() => {}
        () = revival::run(control, store, refused) => {}
    }
}

/// Keeps health true until shutdown.
async fn watch_store(reporter: Reporter, store: Arc<dyn Store>, shutdown: Shutdown) {
    let watch = async {
        loop {
            tokio::time::sleep(STORE_CHECK).await;
            check_store(&reporter, &store).await;
        }
    };
    tokio::select! {
        // Whoever asks to stop does not wait for a check.
        biased;
        () = shutdown.triggered() => {}
        () = watch => {}
    }
}

/// The service cannot serve without its store.
async fn check_store(reporter: &Reporter, store: &Arc<dyn Store>) {
    let serving = match store.ping().await {
        Ok(()) => Serving::Yes,
        Err(failure) => {
            error!(error = %failure, "store does not answer");
            Serving::No
        }
    };
    reporter.say(serving);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        domain::{DestinationUid, Revision},
        server::unary::tests::fakes::TroubledStore,
    };

    #[tokio::test]
    async fn a_refusal_is_written_down_once_the_store_is_back() {
        let store = Arc::new(TroubledStore::new().await);
        let (condemned, reports) = mpsc::unbounded_channel();
        let (recorded, mut refused) = mpsc::unbounded_channel();
        let record = tokio::spawn(record(reports, store.clone(), recorded));
        store.is_down.store(true, Ordering::Relaxed);
        let refusal = RefusedCredentials {
            uid: DestinationUid::generate(),
            revision: Revision(1),
        };
        condemned.send(refusal).unwrap();
        drop(condemned);
        // Longer than the first pause.
        tokio::time::sleep(2 * RECORD_AGAIN.first).await;
        assert!(!record.is_finished(), "it was given up");
        store.is_down.store(false, Ordering::Relaxed);
        record.await.unwrap();
        assert_eq!(refused.recv().await, Some(refusal), "nobody asks again");
    }
}
