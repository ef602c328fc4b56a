//! The bare server that this service is compared with: the same proto and transport, and no work.

use std::time::Duration;

use futures_util::{StreamExt, stream::BoxStream};
use launchdarkly_connector::pb::{
    self,
    destination_connector_server::{DestinationConnector, DestinationConnectorServer},
    send_identifiers_request::Message as In,
    send_identifiers_response::Message as Out,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    codec::CompressionEncoding,
    transport::{Server, server::TcpIncoming},
};

use crate::child::SERVING;

/// The service's settings of connections, as in its `app::grpc`.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
const STREAMS_PER_CONNECTION: u32 = 1000;
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Its defaults.
const MAX_BATCH_RECORDS: i32 = 1_000;
const MAX_IN_FLIGHT_RECORDS: i32 = 10_000;

/// Serves until the process ends.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    eprintln!(r#"{{"message":"{SERVING}","address":"{address}"}}"#);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(
            DestinationConnectorServer::new(Echo)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .accept_compressed(CompressionEncoding::Gzip),
        )
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

#[derive(Debug)]
struct Echo;

/// Acknowledges a message that is decoded, and has `last` records before it.
fn acknowledge(last: &mut i64, request: pb::SendIdentifiersRequest) -> pb::SendIdentifiersResponse {
    let message = match request.message {
        Some(In::Batch(batch)) => {
            let first = *last + 1;
            *last += i64::try_from(batch.records.len()).unwrap();
            Out::Ack(pb::Ack {
                committed_sequence: *last,
                results: vec![pb::RecordResult {
                    first_sequence: first,
                    last_sequence: *last,
                    error: None,
                }],
                max_in_flight_records: None,
            })
        }
        Some(In::Open(_)) | None => Out::Opened(pb::StreamOpened {
            max_batch_records: MAX_BATCH_RECORDS,
            max_in_flight_records: MAX_IN_FLIGHT_RECORDS,
        }),
    };
    pb::SendIdentifiersResponse {
        message: Some(message),
    }
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo server has streams alone"))
}

#[tonic::async_trait]
impl DestinationConnector for Echo {
    type SendIdentifiersStream = BoxStream<'static, Result<pb::SendIdentifiersResponse, Status>>;

    async fn send_identifiers(
        &self,
        request: Request<Streaming<pb::SendIdentifiersRequest>>,
    ) -> Result<Response<Self::SendIdentifiersStream>, Status> {
        let mut last = 0;
        let answers = request
            .into_inner()
            .map(move |request| request.map(|request| acknowledge(&mut last, request)));
        Ok(Response::new(answers.boxed()))
    }

    async fn create_destination(
        &self,
        _: Request<pb::CreateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        none()
    }

    async fn get_destination(
        &self,
        _: Request<pb::GetDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        none()
    }

    async fn list_destinations(
        &self,
        _: Request<pb::ListDestinationsRequest>,
    ) -> Result<Response<pb::ListDestinationsResponse>, Status> {
        none()
    }

    async fn update_destination(
        &self,
        _: Request<pb::UpdateDestinationRequest>,
    ) -> Result<Response<pb::Destination>, Status> {
        none()
    }

    async fn delete_destination(
        &self,
        _: Request<pb::DeleteDestinationRequest>,
    ) -> Result<Response<()>, Status> {
        none()
    }

    async fn validate_credentials(
        &self,
        _: Request<pb::ValidateCredentialsRequest>,
    ) -> Result<Response<pb::ValidateCredentialsResponse>, Status> {
        none()
    }

    async fn describe_actions(
        &self,
        _: Request<pb::DescribeActionsRequest>,
    ) -> Result<Response<pb::DescribeActionsResponse>, Status> {
        none()
    }
}
