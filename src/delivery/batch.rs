//! Coalescing batch of a lane: the newest operation per key, and every ack that waits for it.
//!
//! | an entry is | from | until |
//! |---|---|---|
//! | queued | its first change, or the end of the call its key was in | it is sealed |
//! | parked | a change of a key that is in a call | that call ends |
//! | in flight | sealed | its call ends; what that left waits again |

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use hashbrown::HashTable;
use itertools::Itertools;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    ack::{Ack, Settlement},
    arrivals::{ArrivalQueue, SlotId},
    observed::LaneObserver,
};
use crate::domain::{
    CallLimits, ContextKey, DeferralCause, DeliveryAttempts, Operation, TransientError, Verdict,
};

/// A change for a lane, with its record's claim to a verdict.
#[derive(Debug)]
pub struct Change {
    /// The member.
    pub key: ContextKey,
    /// In or out.
    pub operation: Operation,
    /// Tells what becomes of it, even if the lane is gone.
    pub ack: Ack,
}

/// A key's pending changes. Older ones are kept: should the newest belong to a stream that
/// goes away, the one before it counts again.
#[derive(Debug)]
pub(super) struct PendingKey {
    pub(super) key: ContextKey,
    pub(super) slot: SlotId,
    changes: PendingChanges,
}

#[derive(Debug)]
struct PendingChanges {
    /// In order of arrival; the last decides. Nearly always there is one.
    changes: SmallVec<[(Operation, Ack); 1]>,
    /// Position in the order of arrival. Retries and newer changes of the key do not change it.
    ordinal: u64,
    since: Instant,
    tried: DeliveryAttempts,
}

impl PendingKey {
    /// What to do with the key; nothing once all its streams are gone.
    pub(super) fn operation(&self) -> Option<Operation> {
        self.changes.operation()
    }

    /// Drops the changes for which no call may start: their streams are gone, or their time-out has
    /// passed. Returns the operation that is left.
    pub(super) fn refresh(&mut self, now: Instant, observer: &LaneObserver) -> Option<Operation> {
        self.changes.prune();
        self.changes.expire(&self.key, now, None, observer);
        self.operation()
    }

    /// Notes a failed call that carried it.
    pub(super) fn failed(&mut self, error: TransientError) {
        self.changes.tried = DeliveryAttempts {
            calls: self.changes.tried.calls.saturating_add(1),
            error: Some(error),
        };
    }
}

/// Gives the same verdict to all acks of these keys.
pub(super) fn settle(
    entries: impl IntoIterator<Item = PendingKey>,
    verdict: Verdict,
    observer: &LaneObserver,
) {
    let mut settlement = Settlement::default();
    for PendingKey { key, changes, .. } in entries {
        changes.settle(&key, verdict, observer, &mut settlement);
    }
}

impl PendingChanges {
    fn new(ordinal: u64, since: Instant) -> Self {
        Self {
            changes: SmallVec::new(),
            ordinal,
            since,
            tried: DeliveryAttempts {
                calls: 0,
                error: None,
            },
        }
    }

    fn operation(&self) -> Option<Operation> {
        self.changes.last().map(|(operation, _)| *operation)
    }

    /// Drops the changes of streams that are gone.
    fn prune(&mut self) {
        if self.has_abandoned() {
            self.changes.retain(|(_, ack)| !ack.is_abandoned());
        }
    }

    fn has_abandoned(&self) -> bool {
        self.changes.iter().any(|(_, ack)| ack.is_abandoned())
    }

    /// When the first of its acks times out.
    fn deadline(&self) -> Option<Instant> {
        self.changes.iter().map(|(_, ack)| ack.deadline()).min()
    }

    fn settle(
        self,
        key: &ContextKey,
        verdict: Verdict,
        observer: &LaneObserver,
        settlement: &mut Settlement,
    ) {
        for (operation, ack) in self.changes {
            observer.settled(key, operation, verdict);
            settlement.settle(ack, verdict);
        }
    }

