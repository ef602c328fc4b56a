//! Batch delivery: the segment calls that deliver one sealed batch, more than one to isolate
//! refused members.

use std::{ops::Range, pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    arrivals::SlotId,
    batch::{self, OperationGroup, PendingKey, SealedBatch},
    bisect::{Bisect, BisectStep, RefusalHistory, RefusedProbe},
    live::LiveDestination,
    observed::LaneObserver,
};
use crate::domain::{
    Attempt, CallOutcome, Connection, CredentialStanding, Hold, Member, Refusal, Revision,
    SegmentCall, SegmentClient, SegmentRef, Slot, TransientError, Verdict,
};

/// How often a delivery that waits, for the slot of its next probe or for a confirmation, checks
/// whether a stream still needs it; as often as a lane does.
const EXPIRY_TICK: Duration = Duration::from_secs(1);

/// A sealed batch on its way.
#[derive(Debug)]
pub(super) struct BatchDelivery {
    pub(super) client: Arc<dyn SegmentClient>,
    pub(super) destination: LiveDestination,
    /// The destination's connection at `revision`.
    pub(super) connection: Arc<Connection>,
    pub(super) revision: Revision,
    pub(super) segment: SegmentRef,
    /// What calls of this lane have met so far.
    pub(super) history: RefusalHistory,
    pub(super) observer: LaneObserver,
}

/// The result of a batch delivery. Entries that are not left have been settled.
#[derive(Debug)]
pub(super) struct DeliveryReport {
    /// The slots of all keys of the batch, which were in flight.
    pub(super) slots: Vec<SlotId>,
    /// Entries without a verdict.
    pub(super) left: Vec<PendingKey>,
    /// Why they were left.
    pub(super) end: DeliveryEnd,
    /// Whether the vendor accepted at least one call.
    pub(super) applied: bool,
    /// What calls of this lane have met by now.
    pub(super) history: RefusalHistory,
    pub(super) revision: Revision,
}

/// How a batch delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryEnd {
    /// No probe is left, or the most calls were made; try the rest, if any, at once.
    Completed,
    /// The destination has changed: the rest is delivered by its new revision, if at all.
    Outdated,
    /// Retry the rest later.
    RetryLater {
        error: TransientError,
        retry_after: Option<Duration>,
    },
    /// The vendor has asked for no call before then: the rest was not tried.
    Held(Hold),
    /// The segment is refused, or its change forbidden: trying again cannot help.
    Refused(Refusal),
    /// The destination's credentials are refused, and that was confirmed.
    CredentialsRefused,
}

impl BatchDelivery {
    /// Calls, isolating refused members, and settles everything that gets a verdict.
    pub(super) async fn run(self, slot: Slot, sealed: SealedBatch) -> DeliveryReport {
        let SealedBatch {
            operations,
            entries,
        } = sealed;
        let slots = entries.iter().map(|entry| entry.slot).collect();
        let mut work = IsolationState {
            bisect: Bisect::new(entries.len(), self.history),
            entries: entries.into_iter().map(Some).collect(),
            largest_applied: 0,
            too_large: None,
            observer: self.observer.clone(),
        };
        let end = self.work_through(&mut work, slot, operations).await;
        if let Some(members) = work.limit() {
            self.client.learn_max_members(&self.connection, members);
        }
        DeliveryReport {
            slots,
            end,
            applied: work.largest_applied > 0,
            history: work.bisect.history(),
            revision: self.revision,
            left: work.entries.into_iter().flatten().collect(),
        }
    }

