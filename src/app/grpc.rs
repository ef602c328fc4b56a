//! The gRPC server: its services and the limits of its connections.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    codec::CompressionEncoding,
    transport::{Error, Server, server::Connected},
};
use tonic_health::pb::health_server::HealthServer;
use tower::util::MapRequestLayer;

use super::BuildError;
use crate::{
    pb::{self, intake::destination_connector_server::DestinationConnectorServer},
    server::{
        edge::{
            first_byte, health::Health, inbound_body, memory::MemoryBudget, reflection::Reflection,
        },
        service::Service,
    },
};

const MIB: usize = 1024 * 1024;
/// Largest message that is decoded (the contract's).
const MAX_MESSAGE_BYTES: usize = MIB;
/// Streams that one connection may hold. hyper's own limit of 200 is too low for an executor
/// with a stream per activation.
const STREAMS_PER_CONNECTION: u32 = 1000;
/// What one stream may send ahead of being read: HTTP/2's own default.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What all streams of a connection may send ahead: 256 of them may be held back before the
/// others on their connection wait with them.
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
/// How often a silent connection is pinged, and how long it may take to answer. Ours: a vanished client frees its streams within the minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves incoming connections until `stop`; then each ends once its streams have ended.
pub(super) fn serve<I, C>(
    service: Service,
    health: HealthServer<Health>,
    max_buffered_mib: usize,
    incoming: I,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), Error>> + Send, BuildError>
where
    I: Stream<Item = io::Result<C>> + Send,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let budget = MemoryBudget::new(max_buffered_mib * MIB, MAX_MESSAGE_BYTES);
    let reflection = Reflection::new(&[pb::DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET])?;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(MapRequestLayer::new(move |request| {
            inbound_body::wrap(&budget, request)
        }))
        .add_service(health)
        .add_service(reflection.v1())
        .add_service(reflection.v1alpha())
        .add_service(
            DestinationConnectorServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .accept_compressed(CompressionEncoding::Gzip),
        )
        .serve_with_incoming_shutdown(first_byte::connections(incoming), stop.cancelled_owned());
    Ok(serving)
}
