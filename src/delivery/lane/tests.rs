//! Lanes against a scripted vendor, in paused time.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::{
    delivery::{
        AckIssuer, Change, DeliveryAttempts, Dispatcher, LaneHandle, LiveDestinations, SettledRun,
        Verdict,
    },
    domain::{
        CallOutcome, ClientSideId, ContextKey, ContextKind, CredentialStanding, DestinationUid,
        Instance, Observer, Operation, Revision, SegmentCall, SegmentId, SettledChange,
    },
    secret::AccessToken,
};

mod refusals;

/// Most members of a call, as far as the operator is concerned.
const MAX_MEMBERS: usize = 1000;
const CALL_TIME: Duration = Duration::from_millis(20);
/// A member whose calls take an attempt's whole time.
const HANGS: &str = "hangs";

/// A vendor that answers from a script, then always accepts; it refuses poison members.
#[derive(Debug)]
struct Vendor {
    started: Instant,
    script: Mutex<VecDeque<CallOutcome>>,
    /// Its answers to queries about refusals; after these it confirms each.
    standings: Mutex<VecDeque<CredentialStanding>>,
    /// How long such a query takes.
    query_time: Mutex<Duration>,
    /// The refusals that it was asked to confirm.
    queries: Mutex<Vec<Refusal>>,
    poison: BTreeSet<String>,
    calls: Mutex<Vec<Call>>,
    /// The attempt that each slot was asked for.
    attempts: Mutex<Vec<Attempt>>,
    overlapping: Mutex<BTreeSet<String>>,
    /// How many slots are given.
    slots: Mutex<usize>,
    /// The token of the account that has a hold, and until when.
    held: Mutex<Option<(String, Instant)>>,
    /// The limit learned from calls that were too large.
    max_members: Mutex<Option<usize>>,
    /// The state that a destination gets in the moment in which the next slot is given.
    changes_to: Mutex<Option<(Arc<LiveDestinations>, DestinationUid, LiveState)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    at: Duration,
    operation: Operation,
    keys: Vec<String>,
    token: String,
}

#[async_trait]
impl SegmentClient for Vendor {
    async fn ready(&self, connection: &Arc<Connection>, _: &SegmentId, attempt: Attempt) -> Slot {
        self.attempts.lock().unwrap().push(attempt);
        let given = {
            let mut slots = self.slots.lock().unwrap();
            *slots = slots.saturating_sub(1);
            *slots > 0
        };
        if !given {
            std::future::pending::<()>().await;
        }
        while let Some(hold) = self.hold(connection) {
            tokio::time::sleep_until(hold.until).await;
        }
        if let Some((live, uid, state)) = self.changes_to.lock().unwrap().take() {
            live.publish(uid, Revision(2), state);
        }
        Slot::free()
    }

    fn hold(&self, connection: &Connection) -> Option<Hold> {
        let (token, until) = self.held.lock().unwrap().clone()?;
        let holds = token == connection.access_token.expose() && Instant::now() < until;
        holds.then_some(Hold {
            until,
            error: TransientError::RateLimited,
        })
    }

    fn connection_replaced(&self, before: &Connection, after: &Connection) {
        if let Some((token, _)) = &mut *self.held.lock().unwrap()
            && token == before.access_token.expose()
        {
            after.access_token.expose().clone_into(token);
        }
    }

    fn limits(&self, _: &Connection) -> CallLimits {
        let known = *self.max_members.lock().unwrap();
        CallLimits {
            max_members: known.unwrap_or(MAX_MEMBERS).min(MAX_MEMBERS),
            operations: OperationsPerCall::One,
        }
    }

    fn learn_max_members(&self, _: &Connection, members: usize) {
        *self.max_members.lock().unwrap() = Some(members);
    }

