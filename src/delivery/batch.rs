//! Coalescing batch of a lane: the newest operation per key, and every ack that waits for it.
//!
//! | an entry is | from | until |
//! |---|---|---|
//! | queued | its first change, or the end of the call its key was in | it is sealed |
//! | parked | a change of a key that is in a call | that call ends |
//! | in flight | sealed | released, settled or restored |

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use itertools::Itertools;
use tokio::time::Instant;

use super::{ack::Ack, observed::LaneObserver};
use crate::domain::{
    CallLimits, ContextKey, DeferralCause, DeliveryAttempts, Operation, TransientError, Verdict,
};

/// A key's pending changes. Older ones are kept: should the newest belong to a stream that
/// goes away, the one before it counts again.
#[derive(Debug)]
pub(super) struct PendingKey {
    pub(super) key: ContextKey,
    /// In order of arrival; the last decides.
    changes: Vec<(Operation, Ack)>,
    /// Position in the order of arrival. Retries and newer changes of the key do not change it.
    ordinal: u64,
    since: Instant,
    queued: Option<Operation>,
    tried: DeliveryAttempts,
    observer: LaneObserver,
}

impl PendingKey {
    /// What to do with the key; nothing once all its streams are gone.
    pub(super) fn operation(&self) -> Option<Operation> {
        self.changes.last().map(|(operation, _)| *operation)
    }

    /// Drops the changes of streams that are gone.
    fn prune(&mut self) {
        self.changes.retain(|(_, ack)| !ack.is_abandoned());
    }

    fn has_abandoned(&self) -> bool {
        self.changes.iter().any(|(_, ack)| ack.is_abandoned())
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.changes.iter().any(|(_, ack)| ack.deadline() <= now)
    }

    /// Drops the changes for which no call may start: their streams are gone, or their time-out has
    /// passed. Returns the operation that is left.
    pub(super) fn refresh(&mut self, now: Instant) -> Option<Operation> {
        self.prune();
        self.expire(now, None);
        self.operation()
    }

    /// Notes a failed call that carried it.
    pub(super) fn failed(&mut self, error: TransientError) {
        self.tried = DeliveryAttempts {
            calls: self.tried.calls.saturating_add(1),
            error: Some(error),
        };
    }

    fn has_failed(&self) -> bool {
        self.tried.calls > 0
    }

    /// Gives all its acks the same verdict.
    pub(super) fn settle(self, verdict: Verdict) {
        let Self {
            key,
            changes,
            observer,
            ..
        } = self;
        for (operation, ack) in changes {
            observer.settled(&key, operation, verdict);
            ack.settle(verdict);
        }
    }

    /// Times out the acks whose deadline has passed.
    fn expire(&mut self, now: Instant, waiting_for: Option<TransientError>) {
        let error = self.tried.error.or(waiting_for);
        let tried = DeliveryAttempts {
            error,
            ..self.tried
        };
        let Self {
            key,
            changes,
            observer,
            ..
        } = self;
        let verdict = Verdict::TimedOut(tried);
        for (operation, ack) in changes.extract_if(.., |(_, ack)| ack.deadline() <= now) {
            observer.settled(key, operation, verdict);
            ack.settle(verdict);
        }
    }
}

/// Operations that may share a call.
pub(super) type OperationGroup = &'static [Operation];

/// The changes that leave together in one call.
#[derive(Debug)]
pub(super) struct SealedBatch {
    /// What the call may ask for.
    pub(super) operations: OperationGroup,
    pub(super) entries: Vec<PendingKey>,
}

/// Keys by the ordinals of their entries.
type ArrivalQueue = BTreeMap<u64, ContextKey>;

/// When changes are due, and how many leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchPolicy {
    /// How long a change waits for others to fill its call.
    pub(super) linger: Duration,
    /// What one call may carry.
    pub(super) limits: CallLimits,
}

/// The open batch.
#[derive(Debug)]
pub(super) struct Batch {
    open: HashMap<ContextKey, PendingKey>,
    adds: ArrivalQueue,
    removes: ArrivalQueue,
    in_flight: HashSet<ContextKey>,
    next_ordinal: u64,
    /// Entries below this ordinal are due at once.
    flushed: u64,
    observer: LaneObserver,
}