    /// Times out the acks whose deadline has passed.
    fn expire(
        &mut self,
        key: &ContextKey,
        now: Instant,
        waiting_for: Option<TransientError>,
        observer: &LaneObserver,
    ) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let verdict = Verdict::TimedOut(DeliveryAttempts {
            error: self.tried.error.or(waiting_for),
            ..self.tried
        });
        let changes = std::mem::take(&mut self.changes);
        for (operation, ack) in changes {
            if ack.deadline() > now {
                self.changes.push((operation, ack));
            } else {
                observer.settled(key, operation, verdict);
                ack.settle(verdict);
            }
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

/// When changes are due, and how many leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchPolicy {
    /// How long a change waits for others to fill its call.
    pub(super) linger: Duration,
    /// What one call may carry.
    pub(super) limits: CallLimits,
}

/// The open batch.
///
/// A key has a slot while it waits or is in a call. It is hashed once, when its change arrives;
/// afterwards the slot stands for it.
#[derive(Debug)]
pub(super) struct Batch {
    slots: Slab<Slot>,
    /// Slots by the hash of their keys.
    index: HashTable<SlotId>,
    /// Keyed anew for each batch: callers choose the keys of members.
    hasher: RandomState,
    /// Slots whose keys wait.
    waiting: usize,
    adds: ArrivalQueue,
    removes: ArrivalQueue,
    next_ordinal: u64,
    /// Entries below this ordinal are due at once.
    flushed: u64,
    /// No ack that waits times out before.
    next_deadline: Option<Instant>,
    /// Whether a call has failed since nothing waited.
    has_failed: bool,
    observer: LaneObserver,
}

#[derive(Debug)]
struct Slot {
    key: ContextKey,
    hash: u64,
    /// What waits to be sealed.
    waiting: Option<PendingChanges>,
    /// The queue that it is in. None while the key is in a call.
    queued: Option<Operation>,
    in_flight: bool,
}

impl Batch {
    pub(super) fn new(observer: LaneObserver) -> Self {
        Self {
            slots: Slab::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            waiting: 0,
            adds: ArrivalQueue::default(),
            removes: ArrivalQueue::default(),
            next_ordinal: 0,
            flushed: 0,
            next_deadline: None,
            has_failed: false,
            observer,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Takes a change; the newest operation of a key wins, and all its acks stay.
    pub(super) fn push(&mut self, change: Change, now: Instant) {
        let Change {
            key,
            operation,
            ack,
        } = change;
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.note_deadline(ack.deadline());
        self.has_failed &= !self.is_empty();
        let id = self.slot_of(key);
        let waiting = &mut self.slots[id].waiting;
        if waiting.is_none() {
            self.waiting += 1;
        }
        let pending = waiting.get_or_insert_with(|| PendingChanges::new(ordinal, now));
        pending.changes.push((operation, ack));
        self.enqueue(id);
    }

    /// The slot of a key; a new one if it has none.
    fn slot_of(&mut self, key: ContextKey) -> SlotId {
        let hash = self.hasher.hash_one(&key);
        let slots = &mut self.slots;
        if let Some(id) = self.index.find(hash, |id| slots[*id].key == key) {
            return *id;
        }
        let id = slots.insert(Slot {
            key,
            hash,
            waiting: None,
            queued: None,
            in_flight: false,
        });
        self.index.insert_unique(hash, id, |id| slots[*id].hash);
        id
    }

    fn note_deadline(&mut self, deadline: Instant) {
        let known = self.next_deadline.is_some_and(|known| known <= deadline);
        if !known {
            self.next_deadline = Some(deadline);
        }
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
        let (ordinal, id) = self.oldest(group)?;
        let at_once = self.queued(group) >= policy.limits.max_members || ordinal < self.flushed;
        Some(if at_once {
            now
        } else {
            self.pending(id).since + policy.linger
        })
    }

    /// What has waited longest of a group.
    fn oldest(&self, group: OperationGroup) -> Option<(u64, SlotId)> {
        let queues = group.iter().map(|operation| self.queue(*operation));
        queues.filter_map(ArrivalQueue::first).min()
    }

    /// Seals one call from whichever group has waited longest among those that are due.
    pub(super) fn seal(&mut self, policy: BatchPolicy, now: Instant) -> Option<SealedBatch> {
        loop {
            let operations = self.next_group(policy, now)?;
            let entries = self.take(operations, policy.limits.max_members);
            if !entries.is_empty() {
                return Some(SealedBatch {
                    operations,
                    entries,
                });
            }
        }
    }

    /// Whether the call that [`seal`](Self::seal) would make now is a retry: it carries an entry of a
    /// failed call.
    pub(super) fn is_retry(&self, policy: BatchPolicy, now: Instant) -> bool {
        self.has_failed
            && self.next_group(policy, now).is_some_and(|group| {
                let queues = group.iter().map(|each| self.queue(*each).iter());
                let leaving = queues.kmerge().take(policy.limits.max_members);
                leaving
                    .map(|(_, id)| self.pending(id))
                    .any(|pending| pending.tried.calls > 0)
            })
    }

    /// The group of the next call: that of the change that has waited longest among those due.
    fn next_group(&self, policy: BatchPolicy, now: Instant) -> Option<OperationGroup> {
        let oldest = |group: &OperationGroup| {
            let due = self.group_due(group, policy, now)? <= now;
            let (ordinal, _) = self.oldest(group)?;
            due.then_some((ordinal, *group))
        };
        let groups = policy.limits.operations.groups().iter();
        groups.filter_map(oldest).min().map(|(_, group)| group)
    }

    fn take(&mut self, group: OperationGroup, limit: usize) -> Vec<PendingKey> {
        let mut entries = Vec::with_capacity(limit.min(self.queued(group)));
        while entries.len() < limit
            && let Some(id) = self.pop_oldest(group)
        {
            let slot = &mut self.slots[id];
            let mut pending = slot.waiting.take().expect("what is queued waits");
            pending.prune();
            match pending.operation() {
                Some(newest) if group.contains(&newest) => {
                    self.waiting -= 1;
                    slot.in_flight = true;
                    entries.push(PendingKey {
                        key: slot.key.clone(),
                        slot: id,
                        changes: pending,
                    });
                }
                // Its newest stream went away, and the change before it was the opposite.
                Some(_) => {
                    slot.waiting = Some(pending);
                    self.enqueue(id);
                }
                None => {
                    self.waiting -= 1;
                    self.free(id);
                }
            }
        }
        entries
    }

    fn pop_oldest(&mut self, group: OperationGroup) -> Option<SlotId> {
        let (_, id) = self.oldest(group)?;
        let operation = self.slots[id].queued.take();
        let operation = operation.expect("a slot knows the queue that it is in");
        self.queue_mut(operation).pop_first();
        Some(id)
    }

    /// How many of a group are queued.
    fn queued(&self, group: OperationGroup) -> usize {
        group.iter().map(|each| self.queue(*each).len()).sum()
    }

    /// Ends a call: what it left waits again, under newer changes of its keys, and all its keys are in
    /// flight no longer.
    pub(super) fn end_call(&mut self, slots: Vec<SlotId>, left: Vec<PendingKey>) {
        for old in left {
            self.restore(old);
        }
        for id in slots {
            let slot = &mut self.slots[id];
            slot.in_flight = false;
            if slot.waiting.is_some() {
                self.enqueue(id);
            } else {
                self.free(id);
            }
        }
    }

    fn restore(&mut self, old: PendingKey) {
        let PendingKey {
            slot, mut changes, ..
        } = old;
        let waiting = &mut self.slots[slot].waiting;
        if let Some(newer) = waiting.take() {
            self.waiting -= 1;
            changes.changes.extend(newer.changes);
        }
        // A stream may have gone while the call was under way; it must not wait for more.
        changes.prune();
        if let Some(deadline) = changes.deadline() {
            self.has_failed |= changes.tried.calls > 0;
            *waiting = Some(changes);
            self.waiting += 1;
            self.note_deadline(deadline);
        }
    }

    /// Drops the changes of streams that are gone.
    pub(super) fn sweep(&mut self) {
        self.revise(PendingChanges::has_abandoned, |_, pending| pending.prune());
    }

    /// Times out what is overdue; `waiting_for` is what holds back entries never tried.
    pub(super) fn expire(&mut self, now: Instant, waiting_for: Option<TransientError>) {
        if self.next_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let observer = self.observer.clone();
        self.revise(
            |pending| pending.deadline().is_some_and(|deadline| deadline <= now),
            |key, pending| pending.expire(key, now, waiting_for, &observer),
        );
        let waiting = self
            .slots
            .iter()
            .filter_map(|(_, slot)| slot.waiting.as_ref());
        self.next_deadline = waiting.filter_map(PendingChanges::deadline).min();
    }

    /// Defers everything, in order of arrival.
    pub(super) fn defer(&mut self, cause: DeferralCause) {
        let verdict = Verdict::Deferred(cause);
        let mut settlement = Settlement::default();
        for id in self.waiting_slots(|_| true) {
            let slot = &mut self.slots[id];
            slot.queued = None;
            if let Some(pending) = slot.waiting.take() {
                pending.settle(&slot.key, verdict, &self.observer, &mut settlement);
            }
            if !slot.in_flight {
                self.free(id);
            }
        }
        self.waiting = 0;
        self.adds.clear();
        self.removes.clear();
    }

    /// The slots that wait and are concerned, in order of arrival: what is observed must not depend on
    /// the order of hashes.
    fn waiting_slots(&self, is_concerned: impl Fn(&PendingChanges) -> bool) -> Vec<SlotId> {
        let concerned = |(id, slot): (SlotId, &Slot)| {
            let pending = slot.waiting.as_ref().filter(|each| is_concerned(each))?;
            Some((pending.ordinal, id))
        };
        let mut slots: Vec<_> = self.slots.iter().filter_map(concerned).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, id)| id).collect()
    }

