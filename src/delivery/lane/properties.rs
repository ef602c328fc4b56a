//! Lanes under random interleavings of streams that come and go, faults and rotations, in paused
//! time. Whatever is drawn comes from the seed that each case holds, tokio's own draws included: a
//! case that is printed repeats, and shrinks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use proptest::prelude::*;
#[cfg(tokio_unstable)]
use proptest::strategy::ValueTree;
use tokio::{runtime::Runtime, sync::mpsc::UnboundedReceiver, time::Instant};

use crate::{
    delivery::{Dispatcher, LaneHandle, Settings, Settled, TargetState, Targets, Tickets, Verdict},
    domain::{
        Attempt, ClientSideId, Connection, ContextKey, Delivery, DestinationUid, Instance,
        Operation, Outcome, Refusal, Revision, SegmentClient, SegmentId, SegmentRef, Slot, Trouble,
    },
    secret::AccessToken,
};

/// Few keys, so that changes of one meet each other.
const KEYS: u8 = 6;
/// Calls that hold it are refused.
const POISON: &str = "k0";
const STREAMS: usize = 3;

/// What becomes of one call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Applied,
    /// The vendor has made the change, and nobody hears of it.
    AppliedUnheard,
    Failed(Trouble),
    Limited(Duration),
    TooLarge,
}

/// What a test does next.
#[derive(Debug, Clone)]
enum Act {
    Submit {
        stream: usize,
        key: u8,
        operation: Operation,
    },
    Flush {
        stream: usize,
    },
    Leave {
        stream: usize,
    },
    Rotate,
    Wait(Duration),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let operation = prop_oneof![Just(Operation::Add), Just(Operation::Remove)];
    let act = prop_oneof![
        10 => (0..STREAMS, 0..KEYS, operation)
            .prop_map(|(stream, key, operation)| Act::Submit { stream, key, operation }),
        2 => (0..STREAMS).prop_map(|stream| Act::Flush { stream }),
        1 => (1..STREAMS).prop_map(|stream| Act::Leave { stream }),
        1 => Just(Act::Rotate),
        4 => (1..400u64).prop_map(|ms| Act::Wait(Duration::from_millis(ms))),
    ];
    prop::collection::vec(act, 1..80)
}

fn fates() -> impl Strategy<Value = VecDeque<Fate>> {
    let trouble = prop_oneof![
        Just(Trouble::Conflict),
        Just(Trouble::Status(503)),
        Just(Trouble::TimedOut),
        Just(Trouble::Connection),
    ];
    let fate = prop_oneof![
        4 => Just(Fate::Applied),
        1 => Just(Fate::AppliedUnheard),
        2 => trouble.prop_map(Fate::Failed),
        1 => (0..3u64).prop_map(|s| Fate::Limited(Duration::from_secs(s))),
        1 => Just(Fate::TooLarge),
    ];
    prop::collection::vec(fate, 0..30).prop_map(VecDeque::from)
}

/// A vendor that remembers what it has applied, and refuses to see a key twice at once.
#[derive(Debug, Default)]
struct Vendor {
    fates: Mutex<VecDeque<Fate>>,
    /// In order of application.
    applied: Mutex<Vec<(String, Operation)>>,
    under_way: Mutex<BTreeSet<String>>,
    calls: Mutex<Vec<Called>>,
}

/// When a call arrived, and its keys.
type Called = (Instant, Vec<String>);

impl Vendor {
    fn decide(&self, keys: &[String]) -> Fate {
        let fate = self.fates.lock().unwrap().pop_front();
        match fate.unwrap_or(Fate::Applied) {
            Fate::TooLarge if keys.len() < 2 => Fate::Applied,
            fate => fate,
        }
    }

    fn apply(&self, keys: &[String], operation: Operation) {
        let changes = keys.iter().map(|key| (key.clone(), operation));
        self.applied.lock().unwrap().extend(changes);
    }
}

#[async_trait]
impl SegmentClient for Vendor {
    async fn ready(&self, _: &Arc<Connection>, _: Attempt) -> Slot {
        Slot::free()
    }

    fn held_until(&self, _: &Connection) -> Option<(Instant, Trouble)> {
        None
    }

