//! The load: streams that send what is encoded already, as fast as they may or at a fixed rate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, Stream},
};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use launchdarkly_connector::pb::{self, send_identifiers_response::Message as Out};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use crate::messages::{self, Messages};

const METHOD: &str = "/cdp.destinations.v1.DestinationConnector/SendIdentifiers";
/// Longest wait for what a server has been sent; many times what is usual.
const SETTLING: Duration = Duration::from_secs(60);
/// Streams that are being opened at once.
const OPENING: usize = 32;
/// The grid on which messages of a fixed rate are due: tokio's timer has no finer one.
const TICK: Duration = Duration::from_millis(1);

/// What is to be sent, and over how many streams.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    pub(crate) streams_per_connection: usize,
    pub(crate) per_message: usize,
    /// Each stream has a segment of its own; otherwise they share one.
    pub(crate) own_segments: bool,
    /// One in so many records is a removal.
    pub(crate) remove_every: Option<usize>,
    /// Records of a stream that wait for results, if fewer than the server allows.
    pub(crate) window: Option<i64>,
    /// Distinct keys of a stream, if others than usual.
    pub(crate) keys: Option<usize>,
}

/// What was sent in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    /// All records that were sent, each of which has a result.
    pub(crate) records: u64,
    /// Records that got a result a second, while there were more.
    pub(crate) rate: f64,
}

/// Open streams to a server. They end when dropped.
#[derive(Debug)]
pub(crate) struct Load {
    flows: Vec<Arc<Flow>>,
    shared: Arc<Shared>,
    per_message: i64,
    /// Read what the server answers; they end with their streams.
    readers: JoinSet<()>,
    _channels: Vec<Channel>,
}

/// What all streams of a load have in common.
#[derive(Debug, Default)]
struct Shared {
    committed: AtomicU64,
    /// Told whenever all that a stream has sent has a result, and when something fails.
    quiet: Notify,
    failure: Mutex<Option<String>>,
    latency: Mutex<Option<Latency>>,
}

/// The latencies of messages that were due at a fixed rate.
#[derive(Debug)]
struct Latency {
    start: Instant,
    /// From one message to the next, over all streams in turn.
    interval: Duration,
    micros: Histogram<u64>,
}

/// The sending side of one stream.
#[derive(Debug)]
struct Flow {
    messages: Messages,
    per_message: i64,
    state: Mutex<FlowState>,
}

#[derive(Debug)]
struct FlowState {
    opening: Option<Bytes>,
    next: usize,
    /// Sequence up to which records may be sent.
    allowed: i64,
    sent: i64,
    committed: i64,
    window: i64,
    /// What was sent before messages became due at a fixed rate.
    base: i64,
    closed: bool,
    waker: Option<Waker>,
}

