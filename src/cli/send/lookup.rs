//! Finds out what a destination maps, before anything is read.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use super::{
    patience::Patience,
    stream::{Error, Event, Settings},
    trouble::{Trouble, judge},
    window::Window,
};
use crate::{cli::remote, pb};

/// Longest wait for an answer. Ours: it takes milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The destination of a stream that is to be opened. What keeps it from answering is waited out
/// like what keeps a stream from opening: without the mapping nobody would notice that a file
/// names its identifiers otherwise.
///
/// # Errors
/// Why it cannot be had.
pub(super) async fn destination(
    settings: &Settings,
    mut watch: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<pb::Destination, Error> {
    let nothing = Window::default();
    let mut patience = Patience::new(settings);
    loop {
        let passing = match ask(settings, patience.deadline_closed(&nothing)).await {
            Ok(destination) => return Ok(destination),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(passing)) => passing,
        };
        let next = patience.next_try(&passing, &nothing);
        if next >= patience.deadline_closed(&nothing) {
            sleep_until(next).await;
            return Err(patience.exhausted());
        }
        let pause = Some(next.saturating_duration_since(Instant::now()));
        let why = &passing.why;
        if watch(Event::Lost { why, pause }).is_break() {
            return Err(Error::Unwatched);
        }
        sleep_until(next).await;
    }
}

async fn ask(settings: &Settings, deadline: Instant) -> Result<pb::Destination, Trouble> {
    let deadline = deadline.min(Instant::now() + CALL_TIMEOUT);
    match timeout_at(deadline, get(settings)).await {
        Ok(Ok(destination)) => Ok(destination),
        Ok(Err(status)) => Err(judge(status)),
        Err(_) => Err(Trouble::passing("the server does not answer")),
    }
}

async fn get(settings: &Settings) -> Result<pb::Destination, Status> {
    let name = settings.open.destination.clone();
    let mut client = remote::connect(&settings.endpoint).await?;
    let request = pb::GetDestinationRequest { name };
    Ok(client.get_destination(request).await?.into_inner())
}
