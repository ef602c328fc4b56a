//! The composition root: builds the service, serves, and shuts down.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::Instant,
};
use tokio_stream::Stream;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::transport::server::{Connected, TcpIncoming};
use tracing::{info, warn};

use crate::{
    config::Settings,
    delivery::{self, Dispatcher},
    domain::{CredentialChecker, Observer},
    launchdarkly,
    metrics::Metrics,
    registry::Registry,
    reload::ReloadRequests,
    server::{
        edge::{
            health::{Reporter, Serving},
            tls::{Tls, TlsFileError},
        },
        service::Service,
        stream::{Fencing, InProcessFences, StreamAcceptor, StreamContext, StreamLimits},
        unary::UnaryCalls,
    },
    shutdown::Shutdown,
    store::{self, KeyRing, SqliteStore, Store},
};

mod background;
mod grpc;

use background::BackgroundTasks;

/// How long after the drain deadline the process waits for the calls that are under way. Ours: an
/// ordinary call takes a fraction of a second, and orchestrators kill after some 30 s.
const LAST_CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections get at the end to write out what is left. tonic itself sets no limit.
const WRITE_OUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The service, ready to run.
#[derive(Debug)]
pub struct App {
    store: Arc<dyn Store>,
    vendor: Arc<launchdarkly::Client>,
    delivery: delivery::LaneSettings,
    limits: StreamLimits,
    fencing: Arc<dyn Fencing>,
    max_buffered_mib: usize,
    tls: Option<Tls>,
    /// Ask for files to be read again.
    reloads: ReloadRequests,
    metrics: Metrics,
    /// Is told what happens to calls, paces and changes.
    observer: Arc<dyn Observer>,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The sealing keys.
    #[error(transparent)]
    Keys(#[from] store::KeyRingError),
    /// The files of TLS.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The way to LaunchDarkly.
    #[error(transparent)]
    LaunchDarkly(#[from] launchdarkly::ClientError),
    /// The gRPC descriptors.
    #[error("the descriptors for reflection are broken: {0}")]
    Reflection(#[from] prost_reflect::DescriptorError),
}

/// Why the service stopped without being asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener or the server failed.
    #[error("the gRPC server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// Reflection.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A panic.
    #[error("the gRPC server panicked")]
    Panicked,
}

impl App {
    /// Opens the store and readies the way to LaunchDarkly.
    ///
    /// # Errors
    /// What keeps the service from starting, and the way out.
    pub async fn build(settings: &Settings) -> Result<Self, BuildError> {
        let keys = KeyRing::load(&settings.keys_file)?;
        let tls = settings.tls.clone().map(Tls::load).transpose()?;
        let store = SqliteStore::open(&settings.store, keys).await?;
        let vendor = launchdarkly::Client::new(settings.launchdarkly.clone())?;
        let app = Self::assemble(Arc::new(store), vendor, settings);
        if let Some(tls) = &tls {
            tls.show_in(&app.metrics);
        }
        Ok(Self { tls, ..app })
    }

    /// Reads files again at these requests too, beside when they change.
    #[must_use]
    pub fn reloading_at(self, reloads: ReloadRequests) -> Self {
        Self { reloads, ..self }
    }

    /// Puts the service together from a store and a way to LaunchDarkly of the caller's; of
    /// `settings` it takes what concerns neither, and no file.
    pub fn assemble(
        store: Arc<dyn Store>,
        vendor: launchdarkly::Client,
        settings: &Settings,
    ) -> Self {
        let metrics = Metrics::default();
        let observer: Arc<dyn Observer> = Arc::new(metrics.clone());
        Self {
            store,
            vendor: Arc::new(vendor.observed_by(Arc::clone(&observer))),
            delivery: settings.delivery,
            limits: settings.limits,
            // They hold among the streams of one process, as its database is for one server.
            fencing: Arc::new(InProcessFences::default()),
            max_buffered_mib: settings.max_buffered_mib,
            tls: None,
            reloads: ReloadRequests::never(),
            metrics,
            observer,
        }
    }

    /// What the service counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Serves on `listener` until `shutdown`, then drains and returns.
    ///
    /// # Errors
    /// Only when the service stops without being asked.
    pub async fn run(mut self, listener: TcpListener, shutdown: Shutdown) -> Result<(), RunError> {
        if let Ok(address) = listener.local_addr() {
            self.store.serving_at(address);
        }
        // Results are small, and late ones hold up their senders: no waiting to fill packets.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let Some(tls) = self.tls.take() else {
            return self.serve(incoming, shutdown).await;
        };
        let incoming = tls.connections(incoming);
        let current = tls.keep_current(self.reloads.clone(), self.metrics.clone());
        let _current = AbortOnDropHandle::new(tokio::spawn(current));
        self.serve(incoming, shutdown).await
    }

    /// Serves the connections of a real network or another until `shutdown`, then drains and
    /// returns.
    ///
    /// # Errors
    /// Only when the service stops without being asked.
    pub async fn serve<I, C>(self, incoming: I, shutdown: Shutdown) -> Result<(), RunError>
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let metrics = self.metrics.clone();
        let (registry, refusals) = Registry::new(Arc::clone(&self.store), self.metrics.clone());
        let dispatcher =
            Dispatcher::new(self.delivery, Arc::clone(&self.vendor) as _, self.observer);
        let (drain, drained) = watch::channel(None);
        let work = InFlight {
            sessions: TaskTracker::new(),
            dispatcher: dispatcher.clone(),
            metrics: self.metrics.clone(),
            drain,
        };
        let limits = self.limits;
        let vendor = self.vendor;
        let context = StreamContext::new(
            registry.clone(),
            dispatcher,
            vendor.actions().to_vec(),
            limits,
            drained,
            self.metrics,
            self.fencing,
        );
        let unary = UnaryCalls::new(registry.clone(), Arc::clone(&vendor) as _);
        let service = Service::new(unary, StreamAcceptor::new(context, work.sessions.clone()));

        let (reporter, health) = Reporter::new(Serving::No);
        let mut background =
            BackgroundTasks::start(registry, refusals, vendor, reporter, shutdown.clone()).await;
        let stop = CancellationToken::new();
        let budget = self.max_buffered_mib;
        let serving = grpc::serve(service, health, budget, incoming, stop.clone())?;
        // Awaited below, or aborted.
        let mut server = tokio::spawn(serving);
        tokio::select! {
            // A server that has failed cannot drain.
            biased;
            ended = &mut server => {
                ended.map_err(|_| RunError::Panicked)??;
                return Ok(());
            }
            () = shutdown.triggered() => {}
        }

        let deadline = Instant::now() + limits.drain_timeout;
        info!(streams = work.metrics.open_streams(), "draining");
        background.say_not_serving().await;
        work.drain.send_replace(Some(deadline));
        stop.cancel();
        work.end(deadline + LAST_CALLS_TIMEOUT).await;
        if tokio::time::timeout(WRITE_OUT_TIMEOUT, &mut server)
            .await
            .is_err()
        {
            server.abort();
        }
        self.store.close().await;
        info!(calls = ?metrics.calls(), "stopped");
        Ok(())
    }
}

/// What is under way: streams, and the calls of their records.
struct InFlight {
    sessions: TaskTracker,
    dispatcher: Dispatcher,
    /// Counts the open ones; the tracker also counts responses that their client has not read yet.
    metrics: Metrics,
    /// Tells every stream to be done by a moment.
    drain: watch::Sender<Option<Instant>>,
}

impl InFlight {
    /// Waits until the streams and their calls have ended, at the longest until `latest`.
    async fn end(self, latest: Instant) {
        self.sessions.close();
        let quiet = async {
            self.sessions.wait().await;
            self.dispatcher.ended().await;
        };
        if tokio::time::timeout_at(latest, quiet).await.is_err() {
            let streams = self.metrics.open_streams();
            warn!(
                streams,
                "leaving before all streams, calls and answers have ended"
            );
        }
    }
}
