//! The gRPC service: each method of the contract goes to the module that answers it.

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    status::Failure,
    stream::{Inbound, Responses, StreamAcceptor},
    unary::Control,
};
use crate::{
    domain::Caller,
    pb::{self, intake::destination_connector_server::DestinationConnector},
};

/// All methods of the contract.
#[derive(Debug)]
pub(crate) struct Service {
    control: Control,
    streams: StreamAcceptor,
}

impl Service {
    #[must_use]
    pub(crate) fn new(control: Control, streams: StreamAcceptor) -> Self {
        Self { control, streams }
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
        answer(self.control.describe_actions(&caller(), request.get_ref()))
    }

    async fn validate_credentials(
        &self,
        request: Request<pb::ValidateCredentialsRequest>,
    ) -> Result<Response<pb::ValidateCredentialsResponse>, Status> {
        answer(
            self.control
                .validate_credentials(&caller(), request.into_inner())
                .await,
        )
    }

    async fn create_destination(
        &self,
        request: Request<pb::CreateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.control
                .create_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn get_destination(
        &self,
        request: Request<pb::GetDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.control
                .get_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn list_destinations(
        &self,
        request: Request<pb::ListDestinationsRequest>,
    ) -> Result<Response<pb::ListDestinationsResponse>, Status> {
        answer(
            self.control
                .list_destinations(&caller(), request.into_inner())
                .await,
        )
    }

    async fn update_destination(
        &self,
        request: Request<pb::UpdateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        answer(
            self.control
                .update_destination(&caller(), request.into_inner())
                .await,
        )
    }

    async fn delete_destination(
        &self,
        request: Request<pb::DeleteDestinationRequest>,
    ) -> Result<Response<()>, Status> {
        answer(
            self.control
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
