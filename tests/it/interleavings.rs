//! Streams under random interleavings: opened, fenced, half-closed, cancelled, drained, with
//! faults, refusals, rotations and deletions between, in paused time. The real service and the
//! sandbox are joined in memory; the history is the judge.
//!
//! Whatever is drawn comes from the seed that each case holds, tokio's own draws included, and the
//! time of day goes with the paused time: a case that is printed repeats, and shrinks.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use launchdarkly_connector::{
    clock::StandIn,
    config::Settings,
    pb::{
        self, send_identifiers_request::Message as In, send_identifiers_response::Message as Out,
    },
    sandbox::{
        Fault, FaultKind, FaultPlan, Hidden, RecordedCall, Sandbox,
        fixtures::{ADMIN_TOKEN, CLIENT_SIDE_ID, SERVICE_TOKEN, WRITER_TOKEN},
    },
    store::MemoryStore,
};
use proptest::prelude::*;
#[cfg(tokio_unstable)]
use proptest::strategy::ValueTree;
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    in_memory::{ATTEMPT, Service},
    support::{
        executor::{Record, record_reason, wire},
        history::{self, Ending, Event, History, Incarnation, Kind, Operation, Outcome},
    },
    test_service::{ORGANIZATION, SEGMENT, destination, open, reason},
};

/// What is peculiar to each log.
const LOGS: [Peculiar; 3] = [
    Peculiar {
        delivery_timeout: None,
        validate_only: false,
    },
    Peculiar {
        delivery_timeout: Some(1),
        validate_only: false,
    },
    Peculiar {
        delivery_timeout: None,
        validate_only: true,
    },
];
/// LaunchDarkly refuses it, always.
const REFUSED: &str = "log0-k0";
/// Of each log; few, so that changes of one meet each other.
const KEYS: usize = 4;
const RECORDS: usize = 40;
/// Longer than anything here may take, in time that costs nothing.
const DEADLINE: Duration = Duration::from_secs(600);