impl Batch {
    pub(super) fn new(observer: LaneObserver) -> Self {
        Self {
            open: HashMap::new(),
            adds: ArrivalQueue::default(),
            removes: ArrivalQueue::default(),
            in_flight: HashSet::new(),
            next_ordinal: 0,
            flushed: 0,
            observer,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a change; the newest operation of a key wins, and all its acks stay.
    pub(super) fn push(&mut self, key: ContextKey, operation: Operation, ack: Ack, now: Instant) {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        let entry = self.open.entry(key.clone()).or_insert_with(|| PendingKey {
            key: key.clone(),
            changes: Vec::with_capacity(1),
            ordinal,
            since: now,
            queued: None,
            tried: DeliveryAttempts {
                calls: 0,
                error: None,
            },
            observer: self.observer.clone(),
        });
        entry.changes.push((operation, ack));
        self.enqueue(&key);
    }

    /// Makes everything that is in the batch now due at once.
    pub(super) fn flush(&mut self) {
        self.flushed = self.next_ordinal;
    }

    /// When the batch is due at the latest: at once if operations that may share a call fill one.
    pub(super) fn due(&self, policy: BatchPolicy, now: Instant) -> Option<Instant> {
        let groups = policy.limits.operations.groups().iter();
        groups
            .filter_map(|group| self.group_due(group, policy, now))
            .min()
    }

    fn group_due(
        &self,
        group: OperationGroup,
        policy: BatchPolicy,
        now: Instant,
    ) -> Option<Instant> {
        let (ordinal, key) = self.in_order(group).next()?;
        let waiting: usize = group.iter().map(|each| self.queue(*each).len()).sum();
        let at_once = waiting >= policy.limits.max_members || ordinal < self.flushed;
        Some(if at_once {
            now
        } else {
            self.queued(key).since + policy.linger
        })
    }

    /// Seals one call from whichever group has waited longest among those that are due.
    pub(super) fn seal(&mut self, policy: BatchPolicy, now: Instant) -> Option<SealedBatch> {
        loop {
            let operations = self.next_group(policy, now)?;
            let entries = self.take(operations, policy.limits.max_members);
            if !entries.is_empty() {
                self.in_flight
                    .extend(entries.iter().map(|entry| entry.key.clone()));
                return Some(SealedBatch {
                    operations,
                    entries,
                });
            }
        }
    }

    /// Whether the call that [`seal`](Self::seal) would make now is a retry: it carries an entry of
    /// a failed call.
    pub(super) fn is_retry(&self, policy: BatchPolicy, now: Instant) -> bool {
        self.next_group(policy, now).is_some_and(|group| {
            let leaving = self.in_order(group).take(policy.limits.max_members);
            leaving
                .map(|(_, key)| self.queued(key))
                .any(PendingKey::has_failed)
        })
    }

    /// The group of the next call: that of the change that has waited longest among those due.
    fn next_group(&self, policy: BatchPolicy, now: Instant) -> Option<OperationGroup> {
        let oldest = |group: &OperationGroup| {
            let due = self.group_due(group, policy, now)? <= now;
            let (ordinal, _) = self.in_order(group).next()?;
            due.then_some((ordinal, *group))
        };
        let groups = policy.limits.operations.groups().iter();
        groups.filter_map(oldest).min().map(|(_, group)| group)
    }

    /// What is queued of a group, in order of arrival.
    fn in_order(&self, group: OperationGroup) -> impl Iterator<Item = (u64, &ContextKey)> {
        let queues = group.iter().map(|operation| self.queue(*operation).iter());
        queues.kmerge().map(|(ordinal, key)| (*ordinal, key))
    }

    fn take(&mut self, group: OperationGroup, limit: usize) -> Vec<PendingKey> {
        let mut entries = Vec::with_capacity(limit);
        while entries.len() < limit {
            let Some(key) = self.pop_oldest(group) else {
                break;
            };
            let entry = self.open.get_mut(&key).expect("what is queued is open");
            entry.queued = None;
            entry.prune();
            match entry.operation() {
                Some(newest) if group.contains(&newest) => {
                    entries.extend(self.open.remove(&key));
                }
                // Its newest stream went away, and the change before it was the opposite.
                Some(_) => self.enqueue(&key),
                None => drop(self.open.remove(&key)),
            }
        }
        entries
    }

    fn pop_oldest(&mut self, group: OperationGroup) -> Option<ContextKey> {
        let first = |operation: &Operation| {
            let (ordinal, _) = self.queue(*operation).first_key_value()?;
            Some((*ordinal, *operation))
        };
        let (_, operation) = group.iter().filter_map(first).min()?;
        self.queue_mut(operation).pop_first().map(|(_, key)| key)
    }

    /// These keys are in flight no longer; their newer changes may be sealed now.
    pub(super) fn release<'a>(&mut self, keys: impl IntoIterator<Item = &'a ContextKey>) {
        for key in keys {
            self.in_flight.remove(key);
            if self.open.contains_key(key) {
                self.enqueue(key);
            }
        }
    }

    /// Takes back entries of a call that settled nothing for them, under their newer changes.
    pub(super) fn restore(&mut self, entries: Vec<PendingKey>) {
        for mut old in entries {
            let key = old.key.clone();
            if let Some(mut newer) = self.open.remove(&key) {
                self.unqueue(&mut newer);
                old.changes.append(&mut newer.changes);
            }
            // A stream may have gone while the call was under way; it must not wait for more.
            old.prune();
            if old.changes.is_empty() {
                continue;
            }
            self.open.insert(key.clone(), old);
            self.enqueue(&key);
        }
    }

    /// Drops the changes of streams that are gone.
    pub(super) fn sweep(&mut self) {
        self.revise(PendingKey::has_abandoned, PendingKey::prune);
    }

    /// Times out what is overdue; `waiting_for` is what holds back entries never tried.
    pub(super) fn expire(&mut self, now: Instant, waiting_for: Option<TransientError>) {
        self.revise(
            |entry| entry.is_overdue(now),
            |entry| entry.expire(now, waiting_for),
        );
    }

    /// Defers everything, in order of arrival.
    pub(super) fn defer(&mut self, cause: DeferralCause) {
        let mut entries: Vec<_> = self.open.drain().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by_key(|entry| entry.ordinal);
        for entry in entries {
            entry.settle(Verdict::Deferred(cause));
        }
        self.adds.clear();
        self.removes.clear();
    }

    /// Changes the entries that are concerned, dropping those left without a change and
    /// re-queueing those whose operation is another one now. It goes by order of arrival: what
    /// the outside sees must not hang on the hash of a key.
    fn revise(
        &mut self,
        is_concerned: impl Fn(&PendingKey) -> bool,
        mut change: impl FnMut(&mut PendingKey),
    ) {
        let mut concerned: Vec<_> = self
            .open
            .values()
            .filter(|entry| is_concerned(entry))
            .map(|entry| (entry.ordinal, entry.key.clone()))
            .collect();
        concerned.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        for (_, key) in concerned {
            let entry = self.open.get_mut(&key).expect("it was open just now");
            change(entry);
            if entry.operation().is_some() {
                self.enqueue(&key);
            } else if let Some(mut entry) = self.open.remove(&key) {
                self.unqueue(&mut entry);
            }
        }
    }

    /// Queues an open entry where its operation belongs, unless its key is in flight.
    fn enqueue(&mut self, key: &ContextKey) {
        if self.in_flight.contains(key) {
            return;
        }
        let entry = self
            .open
            .get_mut(key)
            .expect("only open entries are queued");
        let operation = entry.operation().expect("an open entry has a change");
        let ordinal = entry.ordinal;
        let before = entry.queued.replace(operation);
        if before == Some(operation) {
            return;
        }
        if let Some(other) = before {
            self.queue_mut(other).remove(&ordinal);
        }
        self.queue_mut(operation).insert(ordinal, key.clone());
    }

    fn unqueue(&mut self, entry: &mut PendingKey) {
        if let Some(operation) = entry.queued.take() {
            self.queue_mut(operation).remove(&entry.ordinal);
        }
    }

    /// The entry that a key in a queue stands for.
    fn queued(&self, key: &ContextKey) -> &PendingKey {
        &self.open[key]
    }

    fn queue(&self, operation: Operation) -> &ArrivalQueue {
        match operation {
            Operation::Add => &self.adds,
            Operation::Remove => &self.removes,
        }
    }

    fn queue_mut(&mut self, operation: Operation) -> &mut ArrivalQueue {
        match operation {
            Operation::Add => &mut self.adds,
            Operation::Remove => &mut self.removes,
        }
    }
}

#[cfg(test)]
mod tests;
