//! Transfer: it sends one log of records, over as many streams as it takes.
//!
//! A stream that is lost, refused for now, or asked to move is followed by another, on a new
//! connection (a server that goes away keeps the old one), which resumes as [`UnackedWindow`] says.
//!
//! | the stream ends with | what follows |
//! |---|---|
//! | OK, all rows read | done |
//! | OK after `drain` | the next stream, at once |
//! | UNAVAILABLE; RESOURCE_EXHAUSTED with a delay | the next stream, after a pause |
//! | a broken connection; a status that is not the service's | the same |
//! | any other status | the end: trying again cannot help |
//! | no result in time, or no stream in time | the end |

use std::{ops::ControlFlow, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    attempt_error::{AttemptError, TransientFailure, classify},
    options::TransferOptions,
    outcome::{SendError, SendEvent, Unfinished},
    retry_timer::RetryTimer,
    window::{InputRow, ProtocolViolation, UnackedWindow},
};
use crate::{
    cli::remote,
    pb::{
        self, SendIdentifiersRequest, SendIdentifiersResponse,
        send_identifiers_request::Message as Request,
        send_identifiers_response::Message as Response,
    },
};

#[cfg(test)]
mod tests;

/// How long a partial batch waits for more rows. Ours: it is not noticeable, and a file is
/// read much faster.
const LINGER: Duration = Duration::from_millis(5);
/// Messages on their way to the socket: one that is written, and one behind it.
const MESSAGES_AHEAD: usize = 2;

/// Sends all rows, and ends when each has a result. It ends early when `stop` returns, with the
/// reason, or when `watch` breaks off.
///
/// # Errors
/// Why some rows have no result. Rows that were settled before stay settled.
pub(crate) async fn run(
    options: &TransferOptions,
    rows: mpsc::Receiver<InputRow>,
    stop: impl Future<Output = &'static str>,
    watch: impl FnMut(SendEvent<'_>) -> ControlFlow<()>,
) -> Result<(), Unfinished> {
    let mut sender = Sender {
        options,
        window: UnackedWindow::default(),
        rows: Some(rows),
        unsent_since: Instant::now(),
        retries: RetryTimer::new(options),
        watch,
    };
    let ended = tokio::select! {
        // A stop request comes first, even if there is always something to do.
        biased;
        name = stop => Err(SendError::Stopped(name)),
        ended = sender.run() => ended,
    };
    ended.map_err(|error| Unfinished {
        error,
        next_line: sender.next_line(),
    })
}

struct Sender<'a, F> {
    options: &'a TransferOptions,
    window: UnackedWindow,
    /// None once the last row is read.
    rows: Option<mpsc::Receiver<InputRow>>,
    /// When the oldest row that is not sent was read.
    unsent_since: Instant,
    retries: RetryTimer,
    watch: F,
}

/// Both directions of a stream.
struct ClientStream {
    /// None once it is half-closed.
    outbound: Option<mpsc::Sender<SendIdentifiersRequest>>,
    inbound: Streaming<SendIdentifiersResponse>,
}

/// What an open stream has to do next.
enum Next {
    Message(Result<Option<SendIdentifiersResponse>, Status>),
    Row(Option<InputRow>),
    MaySend(mpsc::OwnedPermit<SendIdentifiersRequest>),
    TooLate,
}