struct Peculiar {
    /// In seconds; none is the service's default, far longer than trouble lasts here.
    delivery_timeout: Option<i64>,
    validate_only: bool,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// A new stream of a log. One that is still open is left to be fenced.
    Open(usize),
    Send(usize, usize),
    Heartbeat(usize),
    HalfClose(usize),
    Cancel(usize),
    Weather(Weather),
    /// Also revives a destination whose credentials were refused.
    Rotate(&'static str),
    /// Deletes the destination, or creates it again.
    Delete,
    Create,
    /// The service drains, and another one takes its place.
    Restart,
    Wait(Duration),
}

/// How LaunchDarkly is doing.
#[derive(Clone, Copy, Debug)]
enum Weather {
    Fine,
    /// Calls overtake each other.
    Slow,
    Failing,
    Limiting,
    Conflicting,
    Ambiguous,
    Hanging,
    /// The token is refused, now and then; so are questions about it.
    Unauthorized,
    /// The segment is.
    NoSegment,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let weather = prop_oneof![
        Just(Weather::Fine),
        Just(Weather::Slow),
        Just(Weather::Failing),
        Just(Weather::Limiting),
        Just(Weather::Conflicting),
        Just(Weather::Ambiguous),
        Just(Weather::Hanging),
        Just(Weather::Unauthorized),
        Just(Weather::NoSegment),
    ];
    let token = prop_oneof![Just(WRITER_TOKEN), Just(ADMIN_TOKEN), Just(SERVICE_TOKEN)];
    let act = prop_oneof![
        4 => log().prop_map(Act::Open),
        10 => (log(), 1..8usize).prop_map(|(log, records)| Act::Send(log, records)),
        1 => log().prop_map(Act::Heartbeat),
        1 => log().prop_map(Act::HalfClose),
        1 => log().prop_map(Act::Cancel),
        4 => weather.prop_map(Act::Weather),
        2 => token.prop_map(Act::Rotate),
        1 => Just(Act::Delete),
        2 => Just(Act::Create),
        1 => Just(Act::Restart),
        4 => (1..600u64).prop_map(|ms| Act::Wait(Duration::from_millis(ms))),
    ];
    prop::collection::vec(act, 1..40)
}

fn log() -> std::ops::Range<usize> {
    0..LOGS.len()
}

fn faults(weather: Weather) -> FaultPlan {
    let now_and_then = |fault: Fault| fault.at_rate(0.5);
    let status = |status| Fault::new(FaultKind::Status(status));
    let fault = match weather {
        Weather::Fine | Weather::Slow => None,
        Weather::Failing => Some(now_and_then(status(StatusCode::SERVICE_UNAVAILABLE))),
        Weather::Limiting => Some(now_and_then(status(StatusCode::TOO_MANY_REQUESTS))),
        Weather::Conflicting => Some(now_and_then(status(StatusCode::CONFLICT))),
        Weather::Ambiguous => Some(now_and_then(Fault::new(FaultKind::Reset).after_applying())),
        Weather::Hanging => Some(now_and_then(Fault::new(FaultKind::Hang).after_applying())),
        Weather::Unauthorized => Some(status(StatusCode::UNAUTHORIZED).at_rate(0.4)),
        Weather::NoSegment => Some(status(StatusCode::NOT_FOUND).at_rate(0.2)),
    };
    let questions_too = matches!(weather, Weather::Unauthorized);
    let deliveries = FaultPlan::default().path_prefix;
    FaultPlan {
        path_prefix: if questions_too {
            "/api/v2/".into()
        } else {
            deliveries
        },
        latency_ms: 10,
        jitter_ms: if matches!(weather, Weather::Slow) {
            400
        } else {
            0
        },
        faults: fault.into_iter().collect(),
        refused_keys: Hidden(BTreeSet::from([REFUSED.into()])),
        ..FaultPlan::default()
    }
}

/// A service whose calls are full and overlap.
async fn start(sandbox: &Sandbox, disk: &MemoryStore) -> Service {
    Service::start(sandbox, disk, |settings| {
        settings.limits.max_batch_records = 8;
        settings.limits.max_in_flight_records = 16;
        settings.limits.drain_timeout = Duration::from_secs(3);
        settings.launchdarkly.max_members_per_call = 2;
    })
    .await
}

/// A sender of one log.
struct Player {
    log: Arc<str>,
    peculiar: &'static Peculiar,
    /// What its streams are, and hear. One that delivers nothing has a history of its own.
    history: History,
    records: Vec<Record>,
    incarnations: u32,
    /// The last `committed_sequence` that any stream of the log has read.
    committed: Arc<Mutex<i64>>,
    live: Option<Live>,
    /// Streams that were left open for their successors to fence.
    left: Vec<Live>,
}

/// An open stream. Its results are read, and noted, by a task of its own.
struct Live {
    by: Incarnation,
    /// Taken by whoever half-closes first: the test, or the task when the server asks to move.
    outbound: Outbound,
    next: i64,
    reader: JoinHandle<()>,
}

type Outbound = Arc<Mutex<Option<mpsc::Sender<pb::SendIdentifiersRequest>>>>;

impl Live {
    /// Sends so many records more, as long as nothing has half-closed the stream.
    fn send(&mut self, records: &[Record], history: &History) {
        let outbound = self.outbound.lock().unwrap();
        let from = usize::try_from(self.next - 1).unwrap();
        let to = records.len().min(from + 8);
        let (Some(outbound), true) = (&*outbound, from < to && !self.reader.is_finished()) else {
            return;
        };
        let batch = &records[from..to];
        let sent = (self.next..)
            .zip(batch)
            .map(|(sequence, record)| Event::Sent {
                by: self.by.clone(),
                sequence,
                key: Arc::clone(&record.key),
                operation: record.operation,
            });
        history.record_all(sent);
        let batch = pb::IdentifierBatch {
            first_sequence: Some(self.next),
            records: batch.iter().map(wire).collect(),
        };
        self.next = i64::try_from(to).unwrap() + 1;
        let message = Some(In::Batch(batch));
        // A stream that has just ended refuses; its status tells why.
        outbound
            .try_send(pb::SendIdentifiersRequest { message })
            .ok();
    }