impl Flow {
    fn poll_next(&self, context: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        if let Some(opening) = state.opening.take() {
            return Poll::Ready(Some(opening));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        let sent = state.sent + self.per_message;
        if sent > state.allowed || sent - state.committed > state.window {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.sent = sent;
        let message = self.messages[state.next].clone();
        state.next = (state.next + 1) % self.messages.len();
        Poll::Ready(Some(message))
    }

    fn change(&self, change: impl FnOnce(&mut FlowState)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        let at_end = state.sent + self.per_message > state.allowed;
        at_end && state.committed == state.sent
    }
}

impl Load {
    /// Opens the streams of a plan.
    pub(crate) async fn open(
        address: SocketAddr,
        destination: &str,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for _ in (0..plan.streams).step_by(plan.streams_per_connection) {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            channels.push(endpoint.connect().await?);
        }
        let shared = Arc::new(Shared::default());
        let per_message = i64::try_from(plan.per_message)?;
        let opened: Vec<_> = stream::iter(0..plan.streams)
            .map(|n| {
                let channel = channels[n / plan.streams_per_connection].clone();
                let segment = if plan.own_segments { n } else { 0 };
                let messages = match plan.keys {
                    Some(keys) => messages::some_of_stream(n, keys, plan.per_message, None),
                    None => {
                        messages::of_stream(n, plan.streams, plan.per_message, plan.remove_every)
                    }
                };
                let flow = Flow {
                    messages,
                    per_message,
                    state: Mutex::new(FlowState {
                        opening: Some(messages::opening(destination, segment)),
                        next: 0,
                        allowed: 0,
                        sent: 0,
                        committed: 0,
                        window: plan.window.unwrap_or(i64::MAX),
                        base: 0,
                        closed: false,
                        waker: None,
                    }),
                };
                open(channel, Arc::new(flow))
            })
            .buffered(OPENING)
            .try_collect()
            .await?;
        let (mut flows, mut readers) = (Vec::new(), JoinSet::new());
        for (flow, answers) in opened {
            let (stream, streams) = (flows.len(), plan.streams);
            let (read, told) = (Arc::clone(&flow), Arc::clone(&shared));
            readers.spawn(async move {
                let place = Place { stream, streams };
                if let Err(error) = read_answers(answers, &read, &told, place).await {
                    *told.failure.lock() = Some(format!("{error:#}"));
                    told.quiet.notify_waiters();
                }
            });
            flows.push(flow);
        }
        Ok(Self {
            flows,
            shared,
            per_message,
            readers,
            _channels: channels,
        })
    }

    /// Sends as fast as the windows allow for a time, and waits for all results.
    pub(crate) async fn push(&self, time: Duration) -> anyhow::Result<Pushed> {
        let before = self.shared.committed.load(Relaxed);
        let start = Instant::now();
        self.allow(|state| state.allowed = i64::MAX);
        sleep(time).await;
        self.allow(|state| state.allowed = state.sent);
        let in_time = self.shared.committed.load(Relaxed) - before;
        let elapsed = start.elapsed();
        self.quiet().await?;
        Ok(Pushed {
            records: self.shared.committed.load(Relaxed) - before,
            rate: in_time as f64 / elapsed.as_secs_f64(),
        })
    }

    /// Sends so many messages on each stream, and waits for all results.
    pub(crate) async fn send_each(&self, messages: i64) -> anyhow::Result<Pushed> {
        let before = self.shared.committed.load(Relaxed);
        let start = Instant::now();
        self.allow(|state| state.allowed = state.sent + messages * self.per_message);
        self.quiet().await?;
        let records = self.shared.committed.load(Relaxed) - before;
        Ok(Pushed {
            records,
            rate: records as f64 / start.elapsed().as_secs_f64(),
        })
    }

    /// Lets records become due at a fixed rate, whatever the server does, and returns how long
    /// after they were due they had results, in microseconds. What a slow server holds back is due
    /// all the same, so that its wait counts (no coordinated omission).
    pub(crate) async fn pace(&self, rate: u32, time: Duration) -> anyhow::Result<Histogram<u64>> {
        let interval_of_messages =
            Duration::from_secs_f64(self.per_message as f64 / f64::from(rate));
        self.allow(|state| state.base = state.sent);
        let start = Instant::now();
        *self.shared.latency.lock() = Some(Latency {
            start,
            interval: interval_of_messages,
            micros: Histogram::new(3)?,
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut due, streams) = (0, self.flows.len());
        while start.elapsed() < time {
            ticks.tick().await;
            let passed = start.elapsed().as_secs_f64() / interval_of_messages.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, reason = "rounding down is meant")]
            #[expect(clippy::cast_sign_loss, reason = "time goes forward")]
            let now_due = passed as usize + 1;
            // Messages are due on the streams in turn.
            let woken = (due..now_due).take(streams);
            for first in woken {
                let more = (now_due - first).div_ceil(streams);
                let more = i64::try_from(more)? * self.per_message;
                self.flows[first % streams].change(|state| state.allowed += more);
            }
            due = now_due;
        }
        self.quiet().await?;
        let latency = self.shared.latency.lock().take();
        Ok(latency.context("no latencies")?.micros)
    }

    /// Half-closes the streams, and waits until the server has ended them.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.allow(|state| state.closed = true);
        let ended = async { while self.readers.join_next().await.is_some() {} };
        timeout(SETTLING, ended)
            .await
            .context("the server does not end the streams")?;
        self.check()
    }