    async fn apply(&self, _: Slot, delivery: &SegmentCall) -> CallOutcome {
        let keys: Vec<_> = delivery
            .members
            .iter()
            .map(|member| member.key.as_str().to_owned())
            .collect();
        for key in &keys {
            let alone = self.overlapping.lock().unwrap().insert(key.clone());
            assert!(alone, "{key} is in two calls");
        }
        self.calls.lock().unwrap().push(Call {
            at: self.started.elapsed(),
            operation: delivery.members[0].operation,
            keys: keys.clone(),
            token: delivery.connection.access_token.expose().to_owned(),
        });
        let hangs = keys.iter().any(|key| key == HANGS);
        let time = if hangs {
            Duration::from_secs(10)
        } else {
            CALL_TIME
        };
        tokio::time::sleep(time).await;
        self.overlapping
            .lock()
            .unwrap()
            .retain(|key| !keys.contains(key));
        if keys.iter().any(|key| self.poison.contains(key)) {
            return CallOutcome::Refused(Refusal::Payload);
        }
        self.script
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(CallOutcome::Applied)
    }

    async fn confirm(&self, _: &Arc<Connection>, refusal: Refusal) -> CredentialStanding {
        self.queries.lock().unwrap().push(refusal);
        let time = *self.query_time.lock().unwrap();
        tokio::time::sleep(time).await;
        let standing = self.standings.lock().unwrap().pop_front();
        standing.unwrap_or(CredentialStanding::Refused)
    }
}

struct Bench {
    vendor: Arc<Vendor>,
    live: Arc<LiveDestinations>,
    dispatcher: Dispatcher,
    uid: DestinationUid,
    /// The verdicts that the observer got.
    settled: Arc<Settled>,
    _refused: UnboundedReceiver<crate::delivery::RefusedCredentials>,
}

/// An observer of verdicts: key, operation and verdict of each change.
#[derive(Debug, Default)]
struct Settled(Mutex<Vec<(String, Operation, Verdict)>>);

impl Observer for Settled {
    fn settled(&self, change: &SettledChange<'_>) {
        let key = change.key.as_str().to_owned();
        let told = (key, change.operation, change.verdict);
        self.0.lock().unwrap().push(told);
    }
}

struct Stream {
    lane: LaneHandle,
    acks: AckIssuer,
    settled: UnboundedReceiver<SettledRun>,
    /// Verdicts of runs that were received, and not asked for yet.
    heard: VecDeque<(i64, Verdict)>,
    next: i64,
}

fn active(token: &str) -> LiveState {
    active_in("env", token)
}

fn active_in(environment: &str, token: &str) -> LiveState {
    LiveState::Active(Arc::new(Connection {
        access_token: AccessToken::new(token.into()),
        client_side_id: ClientSideId::new(environment.into()),
        instance: Instance::Commercial,
    }))
}

impl Bench {
    fn new(script: impl IntoIterator<Item = CallOutcome>, poison: &[&str]) -> Self {
        let vendor = Arc::new(Vendor {
            started: Instant::now(),
            script: Mutex::new(script.into_iter().collect()),
            standings: Mutex::default(),
            query_time: Mutex::default(),
            queries: Mutex::default(),
            poison: poison.iter().map(ToString::to_string).collect(),
            calls: Mutex::default(),
            attempts: Mutex::default(),
            overlapping: Mutex::default(),
            slots: Mutex::new(usize::MAX),
            held: Mutex::default(),
            max_members: Mutex::default(),
            changes_to: Mutex::default(),
        });
        let (live, _refused) = LiveDestinations::new();
        let settled = Arc::<Settled>::default();
        let settings = LaneSettings {
            linger: Duration::from_millis(50),
        };
        let observer = Arc::clone(&settled) as _;
        let dispatcher = Dispatcher::new(settings, Arc::clone(&vendor) as _, observer);
        Self {
            vendor,
            live,
            dispatcher,
            uid: DestinationUid::generate(),
            settled,
            _refused,
        }
    }