    /// Changes the entries that are concerned, dropping those left without a change and
    /// re-queueing those whose operation is another one now.
    fn revise(
        &mut self,
        is_concerned: impl Fn(&PendingChanges) -> bool,
        mut change: impl FnMut(&ContextKey, &mut PendingChanges),
    ) {
        for id in self.waiting_slots(is_concerned) {
            let slot = &mut self.slots[id];
            let pending = slot.waiting.as_mut().expect("it waited just now");
            change(&slot.key, pending);
            if pending.operation().is_some() {
                self.enqueue(id);
                continue;
            }
            let ordinal = pending.ordinal;
            slot.waiting = None;
            self.waiting -= 1;
            if let Some(queue) = slot.queued.take() {
                self.queue_mut(queue).remove(ordinal);
            }
            if !self.slots[id].in_flight {
                self.free(id);
            }
        }
    }

    /// Queues what waits in a slot where its operation belongs, unless its key is in flight.
    fn enqueue(&mut self, id: SlotId) {
        let slot = &mut self.slots[id];
        if slot.in_flight {
            return;
        }
        let pending = slot.waiting.as_ref().expect("only what waits is queued");
        let operation = pending.operation().expect("what waits has a change");
        let ordinal = pending.ordinal;
        let before = slot.queued.replace(operation);
        if before == Some(operation) {
            return;
        }
        if let Some(other) = before {
            self.queue_mut(other).remove(ordinal);
        }
        self.queue_mut(operation).insert(ordinal, id);
    }

    /// Gives back the slot of a key that neither waits nor is in a call.
    fn free(&mut self, id: SlotId) {
        let slot = self.slots.remove(id);
        if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other == id) {
            entry.remove();
        }
    }

    fn pending(&self, id: SlotId) -> &PendingChanges {
        let pending = self.slots[id].waiting.as_ref();
        pending.expect("what is queued waits")
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