impl<F: FnMut(SendEvent<'_>) -> ControlFlow<()>> Sender<'_, F> {
    async fn run(&mut self) -> Result<(), SendError> {
        loop {
            let committed = self.window.committed();
            let ended = self.one_stream().await;
            if ended.is_ok() || self.window.committed() > committed {
                self.retries.recovered();
            }
            if !self.has_more() {
                return ended.or_else(AttemptError::unless_transient);
            }
            match ended {
                Ok(()) => self.wait_for_a_row().await,
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Transient(transient)) => self.pause(&transient).await?,
            }
            if !self.has_more() {
                return Ok(());
            }
        }
    }

    fn has_more(&self) -> bool {
        self.rows.is_some() || !self.window.is_empty()
    }

    /// Where the first record without a result begins, if it was read.
    fn next_line(&mut self) -> Option<u64> {
        self.window.first_line().or_else(|| {
            let row = self.rows.as_mut()?.try_recv().ok()?;
            Some(row.line)
        })
    }

    /// Waits for a row before a stream is opened: the server would only ask to move an idle stream.
    async fn wait_for_a_row(&mut self) {
        if self.window.is_empty()
            && let Some(rows) = &mut self.rows
        {
            let row = rows.recv().await;
            self.read(row);
            self.retries.closed();
        }
    }

    /// Takes a row that has arrived already.
    fn read_what_is_there(&mut self) {
        if self.window.is_empty()
            && let Some(rows) = &mut self.rows
            && let Ok(row) = rows.try_recv()
        {
            self.read(Some(row));
        }
    }

    async fn pause(&mut self, transient: &TransientFailure) -> Result<(), SendError> {
        self.read_what_is_there();
        if self.window.is_empty() {
            return self.pause_idle(transient).await;
        }
        let next = self.retries.next_try(transient, &self.window);
        if next >= self.retries.deadline_closed(&self.window) {
            sleep_until(next).await;
            return Err(self.retries.exhausted());
        }
        let pause = Some(next.saturating_duration_since(Instant::now()));
        let why = &transient.why;
        self.report(SendEvent::Lost { why, pause })?;
        sleep_until(next).await;
        Ok(())
    }

    /// Without a row to send there is no attempt, and no deadline.
    async fn pause_idle(&mut self, transient: &TransientFailure) -> Result<(), SendError> {
        let next = Instant::now() + self.retries.pause(transient);
        let why = &transient.why;
        self.report(SendEvent::Lost { why, pause: None })?;
        self.wait_for_a_row().await;
        if !self.window.is_empty() {
            sleep_until(next).await;
        }
        Ok(())
    }

    fn report(&mut self, event: SendEvent<'_>) -> Result<(), SendError> {
        match (self.watch)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SendError::NotReported),
        }
    }

    /// Runs one stream until the server ends it.
    async fn one_stream(&mut self) -> Result<(), AttemptError> {
        let deadline = self.retries.deadline_closed(&self.window);
        let opened = timeout_at(deadline, open(self.options)).await;
        let (line, opened) = opened.map_err(|_| self.retries.exhausted())??;
        self.report(SendEvent::Opened)?;
        self.retries.opened();
        self.window.reopen(&opened);
        let ended = self.exchange(line).await;
        self.retries.closed();
        ended
    }

    async fn exchange(&mut self, mut line: ClientStream) -> Result<(), AttemptError> {
        loop {
            if self.rows.is_none() && self.window.is_sent() {
                line.outbound = None;
            }
            match self.next(&mut line).await {
                Next::Message(Ok(Some(message))) => self.take(message, &mut line)?,
                Next::Message(Ok(None)) => return self.end(&line),
                Next::Message(Err(status)) => return Err(classify(status)),
                Next::Row(row) => self.read(row),
                Next::MaySend(permit) => {
                    if let Some(batch) = self.window.next_batch() {
                        permit.send(request(Request::Batch(batch)));
                    }
                }
                Next::TooLate => return Err(self.retries.exhausted_open().into()),
            }
        }
    }

    async fn next(&mut self, line: &mut ClientStream) -> Next {
        let has_room = line.outbound.is_some() && self.window.has_room();
        let may_send = self.window.may_send();
        let send_at = self.send_at();
        let deadline = self.retries.deadline_open();
        tokio::select! {
            // Results first: they free the window, and a drain must not wait behind batches. Rows
            // before sending, so that batches are as full as the input allows.
            biased;
            message = line.inbound.message() => Next::Message(message),
            row = receive(&mut self.rows), if has_room => Next::Row(row),
            Some(permit) = reserve(line.outbound.clone(), send_at), if may_send => Next::MaySend(permit),
            () = sleep_until(deadline), if !self.window.is_empty() => Next::TooLate,
        }
    }

    /// A full batch is due at once, another when no more rows came for a moment.
    fn send_at(&self) -> Instant {
        if self.window.has_full_batch() || self.rows.is_none() {
            self.unsent_since
        } else {
            self.unsent_since + LINGER
        }
    }

    fn take(
        &mut self,
        message: SendIdentifiersResponse,
        line: &mut ClientStream,
    ) -> Result<(), AttemptError> {
        match message.message {
            Some(Response::Ack(ack)) => self.settle(&ack)?,
            Some(Response::Notice(notice)) => self.report(SendEvent::Notice(&notice))?,
            Some(Response::Drain(_)) => {
                line.outbound = None;
                self.report(SendEvent::Drain)?;
            }
            // A message of a later contract, or a second `opened`, which changes nothing.
            Some(Response::Opened(_)) | None => {}
        }
        Ok(())
    }

    fn settle(&mut self, ack: &pb::Ack) -> Result<(), AttemptError> {
        let settled = self.window.settle(ack)?;
        if !settled.is_empty() {
            self.retries.progress();
            self.report(SendEvent::Settled(&settled))?;
        }
        Ok(())
    }

    fn read(&mut self, row: Option<InputRow>) {
        if self.window.is_sent() {
            self.unsent_since = Instant::now();
        }
        if self.window.is_empty() {
            self.retries.progress();
        }
        match row {
            Some(row) => self.window.push(row),
            None => self.rows = None,
        }
    }

    /// Status OK: after a half-close it means that every record sent has its result.
    fn end(&self, line: &ClientStream) -> Result<(), AttemptError> {
        if line.outbound.is_some() {
            return Err(AttemptError::transient("the server ended the stream early"));
        }
        Ok(self.window.end()?)
    }
}