    /// With a vendor that refuses the members of [`Stream::is_refused_systemically`].
    fn poisoned() -> Self {
        let poison = poisonous();
        Self::new([], &poison.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn open(&self, timeout: Duration) -> Stream {
        self.open_into("vip", timeout)
    }

    fn open_into(&self, segment: &str, timeout: Duration) -> Stream {
        let live = self.live.watch(self.uid);
        self.live.publish(self.uid, Revision(1), active("first"));
        let segment = SegmentRef::new(
            SegmentId::new(segment).unwrap(),
            ContextKind::default(),
            "VIP",
        )
        .unwrap();
        let (acks, settled) = AckIssuer::new(timeout);
        let lane = self.dispatcher.open(live, &segment);
        Stream {
            lane,
            acks,
            settled,
            next: 1,
            heard: VecDeque::new(),
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.vendor.calls.lock().unwrap().clone()
    }
}

impl Stream {
    fn submit(&mut self, key: &str, operation: Operation) {
        let change = Change {
            key: ContextKey::new(key).unwrap(),
            operation,
            ack: self.acks.issue(self.next),
        };
        self.lane.submit(vec![change]);
        self.next += 1;
    }

    /// Sends so many refused members that the refusal is systemic.
    async fn is_refused_systemically(&mut self) {
        let poison = poisonous();
        poison
            .iter()
            .for_each(|key| self.submit(key, Operation::Add));
        let deferred = vec![Verdict::Deferred(DeferralCause::Segment); poison.len()];
        assert_eq!(self.verdicts(poison.len()).await, deferred);
    }

    async fn verdict(&mut self) -> (i64, Verdict) {
        while self.heard.is_empty() {
            let run = self.settled.recv().await.unwrap();
            self.heard.extend(run.records());
        }
        self.heard.pop_front().unwrap()
    }

    async fn verdicts(&mut self, count: usize) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while verdicts.len() < count {
            verdicts.push(self.verdict().await.1);
        }
        verdicts
    }
}

const LONG: Duration = Duration::from_secs(300);

fn retry(error: TransientError, retry_after: Option<Duration>) -> CallOutcome {
    CallOutcome::Retry { error, retry_after }
}

#[tokio::test(start_paused = true)]
async fn records_of_all_streams_of_a_segment_share_calls() {
    let bench = Bench::new([], &[]);
    let (mut one, mut two) = (bench.open(LONG), bench.open(LONG));
    one.submit("a", Operation::Add);
    two.submit("b", Operation::Add);
    assert_eq!(one.verdict().await, (1, Verdict::Delivered));
    assert_eq!(two.verdict().await, (1, Verdict::Delivered));
    let calls = bench.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].keys, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_key_leave_in_order_and_never_together() {
    let bench = Bench::new([], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    stream.submit("a", Operation::Remove);
    stream.submit("b", Operation::Remove);
    stream.lane.flush();
    assert_eq!(stream.verdicts(3).await, [Verdict::Delivered; 3]);
    let operations: Vec<_> = bench
        .calls()
        .into_iter()
        .filter(|call| call.keys.contains(&"a".to_owned()))
        .map(|call| call.operation)
        .collect();
    assert_eq!(operations, [Operation::Add, Operation::Remove]);
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_the_verdict_of_each_change_with_its_key() {
    let bench = Bench::new([], &["bad"]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Remove);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    assert_eq!(stream.verdicts(2).await, [Verdict::Delivered; 2]);
    stream.submit("bad", Operation::Add);
    let rejected = stream.verdict().await.1;
    assert_eq!(
        rejected,
        Verdict::Rejected {
            lane_has_succeeded: true
        }
    );
    let change = |key: &str, operation, verdict| (key.to_owned(), operation, verdict);
    assert_eq!(
        *bench.settled.0.lock().unwrap(),
        [
            change("a", Operation::Remove, Verdict::Delivered),
            change("a", Operation::Add, Verdict::Delivered),
            change("bad", Operation::Add, rejected),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_busy_vendor_is_given_the_time_it_asks_for() {
    let wait = Duration::from_secs(7);
    let bench = Bench::new([retry(TransientError::RateLimited, Some(wait))], &[]);
    let mut stream = bench.open(LONG);
    let mut health = stream.lane.health();
    stream.submit("a", Operation::Add);
    health.changed().await.unwrap();
    assert!(matches!(
        *health.borrow_and_update(),
        DeliveryHealth::Throttled { .. }
    ));
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    assert_eq!(*health.borrow_and_update(), DeliveryHealth::Delivering);
    let calls = bench.calls();
    assert!(calls[1].at >= calls[0].at + CALL_TIME + wait, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn newer_changes_coalesce_with_a_batch_that_waits_for_its_next_attempt() {
    let wait = Some(Duration::from_secs(5));
    let bench = Bench::new([retry(TransientError::Status(503), wait)], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.submit("a", Operation::Remove);
    stream.submit("b", Operation::Remove);
    assert_eq!(stream.verdicts(3).await, [Verdict::Delivered; 3]);
    let calls = bench.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (calls[1].operation, calls[1].keys.len()),
        (Operation::Remove, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_call_with_a_member_of_a_failed_call_is_a_retry() {
    let bench = Bench::new([retry(TransientError::Status(503), None)], &["c"]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    stream.submit("b", Operation::Add);
    assert_eq!(stream.verdicts(2).await, [Verdict::Delivered; 2]);
    // A probe of an isolation is no retry.
    stream.submit("c", Operation::Add);
    stream.submit("d", Operation::Add);
    stream.verdicts(2).await;
    let attempts = bench.vendor.attempts.lock().unwrap().clone();
    assert_eq!(attempts[..2], [Attempt::First, Attempt::Retry]);
    assert!(attempts.len() >= 5, "{attempts:?}");
    assert!(
        attempts[2..]
            .iter()
            .all(|attempt| *attempt == Attempt::First)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_unsent_was_not_tried() {
    let until = Instant::now() + Duration::from_secs(10);
    let error = TransientError::RateLimited;
    let bench = Bench::new([CallOutcome::Held(Hold { until, error })], &[]);
    let mut hasty = bench.open(Duration::from_secs(3));
    let mut patient = bench.open(LONG);
    hasty.submit("a", Operation::Add);
    patient.submit("b", Operation::Add);
    let tried = DeliveryAttempts {
        calls: 0,
        error: Some(error),
    };
    assert_eq!(hasty.verdict().await, (1, Verdict::TimedOut(tried)));
    assert!(matches!(
        *patient.lane.health().borrow(),
        DeliveryHealth::Throttled { until: told } if told == until
    ));
    assert_eq!(patient.verdict().await, (1, Verdict::Delivered));
    assert_eq!(bench.calls()[1].at, until - bench.vendor.started);
    let attempts = bench.vendor.attempts.lock().unwrap().clone();
    assert_eq!(attempts, [Attempt::First, Attempt::First]);
}

#[tokio::test(start_paused = true)]
async fn a_record_times_out_with_what_was_tried_and_its_stream_goes_on() {
    let down = std::iter::repeat_n(retry(TransientError::Connection, None), 6);
    let bench = Bench::new(down, &[]);
    let mut stream = bench.open(Duration::from_secs(3));
    stream.submit("a", Operation::Add);
    let (_, verdict) = stream.verdict().await;
    let Verdict::TimedOut(tried) = verdict else {
        panic!("{verdict:?}")
    };
    assert!(
        tried.calls >= 2 && tried.error == Some(TransientError::Connection),
        "{tried:?}"
    );
    bench.vendor.script.lock().unwrap().clear();
    stream.submit("b", Operation::Add);
    assert_eq!(stream.verdict().await, (2, Verdict::Delivered));
}

#[tokio::test(start_paused = true)]
async fn one_poison_record_among_a_thousand_fails_alone_within_21_calls() {
    let bench = Bench::new([], &["k617"]);
    let mut stream = bench.open(LONG);
    for n in 0..1000 {
        stream.submit(&format!("k{n}"), Operation::Add);
    }
    let mut rejected = Vec::new();
    for _ in 0..1000 {
        match stream.verdict().await {
            (_, Verdict::Delivered) => {}
            other => rejected.push(other),
        }
    }
    assert_eq!(
        rejected,
        [(
            618,
            Verdict::Rejected {
                lane_has_succeeded: true
            }
        )]
    );
    assert!(bench.calls().len() <= 21, "{} calls", bench.calls().len());
}

#[tokio::test(start_paused = true)]
async fn a_call_too_large_is_halved_and_the_limit_remembered() {
    let bench = Bench::new([CallOutcome::Refused(Refusal::TooLarge)], &[]);
    let mut stream = bench.open(LONG);
    let send = |stream: &mut Stream, from: i32| {
        (from..from + 1000).for_each(|n| stream.submit(&format!("k{n}"), Operation::Add));
    };
    send(&mut stream, 0);
    assert_eq!(stream.verdicts(1000).await, vec![Verdict::Delivered; 1000]);
    send(&mut stream, 1000);
    assert_eq!(stream.verdicts(1000).await, vec![Verdict::Delivered; 1000]);
    let sizes: Vec<_> = bench.calls().iter().map(|call| call.keys.len()).collect();
    assert_eq!(sizes, [1000, 500, 500, 500, 500]);
}

#[tokio::test(start_paused = true)]
async fn one_member_that_is_too_large_does_not_make_calls_small() {
    // The first of a thousand is: every call with it is refused, down to its own.
    let too_large = CallOutcome::Refused(Refusal::TooLarge);
    let mut script = vec![too_large, too_large, CallOutcome::Applied];
    script.extend([too_large; 9]);
    let bench = Bench::new(script, &[]);
    let mut stream = bench.open(LONG);
    (0..1000).for_each(|n| stream.submit(&format!("k{n}"), Operation::Add));
    let verdicts = stream.verdicts(1000).await;
    let delivered = verdicts.iter().filter(|v| **v == Verdict::Delivered);
    assert_eq!(delivered.count(), 999);
    let before = bench.calls().len();
    (1000..2000).for_each(|n| stream.submit(&format!("k{n}"), Operation::Add));
    assert_eq!(stream.verdicts(1000).await, vec![Verdict::Delivered; 1000]);
    let sizes: Vec<_> = bench.calls()[before..]
        .iter()
        .map(|call| call.keys.len())
        .collect();
    assert_eq!(sizes, [1000]);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_stop_the_destination_and_defer_its_records() {
    let bench = Bench::new([CallOutcome::Refused(Refusal::Unauthorized)], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    assert_eq!(
        stream.verdict().await,
        (1, Verdict::Deferred(DeferralCause::Credentials))
    );
    stream.submit("b", Operation::Add);
    assert_eq!(
        stream.verdict().await,
        (2, Verdict::Deferred(DeferralCause::Credentials))
    );
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_rotated_during_a_refused_call_is_used_for_the_next() {
    let bench = Bench::new([CallOutcome::Refused(Refusal::Unauthorized)], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    bench.live.publish(bench.uid, Revision(2), active("second"));
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    let tokens: Vec<_> = bench.calls().into_iter().map(|call| call.token).collect();
    assert_eq!(tokens, ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_rotated_while_members_are_isolated_is_used_for_the_next_probe() {
    let bench = Bench::new([], &["poison"]);
    let mut stream = bench.open(LONG);
    for key in ["a", "b", "c", "poison"] {
        stream.submit(key, Operation::Add);
    }
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME * 3 / 2).await;
    bench.live.publish(bench.uid, Revision(2), active("second"));
    for _ in 0..4 {
        let (sequence, verdict) = stream.verdict().await;
        let rejected = matches!(verdict, Verdict::Rejected { .. });
        assert_eq!(rejected, sequence == 4, "{sequence}: {verdict:?}");
    }
    let second = |call: &Call| call.at >= 2 * CALL_TIME;
    for call in bench.calls() {
        let expected = if second(&call) { "second" } else { "first" };
        assert_eq!(call.token, expected, "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_deleted_while_members_are_isolated_is_not_called_again() {
    let bench = Bench::new([], &["poison"]);
    let mut stream = bench.open(LONG);
    for key in ["a", "b", "c", "poison"] {
        stream.submit(key, Operation::Add);
    }
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    bench.live.publish_deleted(bench.uid);
    for sequence in 1..=4 {
        let deferred = Verdict::Deferred(DeferralCause::Deleted);
        assert_eq!(stream.verdict().await, (sequence, deferred));
    }
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_segment_defers_and_a_later_record_tries_again() {
    let bench = Bench::new([CallOutcome::Refused(Refusal::Segment)], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    assert_eq!(
        stream.verdict().await,
        (1, Verdict::Deferred(DeferralCause::Segment))
    );
    stream.submit("b", Operation::Add);
    assert_eq!(stream.verdict().await, (2, Verdict::Delivered));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_stream_starts_no_call_and_its_channel_ends_with_its_last_call() {
    let bench = Bench::new([], &[]);
    let mut gone = bench.open(LONG);
    gone.submit("a", Operation::Add);
    gone.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    gone.submit("b", Operation::Add);
    gone.acks.abandon();
    gone.lane.sweep();
    let Stream {
        lane,
        acks,
        mut settled,
        ..
    } = gone;
    drop((lane, acks));
    let left_at = Instant::now();
    let mut verdicts = Vec::new();
    while let Some(settled) = settled.recv().await {
        verdicts.extend(settled.records());
    }
    assert_eq!(left_at.elapsed(), CALL_TIME / 2);
    verdicts.sort_by_key(|(sequence, _)| *sequence);
    let abandoned = Verdict::Deferred(DeferralCause::Abandoned);
    assert_eq!(verdicts, [(1, Verdict::Delivered), (2, abandoned)]);
    assert_eq!(bench.calls().len(), 1);
    bench.dispatcher.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_retires_with_its_last_handle_and_starts_anew_for_the_next() {
    let bench = Bench::new([], &[]);
    for _ in 0..2 {
        let mut stream = bench.open(LONG);
        stream.submit("a", Operation::Add);
        assert_eq!(stream.verdict().await.1, Verdict::Delivered);
        drop(stream);
        bench.dispatcher.ended().await;
    }
    assert_eq!(bench.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_during_a_failing_call_does_not_wait_out_the_back_off() {
    let hold = Some(Duration::from_secs(300));
    let bench = Bench::new([retry(TransientError::RateLimited, hold)], &[]);
    let mut gone = bench.open(LONG);
    gone.submit("a", Operation::Add);
    gone.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    gone.acks.abandon();
    gone.lane.sweep();
    let Stream {
        lane,
        acks,
        mut settled,
        ..
    } = gone;
    drop((lane, acks));
    let left_at = Instant::now();
    while settled.recv().await.is_some() {}
    assert_eq!(left_at.elapsed(), CALL_TIME / 2);
}

#[tokio::test(start_paused = true)]
async fn isolation_starts_no_call_for_a_stream_that_has_gone() {
    let bench = Bench::new([], &["k0", "k1", "k2", "k3"]);
    let mut gone = bench.open(LONG);
    (0..4).for_each(|n| gone.submit(&format!("k{n}"), Operation::Add));
    gone.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    gone.acks.abandon();
    drop(gone);
    bench.dispatcher.ended().await;
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_during_an_isolation_does_not_wait_for_the_probes_of_others() {
    let bench = Bench::new([], &["stays0", "stays1", "stays2", "stays3"]);
    let (mut stays, mut gone) = (bench.open(LONG), bench.open(LONG));
    (0..4).for_each(|n| stays.submit(&format!("stays{n}"), Operation::Add));
    gone.submit("gone", Operation::Add);
    gone.lane.flush();
    tokio::time::sleep(CALL_TIME / 2).await;
    gone.acks.abandon();
    let Stream {
        lane,
        acks,
        mut settled,
        ..
    } = gone;
    drop((lane, acks));
    let left_at = Instant::now();
    while settled.recv().await.is_some() {}
    assert_eq!(left_at.elapsed(), CALL_TIME / 2);
    drop(stays);
    bench.dispatcher.ended().await;
}

#[tokio::test(start_paused = true)]
async fn beside_a_call_that_hangs_changes_linger_but_only_a_moment() {
    let bench = Bench::new([], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("first", Operation::Add);
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    stream.submit(HANGS, Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(CALL_TIME).await;
    let began = Instant::now();
    // Further apart than the lane lingers when it has nothing to do.
    for n in 0..5 {
        stream.submit(&format!("k{n}"), Operation::Add);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(stream.verdicts(5).await, [Verdict::Delivered; 5]);
    assert_eq!(began.elapsed(), LINGER_BESIDE_CALL + CALL_TIME);
    let calls = bench.calls();
    assert_eq!(calls[2].keys.len(), 5, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_while_an_isolation_waits_for_a_slot_is_let_go() {
    let bench = Bench::new([], &["k0", "k1", "k2", "k3"]);
    // The first call gets one, and its first probe never does.
    *bench.vendor.slots.lock().unwrap() = 2;
    let mut gone = bench.open(LONG);
    (0..4).for_each(|n| gone.submit(&format!("k{n}"), Operation::Add));
    gone.lane.flush();
    tokio::time::sleep(2 * CALL_TIME).await;
    assert_eq!(bench.calls().len(), 1);
    gone.acks.abandon();
    gone.lane.sweep();
    drop(gone);
    let ended = tokio::time::timeout(Duration::from_secs(2), bench.dispatcher.ended());
    ended.await.expect("the lane retires without its isolation");
}

/// So many members that their refusal is systemic.
fn poisonous() -> Vec<String> {
    (0..200).map(|n| format!("poison{n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_systemic_refusal_the_segment_is_tried_again_even_if_its_lane_lives_on() {
    let bench = Bench::poisoned();
    let (_idle, mut stream) = (bench.open(LONG), bench.open(LONG));
    stream.is_refused_systemically().await;
    // The next record is sent, and its member is accepted.
    let mut next = bench.open(LONG);
    next.submit("a", Operation::Add);
    assert_eq!(next.verdict().await, (1, Verdict::Delivered));
}

/// Delivers to one environment, then has the destination moved to another by `move_to`, where
/// every member is refused.
async fn moved(move_to: impl FnOnce(&Bench, LiveState)) {
    let bench = Bench::poisoned();
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    move_to(&bench, active_in("other", "first"));
    stream.is_refused_systemically().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_environment_has_accepted_proves_nothing_in_another() {
    moved(|bench, elsewhere| bench.live.publish(bench.uid, Revision(2), elsewhere)).await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_changes_as_a_slot_is_given_is_followed_first() {
    moved(|bench, elsewhere| {
        let change = (Arc::clone(&bench.live), bench.uid, elsewhere);
        *bench.vendor.changes_to.lock().unwrap() = Some(change);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_a_slot_reports_a_hold_that_begins_meanwhile() {
    let bench = Bench::new([], &[]);
    *bench.vendor.slots.lock().unwrap() = 0;
    let mut stream = bench.open(Duration::from_secs(5));
    let mut health = stream.lane.health();
    stream.submit("a", Operation::Add);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let until = Instant::now() + Duration::from_secs(60);
    *bench.vendor.held.lock().unwrap() = Some(("first".to_owned(), until));
    let told = tokio::time::timeout(Duration::from_secs(2), health.changed());
    told.await.expect("the hold is reported").unwrap();
    assert_eq!(*health.borrow(), DeliveryHealth::Throttled { until });
    let tried = DeliveryAttempts {
        calls: 0,
        error: Some(TransientError::RateLimited),
    };
    assert_eq!(stream.verdict().await, (1, Verdict::TimedOut(tried)));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_waits_out_the_hold_of_its_environments_account() {
    let bench = Bench::new([], &[]);
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    let until = Instant::now() + Duration::from_secs(60);
    *bench.vendor.held.lock().unwrap() = Some(("first".to_owned(), until));
    bench.live.publish(bench.uid, Revision(2), active("second"));
    stream.submit("b", Operation::Add);
    assert_eq!(stream.verdict().await, (2, Verdict::Delivered));
    let call = bench.calls().pop().unwrap();
    assert_eq!(call.token, "second");
    assert!(bench.vendor.started + call.at >= until, "{call:?}");
}
