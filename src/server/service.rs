//! The gRPC service: each method of the contract goes to the module that answers it.

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    status::Failure,
    stream::{Inbound, Responses, StreamAcceptor},
    unary::UnaryCalls,
};
use crate::{
    domain::Caller,
    pb::{self, intake::destination_connector_server::DestinationConnector},
};

/// All methods of the contract.
#[derive(Debug)]
pub(crate) struct Service {
    unary: UnaryCalls,
    streams: StreamAcceptor,
}

impl Service {
    #[must_use]
    pub(crate) fn new(unary: UnaryCalls, streams: StreamAcceptor) -> Self {
        Self { unary, streams }
    }
}

/// The caller of a method. Callers are not identified yet; what identifies them would come with the
/// request.
fn caller() -> Caller {
    Caller::local()
}

fn answer<T>(answer: Result<T, Failure>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(Failure::into_status)
}

#[async_trait]
impl DestinationConnector for Service {
    type SendIdentifiersStream = Responses;

    async fn describe_actions(
        &self,
        request: Request<pb::DescribeActionsRequest>,
    ) -> Result<Response<pb::DescribeActionsResponse>, Status> {
        answer(self.unary.describe_actions(&caller(), request.get_ref()))
    }

    async fn validate_credentials(
        &self,
        request: Request<pb::ValidateCredentialsRequest>,
    ) -> Result<Response<pb::ValidateCredentialsResponse>, Status> {
        answer(
            self.unary
                .validate_credentials(&caller(), request.into_inner())
                .await,
        )
    }

    async fn create_destination(
        &self,
        request: Request<pb::CreateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.unary
                .create_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn get_destination(
        &self,
        request: Request<pb::GetDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.unary
                .get_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn list_destinations(
        &self,
        request: Request<pb::ListDestinationsRequest>,
    ) -> Result<Response<pb::ListDestinationsResponse>, Status> {
        answer(
            self.unary
                .list_destinations(&caller(), request.into_inner())
                .await,
        )
    }

    async fn update_destination(
        &self,
        request: Request<pb::UpdateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.unary
                .update_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn delete_destination(
        &self,
        request: Request<pb::DeleteDestinationRequest>,
    ) -> Result<Response<()>, Status> {
        answer(
            self.unary
                .delete_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn send_identifiers(
        &self,
        request: Request<Streaming<pb::intake::SendIdentifiersRequest>>,
    ) -> Result<Response<Self::SendIdentifiersStream>, Status> {
        answer(Inbound::new(request).and_then(|inbound| self.streams.accept(caller(), inbound)))
    }
}