    async fn work_through(
        &self,
        work: &mut IsolationState,
        slot: Slot,
        operations: OperationGroup,
    ) -> DeliveryEnd {
        let mut slot = Some(slot);
        loop {
            let part = match work.bisect.step() {
                BisectStep::Probe(part) => part,
                BisectStep::Done | BisectStep::Capped => return DeliveryEnd::Completed,
                BisectStep::Systemic => return DeliveryEnd::Refused(Refusal::Segment),
            };
            let ready = match slot.take() {
                Some(slot) => slot,
                None => match self.next_slot(work).await {
                    Ok(slot) => slot,
                    Err(end) => return end,
                },
            };
            // Isolating takes many calls: none of them with a token that was rotated, or into a
            // destination that was deleted, since the one before.
            if !self.destination.is_in_force(self.revision) {
                return DeliveryEnd::Outdated;
            }
            // Streams may have gone, and time-outs passed, since the last probe.
            work.refresh(Instant::now());
            let members = work.members(part, operations);
            if members.is_empty() {
                work.bisect.skipped();
                slot = Some(ready);
                continue;
            }
            let delivery = self.delivery(work.asked(&members));
            match self.client.apply(ready, &delivery).await {
                CallOutcome::Applied => work.apply(&members),
                CallOutcome::Refused(Refusal::Payload) => work.refuse(&members),
                CallOutcome::Refused(Refusal::TooLarge) => work.refuse_size(&members),
                CallOutcome::Refused(refusal) => {
                    work.fail(&members, TransientError::Unconfirmed(refusal));
                    return self.refused(work, refusal).await;
                }
                CallOutcome::Held(hold) => return DeliveryEnd::Held(hold),
                CallOutcome::Retry { error, retry_after } => {
                    work.fail(&members, error);
                    return DeliveryEnd::RetryLater { error, retry_after };
                }
            }
        }
    }

    /// The slot of a further probe. During a hold the delivery ends: in the lane, changes coalesce
    /// and time out meanwhile. While it waits for a slot, the delivery drops entries that no stream
    /// needs any longer.
    async fn next_slot(&self, work: &mut IsolationState) -> Result<Slot, DeliveryEnd> {
        // Isolating is progress, not repetition.
        let (connection, segment) = (&self.connection, &self.segment.id);
        let mut ready = pin!(self.client.ready(connection, segment, Attempt::First));
        loop {
            if let Some(hold) = self.client.hold(&self.connection) {
                return Err(DeliveryEnd::Held(hold));
            }
            tokio::select! {
                // A slot that has come is used.
                biased;
                slot = &mut ready => return Ok(slot),
                () = tokio::time::sleep(EXPIRY_TICK) => work.refresh(Instant::now()),
            }
            // The connection may belong to another account by now.
            if !self.destination.is_in_force(self.revision) {
                return Err(DeliveryEnd::Outdated);
            }
            if work.entries.iter().all(Option::is_none) {
                return Err(DeliveryEnd::Completed);
            }
        }
    }

    /// The end after a refusal that does not concern the members. A refusal of the token, or of its
    /// permissions, counts only once the vendor has confirmed it.
    async fn refused(&self, work: &mut IsolationState, refusal: Refusal) -> DeliveryEnd {
        let later = |retry_after| DeliveryEnd::RetryLater {
            error: TransientError::Unconfirmed(refusal),
            retry_after,
        };
        if !matches!(refusal, Refusal::Unauthorized | Refusal::Forbidden) {
            return DeliveryEnd::Refused(refusal);
        }
        match self.confirm(work, refusal).await {
            Ok(CredentialStanding::Refused) => DeliveryEnd::CredentialsRefused,
            Ok(CredentialStanding::Good) if refusal == Refusal::Forbidden => {
                DeliveryEnd::Refused(refusal)
            }
            Ok(CredentialStanding::Good) => later(None),
            Ok(CredentialStanding::Unknown { retry_after }) => later(retry_after),
            Err(end) => end.unwrap_or_else(|| later(None)),
        }
    }