    /// Says nothing, with its number in every other one.
    fn beat(&self) {
        if let Some(outbound) = &*self.outbound.lock().unwrap() {
            let message = Some(heartbeat((self.next % 2 == 0).then_some(self.next)));
            // A stream that has just ended refuses; its status tells why.
            outbound
                .try_send(pb::SendIdentifiersRequest { message })
                .ok();
        }
    }

    fn half_close(&self) {
        self.outbound.lock().unwrap().take();
    }
}

impl Player {
    fn new(number: usize, history: &History) -> Self {
        // Neighbours differ in key and, half of the time, in operation, so that they leave in
        // different calls; the operations of a key alternate, so that any out of order shows.
        let record = |n: usize| Record {
            key: format!("log{number}-k{}", n % KEYS).into(),
            operation: if (n / KEYS + n % KEYS).is_multiple_of(2) {
                Operation::Add
            } else {
                Operation::Remove
            },
        };
        let peculiar = &LOGS[number];
        Self {
            log: format!("log{number}").into(),
            peculiar,
            history: if peculiar.validate_only {
                History::default()
            } else {
                history.clone()
            },
            records: (0..RECORDS).map(record).collect(),
            incarnations: 0,
            committed: Arc::default(),
            live: None,
            left: Vec::new(),
        }
    }

    async fn open(&mut self, service: &Service) {
        let history = &self.history;
        self.left.extend(self.live.take());
        self.incarnations += 1;
        let by = Incarnation {
            log: Arc::clone(&self.log),
            number: self.incarnations,
        };
        let (sender, requests) = mpsc::channel(RECORDS);
        let first = pb::OpenStream {
            stream_id: self.log.to_string(),
            delivery_timeout: self.peculiar.delivery_timeout.map(seconds),
            validate_only: self.peculiar.validate_only,
            ..open(&format!("{ORGANIZATION}/destinations/vip"))
        };
        let message = Some(In::Open(first));
        sender
            .try_send(pb::SendIdentifiersRequest { message })
            .unwrap();
        match opened(service, requests).await {
            Ok(inbound) => {
                history.record(Event::Opened(by.clone()));
                let next = *self.committed.lock().unwrap() + 1;
                let outbound = Arc::new(Mutex::new(Some(sender)));
                let reader = Reader {
                    by: by.clone(),
                    history: history.clone(),
                    committed: Arc::clone(&self.committed),
                    outbound: Arc::clone(&outbound),
                };
                let reader = tokio::spawn(reader.read(inbound));
                self.live = Some(Live {
                    by,
                    outbound,
                    next,
                    reader,
                });
            }
            Err(status) => history.record(Event::Ended {
                by,
                how: ending(&status),
            }),
        }
    }

    async fn cancel(&mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        live.reader.abort();
        // One that has ended by itself has said so.
        if live.reader.await.is_err() {
            self.history.record(Event::Ended {
                by: live.by,
                how: Ending::Lost,
            });
        }
    }

