//! The records of a session: each is numbered, submitted or rejected, and gets its result.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    delivery::{DeferralCause, LaneHandle, SettledRecord},
    domain::Mapping,
    pb,
    server::{
        status::Failure,
        stream::{
            accounting::{FAILURE_COST, StreamAccounting},
            inbound::Inbound,
            ledger,
            opening::Opening,
            submitter::{RecordSubmitter, Submitted},
        },
    },
};

/// Verdicts taken from their channel at once.
const VERDICT_CHUNK: usize = 1024;

/// Where a session's records go, and what is known of them.
pub(super) struct SessionRecords {
    pub(super) submitter: RecordSubmitter,
    pub(super) accounting: StreamAccounting,
    settled: mpsc::UnboundedReceiver<SettledRecord>,
    delivery_timeout: Duration,
}

impl SessionRecords {
    /// Submits to this lane; the results are entered in `accounting`.
    pub(super) fn new(
        lane: LaneHandle,
        mapping: Mapping,
        accounting: StreamAccounting,
        opening: &Opening,
    ) -> Self {
        let timeout = opening.delivery_timeout;
        let (submitter, settled) =
            RecordSubmitter::new(lane, mapping, timeout, opening.validate_only);
        Self {
            submitter,
            accounting,
            settled,
            delivery_timeout: timeout,
        }
    }

    /// Numbers a batch, and submits each of its records or rejects it alone.
    ///
    /// # Errors
    /// A broken stream rule, which ends the stream.
    pub(super) fn take(
        &mut self,
        batch: pb::IdentifierBatch,
        inbound: &Inbound,
    ) -> Result<(), Failure> {
        let mut sequence = self.accounting.admit(&batch)?;
        let (mut cost, mut queued, mut failed) = (0, 0, 0);
        for record in batch.records {
            match self.submit(sequence, &record) {
                Ok(Submitted::Queued { bytes }) => {
                    cost += bytes;
                    queued += 1;
                }
                Ok(Submitted::Validated) => self.accounting.record_result(sequence, Ok(()))?,
                Err(failure) => {
                    cost += FAILURE_COST;
                    failed += 1;
                    self.accounting.record_result(sequence, Err(failure))?;
                }
            }
            sequence += 1;
        }
        let reservation = inbound.take_reservation(cost);
        self.accounting
            .hold(sequence - 1, queued, failed, reservation);
        self.accounting.publish();
        Ok(())
    }

    fn submit(&self, sequence: i64, record: &pb::IdentifierRecord) -> Result<Submitted, Failure> {
        let operation = ledger::operation(record)?;
        let identifiers = &record.identifiers;
        Ok(self.submitter.submit(sequence, identifiers, operation)?)
    }

    /// Waits for verdicts. Cancel safe: none is lost.
    pub(super) async fn verdicts(&mut self) -> Vec<SettledRecord> {
        let mut verdicts = Vec::new();
        self.settled.recv_many(&mut verdicts, VERDICT_CHUNK).await;
        verdicts
    }

    /// Records verdicts as results; returns why a record has none, if one has none.
    ///
    /// # Errors
    /// A verdict that no record waits for, which ends the stream. All others are recorded.
    pub(super) fn record_verdicts(
        &mut self,
        verdicts: Vec<SettledRecord>,
    ) -> Result<Option<DeferralCause>, Failure> {
        let (mut deferred, mut recorded) = (None, Ok(()));
        for SettledRecord { sequence, verdict } in verdicts {
            match ledger::outcome(verdict, self.delivery_timeout) {
                Ok(outcome) => {
                    recorded = recorded.and(self.accounting.record_result(sequence, outcome));
                }
                Err(cause) => deferred = Some(cause),
            }
        }
        self.accounting.publish();
        recorded.map(|()| deferred)
    }

    /// Gives the records up: no new call starts for them. Verdicts that are there already still
    /// become results. Returns the accounting, and the verdicts still to come: they end with the
    /// last call.
    pub(super) fn abandon(mut self) -> (StreamAccounting, mpsc::UnboundedReceiver<SettledRecord>) {
        self.submitter.abandon();
        let rest = std::iter::from_fn(|| self.settled.try_recv().ok()).collect();
        // The stream ends anyway: a record without a result stays with its sender.
        self.record_verdicts(rest).ok();
        (self.accounting, self.settled)
    }
}
