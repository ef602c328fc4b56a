//! A journey executor that behaves: sends one log, resumes until every record is committed.
//!
//! | the stream ends with | what follows |
//! |---|---|
//! | OK, all records sent | done |
//! | OK after `drain` | the next stream, at once |
//! | UNAVAILABLE; RESOURCE_EXHAUSTED with a delay; a lost connection | the next stream, after a pause |
//! | ABORTED, superseded | the same: only an attempt of its own, given up before, can have done it |
//! | any other status | the end |
//!
//! Each stream is a new [`Incarnation`] on a new connection, and starts after the last
//! `committed_sequence` that any of them has read. In simulated time it does the same whenever it
//! hears the same: all its draws are `fastrand`'s, which a simulation seeds.

mod judge;

use std::{sync::Arc, time::Duration};

use launchdarkly_connector::{
    backoff::Backoff,
    pb::{
        self, SendIdentifiersRequest, SendIdentifiersResponse,
        destination_connector_client::DestinationConnectorClient, identifier_record,
        send_identifiers_request::Message as In, send_identifiers_response::Message as Out,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use self::judge::{Fault, Over, judge};
use super::history::{Event, History, Incarnation, Operation, Outcome};

pub(crate) use self::judge::{Stopped, record_reason};

/// Messages on their way to the socket: one that is written, and one behind it.
const MESSAGES_AHEAD: usize = 2;
/// Streams that are given up, where any are: it has to get done.
const MAX_ABANDONED: u32 = 20;
/// Longest believable run of results: more than any window.
const LONGEST_RUN: i64 = 10_000_000;

/// A record of a log; its sequence is its place there, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Arc<str>,
    pub(crate) operation: Operation,
}

/// What to send where.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The log's name, also the `stream_id`.
    pub(crate) log: Arc<str>,
    /// What the streams are for; the `stream_id` is put in.
    pub(crate) open: pb::OpenStream,
    pub(crate) records: Vec<Record>,
}

/// How to send it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Most records of a message; the server's limit holds too.
    pub(crate) batch: usize,
    /// Most records beyond what is committed; the server's limit holds too.
    pub(crate) window: usize,
    /// Between two messages.
    pub(crate) pause: Duration,
    /// Pauses between streams.
    pub(crate) backoff: Backoff,
    /// How long a connection and `opened` may take. Longer than the server's calls, which an
    /// older stream has to see end.
    pub(crate) open_timeout: Duration,
    /// After how many acks a stream is given up for the next one, with calls under way: as by a
    /// process that is killed and started again at once.
    pub(crate) abandons_after: Option<u32>,
    /// How long the whole may take.
    pub(crate) deadline: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 1_000,
            window: usize::MAX,
            pause: Duration::ZERO,
            backoff: Backoff {
                first: Duration::from_millis(100),
                longest: Duration::from_secs(2),
            },
            open_timeout: Duration::from_secs(15),
            abandons_after: None,
            deadline: None,
        }
    }
}

/// What it took to commit every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Streams that were tried.
    pub(crate) incarnations: u32,
    /// Records that were sent, each time anew.
    pub(crate) sent: usize,
}

/// An endpoint whose dead connections are noticed within `patience`.
pub(crate) fn endpoint(url: String, patience: Duration) -> Endpoint {
    Endpoint::from_shared(url)
        .expect("tests name good addresses")
        .connect_timeout(patience)
        .http2_keep_alive_interval(patience / 2)
        .keep_alive_timeout(patience / 2)
        .keep_alive_while_idle(true)
}

/// Sends a log over as many streams as it takes, noting all of it.
///
/// # Errors
/// Why not every record is committed.
pub(crate) async fn run<C, F, E>(
    connect: C,
    job: Job,
    settings: Settings,
    history: History,
) -> Result<Done, Stopped>
where
    C: Fn() -> F,
    F: Future<Output = Result<Channel, E>>,
{
    let deadline = settings.deadline.map(|after| Instant::now() + after);
    let mut executor = Executor {
        job,
        settings,
        history,
        committed: 0,
        done: Done::default(),
    };
    let all = executor.send_all(connect);
    let ended = match deadline {
        Some(deadline) => timeout_at(deadline, all).await.ok(),
        None => Some(all.await),
    };
    match ended {
        Some(ended) => ended.map(|()| executor.done),
        None => Err(executor.too_late()),
    }
}

struct Executor {
    job: Job,
    settings: Settings,
    history: History,
    /// The last `committed_sequence` that was read.
    committed: i64,
    done: Done,
}

