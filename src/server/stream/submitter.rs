//! The submitter: maps records to context keys, and hands the changes to a lane with their acks.
//!
//! It does not depend on how records arrive. A gRPC stream drives it today; its tests do so without
//! one.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    delivery::{AckIssuer, Change, LaneHandle, SettledRun},
    domain::{ContextKeys, Identifiers, Mapping, Operation, RecordError},
};

/// What a record costs in memory beside its key while it waits in a lane: its entry in the open
/// batch, its ack, its entries in map and queue, and their spare capacity, added up and rounded up.
const RECORD_COST: usize = 384;

/// Submits the records of one sender to one lane.
#[derive(Debug)]
pub(super) struct RecordSubmitter {
    mapping: Mapping,
    lane: LaneHandle,
    acks: AckIssuer,
}

/// Mapped records that are to be submitted together.
#[derive(Debug, Default)]
pub(super) struct MappedRecords {
    keys: ContextKeys,
    /// Sequence and operation of each key's record.
    records: Vec<(i64, Operation)>,
}

impl MappedRecords {
    /// For about so many records.
    pub(super) fn with_capacity(records: usize) -> Self {
        Self {
            keys: ContextKeys::with_capacity(records),
            records: Vec::with_capacity(records),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What they cost in memory until they have their verdicts.
    pub(super) fn cost(&self) -> usize {
        self.len() * RECORD_COST + self.keys.bytes()
    }

    /// Takes out all but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.records.truncate(len);
    }

    /// The records after the first `len`.
    pub(super) fn after(&mut self, len: usize) -> &mut [(i64, Operation)] {
        &mut self.records[len..]
    }
}

impl RecordSubmitter {
    /// A submitter, and the verdicts of its records. They end (`None`) once the submitter and every
    /// record are gone.
    pub(super) fn new(
        lane: LaneHandle,
        mapping: Mapping,
        delivery_timeout: Duration,
    ) -> (Self, mpsc::UnboundedReceiver<SettledRun>) {
        let (acks, settled) = AckIssuer::new(delivery_timeout);
        let submitter = Self {
            mapping,
            lane,
            acks,
        };
        (submitter, settled)
    }

    /// Maps one record, and adds it to `mapped`.
    ///
    /// # Errors
    /// The identifiers have no context key. Nothing is added.
    pub(super) fn map(
        &self,
        sequence: i64,
        identifiers: &impl Identifiers,
        operation: Operation,
        mapped: &mut MappedRecords,
    ) -> Result<(), RecordError> {
        self.mapping.map(identifiers, &mut mapped.keys)?;
        mapped.records.push((sequence, operation));
        Ok(())
    }

    /// Submits records. Their delivery time-out starts now.
    pub(super) fn submit(&self, mapped: MappedRecords) {
        if mapped.records.is_empty() {
            return;
        }
        let acks = self.acks.message();
        let records = mapped.keys.into_iter().zip(mapped.records);
        let change = |(key, (sequence, operation))| Change {
            key,
            operation,
            ack: acks.ack(sequence),
        };
        self.lane.submit(records.map(change).collect());
    }

    /// Makes what was submitted leave without lingering.
    pub(super) fn flush(&self) {
        self.lane.flush();
    }

    /// Gives the records up: no new call starts for them. Calls under way go on.
    pub(super) fn abandon(&self) {
        self.acks.abandon();
        self.lane.sweep();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use super::*;
    use crate::{
        delivery::{DeferralCause, LiveDestinations, LiveState, Verdict},
        domain::{DestinationUid, Revision},
        server::stream::testing::{self, Vendor},
    };

    /// Longer than any test takes: only a flush makes a change leave.
    const LINGER: Duration = Duration::from_secs(60);

    /// A submitter whose records go to a lane, without a stream before it.
    fn submitter(vendor: &Arc<Vendor>) -> (RecordSubmitter, mpsc::UnboundedReceiver<SettledRun>) {
        let live = LiveDestinations::new().0;
        let watched = live.watch(DestinationUid::generate());
        let state = LiveState::Active(Arc::new(testing::connection()));
        live.publish(watched.uid, Revision(1), state);
        let lane = vendor.dispatcher(LINGER).open(watched, &testing::segment());
        RecordSubmitter::new(lane, testing::mapping(), LINGER)
    }

    fn user(id: &str) -> HashMap<String, String> {
        [("user_id".to_owned(), id.to_owned())].into()
    }

    fn submit(
        submitter: &RecordSubmitter,
        first: i64,
        records: &[(HashMap<String, String>, Operation)],
    ) -> Vec<RecordError> {
        let mut mapped = MappedRecords::with_capacity(records.len());
        let mut errors = Vec::new();
        for (sequence, (identifiers, operation)) in (first..).zip(records) {
            let mapping = submitter.map(sequence, identifiers, *operation, &mut mapped);
            errors.extend(mapping.err());
        }
        assert_eq!(mapped.len(), records.len() - errors.len());
        submitter.submit(mapped);
        errors
    }

    #[tokio::test(start_paused = true)]
    async fn each_record_has_one_verdict_under_its_sequence_or_is_refused_at_once() {
        let vendor = Vendor::answering(2);
        let (submitter, mut settled) = submitter(&vendor);
        let unmapped = HashMap::from([("email".to_owned(), "a@example.com".to_owned())]);
        let records = [
            (user(" ann "), Operation::Add),
            (unmapped, Operation::Add),
            (user("bob"), Operation::Remove),
        ];
        assert_eq!(submit(&submitter, 7, &records).len(), 1);
        submitter.flush();
        drop(submitter);
        let mut sequences = Vec::new();
        while let Some(run) = settled.recv().await {
            for (sequence, verdict) in run.records() {
                assert_eq!(verdict, Verdict::Delivered);
                sequences.push(sequence);
            }
        }
        sequences.sort_unstable();
        assert_eq!(sequences, [7, 9]);
        let mut calls = vendor.calls.lock().clone();
        calls.sort_by_key(|(_, keys)| keys.clone());
        let call = |operation, key: &str| (operation, vec![key.to_owned()]);
        assert_eq!(
            calls,
            [call(Operation::Add, "ann"), call(Operation::Remove, "bob")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_given_up_are_deferred_without_a_call() {
        let vendor = Vendor::answering(1);
        let (submitter, mut settled) = submitter(&vendor);
        let records = [(user("ann"), Operation::Add), (user("bob"), Operation::Add)];
        assert_eq!(submit(&submitter, 1, &records), []);
        submitter.abandon();
        drop(submitter);
        let mut deferred = Vec::new();
        while let Some(run) = tokio::time::timeout(LINGER / 2, settled.recv())
            .await
            .unwrap()
        {
            deferred.extend(run.records());
        }
        let abandoned = Verdict::Deferred(DeferralCause::Abandoned);
        assert_eq!(deferred, [(1, abandoned), (2, abandoned)]);
        assert!(vendor.calls.lock().is_empty());
    }

    #[tokio::test]
    async fn records_cost_memory_by_their_number_and_the_length_of_their_keys() {
        let (submitter, _settled) = submitter(&Vendor::answering(0));
        let mut mapped = MappedRecords::with_capacity(2);
        for (sequence, key) in (1..).zip(["ann", "robert"]) {
            let mapping = submitter.map(sequence, &user(key), Operation::Add, &mut mapped);
            assert_eq!(mapping, Ok(()));
        }
        assert_eq!(mapped.cost(), 2 * RECORD_COST + "annrobert".len());
    }
}
