//! The health service, `grpc.health.v1.Health`: whether the process serves.
//!
//! | asked about | `Check` | `Watch` |
//! |---|---|---|
//! | the server (`""`), or its service | the status | the status, and each change of it |
//! | anything else | `NOT_FOUND` | `SERVICE_UNKNOWN`, and the stream stays open |
//!
//! Both are as `health.proto` has them. Services neither come nor go while the process lives, so an
//! unknown one stays unknown.

use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

use crate::{pb::destination_connector_server::SERVICE_NAME, server::status};

/// Whether the process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    Yes,
    /// It cannot, or was asked to stop.
    No,
}

/// Sets the status that clients are answered with.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(watch::Sender<Serving>);

impl Reporter {
    /// A reporter, and the service that answers with its status.
    #[must_use]
    pub(crate) fn new(first: Serving) -> (Self, HealthServer<Health>) {
        let (reporter, status) = watch::channel(first);
        (Self(reporter), HealthServer::new(Health(status)))
    }

    pub(crate) fn set(&self, serving: Serving) {
        self.0.send_if_modified(|last| {
            let changed = *last != serving;
            *last = serving;
            changed
        });
    }
}

/// The gRPC service.
#[derive(Debug)]
pub(crate) struct Health(watch::Receiver<Serving>);

#[async_trait]
impl health_server::Health for Health {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(status::unknown_service());
        }
        let serving = *self.0.borrow();
        Ok(Response::new(answer(serving.into())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let statuses = if is_known(&request.get_ref().service) {
            let changes = WatchStream::new(self.0.clone());
            changes.map(|serving| Ok(answer(serving.into()))).boxed()
        } else {
            let unknown = Ok(answer(ServingStatus::ServiceUnknown));
            stream::iter([unknown]).chain(stream::pending()).boxed()
        };
        Ok(Response::new(statuses))
    }
}

fn is_known(service: &str) -> bool {
    ["", SERVICE_NAME].contains(&service)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

impl From<Serving> for ServingStatus {
    fn from(serving: Serving) -> Self {
        match serving {
            Serving::Yes => Self::Serving,
            Serving::No => Self::NotServing,
        }
    }
}