    /// Sends all that is left, on a stream of its own.
    async fn finish(&mut self, service: &Service) {
        self.open(service).await;
        let mut live = self
            .live
            .take()
            .expect("nothing stands in the way any more");
        while live.next <= i64::try_from(RECORDS).unwrap() {
            live.send(&self.records, &self.history);
        }
        live.half_close();
        live.reader.await.unwrap();
        let committed = *self.committed.lock().unwrap();
        assert_eq!(committed, i64::try_from(RECORDS).unwrap(), "{}", self.log);
        for left in self.left.drain(..) {
            left.reader.await.unwrap();
        }
    }
}

fn heartbeat(first_sequence: Option<i64>) -> In {
    In::Batch(pb::IdentifierBatch {
        first_sequence,
        records: vec![],
    })
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

async fn opened(
    service: &Service,
    requests: mpsc::Receiver<pb::SendIdentifiersRequest>,
) -> Result<Streaming<pb::SendIdentifiersResponse>, Status> {
    let answer = service
        .client()
        .send_identifiers(ReceiverStream::new(requests))
        .await?;
    let mut inbound = answer.into_inner();
    match inbound.message().await?.and_then(|first| first.message) {
        Some(Out::Opened(_)) => Ok(inbound),
        other => panic!("not opened: {other:?}"),
    }
}

/// Notes what a stream hears.
struct Reader {
    by: Incarnation,
    history: History,
    committed: Arc<Mutex<i64>>,
    outbound: Outbound,
}

impl Reader {
    async fn read(self, mut inbound: Streaming<pb::SendIdentifiersResponse>) {
        let how = loop {
            match inbound.message().await {
                Ok(Some(response)) => self.take(response.message.unwrap()),
                Ok(None) => break Ending::Ok,
                Err(status) => break ending(&status),
            }
        };
        let by = self.by;
        self.history.record(Event::Ended { by, how });
    }

    fn take(&self, message: Out) {
        match message {
            Out::Ack(ack) => self.settle(&ack),
            Out::Drain(_) => drop(self.outbound.lock().unwrap().take()),
            Out::Notice(_) => {}
            Out::Opened(_) => panic!("opened twice"),
        }
    }

    fn settle(&self, ack: &pb::Ack) {
        let mut events = Vec::new();
        for run in &ack.results {
            let outcome = run.error.as_ref().map_or(Outcome::Ok, |error| {
                Outcome::Failed(record_reason(error).into())
            });
            events.extend(
                (run.first_sequence..=run.last_sequence).map(|sequence| Event::Result {
                    by: self.by.clone(),
                    sequence,
                    outcome: outcome.clone(),
                }),
            );
        }
        events.push(Event::Committed {
            by: self.by.clone(),
            sequence: ack.committed_sequence,
        });
        self.history.record_all(events);
        let mut committed = self.committed.lock().unwrap();
        *committed = ack.committed_sequence.max(*committed);
    }
}

fn ending(status: &Status) -> Ending {
    match reason(status) {
        // Not the service speaks, but the HTTP library about a connection.
        reason if reason.is_empty() => Ending::Lost,
        reason => Ending::Status {
            code: status.code(),
            reason,
        },
    }
}

async fn create(service: &Service) {
    let create = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination_id: "vip".into(),
        destination: Some(destination(WRITER_TOKEN)),
        ..Default::default()
    };
    service.client().create_destination(create).await.unwrap();
}

struct World {
    sandbox: Sandbox,
    disk: MemoryStore,
    service: Service,
    players: Vec<Player>,
    history: History,
    /// Whether the destination does.
    exists: bool,
    /// Reasons for which streams may end early, by what has been done so far.
    expected: BTreeSet<&'static str>,
}

impl World {
    async fn new() -> Self {
        let (sandbox, disk) = (Sandbox::default(), MemoryStore::default());
        let history = History::default();
        history.observe(&sandbox, CLIENT_SIDE_ID, SEGMENT);
        let service = start(&sandbox, &disk).await;
        sandbox.set_faults(faults(Weather::Fine));
        create(&service).await;
        Self {
            sandbox,
            disk,
            service,
            players: log().map(|log| Player::new(log, &history)).collect(),
            history,
            exists: true,
            expected: BTreeSet::from(["STREAM_SUPERSEDED", "SERVER_DRAINING"]),
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Open(log) => self.players[log].open(&self.service).await,
            Act::Send(log, batches) => {
                let player = &mut self.players[log];
                if let Some(live) = &mut player.live {
                    (0..batches).for_each(|_| live.send(&player.records, &player.history));
                }
            }
            Act::Heartbeat(log) => {
                if let Some(live) = &self.players[log].live {
                    live.beat();
                }
            }
            Act::HalfClose(log) => {
                if let Some(live) = &self.players[log].live {
                    live.half_close();
                }
            }
            Act::Cancel(log) => self.players[log].cancel().await,
            Act::Weather(weather) => {
                self.expected.extend(match weather {
                    Weather::Unauthorized => Some("CREDENTIALS_REJECTED"),
                    Weather::NoSegment => Some("SEGMENT_REJECTED"),
                    _ => None,
                });
                self.sandbox.set_faults(faults(weather));
            }
            Act::Rotate(token) if self.exists => self.rotate(token).await,
            Act::Delete if self.exists => self.delete().await,
            Act::Create if !self.exists => self.create().await,
            Act::Rotate(_) | Act::Delete | Act::Create => {}
            Act::Restart => {
                let next = start(&self.sandbox, &self.disk).await;
                std::mem::replace(&mut self.service, next).stop().await;
            }
            Act::Wait(time) => tokio::time::sleep(time).await,
        }
    }

