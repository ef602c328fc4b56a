//! Background tasks beside the streams: one watches the store's health, others store refused
//! credentials and check them again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

use crate::{
    delivery::RefusedCredentials,
    domain::CredentialChecker,
    registry::{self, RefusalRecorder, Registry},
    server::edge::health::{Reporter, Serving},
    shutdown::Shutdown,
};

/// How often the store is asked whether it answers. Ours: orchestrators probe about as often.
const STORE_CHECK: Duration = Duration::from_secs(5);

/// The running tasks. They end when this is dropped, or with the process.
pub(super) struct BackgroundTasks {
    /// The one task that is awaited: it sets the health.
    health: JoinHandle<Option<()>>,
    reporter: Reporter,
    _guard: DropGuard,
}

impl BackgroundTasks {
    /// Starts the tasks; health is reported, and LaunchDarkly asked, until `shutdown`. Health is
    /// known when this returns.
    pub(super) async fn start(
        registry: Registry,
        refusals: RefusalRecorder,
        checker: Arc<dyn CredentialChecker>,
        reporter: Reporter,
        shutdown: Shutdown,
    ) -> Self {
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        // Bounded as what it passes on is: a message per destination and revision.
        let (recorded, refused) = mpsc::unbounded_channel();
        tokio::spawn(
            end.clone()
                .run_until_cancelled_owned(refusals.run(recorded)),
        );
        let recheck = recheck(registry.clone(), checker, refused, shutdown.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(recheck));
        // The first call may ask for health.
        check_store(&reporter, &registry).await;
        let watch = watch_store(reporter.clone(), registry, shutdown);
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
        self.reporter.set(Serving::No);
    }
}

/// Asks about refused destinations until the shutdown.
async fn recheck(
    registry: Registry,
    checker: Arc<dyn CredentialChecker>,
    refused: mpsc::UnboundedReceiver<RefusedCredentials>,
    shutdown: Shutdown,
) {
    tokio::select! {
        // A shutdown does not wait for an answer.
        biased;
        () = shutdown.triggered() => {}
        () = registry::recheck::run(registry, checker, refused) => {}
    }
}

/// Keeps health true until shutdown.
async fn watch_store(reporter: Reporter, registry: Registry, shutdown: Shutdown) {
    let watch = async {
        loop {
            tokio::time::sleep(STORE_CHECK).await;
            check_store(&reporter, &registry).await;
        }
    };
    tokio::select! {
        // A shutdown does not wait for a check.
        biased;
        () = shutdown.triggered() => {}
        () = watch => {}
    }
}

/// The service cannot serve without its store.
async fn check_store(reporter: &Reporter, registry: &Registry) {
    let serving = match registry.ping().await {
        Ok(()) => Serving::Yes,
        Err(failure) => {
            error!(error = %failure, "store does not answer");
            Serving::No
        }
    };
    reporter.set(serving);
}
