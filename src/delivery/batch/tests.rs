use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::{
    delivery::{AckIssuer, SettledRun},
    domain::OperationsPerCall,
};

const LINGER: Duration = Duration::from_millis(50);
const ADD: OperationGroup = &[Operation::Add];
const REMOVE: OperationGroup = &[Operation::Remove];

fn policy(limit: usize) -> BatchPolicy {
    policy_of(OperationsPerCall::One, limit)
}

fn policy_of(operations: OperationsPerCall, max_members: usize) -> BatchPolicy {
    BatchPolicy {
        linger: LINGER,
        limits: CallLimits {
            max_members,
            operations,
        },
    }
}

struct Bench {
    batch: Batch,
    acks: AckIssuer,
    settled: UnboundedReceiver<SettledRun>,
    now: Instant,
    next: i64,
}

impl Bench {
    fn new() -> Self {
        let (acks, settled) = AckIssuer::new(Duration::from_secs(60));
        Self {
            batch: Batch::new(LaneObserver::silent()),
            acks,
            settled,
            now: Instant::now(),
            next: 1,
        }
    }

    fn push(&mut self, key: &str, operation: Operation) -> i64 {
        let ack = self.acks.issue(self.next);
        self.push_ack(key, operation, ack)
    }

    fn push_ack(&mut self, key: &str, operation: Operation, ack: Ack) -> i64 {
        let key = ContextKey::new(key).unwrap();
        let change = Change {
            key,
            operation,
            ack,
        };
        self.batch.push(change, self.now);
        self.next += 1;
        self.next - 1
    }

    fn seal_all(&mut self) -> Vec<SealedBatch> {
        self.batch.flush();
        std::iter::from_fn(|| self.batch.seal(policy(1000), self.now)).collect()
    }

    fn settle(&mut self, sealed: SealedBatch, verdict: Verdict) {
        let slots = slots(&sealed);
        settle(sealed.entries, verdict, &LaneObserver::silent());
        self.batch.end_call(slots, Vec::new());
    }

    /// Ends a call that settled nothing.
    fn restore(&mut self, failed: SealedBatch) {
        self.batch.end_call(slots(&failed), failed.entries);
    }

    fn verdicts(&mut self) -> BTreeMap<i64, Verdict> {
        std::iter::from_fn(|| self.settled.try_recv().ok())
            .flat_map(SettledRun::records)
            .collect()
    }
}

fn slots(sealed: &SealedBatch) -> Vec<SlotId> {
    sealed.entries.iter().map(|entry| entry.slot).collect()
}