    async fn rotate(&self, token: &str) {
        let update = pb::UpdateDestinationRequest {
            destination: Some(pb::Destination {
                name: format!("{ORGANIZATION}/destinations/vip"),
                ..destination(token)
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["launch_darkly.access_token".into()],
            }),
            ..Default::default()
        };
        self.service
            .client()
            .update_destination(update)
            .await
            .unwrap();
    }

    /// Deletes the destination. All its streams end once their calls have, and no call is made
    /// any more.
    async fn delete(&mut self) {
        let delete = pb::DeleteDestinationRequest {
            name: format!("{ORGANIZATION}/destinations/vip"),
            ..Default::default()
        };
        self.service
            .client()
            .delete_destination(delete)
            .await
            .unwrap();
        self.exists = false;
        self.expected
            .extend(["DESTINATION_DELETED", "DESTINATION_NOT_FOUND"]);
        let before = self.deliveries();
        tokio::time::sleep(2 * ATTEMPT).await;
        let after = self.deliveries();
        assert_eq!(after.len(), before.len(), "{:?}", after.last());
        for player in &self.players {
            for live in player.live.iter().chain(&player.left) {
                assert!(live.reader.is_finished(), "{} goes on", live.by);
            }
        }
    }

    /// Calls that were to change the segment.
    fn deliveries(&self) -> Vec<RecordedCall> {
        let mut calls = self.sandbox.calls();
        calls.retain(|call| call.path.contains("/segment-targets/"));
        calls
    }

    async fn create(&mut self) {
        create(&self.service).await;
        self.exists = true;
    }

    async fn finish(mut self) -> History {
        self.sandbox.set_faults(faults(Weather::Fine));
        // Whoever a call of before is refused for, the refusal would end the last streams too.
        tokio::time::sleep(2 * ATTEMPT).await;
        if self.exists {
            self.rotate(WRITER_TOKEN).await;
        } else {
            self.create().await;
        }
        for player in &mut self.players {
            player.finish(&self.service).await;
        }
        self.history
            .conclude(self.sandbox.members(CLIENT_SIDE_ID, SEGMENT));
        self.check_endings();
        self.check_rejections();
        self.check_validations();
        self.service.stop().await;
        self.history
    }

    /// Streams end early because others take their place, or the service goes, or for what was
    /// done to their destination, and for no other reason.
    fn check_endings(&self) {
        let histories = self.players.iter().map(|player| player.history.events());
        for event in histories.flatten() {
            if let Event::Ended {
                how: Ending::Status { reason, .. },
                ..
            } = &event
            {
                assert!(self.expected.contains(reason.as_str()), "{event}");
            }
        }
    }

    /// LaunchDarkly refuses one key, and nothing is rejected for its neighbour's sake.
    fn check_rejections(&self) {
        let mut keys = HashMap::new();
        for event in self.history.events() {
            match event {
                Event::Sent {
                    by, sequence, key, ..
                } => {
                    keys.insert((by.log, sequence), key);
                }
                Event::Result {
                    by,
                    sequence,
                    outcome,
                } => {
                    let refused = &*keys[&(by.log.clone(), sequence)] == REFUSED;
                    let expected = match outcome {
                        Outcome::Ok => !refused,
                        Outcome::Failed(reason) if &*reason == "REJECTED_BY_DESTINATION" => refused,
                        Outcome::Failed(reason) => &*reason == "DELIVERY_TIMEOUT",
                    };
                    assert!(expected, "{by} has the wrong result of {sequence}");
                }
                _ => {}
            }
        }
    }

