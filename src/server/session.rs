//! One stream, from its first message to its status.
//!
//! | the session | leaves by |
//! |---|---|
//! | waits for `open` | a good `open`, whose destination can be used |
//! | is open | half-close, a broken rule, a refusal, a newer stream, the client going away |
//! | is draining | half-close, or its deadline |
//! | is half-closed | every record having a result |
//! | ends | the calls of its records having ended |

mod books;
mod exchange;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use tracing::{Instrument, info, info_span};

use self::exchange::Session;
use super::{
    intake::Intake,
    opening::Opening,
    status::{Expiry, Failure},
    streams::House,
};
use crate::pb;

/// How long a stream may take to say `open`. Ours: clients send it at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream's two directions.
pub(super) struct Line {
    pub(super) inbound: Streaming<pb::SendIdentifiersRequest>,
    pub(super) outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
    pub(super) intake: Intake,
}

/// How a session ended.
enum Ending {
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
    house: Arc<House>,
    mut line: Line,
    ending: oneshot::Sender<Result<(), Status>>,
) {
    let opened = tokio::select! {
        // A client that is gone is not worth another look at the rest.
        biased;
        () = line.outbound.closed() => Err(Ending::Gone),
        opened = tokio::time::timeout(OPEN_TIMEOUT, open(&house, &mut line.inbound, &line.intake)) => {
            let late = || Ending::Failed(Failure::StreamExpired(Expiry::Unopened(OPEN_TIMEOUT)));
            opened.unwrap_or_else(|_| Err(late()))
        }
    };
    let opening = match opened {
        Ok(opening) => opening,
        Err(end) => return say_goodbye(end, ending),
    };
    let span = info_span!(
        "session",
        destination = %opening.destination,
        segment.id = %opening.segment.id,
        stream.id = opening.stream_id.as_deref().unwrap_or_default(),
    );
    serve(house, line, opening, ending).instrument(span).await;
}

/// Waits for `open`.
async fn open(
    house: &House,
    inbound: &mut Streaming<pb::SendIdentifiersRequest>,
    intake: &Intake,
) -> Result<Opening, Ending> {
    let mut drain = house.drain.clone();
    let first = tokio::select! {
        biased;
        Ok(_) = drain.wait_for(Option::is_some) => {
            return Err(Ending::Failed(draining()));
        }
        first = inbound.message() => first,
    };
    match first {
        Ok(Some(first)) => {
            Opening::check(first, house.limits.delivery_timeout).map_err(Ending::Failed)
        }
        Ok(None) if intake.half_closed() => Err(Ending::Failed(Failure::StreamProtocol(
            "the stream was half-closed before its first message, which must be `open`".into(),
        ))),
        Ok(None) => Err(Ending::Gone),
        Err(status) => Err(Ending::Unreadable(status)),
    }
}

async fn serve(
    house: Arc<House>,
    line: Line,
    opening: Opening,
    ending: oneshot::Sender<Result<(), Status>>,
) {
    // Not raced against the client going away: a stream that fences others must see them end.
    let admitted = match house.admit(&opening).await {
        Ok(admitted) => admitted,
        Err(failure) => {
            info!(reason = failure.reason().as_str(), "stream is refused");
            return say_goodbye(Ending::Failed(failure), ending);
        }
    };
    info!(validate_only = opening.validate_only, "stream opens");
    let Line {
        mut inbound,
        outbound,
        intake,
    } = line;
    intake.join(admitted.target.uid);
    let mut session = Session::new(&house, opening, admitted, intake);
    let end = session.run(&mut inbound, &outbound).await;
    // A body that nobody polls must not stand in line for the budget.
    drop(inbound);
    session.end(end, outbound, ending).await;
}

fn say_goodbye(end: Ending, ending: oneshot::Sender<Result<(), Status>>) {
    let status = match end {
        Ending::Complete => Ok(()),
        // Nobody reads it; but should anybody, it must not be OK.
        Ending::Gone => Err(Failure::Internal.into_status()),
        Ending::Failed(failure) => Err(failure.into_status()),
        Ending::Unreadable(status) => Err(status),
    };
    ending.send(status).ok();
}

fn draining() -> Failure {
    // Another server, or this one's successor, is there at once or soon.
    Failure::Draining {
        retry_after: Duration::from_secs(1),
    }
}
