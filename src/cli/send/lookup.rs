//! Mapping lookup: it reads a destination's mapping before the input.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use super::{
    attempt_error::{AttemptError, classify},
    options::TransferOptions,
    outcome::{SendError, SendEvent},
    retry_timer::RetryTimer,
    window::UnackedWindow,
};
use crate::{cli::remote, pb};

/// Longest wait for an answer. Ours: it takes milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the destination of a stream that is to be opened. Transient failures are retried, as those
/// of opening a stream are: without the mapping, a file with other names of identifiers would not
/// be noticed.
///
/// # Errors
/// Why the destination cannot be read.
pub(super) async fn destination(
    options: &TransferOptions,
    mut watch: impl FnMut(SendEvent<'_>) -> ControlFlow<()>,
) -> Result<pb::Destination, SendError> {
    let nothing = UnackedWindow::default();
    let mut retries = RetryTimer::new(options);
    loop {
        let transient = match ask(options, retries.deadline_closed(&nothing)).await {
            Ok(destination) => return Ok(destination),
            Err(AttemptError::Final(error)) => return Err(error),
            Err(AttemptError::Transient(transient)) => transient,
        };
        let next = retries.next_try(&transient, &nothing);
        if next >= retries.deadline_closed(&nothing) {
            sleep_until(next).await;
            return Err(retries.exhausted());
        }
        let pause = Some(next.saturating_duration_since(Instant::now()));
        let why = &transient.why;
        if watch(SendEvent::Lost { why, pause }).is_break() {
            return Err(SendError::NotReported);
        }
        sleep_until(next).await;
    }
}

async fn ask(
    options: &TransferOptions,
    deadline: Instant,
) -> Result<pb::Destination, AttemptError> {
    let deadline = deadline.min(Instant::now() + CALL_TIMEOUT);
    match timeout_at(deadline, get(options)).await {
        Ok(Ok(destination)) => Ok(destination),
        Ok(Err(status)) => Err(classify(status)),
        Err(_) => Err(AttemptError::transient("the server does not answer")),
    }
}

async fn get(options: &TransferOptions) -> Result<pb::Destination, Status> {
    let name = options.open.destination.clone();
    let mut client = remote::connect(&options.server).await?;
    let request = pb::GetDestinationRequest { name };
    Ok(client.get_destination(request).await?.into_inner())
}
