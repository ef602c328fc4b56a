//! The session: one stream, from its first message to its status.
//!
//! | the session | leaves by |
//! |---|---|
//! | waits for `open` | a good `open`, whose destination can be used |
//! | is open | half-close, or drain: by its age, its idleness or the process |
//! | is draining | half-close, or its deadline |
//! | is half-closed | every record having a result |
//! | is ending | the calls of its records having ended |
//!
//! Any state before the last also leads to the end by a broken rule, a refusal, the deletion of the
//! destination, a newer stream, or the client going away.

mod ending;
mod exchange;
mod records;

use std::{sync::Arc, time::Duration};

use tracing::{Instrument, info, info_span};

use self::exchange::Session;
use super::{
    context::StreamContext,
    inbound::{Inbound, Received},
    opening::Opening,
    responses::{ResponseSender, SessionEnd},
};
use crate::{
    domain::Caller,
    server::status::{Expiry, Failure},
};

/// How long `open` may take to come. Ours: clients send it at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one stream from `open` to its status.
pub(super) async fn run(
    context: Arc<StreamContext>,
    caller: Caller,
    mut inbound: Inbound,
    responses: ResponseSender,
) {
    let first = tokio::select! {
        // A client that is gone needs no answer.
        biased;
        () = responses.closed() => Err(SessionEnd::Gone),
        first = tokio::time::timeout(OPEN_TIMEOUT, first_message(&context, &mut inbound)) => {
            let late = || SessionEnd::Failed(Failure::StreamExpired(Expiry::Unopened(OPEN_TIMEOUT)));
            first.unwrap_or_else(|_| Err(late()))
        }
    };
    let default_timeout = context.limits.default_delivery_timeout;
    let opening = first.and_then(|first| {
        let opening = Opening::check(&caller, first, &context.actions, default_timeout);
        opening.map_err(SessionEnd::Failed)
    });
    let opening = match opening {
        Ok(opening) => opening,
        Err(end) => return responses.end(end),
    };
    let span = info_span!(
        "session",
        destination = %opening.destination,
        segment.id = %opening.segment.id,
        segment.kind = %opening.segment.kind,
        stream.id = opening.stream_id.as_deref().unwrap_or_default(),
    );
    serve(context, inbound, responses, opening)
        .instrument(span)
        .await;
}

/// Waits for the first message, which must be `open`.
async fn first_message(
    context: &StreamContext,
    inbound: &mut Inbound,
) -> Result<Received, SessionEnd> {
    let mut drain = context.drain.clone();
    let first = tokio::select! {
        // A process that drains opens no stream.
        biased;
        Ok(_) = drain.wait_for(Option::is_some) => return Err(SessionEnd::Failed(draining())),
        first = inbound.next() => first?,
    };
    match first {
        Received::Open(_) | Received::Batch(_) | Received::Nothing => Ok(first),
        Received::HalfClosed => Err(SessionEnd::Failed(Failure::StreamProtocol(
            "the stream was half-closed before its first message, which must be `open`".into(),
        ))),
    }
}

async fn serve(
    context: Arc<StreamContext>,
    inbound: Inbound,
    responses: ResponseSender,
    opening: Opening,
) {
    // Not raced against the client going away: a stream that fences others must see them end.
    let admitted = match context.admit(&opening).await {
        Ok(admitted) => admitted,
        Err(failure) => {
            info!(reason = failure.reason().as_str(), "stream is refused");
            return responses.end(SessionEnd::Failed(failure));
        }
    };
    // Waiting for `open` → open.
    info!(validate_only = opening.validate_only, "stream opens");
    inbound.join(admitted.live.uid);
    let mut session = Session::new(&context, opening, admitted, inbound);
    let end = session.run(&responses).await;
    session.end(end, responses).await;
}

fn draining() -> Failure {
    // Another server, or this one's successor, is there at once or soon.
    Failure::Draining {
        retry_after: Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests;