/// An open stream, as far as its records have come.
struct Stream {
    by: Incarnation,
    /// None once it is half-closed, or known to be over.
    outbound: Option<mpsc::Sender<SendIdentifiersRequest>>,
    inbound: Streaming<SendIdentifiersResponse>,
    /// The next record to send.
    next: i64,
    batch: usize,
    window: usize,
    send_at: Instant,
    /// The last value that was noted.
    committed: Option<i64>,
    acks: u32,
}

/// What an open stream has to do next.
enum Next {
    Message(Result<Option<SendIdentifiersResponse>, Status>),
    MaySend(Option<mpsc::OwnedPermit<SendIdentifiersRequest>>),
}

impl Executor {
    async fn send_all<C, F, E>(&mut self, connect: C) -> Result<(), Stopped>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Channel, E>>,
    {
        let mut failures = 0;
        while !self.is_done() {
            let before = self.committed;
            let over = self.one_stream(&connect).await;
            if self.committed > before {
                failures = 0;
            }
            match over {
                Over::Well => failures = 0,
                Over::Again { not_before } if !self.is_done() => {
                    let drawn = self.settings.backoff.delay(failures, fastrand::f64());
                    failures += 1;
                    tokio::time::sleep(drawn.max(not_before)).await;
                }
                Over::Again { .. } => {}
                Over::Never(stopped) => return Err(stopped),
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.committed >= self.last()
    }

    fn last(&self) -> i64 {
        i64::try_from(self.job.records.len()).expect("a log is small")
    }

    fn too_late(&self) -> Stopped {
        Stopped::Deadline {
            committed: self.committed,
            of: self.job.records.len(),
        }
    }

    async fn one_stream<C, F, E>(&mut self, connect: &C) -> Over
    where
        C: Fn() -> F,
        F: Future<Output = Result<Channel, E>>,
    {
        self.done.incarnations += 1;
        let by = Incarnation {
            log: Arc::clone(&self.job.log),
            number: self.done.incarnations,
        };
        let opened = timeout(self.settings.open_timeout, self.open(connect, &by)).await;
        let ended = match opened {
            Ok(Ok(stream)) => self.exchange(stream).await,
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Fault::Lost),
        };
        let (how, over) = judge(ended);
        self.history.record(Event::Ended { by, how });
        over
    }

    async fn open<C, F, E>(&self, connect: &C, by: &Incarnation) -> Result<Stream, Fault>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Channel, E>>,
    {
        let channel = connect().await.map_err(|_| Fault::Lost)?;
        let (outbound, messages) = mpsc::channel(MESSAGES_AHEAD);
        let open = pb::OpenStream {
            stream_id: self.job.log.to_string(),
            ..self.job.open.clone()
        };
        outbound
            .try_send(request(In::Open(open)))
            .expect("the channel is new, and has room");
        let mut client = DestinationConnectorClient::new(channel);
        let answer = client.send_identifiers(ReceiverStream::new(messages)).await;
        let mut inbound = answer.map_err(Fault::Status)?.into_inner();
        let first = inbound.message().await.map_err(Fault::Status)?;
        let Some(Out::Opened(opened)) = first.and_then(|first| first.message) else {
            return Err(Fault::Broken("the first message is not `opened`".into()));
        };
        self.history.record(Event::Opened(by.clone()));
        let limit =
            |ours: usize, theirs: i32| ours.min(usize::try_from(theirs).unwrap_or(0)).max(1);
        Ok(Stream {
            by: by.clone(),
            outbound: Some(outbound),
            inbound,
            next: self.committed + 1,
            batch: limit(self.settings.batch, opened.max_batch_records),
            window: limit(self.settings.window, opened.max_in_flight_records),
            send_at: Instant::now(),
            committed: None,
            acks: 0,
        })
    }

    async fn exchange(&mut self, mut stream: Stream) -> Result<(), Fault> {
        loop {
            if stream.next > self.last() {
                stream.outbound = None;
            }
            match self.next(&mut stream).await {
                Next::Message(Ok(Some(message))) => {
                    self.take(message, &mut stream)?;
                    if self.abandons(&stream) {
                        return Err(Fault::Lost);
                    }
                }
                Next::Message(Ok(None)) => return self.end(&stream),
                Next::Message(Err(status)) => return Err(Fault::Status(status)),
                Next::MaySend(Some(permit)) => self.send(permit, &mut stream),
                // The other direction tells why the stream is over.
                Next::MaySend(None) => stream.outbound = None,
            }
        }
    }

    fn abandons(&self, stream: &Stream) -> bool {
        stream.by.number <= MAX_ABANDONED && self.settings.abandons_after == Some(stream.acks)
    }

    async fn next(&self, stream: &mut Stream) -> Next {
        let may_send = self.batch_len(stream) > 0;
        let outbound = stream.outbound.clone().filter(|_| may_send);
        tokio::select! {
            // Results first: they make room, and a drain must not wait behind what is sent.
            biased;
            message = stream.inbound.message() => Next::Message(message),
            permit = reserve(outbound, stream.send_at) => Next::MaySend(permit),
        }
    }

    /// How many records the window lets go now.
    fn batch_len(&self, stream: &Stream) -> usize {
        let count = |records: i64| usize::try_from(records).unwrap_or(0);
        let room = stream
            .window
            .saturating_sub(count(stream.next - 1 - self.committed));
        stream
            .batch
            .min(room)
            .min(count(self.last() + 1 - stream.next))
    }

    fn send(&mut self, permit: mpsc::OwnedPermit<SendIdentifiersRequest>, stream: &mut Stream) {
        let len = self.batch_len(stream);
        let from = usize::try_from(stream.next - 1).expect("sequences count from 1");
        let records = &self.job.records[from..from + len];
        let sent = (stream.next..)
            .zip(records)
            .map(|(sequence, record)| Event::Sent {
                by: stream.by.clone(),
                sequence,
                key: Arc::clone(&record.key),
                operation: record.operation,
            });
        self.history.record_all(sent);
        let batch = pb::IdentifierBatch {
            first_sequence: Some(stream.next),
            records: records.iter().map(wire).collect(),
        };
        stream.next += i64::try_from(len).expect("a batch is small");
        stream.send_at = Instant::now() + self.settings.pause;
        self.done.sent += len;
        permit.send(request(In::Batch(batch)));
    }

    fn take(&mut self, message: SendIdentifiersResponse, stream: &mut Stream) -> Result<(), Fault> {
        match message.message {
            Some(Out::Ack(ack)) => self.settle(&ack, stream)?,
            Some(Out::Drain(_)) => stream.outbound = None,
            Some(Out::Opened(_)) => return Err(Fault::Broken("`opened` comes twice".into())),
            Some(Out::Notice(_)) | None => {}
        }
        Ok(())
    }

    /// Notes results one by one, then what they commit.
    fn settle(&mut self, ack: &pb::Ack, stream: &mut Stream) -> Result<(), Fault> {
        stream.acks += 1;
        let mut events = Vec::new();
        for run in &ack.results {
            let (first, last) = (run.first_sequence, run.last_sequence);
            if first > last || last - first > LONGEST_RUN {
                return Err(Fault::Broken(format!(
                    "a run of results from {first} to {last}"
                )));
            }
            let outcome = run.error.as_ref().map_or(Outcome::Ok, |error| {
                Outcome::Failed(record_reason(error).into())
            });
            events.extend((first..=last).map(|sequence| Event::Result {
                by: stream.by.clone(),
                sequence,
                outcome: outcome.clone(),
            }));
        }
        if stream.committed != Some(ack.committed_sequence) {
            stream.committed = Some(ack.committed_sequence);
            events.push(Event::Committed {
                by: stream.by.clone(),
                sequence: ack.committed_sequence,
            });
        }
        self.history.record_all(events);
        self.committed = self.committed.max(ack.committed_sequence);
        if let Some(window) = ack.max_in_flight_records {
            stream.window = usize::try_from(window)
                .unwrap_or(1)
                .min(self.settings.window);
        }
        Ok(())
    }

    /// Status OK: it must not come before the half-close.
    fn end(&self, stream: &Stream) -> Result<(), Fault> {
        if stream.outbound.is_some() {
            return Err(Fault::Broken(
                "the stream ended OK before its half-close".into(),
            ));
        }
        if stream.next - 1 > self.committed {
            return Err(Fault::Broken(
                "the stream ended OK with records open".into(),
            ));
        }
        Ok(())
    }
}

/// Room for one message, not before `at`; nothing when the stream is over. Cancel safe.
async fn reserve(
    outbound: Option<mpsc::Sender<SendIdentifiersRequest>>,
    at: Instant,
) -> Option<mpsc::OwnedPermit<SendIdentifiersRequest>> {
    let Some(outbound) = outbound else {
        return std::future::pending().await;
    };
    sleep_until(at).await;
    outbound.reserve_owned().await.ok()
}

fn request(message: In) -> SendIdentifiersRequest {
    SendIdentifiersRequest {
        message: Some(message),
    }
}

pub(crate) fn wire(record: &Record) -> pb::IdentifierRecord {
    let operation = match record.operation {
        Operation::Add => identifier_record::Operation::Add,
        Operation::Remove => identifier_record::Operation::Remove,
    };
    pb::IdentifierRecord {
        identifiers: [("user_id".to_owned(), record.key.to_string())].into(),
        operation: operation.into(),
    }
}