    /// Asks the vendor to confirm a refusal, as long as a stream waits for the result. Otherwise
    /// there is no answer: the delivery is outdated, or none of its entries is left.
    async fn confirm(
        &self,
        work: &mut IsolationState,
        refusal: Refusal,
    ) -> Result<CredentialStanding, Option<DeliveryEnd>> {
        let mut standing = pin!(self.client.confirm(&self.connection, refusal));
        loop {
            work.refresh(Instant::now());
            if !self.destination.is_in_force(self.revision) {
                return Err(Some(DeliveryEnd::Outdated));
            }
            if work.entries.iter().all(Option::is_none) {
                return Err(None);
            }
            tokio::select! {
                // An answer that has come is used.
                biased;
                standing = &mut standing => return Ok(standing),
                () = tokio::time::sleep(EXPIRY_TICK) => {}
            }
        }
    }

    fn delivery(&self, members: Vec<Member>) -> SegmentCall {
        SegmentCall {
            connection: Arc::clone(&self.connection),
            segment: self.segment.clone(),
            members,
        }
    }
}

/// The entries of the batch, by their index, until each has its verdict.
#[derive(Debug)]
struct IsolationState {
    bisect: Bisect,
    entries: Vec<Option<PendingKey>>,
    /// Members of the largest call that was accepted; none was if zero.
    largest_applied: usize,
    /// Members of the smallest call that was too large.
    too_large: Option<usize>,
    observer: LaneObserver,
}

impl IsolationState {
    /// Drops the entries that no stream waits for any longer, in every part: a stream that has gone
    /// must not wait for the probes of others.
    fn refresh(&mut self, now: Instant) {
        for entry in &mut self.entries {
            entry.take_if(|entry| entry.refresh(now, &self.observer).is_none());
        }
    }

    /// The members of a part that still need the call. An entry whose newest change was dropped may
    /// need the opposite operation now, and is left out if the call cannot carry that.
    fn members(&self, part: Range<usize>, operations: OperationGroup) -> Vec<usize> {
        let asks = |member: &usize| {
            let entry = self.entries[*member].as_ref();
            let asked = entry.and_then(PendingKey::operation);
            asked.is_some_and(|operation| operations.contains(&operation))
        };
        part.filter(asks).collect()
    }

    fn asked(&self, members: &[usize]) -> Vec<Member> {
        let entries = members.iter().filter_map(|at| self.entries[*at].as_ref());
        let member = |entry: &PendingKey| {
            Some(Member {
                key: entry.key.clone(),
                operation: entry.operation()?,
            })
        };
        entries.filter_map(member).collect()
    }

    fn apply(&mut self, members: &[usize]) {
        self.bisect.applied();
        self.largest_applied = self.largest_applied.max(members.len());
        self.settle(members, Verdict::Delivered);
    }

    fn refuse(&mut self, members: &[usize]) {
        if self.bisect.refused(members) == RefusedProbe::Isolated {
            let lane_has_succeeded = self.bisect.history().has_succeeded;
            self.settle(members, Verdict::Rejected { lane_has_succeeded });
        }
    }

    fn refuse_size(&mut self, members: &[usize]) {
        let size = members.len();
        self.too_large = Some(self.too_large.map_or(size, |least| least.min(size)));
        self.refuse(members);
    }

    /// The limit of members to learn: half of the smallest call that was too large, but not less
    /// than was accepted. None if a single member was too large by itself, which may explain the
    /// others.
    fn limit(&self) -> Option<usize> {
        let half = self.too_large.filter(|members| *members > 1)? / 2;
        Some(half.max(self.largest_applied))
    }

    /// Notes a failed call on its members alone.
    fn fail(&mut self, members: &[usize], error: TransientError) {
        for member in members {
            if let Some(entry) = &mut self.entries[*member] {
                entry.failed(error);
            }
        }
    }

    /// Settles the members that were in the call.
    fn settle(&mut self, members: &[usize], verdict: Verdict) {
        let called = members.iter().filter_map(|at| self.entries[*at].take());
        batch::settle(called, verdict, &self.observer);
    }
}
