//! The submitter: maps records to context keys, and hands the changes to a lane with their acks.
//!
//! It does not depend on how records arrive. A gRPC stream drives it today; its tests do so without
//! one.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc;

use crate::{
    delivery::{AckIssuer, LaneHandle, SettledRecord},
    domain::{Mapping, Operation, RecordError},
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
    validate_only: bool,
}

/// What became of a submitted record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// The lane has it. A verdict follows.
    Queued {
        /// What it costs in memory until then.
        bytes: usize,
    },
    /// It is valid, and was to be validated only.
    Validated,
}

impl RecordSubmitter {
    /// A submitter, and the verdicts of its records. They end (`None`) once the submitter and every
    /// record are gone.
    pub(super) fn new(
        lane: LaneHandle,
        mapping: Mapping,
        delivery_timeout: Duration,
        validate_only: bool,
    ) -> (Self, mpsc::UnboundedReceiver<SettledRecord>) {
        let (acks, settled) = AckIssuer::new(delivery_timeout);
        let submitter = Self {
            mapping,
            lane,
            acks,
            validate_only,
        };
        (submitter, settled)
    }

    /// Submits one record. Its delivery time-out starts now.
    ///
    /// # Errors
    /// The identifiers have no context key.
    pub(super) fn submit(
        &self,
        sequence: i64,
        identifiers: &HashMap<String, String>,
        operation: Operation,
    ) -> Result<Submitted, RecordError> {
        let key = self.mapping.context_key(identifiers)?;
        if self.validate_only {
            return Ok(Submitted::Validated);
        }
        let bytes = RECORD_COST + key.as_str().len();
        self.lane.submit(key, operation, self.acks.issue(sequence));
        Ok(Submitted::Queued { bytes })
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
    use std::sync::Arc;

    use super::*;
    use crate::{
        delivery::{DeferralCause, LiveDestinations, LiveState, Verdict},
        domain::{DestinationUid, Revision},
        server::stream::testing::{self, Vendor},
    };

    /// Longer than any test takes: only a flush makes a change leave.
    const LINGER: Duration = Duration::from_secs(60);

    /// A submitter whose records go to a lane, without a stream before it.
    fn submitter(
        vendor: &Arc<Vendor>,
        validate_only: bool,
    ) -> (RecordSubmitter, mpsc::UnboundedReceiver<SettledRecord>) {
        let live = LiveDestinations::new().0;
        let watched = live.watch(DestinationUid::generate());
        let state = LiveState::Active(Arc::new(testing::connection()));
        live.publish(watched.uid, Revision(1), state);
        let lane = vendor.dispatcher(LINGER).open(watched, &testing::segment());
        RecordSubmitter::new(lane, testing::mapping(), LINGER, validate_only)
    }

    fn user(id: &str) -> HashMap<String, String> {
        [("user_id".to_owned(), id.to_owned())].into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_record_has_one_verdict_under_its_sequence_or_is_refused_at_once() {
        let vendor = Vendor::answering(2);
        let (submitter, mut settled) = submitter(&vendor, false);
        let queued = submitter.submit(7, &user(" ann "), Operation::Add);
        let bytes = RECORD_COST + "ann".len();
        assert_eq!(queued, Ok(Submitted::Queued { bytes }));
        let unmapped = HashMap::from([("email".to_owned(), "a@example.com".to_owned())]);
        let refused = submitter.submit(8, &unmapped, Operation::Add);
        assert!(refused.is_err(), "{refused:?}");
        submitter
            .submit(9, &user("bob"), Operation::Remove)
            .unwrap();
        submitter.flush();
        drop(submitter);
        let mut sequences = Vec::new();
        while let Some(SettledRecord { sequence, verdict }) = settled.recv().await {
            assert_eq!(verdict, Verdict::Delivered);
            sequences.push(sequence);
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
    async fn a_record_that_is_validated_only_reaches_no_lane() {
        let vendor = Vendor::answering(1);
        let (submitter, mut settled) = submitter(&vendor, true);
        let validated = submitter.submit(1, &user("ann"), Operation::Add);
        assert_eq!(validated, Ok(Submitted::Validated));
        submitter.flush();
        drop(submitter);
        assert_eq!(settled.recv().await, None);
        assert!(vendor.calls.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_given_up_are_deferred_without_a_call() {
        let vendor = Vendor::answering(1);
        let (submitter, mut settled) = submitter(&vendor, false);
        submitter.submit(1, &user("ann"), Operation::Add).unwrap();
        submitter.abandon();
        let deferred = tokio::time::timeout(LINGER / 2, settled.recv()).await;
        let deferred = deferred.expect("it waits for its batch").unwrap();
        assert_eq!(
            deferred.verdict,
            Verdict::Deferred(DeferralCause::Abandoned)
        );
        drop(submitter);
        assert_eq!(settled.recv().await, None);
        assert!(vendor.calls.lock().is_empty());
    }
}