    async fn apply(&self, _: Slot, delivery: &Delivery) -> Outcome {
        let keys: Vec<_> = delivery
            .keys
            .iter()
            .map(|k| k.as_str().to_owned())
            .collect();
        self.calls
            .lock()
            .unwrap()
            .push((Instant::now(), keys.clone()));
        for key in &keys {
            let alone = self.under_way.lock().unwrap().insert(key.clone());
            assert!(alone, "{key} is in two calls");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.under_way
            .lock()
            .unwrap()
            .retain(|key| !keys.contains(key));
        if keys.iter().any(|key| key == POISON) {
            return Outcome::Refused(Refusal::Payload);
        }
        let retry = |trouble, retry_after| Outcome::Retry {
            trouble,
            retry_after,
        };
        match self.decide(&keys) {
            Fate::Applied => {
                Self::apply(self, &keys, delivery.operation);
                Outcome::Applied
            }
            Fate::AppliedUnheard => {
                Self::apply(self, &keys, delivery.operation);
                retry(Trouble::TimedOut, None)
            }
            Fate::Failed(trouble) => retry(trouble, None),
            Fate::Limited(wait) => retry(Trouble::RateLimited, Some(wait)),
            Fate::TooLarge => Outcome::Refused(Refusal::TooLarge),
        }
    }
}

/// One stream, and its account of what it has submitted.
struct Stream {
    lane: LaneHandle,
    tickets: Tickets,
    settled: UnboundedReceiver<Settled>,
    books: Books,
}

/// Every record is settled exactly once: the check is made when the books are closed, however the
/// test gets there.
#[derive(Default)]
struct Books {
    submitted: BTreeSet<i64>,
    verdicts: BTreeMap<i64, Verdict>,
}

impl Books {
    fn enter(&mut self, Settled { sequence, verdict }: Settled) {
        assert!(
            self.submitted.contains(&sequence),
            "{sequence} was not submitted"
        );
        let before = self.verdicts.insert(sequence, verdict);
        assert_eq!(before, None, "{sequence} was settled twice");
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let settled: BTreeSet<_> = self.verdicts.keys().copied().collect();
            assert_eq!(self.submitted, settled, "each record is settled once");
        }
    }
}

/// A change in the order in which the lane got them.
struct Change {
    stream: usize,
    sequence: i64,
    key: String,
    operation: Operation,
    /// What was applied before it came.
    applied_before: usize,
}

struct Bench {
    vendor: Arc<Vendor>,
    targets: Arc<Targets>,
    dispatcher: Dispatcher,
    uid: DestinationUid,
    revision: i64,
    streams: Vec<Option<Stream>>,
    changes: Vec<Change>,
    /// The verdicts of streams, also of those that have left.
    verdicts: BTreeMap<(usize, i64), Verdict>,
    _condemned: UnboundedReceiver<crate::delivery::Condemned>,
}

impl Bench {
    fn new(fates: VecDeque<Fate>) -> Self {
        let vendor = Arc::new(Vendor {
            fates: Mutex::new(fates),
            ..Vendor::default()
        });
        let (targets, _condemned) = Targets::new();
        let settings = Settings {
            linger: Duration::from_millis(50),
            max_members_per_call: 4,
        };
        let dispatcher = Dispatcher::new(settings, Arc::clone(&vendor) as _);
        let mut bench = Self {
            vendor,
            targets,
            dispatcher,
            uid: DestinationUid::generate(),
            revision: 0,
            streams: Vec::new(),
            changes: Vec::new(),
            verdicts: BTreeMap::new(),
            _condemned,
        };
        bench.streams = (0..STREAMS).map(|_| Some(bench.open())).collect();
        bench
    }

    fn open(&mut self) -> Stream {
        let target = self.targets.watch(self.uid);
        self.rotate();
        let segment = SegmentRef::new(SegmentId::new("vip").unwrap(), "VIP").unwrap();
        let (tickets, settled) = Tickets::new(Duration::from_secs(3600));
        Stream {
            lane: self.dispatcher.open(target, &segment),
            tickets,
            settled,
            books: Books::default(),
        }
    }

