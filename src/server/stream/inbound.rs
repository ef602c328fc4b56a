//! The inbound half of a stream: its messages, and whether the client half-closed it or went away.

use tonic::{Request, Streaming};
use tracing::error;

use super::responses::SessionEnd;
use crate::{
    domain::DestinationUid,
    pb::{self, batch::EncodedBatch},
    server::{
        edge::{inbound_body::InboundBody, memory::Reservation},
        status::Failure,
    },
};

/// The messages of one stream.
pub(in crate::server) struct Inbound {
    messages: Streaming<pb::intake::SendIdentifiersRequest>,
    body: InboundBody,
    half_closed: bool,
}

/// What came next.
pub(super) enum Received {
    Open(Box<pb::OpenStream>),
    Batch(EncodedBatch),
    /// A message that holds nothing the contract has.
    Nothing,
    HalfClosed,
}

impl TryFrom<pb::intake::SendIdentifiersRequest> for Received {
    type Error = Failure;

    fn try_from(message: pb::intake::SendIdentifiersRequest) -> Result<Self, Failure> {
        let pb::intake::SendIdentifiersRequest { open, batch } = message;
        match (open, batch.is_empty()) {
            (Some(open), true) => Ok(Self::Open(Box::new(open))),
            (None, false) => Ok(Self::Batch(EncodedBatch(batch))),
            (None, true) => Ok(Self::Nothing),
            (Some(_), false) => Err(Failure::StreamProtocol(
                "a message must hold either `open` or `batch`".into(),
            )),
        }
    }
}

impl Inbound {
    /// The messages of a request.
    ///
    /// # Errors
    /// A request whose body is not [wrapped](crate::server::edge::inbound_body::wrap).
    pub(in crate::server) fn new(
        request: Request<Streaming<pb::intake::SendIdentifiersRequest>>,
    ) -> Result<Self, Failure> {
        let body = request.extensions().get::<InboundBody>().cloned();
        let body = body.ok_or_else(|| {
            error!("the body of a stream is outside the memory budget");
            Failure::Internal
        })?;
        Ok(Self {
            messages: request.into_inner(),
            body,
            half_closed: false,
        })
    }

    /// Waits for the next message. Cancel safe: a message in parts stays in tonic's decoder.
    ///
    /// # Errors
    /// The client is gone, or its request cannot be read.
    pub(super) async fn next(&mut self) -> Result<Received, SessionEnd> {
        match self.messages.message().await {
            Ok(Some(message)) => message.try_into().map_err(SessionEnd::Failed),
            Ok(None) if self.body.half_closed() => {
                self.half_closed = true;
                Ok(Received::HalfClosed)
            }
            Ok(None) => Err(SessionEnd::Gone),
            Err(status) => Err(SessionEnd::Unreadable(status)),
        }
    }

    /// Whether the client has half-closed the stream.
    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    /// Counts the stream's messages as held by this destination.
    pub(super) fn join(&self, uid: DestinationUid) {
        self.body.join(uid);
    }

    /// Exchanges the reservation of the message that came last for what its records hold.
    pub(super) fn take_reservation(&self, bytes: usize) -> Reservation {
        self.body.take_reservation(bytes)
    }
}