    /// What only validates is answered as if it were delivered, and is not.
    fn check_validations(&self) {
        let validating = self.players.iter().filter(|p| p.peculiar.validate_only);
        for player in validating {
            let violations = history::check(&player.history.events()).err();
            for violation in violations.into_iter().flatten() {
                let delivery = matches!(violation.kind, Kind::Loss | Kind::Converged);
                assert!(delivery, "{}: {violation}", player.log);
            }
        }
    }
}

thread_local! {
    /// When the case of this thread began, in its own time.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time of day where a case is: any day, as long as it is the same in every run.
fn wall_clock() -> SystemTime {
    let passed = BEGAN.get().map_or(Duration::ZERO, |began| began.elapsed());
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000) + passed
}

/// A runtime in paused time, whose thread draws from `seed`.
fn runtime(seed: u64) -> Runtime {
    fastrand::seed(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    builder.build().unwrap()
}

/// Plays acts to their end, in the same way for the same seed: the history, and the calls that
/// LaunchDarkly saw, with their times.
fn play(seed: u64, acts: Vec<Act>) -> (History, Vec<RecordedCall>) {
    let _clock = StandIn::new(wall_clock);
    runtime(seed).block_on(async {
        BEGAN.set(Some(Instant::now()));
        let mut world = World::new().await;
        let sandbox = world.sandbox.clone();
        let played = async {
            for act in VecDeque::from(acts) {
                world.act(act).await;
            }
            world.finish().await
        };
        let played = tokio::time::timeout(DEADLINE, played).await;
        (played.expect("something hangs"), sandbox.calls())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn streams_keep_their_promises_in_any_order_of_events(
        // Another seed is no simpler one.
        seed in any::<u64>().no_shrink(),
        acts in acts(),
    ) {
        let (history, _) = play(seed, acts);
        history.check().map_err(TestCaseError::fail)?;
    }
}

/// How a stream that sends a heartbeat every so often, if at all, is asked to move, and ends.
async fn moved(service: &Service, every: Option<Duration>) -> (Duration, Ending) {
    let start = Instant::now();
    let (sender, requests) = mpsc::channel(8);
    let first = In::Open(open(&format!("{ORGANIZATION}/destinations/vip")));
    let request = |message| pb::SendIdentifiersRequest {
        message: Some(message),
    };
    sender.try_send(request(first)).unwrap();
    let mut inbound = opened(service, requests).await.unwrap();
    let beats = tokio::spawn(async move {
        let Some(every) = every else {
            return sender.closed().await;
        };
        while sender.send(request(heartbeat(None))).await.is_ok() {
            tokio::time::sleep(every).await;
        }
    });
    let asked = inbound.message().await.unwrap().unwrap();
    assert!(matches!(asked.message, Some(Out::Drain(_))), "{asked:?}");
    let asked = start.elapsed();
    let ended = ending(&inbound.message().await.unwrap_err());
    // Its stream has ended.
    drop(inbound);
    beats.await.unwrap();
    (asked, ended)
}

#[test]
fn heartbeats_keep_a_stream_from_idleness_and_neither_from_its_age_nor_from_a_deadline() {
    runtime(1).block_on(async {
        let service = start(&Sandbox::default(), &MemoryStore::default()).await;
        create(&service).await;
        let expired = Ending::Status {
            code: tonic::Code::Unavailable,
            reason: "STREAM_EXPIRED".into(),
        };
        let limits = Settings::with_keys("unused".into()).limits;
        let (silent, ended) = moved(&service, None).await;
        assert_eq!(silent.as_secs(), limits.max_stream_idle.as_secs());
        assert_eq!(ended, expired);
        let (beating, ended) = moved(&service, Some(limits.max_stream_idle * 9 / 10)).await;
        assert!(beating > limits.max_stream_age * 9 / 10, "{beating:?}");
        assert_eq!(ended, expired);
    });
}

/// Each on a thread of its own: what a thread has drawn before must not matter.
#[cfg(tokio_unstable)]
#[test]
fn the_same_case_plays_in_the_same_way_twice() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for seed in 0..16 {
        let acts = acts().new_tree(&mut runner).unwrap().current();
        let [one, other] = [acts.clone(), acts].map(|acts| {
            let played = std::thread::spawn(move || {
                let (history, calls) = play(seed, acts);
                (history.events(), calls)
            });
            played.join().unwrap()
        });
        assert!(one.0 == other.0, "the events of seed {seed} differ");
        assert_eq!(one.1, other.1, "seed {seed}");
    }
}