async fn open(options: &TransferOptions) -> Result<(ClientStream, pb::StreamOpened), AttemptError> {
    let mut client = remote::connect(&options.server).await.map_err(classify)?;
    let (outbound, messages) = mpsc::channel(MESSAGES_AHEAD);
    let first = request(Request::Open(options.open.clone()));
    outbound
        .try_send(first)
        .expect("the channel is new, and has room");
    let response = client
        .send_identifiers(ReceiverStream::new(messages))
        .await
        .map_err(classify)?;
    let mut inbound = response.into_inner();
    let Some(first) = inbound.message().await.map_err(classify)? else {
        // The service never ends a stream with OK that it has not opened.
        return Err(AttemptError::transient(
            "the stream ended before it was open",
        ));
    };
    let Some(Response::Opened(opened)) = first.message else {
        return Err(ProtocolViolation::NotOpened.into());
    };
    let outbound = Some(outbound);
    Ok((ClientStream { outbound, inbound }, opened))
}

fn request(message: Request) -> SendIdentifiersRequest {
    SendIdentifiersRequest {
        message: Some(message),
    }
}

/// The next row, or the end of the rows once; after the end it waits for ever. Cancel safe.
async fn receive(rows: &mut Option<mpsc::Receiver<InputRow>>) -> Option<InputRow> {
    match rows {
        Some(rows) => rows.recv().await,
        None => std::future::pending().await,
    }
}

/// A permit for one message, not before `at`; none when half-closed, or when the stream is over,
/// which the other direction then reports. Cancel safe.
async fn reserve(
    outbound: Option<mpsc::Sender<SendIdentifiersRequest>>,
    at: Instant,
) -> Option<mpsc::OwnedPermit<SendIdentifiersRequest>> {
    let outbound = outbound?;
    sleep_until(at).await;
    outbound.reserve_owned().await.ok()
}