    fn allow(&self, change: impl Fn(&mut FlowState)) {
        self.flows.iter().for_each(|flow| flow.change(&change));
    }

    fn check(&self) -> anyhow::Result<()> {
        match &*self.shared.failure.lock() {
            Some(failure) => bail!("a stream failed: {failure}"),
            None => Ok(()),
        }
    }

    /// Waits until all that was sent, and may be, has a result.
    async fn quiet(&self) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                let quiet = self.shared.quiet.notified();
                self.check()?;
                if self.flows.iter().all(|flow| flow.is_quiet()) {
                    return Ok(());
                }
                quiet.await;
            }
        };
        timeout(SETTLING, waiting)
            .await
            .context("results do not come")?
    }
}

/// Which stream of how many.
#[derive(Clone, Copy, Debug)]
struct Place {
    stream: usize,
    streams: usize,
}

type Answers = Streaming<pb::SendIdentifiersResponse>;

async fn open(channel: Channel, flow: Arc<Flow>) -> anyhow::Result<(Arc<Flow>, Answers)> {
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let sending = Arc::clone(&flow);
    let requests = stream::poll_fn(move |context| sending.poll_next(context));
    let mut answers = send(&mut client, requests).await?;
    let Some(Out::Opened(opened)) = answers.message().await?.and_then(|first| first.message) else {
        bail!("a stream does not open");
    };
    let window = i64::from(opened.max_in_flight_records);
    flow.change(|state| state.window = state.window.min(window));
    ensure!(flow.state.lock().window >= flow.per_message, "no window");
    Ok((flow, answers))
}

async fn send(
    client: &mut Grpc<Channel>,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Answers, Status> {
    let path = PathAndQuery::from_static(METHOD);
    let answers = client
        .streaming(Request::new(requests), path, Encoded)
        .await?;
    Ok(answers.into_inner())
}

async fn read_answers(
    mut answers: Answers,
    flow: &Flow,
    shared: &Shared,
    place: Place,
) -> anyhow::Result<()> {
    while let Some(answer) = answers.message().await? {
        match answer.message {
            Some(Out::Ack(ack)) => {
                if let Some(run) = ack.results.iter().find(|run| run.error.is_some()) {
                    bail!("a record is refused: {:?}", run.error);
                }
                if let Some(latency) = &mut *shared.latency.lock() {
                    latency.note(&ack, flow, place)?;
                }
                let mut more = 0;
                flow.change(|state| {
                    more = ack.committed_sequence - state.committed;
                    state.committed = ack.committed_sequence;
                });
                shared.committed.fetch_add(u64::try_from(more)?, Relaxed);
                if flow.is_quiet() {
                    shared.quiet.notify_waiters();
                }
            }
            Some(Out::Notice(notice)) => eprintln!("notice: {}", notice.message),
            other => bail!("an unexpected message: {other:?}"),
        }
    }
    let closed = flow.state.lock().closed;
    ensure!(closed, "the server ends a stream");
    Ok(())
}

impl Latency {
    /// Notes when the records of an ack had been due, by their messages.
    fn note(&mut self, ack: &pb::Ack, flow: &Flow, place: Place) -> anyhow::Result<()> {
        let (now, base) = (Instant::now(), flow.state.lock().base);
        for run in &ack.results {
            let (mut first, last) = (run.first_sequence - base, run.last_sequence - base);
            while first <= last {
                let message = (first - 1) / flow.per_message;
                let end = last.min((message + 1) * flow.per_message);
                let turn = usize::try_from(message)? * place.streams + place.stream;
                let due = self.start + self.interval.mul_f64(turn as f64);
                let late = u64::try_from(now.saturating_duration_since(due).as_micros())?;
                self.micros
                    .record_n(late.max(1), u64::try_from(end - first + 1)?)?;
                first = end + 1;
            }
        }
        Ok(())
    }
}

/// Sends messages that are encoded already.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = pb::SendIdentifiersResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = pb::SendIdentifiersResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let message = pb::SendIdentifiersResponse::decode(from.copy_to_bytes(from.remaining()));
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
