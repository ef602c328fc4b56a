//! The real service and the sandbox, joined in memory: nothing waits for sockets, so that time can be
//! paused.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use launchdarkly_connector::{
    app::App,
    config::Settings,
    domain::TransientError,
    launchdarkly::{self, Body, Transport},
    sandbox::Sandbox,
    shutdown::Shutdown,
    store::MemoryStore,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use crate::test_service::Client;

/// Longer than the shortest delivery time-out, and far shorter than the default one.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(2);

/// Calls the sandbox as a function.
#[derive(Debug)]
struct InProcess(Sandbox);

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransientError> {
        let request = request.map(axum::body::Body::from);
        let Ok(answer) = self.0.router().oneshot(request).await;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|_| TransientError::Connection)?;
        let body = Full::new(body.to_bytes()).map_err(|never| match never {});
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }
}

/// The service that runs now.
pub(crate) struct Service {
    channel: Channel,
    shutdown: Shutdown,
    served: JoinHandle<()>,
}

impl Service {
    /// Starts with other settings than the defaults.
    pub(crate) async fn start(
        sandbox: &Sandbox,
        disk: &MemoryStore,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::with_keys("unused".into());
        change(&mut settings);
        let vendor = launchdarkly::ClientSettings {
            attempt_timeout: ATTEMPT,
            ..settings.launchdarkly.clone()
        };
        let transport = Box::new(InProcess(sandbox.clone()));
        let vendor = launchdarkly::Client::over(transport, vendor);
        let app = App::assemble(Arc::new(disk.reopen()), vendor, &settings);
        let shutdown = Shutdown::new();
        let (connections, incoming) = mpsc::unbounded_channel();
        let run = app.serve(UnboundedReceiverStream::new(incoming), shutdown.clone());
        let served = tokio::spawn(async { run.await.unwrap() });
        let connector = tower::service_fn(move |_| {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let taken = connections.send(Ok::<_, io::Error>(theirs));
            let gone = || io::Error::from(io::ErrorKind::ConnectionRefused);
            std::future::ready(taken.map(|()| TokioIo::new(ours)).map_err(|_| gone()))
        });
        let endpoint = Endpoint::from_static("http://in-memory");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self {
            channel,
            shutdown,
            served,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel.clone())
    }

    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        self.served.await.unwrap();
    }
}
