//! One stream, from its first message to its status.
//!
//! | the session | leaves by |
//! |---|---|
//! | waits for `open` | a good `open`, whose destination can be used |
//! | is open | half-close, a broken rule, a refusal, a newer stream, the client going away |
//! | is draining | half-close, or its deadline |
//! | is half-closed | every record having a result |
//! | ends | the calls of its records having ended |

mod exchange;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use tracing::{Instrument, info, info_span};

use self::exchange::Session;
use super::{acceptor::StreamContext, opening::Opening};
use crate::{
    pb,
    server::{
        edge::inbound_body::InboundBody,
        status::{Expiry, Failure},
    },
};

/// How long a stream may take to say `open`. Ours: clients send it at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream's two directions.
pub(super) struct StreamIo {
    pub(super) inbound: Streaming<pb::SendIdentifiersRequest>,
    pub(super) outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
    pub(super) inbound_body: InboundBody,
}

/// How a session ended.
enum SessionEnd {
    /// Every record has a result, and the client knows.
    Complete,
    /// The client went away.
    Gone,
    /// With a status of ours.
    Failed(Failure),
    /// With tonic's status for a request it could not read.
    Unreadable(Status),
}

/// Serves one stream from `open` to its end, and sends its status to `ending`.
pub(super) async fn run(
    context: Arc<StreamContext>,
    mut line: StreamIo,
    ending: oneshot::Sender<Result<(), Status>>,
) {
    let opened = tokio::select! {
        // A client that is gone is not worth another look at the rest.
        biased;
        () = line.outbound.closed() => Err(SessionEnd::Gone),
        opened = tokio::time::timeout(OPEN_TIMEOUT, open(&context, &mut line.inbound, &line.inbound_body)) => {
            let late = || SessionEnd::Failed(Failure::StreamExpired(Expiry::Unopened(OPEN_TIMEOUT)));
            opened.unwrap_or_else(|_| Err(late()))
        }
    };
    let opening = match opened {
        Ok(opening) => opening,
        Err(end) => return send_status(end, ending),
    };
    let span = info_span!(
        "session",
        destination = %opening.destination,
        segment.id = %opening.segment.id,
        stream.id = opening.stream_id.as_deref().unwrap_or_default(),
    );
    serve(context, line, opening, ending).instrument(span).await;
}

/// Waits for `open`.
async fn open(
    context: &StreamContext,
    inbound: &mut Streaming<pb::SendIdentifiersRequest>,
    inbound_body: &InboundBody,
) -> Result<Opening, SessionEnd> {
    let mut drain = context.drain.clone();
    let first = tokio::select! {
        biased;
        Ok(_) = drain.wait_for(Option::is_some) => {
            return Err(SessionEnd::Failed(draining()));
        }
        first = inbound.message() => first,
    };
    match first {
        Ok(Some(first)) => Opening::check(first, context.limits.default_delivery_timeout)
            .map_err(SessionEnd::Failed),
        Ok(None) if inbound_body.half_closed() => Err(SessionEnd::Failed(Failure::StreamProtocol(
            "the stream was half-closed before its first message, which must be `open`".into(),
        ))),
        Ok(None) => Err(SessionEnd::Gone),
        Err(status) => Err(SessionEnd::Unreadable(status)),
    }
}

async fn serve(
    context: Arc<StreamContext>,
    line: StreamIo,
    opening: Opening,
    ending: oneshot::Sender<Result<(), Status>>,
) {
    // Not raced against the client going away: a stream that fences others must see them end.
    let admitted = match context.admit(&opening).await {
        Ok(admitted) => admitted,
        Err(failure) => {
            info!(reason = failure.reason().as_str(), "stream is refused");
            return send_status(SessionEnd::Failed(failure), ending);
        }
    };
    info!(validate_only = opening.validate_only, "stream opens");
    let StreamIo {
        mut inbound,
        outbound,
        inbound_body,
    } = line;
    inbound_body.join(admitted.live.uid);
    let mut session = Session::new(&context, opening, admitted, inbound_body);
    let end = session.run(&mut inbound, &outbound).await;
    // A body that nobody polls must not stand in line for the budget.
    drop(inbound);
    session.end(end, outbound, ending).await;
}

fn send_status(end: SessionEnd, ending: oneshot::Sender<Result<(), Status>>) {
    let status = match end {
        SessionEnd::Complete => Ok(()),
        // Nobody reads it; but should anybody, it must not be OK.
        SessionEnd::Gone => Err(Failure::Internal.into_status()),
        SessionEnd::Failed(failure) => Err(failure.into_status()),
        SessionEnd::Unreadable(status) => Err(status),
    };
    ending.send(status).ok();
}

fn draining() -> Failure {
    // Another server, or this one's successor, is there at once or soon.
    Failure::Draining {
        retry_after: Duration::from_secs(1),
    }
}
