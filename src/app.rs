//! The composition root: puts the house together, lets the world in, and closes up again.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{codec::CompressionEncoding, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::util::MapRequestLayer;
use tracing::{error, info, warn};

use crate::{
    clock,
    config::{self, Settings},
    delivery::{self, Condemned, Dispatcher, Targets},
    launchdarkly,
    metrics::Metrics,
    pb,
    pb::destination_connector_server::{DestinationConnectorServer, SERVICE_NAME},
    server::{
        budget::Budget,
        control::Control,
        intake,
        service::Service,
        streams::{Door, House, Limits},
    },
    shutdown::Shutdown,
    store::{self, KeyRing, SqliteStore, Store},
};

/// Largest message that is decoded (the contract's).
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Streams that one connection may hold. hyper's own limit of 200 is too low for an executor
/// with a stream per activation.
const STREAMS_PER_CONNECTION: u32 = 1000;
/// What one stream may send ahead of being read: HTTP/2's own default.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What all streams of a connection may send ahead: 256 of them may be held back before the
/// others on their connection wait with them.
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
/// How often a silent connection is asked whether it is still there, and how long it may take
/// to answer. Ours: a vanished client frees its streams within the minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the store is asked whether it answers. Ours: orchestrators probe about as often.
const STORE_CHECK: Duration = Duration::from_secs(5);
/// How long after the drain deadline the process waits for calls that are under way; more than
/// nothing, less than an operator's patience.
const LAST_CALLS: Duration = Duration::from_secs(5);
/// How long connections get to write out what is left. tonic alone would wait for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The service, ready to run.
#[derive(Debug)]
pub struct App {
    store: Arc<dyn Store>,
    vendor: Arc<launchdarkly::Client>,
    delivery: delivery::Settings,
    limits: Limits,
    max_buffered_bytes: usize,
    metrics: Metrics,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The sealing keys.
    #[error(transparent)]
    Keys(#[from] store::KeyRingError),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The way to LaunchDarkly.
    #[error(transparent)]
    LaunchDarkly(#[from] launchdarkly::Error),
    /// The gRPC descriptors.
    #[error("the descriptors for reflection are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
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
        let store = SqliteStore::open(&settings.store, keys).await?;
        let vendor = launchdarkly::Client::new(vendor_settings(&settings.launch_darkly))?;
        Ok(Self {
            store: Arc::new(store),
            vendor: Arc::new(vendor),
            delivery: delivery::Settings {
                linger: settings.delivery.linger,
                max_members_per_call: settings.delivery.max_members_per_call.into(),
            },
            limits: stream_limits(&settings.limits),
            max_buffered_bytes: settings.limits.max_buffered_bytes,
            metrics: Metrics::default(),
        })
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
    pub async fn run(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), RunError> {
        let (targets, condemned) = Targets::new();
        let (drain, drained) = watch::channel(None);
        let dispatcher = Dispatcher::new(self.delivery, Arc::clone(&self.vendor) as _);
        let sessions = TaskTracker::new();
        let house = House::new(
            Arc::clone(&self.store),
            Arc::clone(&targets),
            dispatcher.clone(),
            self.limits,
            drained,
            self.metrics.clone(),
        );
        let control = Control::new(Arc::clone(&self.store), self.vendor, targets, self.metrics);
        let service = Service::new(control, Door::new(house, sessions.clone()));
        let (reporter, health) = tonic_health::server::health_reporter();
        let budget = Budget::new(self.max_buffered_bytes, MAX_MESSAGE_BYTES);
        let stop = CancellationToken::new();

        // Both end with this function, or with the process.
        let watchers = CancellationToken::new();
        let _guard = watchers.clone().drop_guard();
        let store = Arc::clone(&self.store);
        tokio::spawn(
            watchers
                .clone()
                .run_until_cancelled_owned(record(condemned, store)),
        );
        let watch = watch_store(reporter.clone(), Arc::clone(&self.store), shutdown.clone());
        let health_watch = tokio::spawn(watchers.run_until_cancelled_owned(watch));

        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .layer(MapRequestLayer::new(move |request| {
                intake::gate(&budget, request)
            }))
            .add_service(health)
            .add_service(reflection()?.build_v1().map_err(BuildError::from)?)
            .add_service(reflection()?.build_v1alpha().map_err(BuildError::from)?)
            .add_service(
                DestinationConnectorServer::new(service)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .accept_compressed(CompressionEncoding::Gzip),
            )
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            );
        // Awaited below, or aborted.
        let mut server = tokio::spawn(serving);
        tokio::select! {
            ended = &mut server => {
                ended.map_err(|_| RunError::Panicked)??;
                return Ok(());
            }
            () = shutdown.triggered() => {}
        }
        let deadline = Instant::now() + self.limits.drain;
        info!(streams = sessions.len(), "draining");
        // Ended first, so that it cannot say otherwise afterwards.
        health_watch.await.ok();
        set_health(&reporter, ServingStatus::NotServing).await;
        drain.send_replace(Some(deadline));
        stop.cancel();
        sessions.close();
        let quiet = async {
            sessions.wait().await;
            dispatcher.ended().await;
        };
        if tokio::time::timeout_at(deadline + LAST_CALLS, quiet)
            .await
            .is_err()
        {
            warn!(streams = sessions.len(), "leaving streams behind");
        }
        if tokio::time::timeout(LAST_WORDS, &mut server).await.is_err() {
            server.abort();
        }
        self.store.close().await;
        info!("stopped");
        Ok(())
    }
}

fn vendor_settings(settings: &config::LaunchDarkly) -> launchdarkly::Settings {
    launchdarkly::Settings {
        integration_key: settings.integration_key.clone(),
        endpoint: settings.url.clone(),
        attempt_timeout: settings.attempt_timeout,
        calls_per_account: settings.max_calls_per_account,
    }
}

fn stream_limits(limits: &config::Limits) -> Limits {
    Limits {
        streams: limits.max_streams as usize,
        batch_records: limits.max_batch_records.into(),
        in_flight_records: limits.max_in_flight_records as usize,
        delivery_timeout: limits.default_delivery_timeout,
        age: limits.max_stream_age,
        idle: limits.max_stream_idle,
        drain: limits.drain_timeout,
    }
}

fn reflection() -> Result<tonic_reflection::server::Builder<'static>, BuildError> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

/// Writes down which destinations' credentials were refused.
async fn record(mut condemned: mpsc::UnboundedReceiver<Condemned>, store: Arc<dyn Store>) {
    while let Some(Condemned { uid, revision }) = condemned.recv().await {
        if let Err(failure) = store.reject_credentials(uid, revision, clock::now()).await {
            // The running streams have ended all the same; the next one finds out again.
            error!(destination.uid = %uid, error = %failure, "refusal could not be recorded");
        }
    }
}

/// Keeps health true until shutdown: the service cannot serve without its store.
async fn watch_store(reporter: HealthReporter, store: Arc<dyn Store>, shutdown: Shutdown) {
    let watch = async {
        loop {
            let status = match store.ping().await {
                Ok(()) => ServingStatus::Serving,
                Err(failure) => {
                    error!(error = %failure, "store does not answer");
                    ServingStatus::NotServing
                }
            };
            set_health(&reporter, status).await;
            tokio::time::sleep(STORE_CHECK).await;
        }
    };
    tokio::select! {
        () = shutdown.triggered() => {}
        () = watch => {}
    }
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE_NAME] {
        reporter.set_service_status(service, status).await;
    }
}
