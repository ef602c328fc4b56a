//! The gRPC service: each call goes to the part of the house that answers it.

use std::fmt;

use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream};

use super::{status::Failure, unary::Control};
use crate::pb::{self, destination_connector_server::DestinationConnector};

/// Serves streams of identifiers.
#[async_trait]
pub trait Streams: Send + Sync + fmt::Debug + 'static {
    /// Serves one stream; returns as soon as its response headers can go out.
    async fn serve(
        &self,
        request: Request<Streaming<pb::SendIdentifiersRequest>>,
    ) -> Result<BoxStream<pb::SendIdentifiersResponse>, Failure>;
}

/// All calls of the contract.
#[derive(Debug)]
pub struct Service<S> {
    control: Control,
    streams: S,
}

impl<S: Streams> Service<S> {
    /// Puts the unary calls and the streams under one name.
    pub fn new(control: Control, streams: S) -> Self {
        Self { control, streams }
    }
}

fn answer<T>(answer: Result<T, Failure>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(Failure::into_status)
}

#[async_trait]
impl<S: Streams> DestinationConnector for Service<S> {
    type SendIdentifiersStream = BoxStream<pb::SendIdentifiersResponse>;

    async fn describe_actions(
        &self,
        request: Request<pb::DescribeActionsRequest>,
    ) -> Result<Response<pb::DescribeActionsResponse>, Status> {
        answer(self.control.describe_actions(request.get_ref()))
    }

    async fn validate_credentials(
        &self,
        request: Request<pb::ValidateCredentialsRequest>,
    ) -> Result<Response<pb::ValidateCredentialsResponse>, Status> {
        answer(
            self.control
                .validate_credentials(request.into_inner())
                .await,
        )
    }

    async fn create_destination(
        &self,
        request: Request<pb::CreateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(self.control.create_destination(request.into_inner()).await)
    }

    async fn get_destination(
        &self,
        request: Request<pb::GetDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(self.control.get_destination(request.into_inner()).await)
    }

    async fn list_destinations(
        &self,
        request: Request<pb::ListDestinationsRequest>,
    ) -> Result<Response<pb::ListDestinationsResponse>, Status> {
        answer(self.control.list_destinations(request.into_inner()).await)
    }

    async fn update_destination(
        &self,
        request: Request<pb::UpdateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(self.control.update_destination(request.into_inner()).await)
    }

    async fn delete_destination(
        &self,
        request: Request<pb::DeleteDestinationRequest>,
    ) -> Result<Response<()>, Status> {
        answer(self.control.delete_destination(request.into_inner()).await)
    }

    async fn send_identifiers(
        &self,
        request: Request<Streaming<pb::SendIdentifiersRequest>>,
    ) -> Result<Response<Self::SendIdentifiersStream>, Status> {
        answer(self.streams.serve(request).await)
    }
}