fn keys(sealed: &SealedBatch) -> Vec<&str> {
    sealed
        .entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn newer_removal_wins_over_older_addition_and_both_acks_share_its_verdict() {
    let mut bench = Bench::new();
    bench.push("a", Operation::Add);
    bench.push("a", Operation::Remove);
    let mut sealed = bench.seal_all();
    assert_eq!(sealed.len(), 1);
    let only = sealed.remove(0);
    assert_eq!((only.operations, keys(&only)), (REMOVE, vec!["a"]));
    bench.settle(only, Verdict::Delivered);
    let both = BTreeMap::from([(1, Verdict::Delivered), (2, Verdict::Delivered)]);
    assert_eq!(bench.verdicts(), both);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_due_when_full_lingered_or_flushed() {
    let mut bench = Bench::new();
    let now = bench.now;
    assert_eq!(bench.batch.due(policy(2), now), None);
    bench.push("a", Operation::Add);
    assert_eq!(bench.batch.due(policy(2), now), Some(now + LINGER));
    bench.push("b", Operation::Remove);
    assert_eq!(
        bench.batch.due(policy(2), now),
        Some(now + LINGER),
        "two kinds do not fill one call"
    );
    bench.push("c", Operation::Add);
    assert_eq!(bench.batch.due(policy(2), now), Some(now));
    let full = bench.batch.seal(policy(2), now).unwrap();
    assert_eq!(keys(&full), ["a", "c"]);
    assert!(bench.batch.seal(policy(2), now).is_none());
    bench.batch.flush();
    assert_eq!(bench.batch.due(policy(2), now), Some(now));
}

#[tokio::test(start_paused = true)]
async fn additions_and_removals_share_a_call_where_one_can_carry_both() {
    let mut bench = Bench::new();
    let mixed = |limit| policy_of(OperationsPerCall::Mixed, limit);
    let now = bench.now;
    bench.push("a", Operation::Add);
    bench.push("b", Operation::Remove);
    assert_eq!(bench.batch.due(mixed(3), now), Some(now + LINGER));
    bench.push("c", Operation::Add);
    assert_eq!(
        bench.batch.due(mixed(3), now),
        Some(now),
        "both kinds fill one call"
    );
    bench.push("d", Operation::Remove);
    let full = bench.batch.seal(mixed(3), now).unwrap();
    assert_eq!(keys(&full), ["a", "b", "c"], "in order of arrival");
    let asked: Vec<_> = full.entries.iter().map(PendingKey::operation).collect();
    let [add, remove] = [Some(Operation::Add), Some(Operation::Remove)];
    assert_eq!(asked, [add, remove, add]);
    assert!(bench.batch.seal(mixed(3), now).is_none(), "one lingers");
    bench.batch.flush();
    assert_eq!(keys(&bench.batch.seal(mixed(3), now).unwrap()), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_flight_waits_for_its_call_to_end() {
    let mut bench = Bench::new();
    bench.push("a", Operation::Add);
    let first = bench.seal_all().remove(0);
    bench.push("a", Operation::Remove);
    bench.push("b", Operation::Remove);
    let second = bench.seal_all().remove(0);
    assert_eq!(keys(&second), ["b"]);
    bench.settle(first, Verdict::Delivered);
    let third = bench.seal_all().remove(0);
    assert_eq!((third.operations, keys(&third)), (REMOVE, vec!["a"]));
}

#[tokio::test(start_paused = true)]
async fn a_restored_entry_goes_first_and_under_its_newer_changes() {
    let mut bench = Bench::new();
    bench.push("a", Operation::Add);
    bench.push("b", Operation::Add);
    let failed = bench.seal_all().remove(0);
    bench.push("b", Operation::Remove);
    bench.push("c", Operation::Add);
    bench.restore(failed);
    let sealed = bench.seal_all();
    assert_eq!(keys(&sealed[0]), ["a", "c"]);
    assert_eq!(
        (sealed[1].operations, keys(&sealed[1])),
        (REMOVE, vec!["b"])
    );
    for call in sealed {
        bench.settle(call, Verdict::Delivered);
    }
    assert_eq!(bench.verdicts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_change_before_counts_again_when_the_newest_stream_goes_away() {
    let mut bench = Bench::new();
    let (other, mut other_settled) = AckIssuer::new(Duration::from_secs(60));
    bench.push("a", Operation::Add);
    bench.push_ack("a", Operation::Remove, other.issue(7));
    bench.push_ack("b", Operation::Add, other.issue(8));
    other.abandon();
    // Whether the lane is told in time or not must make no difference.
    let sealed = bench.seal_all();
    assert_eq!(sealed.len(), 1);
    assert_eq!((sealed[0].operations, keys(&sealed[0])), (ADD, vec!["a"]));
    assert!(bench.batch.is_empty());
    let deferred = Verdict::Deferred(DeferralCause::Abandoned);
    let settled = std::iter::from_fn(|| other_settled.try_recv().ok());
    let settled: Vec<_> = settled.flat_map(SettledRun::records).collect();
    assert_eq!(settled, [(7, deferred), (8, deferred)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_a_retry_if_it_carries_what_has_failed() {
    let mut bench = Bench::new();
    let now = bench.now;
    let is_retry = |bench: &Bench, limit| {
        let policy = policy_of(OperationsPerCall::Mixed, limit);
        bench.batch.is_retry(policy, now)
    };
    for (key, operation) in [
        ("a", Operation::Remove),
        ("b", Operation::Add),
        ("c", Operation::Add),
    ] {
        bench.push(key, operation);
    }
    bench.batch.flush();
    let oldest = policy_of(OperationsPerCall::Mixed, 2);
    let mut failed = bench.batch.seal(oldest, now).unwrap();
    assert_eq!(keys(&failed), ["a", "b"]);
    failed.entries[1].failed(TransientError::Conflict);
    assert!(!is_retry(&bench, 3), "nothing that failed waits");
    bench.restore(failed);
    assert!(
        !is_retry(&bench, 1),
        "the call would carry the removal alone"
    );
    assert!(is_retry(&bench, 2));
    let retried = bench.seal_all();
    for call in retried {
        bench.settle(call, Verdict::Delivered);
    }
    bench.push("d", Operation::Add);
    bench.batch.flush();
    assert!(!is_retry(&bench, 3));
}

#[tokio::test(start_paused = true)]
async fn an_overdue_record_is_told_what_was_tried() {
    let mut bench = Bench::new();
    bench.push("a", Operation::Add);
    let mut failed = bench.seal_all().remove(0);
    failed.entries[0].failed(TransientError::Status(503));
    bench.restore(failed);
    bench.push("b", Operation::Add);
    bench.batch.expire(bench.now, None);
    assert!(bench.verdicts().is_empty());
    let later = bench.now + Duration::from_secs(61);
    bench.batch.expire(later, Some(TransientError::RateLimited));
    assert!(bench.batch.is_empty());
    let timed_out = |calls, error| {
        Verdict::TimedOut(DeliveryAttempts {
            calls,
            error: Some(error),
        })
    };
    assert_eq!(
        bench.verdicts(),
        BTreeMap::from([
            (1, timed_out(1, TransientError::Status(503))),
            (2, timed_out(0, TransientError::RateLimited)),
        ])
    );
    assert!(bench.seal_all().is_empty());
}

#[tokio::test]
async fn a_key_whose_operation_alternates_keeps_its_one_position() {
    let mut bench = Bench::new();
    bench.push("alternating", Operation::Add);
    for key in ["a", "b", "c"] {
        bench.push(key, Operation::Remove);
    }
    for n in 0..5000 {
        let operation = if n % 2 == 0 {
            Operation::Remove
        } else {
            Operation::Add
        };
        bench.push("alternating", operation);
    }
    bench.push("alternating", Operation::Remove);
    assert_eq!(bench.batch.adds.len() + bench.batch.removes.len(), 4);
    bench.batch.flush();
    let first = bench.batch.seal(policy(1), bench.now).unwrap();
    assert_eq!(keys(&first), ["alternating"]);
}

/// Keys enough that the order of their hashes is not by chance that of their arrival.
fn many() -> Vec<String> {
    (0..50).map(|n| format!("key-{n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn verdicts_come_in_order_of_arrival() {
    for defers in [true, false] {
        let mut bench = Bench::new();
        for key in many() {
            bench.push(&key, Operation::Add);
        }
        if defers {
            bench.batch.defer(DeferralCause::Segment);
        } else {
            let later = bench.now + Duration::from_secs(61);
            bench.batch.expire(later, None);
        }
        let settled = std::iter::from_fn(|| bench.settled.try_recv().ok());
        let records = settled.flat_map(SettledRun::records);
        let order: Vec<_> = records.map(|(sequence, _)| sequence).collect();
        assert_eq!(order, (1..=50).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn keys_whose_newest_stream_goes_away_leave_in_order_of_arrival() {
    let mut bench = Bench::new();
    let (other, _other_settled) = AckIssuer::new(Duration::from_secs(60));
    for key in many() {
        bench.push(&key, Operation::Add);
    }
    for key in many().into_iter().rev() {
        bench.push_ack(&key, Operation::Remove, other.issue(1));
    }
    other.abandon();
    bench.batch.sweep();
    let sealed = bench.seal_all();
    assert_eq!(keys(&sealed[0]), many());
}

#[derive(Debug, Clone)]
enum Act {
    Push {
        key: u8,
        operation: Operation,
        stream: u8,
    },
    Seal {
        limit: usize,
    },
    End {
        call: usize,
        applied: bool,
    },
    Abandon {
        stream: u8,
    },
    Sweep,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let operation = prop_oneof![Just(Operation::Add), Just(Operation::Remove)];
    let act = prop_oneof![
        6 => (0..6u8, operation, 0..3u8)
            .prop_map(|(key, operation, stream)| Act::Push { key, operation, stream }),
        3 => (1..4usize).prop_map(|limit| Act::Seal { limit }),
        3 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(call, applied)| Act::End { call: call.index(8), applied }),
        1 => (1..3u8).prop_map(|stream| Act::Abandon { stream }),
        1 => Just(Act::Sweep),
    ];
    prop::collection::vec(act, 1..80)
}

proptest! {
    /// Whatever is pushed, sealed, failed, applied and abandoned: each ack gets exactly one
    /// verdict, no key is in two calls, each key's applied changes are in order of arrival, and
    /// the last one of a living stream is the last one applied.
    #[test]
    fn acks_are_conserved_and_keys_keep_their_order(
        operations in prop_oneof![Just(OperationsPerCall::One), Just(OperationsPerCall::Mixed)],
        acts in acts(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { check(operations, acts) })?;
    }
}

fn check(operations: OperationsPerCall, acts: Vec<Act>) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let mut batch = Batch::new(LaneObserver::silent());
    let policy = |limit| BatchPolicy {
        linger: Duration::ZERO,
        ..policy_of(operations, limit)
    };
    let (acks, mut settled): (Vec<_>, Vec<_>) = (0..3)
        .map(|_| AckIssuer::new(Duration::from_secs(60)))
        .unzip();
    let mut calls: Vec<SealedBatch> = Vec::new();
    let mut member = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    let mut abandoned = [false; 3];
    let mut pushed = [0usize; 3];
    let end = |batch: &mut Batch, member: &mut BTreeMap<_, _>, call: SealedBatch, applied: bool| {
        let slots = slots(&call);
        if applied {
            for entry in &call.entries {
                // Nothing is pruned here once it is sealed: this is what the call asked for.
                let asked = entry.operation().unwrap();
                assert!(
                    call.operations.contains(&asked),
                    "no call mixes what it may not"
                );
                member.insert(entry.key.as_str().to_owned(), asked);
            }
            settle(call.entries, Verdict::Delivered, &LaneObserver::silent());
            batch.end_call(slots, Vec::new());
        } else {
            batch.end_call(slots, call.entries);
        }
    };
    for (sequence, act) in (0i64..).zip(acts) {
        match act {
            Act::Push {
                key,
                operation,
                stream,
            } if !abandoned[usize::from(stream)] => {
                let index = usize::from(stream);
                let ack = acks[index].issue(sequence);
                pushed[index] += 1;
                let key = ContextKey::new(&format!("k{key}")).unwrap();
                wanted
                    .entry(key.as_str().to_owned())
                    .or_insert_with(Vec::new)
                    .push((operation, index));
                let change = Change {
                    key,
                    operation,
                    ack,
                };
                batch.push(change, now);
            }
            Act::Push { .. } => {}
            Act::Seal { limit } => calls.extend(batch.seal(policy(limit), now)),
            Act::End { call, applied } if call < calls.len() => {
                let call = calls.remove(call);
                end(&mut batch, &mut member, call, applied);
            }
            Act::End { .. } => {}
            Act::Abandon { stream } => {
                abandoned[usize::from(stream)] = true;
                acks[usize::from(stream)].abandon();
            }
            Act::Sweep => batch.sweep(),
        }
        let mut flying = HashSet::new();
        for entry in calls.iter().flat_map(|call| &call.entries) {
            prop_assert!(flying.insert(entry.key.clone()), "a key is in two calls");
        }
        let slots: Vec<_> = batch.slots.iter().map(|(_, slot)| slot).collect();
        for slot in &slots {
            prop_assert_eq!(slot.in_flight, flying.contains(&slot.key));
            prop_assert!(
                slot.in_flight || slot.waiting.is_some(),
                "a slot is not given back"
            );
        }
        let waiting = slots.iter().filter(|slot| slot.waiting.is_some());
        prop_assert_eq!(batch.waiting, waiting.clone().count());
        let queued = waiting.filter(|slot| !slot.in_flight).count();
        prop_assert_eq!(batch.adds.len() + batch.removes.len(), queued);
        prop_assert_eq!(batch.index.len(), slots.len());
    }
    for call in calls {
        end(&mut batch, &mut member, call, false);
    }
    while let Some(call) = batch.seal(policy(2), now) {
        end(&mut batch, &mut member, call, true);
    }
    prop_assert!(batch.is_empty() && batch.slots.is_empty() && batch.index.is_empty());
    prop_assert_eq!(batch.adds.len() + batch.removes.len(), 0);
    for (key, changes) in wanted {
        let (last, stream) = *changes.last().unwrap();
        if !abandoned[stream] {
            prop_assert_eq!(member.get(&key), Some(&last), "{} did not converge", key);
        }
    }
    for (index, receiver) in settled.iter_mut().enumerate() {
        let runs = std::iter::from_fn(|| receiver.try_recv().ok());
        let verdicts: Vec<_> = runs.flat_map(SettledRun::records).collect();
        let distinct: HashSet<_> = verdicts.iter().map(|(sequence, _)| *sequence).collect();
        prop_assert_eq!(
            (verdicts.len(), distinct.len()),
            (pushed[index], pushed[index])
        );
        let deferred = verdicts
            .iter()
            .any(|(_, verdict)| matches!(verdict, Verdict::Deferred(_)));
        prop_assert!(
            !deferred || abandoned[index],
            "a living stream's record was deferred"
        );
    }
    Ok(())
}