    fn rotate(&mut self) {
        self.revision += 1;
        let connection = Connection {
            access_token: AccessToken::new(format!("token-{}", self.revision)),
            client_side_id: ClientSideId::new("env".into()),
            instance: Instance::Commercial,
        };
        let state = TargetState::Active(Arc::new(connection));
        self.targets
            .publish(self.uid, Revision(self.revision), state);
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Submit {
                stream,
                key,
                operation,
            } => self.submit(stream, key, operation),
            Act::Flush { stream } => {
                if let Some(stream) = &self.streams[stream] {
                    stream.lane.flush();
                }
            }
            Act::Leave { stream } => self.leave(stream).await,
            Act::Rotate => self.rotate(),
            Act::Wait(time) => tokio::time::sleep(time).await,
        }
        self.listen();
    }

    fn submit(&mut self, index: usize, key: u8, operation: Operation) {
        let Some(stream) = &mut self.streams[index] else {
            return;
        };
        let key = format!("k{key}");
        let sequence = i64::try_from(self.changes.len()).unwrap();
        stream.books.submitted.insert(sequence);
        self.changes.push(Change {
            stream: index,
            sequence,
            key: key.clone(),
            operation,
            applied_before: self.vendor.applied.lock().unwrap().len(),
        });
        let ack = stream.tickets.issue(sequence);
        stream
            .lane
            .submit(ContextKey::new(&key).unwrap(), operation, ack);
    }

    /// Ends a stream as a session does; it is over once its calls are, and no later.
    async fn leave(&mut self, index: usize) {
        let Some(stream) = self.streams[index].take() else {
            return;
        };
        stream.tickets.abandon();
        stream.lane.sweep();
        let Stream {
            lane,
            tickets,
            mut settled,
            mut books,
        } = stream;
        drop((lane, tickets));
        while let Some(settled) = settled.recv().await {
            books.enter(settled);
        }
        let verdicts = books.verdicts.iter();
        self.verdicts
            .extend(verdicts.map(|(sequence, verdict)| ((index, *sequence), *verdict)));
    }

    /// Takes in what has been settled, and checks what a delivery claims against what the vendor
    /// has applied by now.
    fn listen(&mut self) {
        let mut delivered = Vec::new();
        for stream in self.streams.iter_mut().flatten() {
            while let Ok(settled) = stream.settled.try_recv() {
                stream.books.enter(settled);
                delivered
                    .extend((settled.verdict == Verdict::Delivered).then_some(settled.sequence));
            }
        }
        let applied = self.vendor.applied.lock().unwrap();
        for sequence in delivered {
            self.check_delivered(sequence, &applied);
        }
    }

    /// Delivered: since the record came, it or a later change of its key has been applied.
    fn check_delivered(&self, sequence: i64, applied: &[(String, Operation)]) {
        let record = &self.changes[usize::try_from(sequence).unwrap()];
        let later = self.changes[usize::try_from(sequence).unwrap()..]
            .iter()
            .filter(|change| change.key == record.key);
        let operations: BTreeSet<_> = later.map(|change| change.operation).collect();
        let found = applied[record.applied_before..]
            .iter()
            .any(|(key, operation)| *key == record.key && operations.contains(operation));
        assert!(
            found,
            "{sequence} was delivered, but nothing was applied for it"
        );
    }

    /// Lets the vendor recover and everything settle; which calls there were.
    async fn finish(mut self) -> Vec<Called> {
        self.vendor.fates.lock().unwrap().clear();
        for stream in self.streams.iter().flatten() {
            stream.lane.flush();
        }
        // Longer than the longest wait and back-off together.
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.listen();
        }
        let stayed: Vec<_> = (0..STREAMS)
            .filter(|i| self.streams[*i].is_some())
            .collect();
        for index in 0..STREAMS {
            self.leave(index).await;
        }
        self.dispatcher.ended().await;
        self.check_end(&stayed);
        std::mem::take(&mut self.vendor.calls.lock().unwrap())
    }

    /// What streams that stayed have sent is delivered, poison aside, and of each key the last
    /// change is the last one applied.
    fn check_end(&self, stayed: &[usize]) {
        let mut last = BTreeMap::new();
        for change in &self.changes {
            let verdict = self.verdicts[&(change.stream, change.sequence)];
            let poisoned = change.key == POISON;
            if stayed.contains(&change.stream) {
                let rejected = matches!(verdict, Verdict::Rejected { .. });
                let as_expected = if poisoned {
                    rejected
                } else {
                    verdict == Verdict::Delivered
                };
                assert!(
                    as_expected,
                    "{} of {}: {verdict:?}",
                    change.sequence, change.key
                );
            }
            if !poisoned {
                last.insert(change.key.clone(), change);
            }
        }
        let members: BTreeMap<_, _> = self
            .vendor
            .applied
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect();
        for (key, change) in last {
            if stayed.contains(&change.stream) {
                assert_eq!(
                    members.get(&key),
                    Some(&change.operation),
                    "{key} did not converge"
                );
            }
        }
    }
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

/// Plays acts to their end, in the same way for the same seed; which calls were made, and when.
fn play(seed: u64, acts: Vec<Act>, fates: VecDeque<Fate>) -> Vec<(Duration, Vec<String>)> {
    runtime(seed).block_on(async {
        let began = Instant::now();
        let mut bench = Bench::new(fates);
        for act in acts {
            bench.act(act).await;
        }
        let calls = bench.finish().await.into_iter();
        calls.map(|(at, keys)| (at - began, keys)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Streams come and go, calls fail in every way, tokens rotate: each record is settled once, a
    /// key is never in two calls, a delivery was applied, and what stayed converges.
    #[test]
    fn a_lane_keeps_its_promises_in_any_order_of_events(
        // Another seed is no simpler one.
        seed in any::<u64>().no_shrink(),
        acts in acts(),
        fates in fates(),
    ) {
        play(seed, acts, fates);
    }
}

/// Each on a thread of its own: what a thread has drawn before must not matter.
#[cfg(tokio_unstable)]
#[test]
fn the_same_case_makes_the_same_calls_twice() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for seed in 0..8 {
        let case = (acts(), fates()).new_tree(&mut runner).unwrap().current();
        let [one, other] = [case.clone(), case].map(|(acts, fates)| {
            let played = std::thread::spawn(move || play(seed, acts, fates));
            played.join().unwrap()
        });
        assert_eq!(one, other, "seed {seed}");
    }
}
