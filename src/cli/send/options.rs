//! The options of a transfer.

use std::time::Duration;

use crate::{backoff::Backoff, cli::remote::Server, pb};

/// The options of a transfer: its server, its stream and its deadlines.
#[derive(Debug, Clone)]
pub(crate) struct TransferOptions {
    /// The server.
    pub server: Server,
    /// What the stream is for.
    pub open: pb::OpenStream,
    /// How long to go on without an open stream; and, beyond the delivery time-out, without a
    /// result while records wait for one.
    pub give_up_after: Duration,
    /// Pauses between streams.
    pub backoff: Backoff,
}
