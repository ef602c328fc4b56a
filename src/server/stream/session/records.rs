//! The records of a session: each is numbered, submitted or rejected, and gets its result.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    delivery::{DeferralCause, LaneHandle, SettledRun},
    domain::Mapping,
    pb::batch::{BatchField, EncodedBatch, EncodedRecord, EncodingError},
    server::{
        status::Failure,
        stream::{
            accounting::{FAILURE_COST, StreamAccounting},
            identifiers::RecordIdentifiers,
            inbound::Inbound,
            ledger,
            opening::Opening,
            responses::SessionEnd,
            submitter::{MappedRecords, RecordSubmitter, sequence},
        },
    },
};

/// Verdicts taken from their channel at once.
const VERDICT_CHUNK: usize = 1024;

/// Where a session's records go, and what is known of them.
pub(super) struct SessionRecords {
    pub(super) submitter: RecordSubmitter,
    pub(super) accounting: StreamAccounting,
    settled: mpsc::UnboundedReceiver<SettledRun>,
    delivery_timeout: Duration,
    validate_only: bool,
    /// Records of the last batch: the next one has about as many.
    usual_records: usize,
}

/// A batch whose records are read and mapped, and have no effect yet.
struct ReadBatch {
    first_sequence: Option<i64>,
    records: usize,
    mapped: MappedRecords,
    /// By their places in the batch.
    failures: Vec<(usize, Failure)>,
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
        let (submitter, settled) = RecordSubmitter::new(lane, mapping, timeout);
        Self {
            submitter,
            accounting,
            settled,
            delivery_timeout: timeout,
            validate_only: opening.validate_only,
            usual_records: 0,
        }
    }

    /// Numbers a batch, and submits each of its records or rejects it alone.
    ///
    /// # Errors
    /// A broken stream rule, or a batch that cannot be read, which ends the stream. Nothing of the
    /// batch is submitted.
    pub(super) fn take(
        &mut self,
        batch: &EncodedBatch,
        inbound: &Inbound,
    ) -> Result<(), SessionEnd> {
        let batch = self.read(batch)?;
        self.enter(batch, inbound).map_err(SessionEnd::Failed)
    }

    /// Reads and maps the records of a batch.
    fn read(&self, batch: &EncodedBatch) -> Result<ReadBatch, SessionEnd> {
        let mut read = ReadBatch {
            first_sequence: None,
            records: 0,
            mapped: MappedRecords::with_capacity(self.usual_records),
            failures: Vec::new(),
        };
        for field in batch.fields() {
            let unreadable = |error: EncodingError| Status::internal(error.to_string());
            match field.map_err(|error| SessionEnd::Unreadable(unreadable(error)))? {
                BatchField::FirstSequence(first) => read.first_sequence = Some(first),
                BatchField::Record(record) => {
                    let place = read.records;
                    read.records += 1;
                    // A batch of more records than it may hold is refused as a whole.
                    if place < self.accounting.ledger().max_batch_records()
                        && let Err(failure) = self.map(place, &record, &mut read.mapped)
                    {
                        read.failures.push((place, failure));
                    }
                }
            }
        }
        Ok(read)
    }

    fn map(
        &self,
        place: usize,
        record: &EncodedRecord<'_>,
        mapped: &mut MappedRecords,
    ) -> Result<(), Failure> {
        let operation = ledger::operation(record.operation)?;
        let identifiers = RecordIdentifiers::new(&record.identifiers);
        Ok(self.submitter.map(place, &identifiers, operation, mapped)?)
    }

    fn enter(&mut self, batch: ReadBatch, inbound: &Inbound) -> Result<(), Failure> {
        let ReadBatch {
            first_sequence,
            records,
            mapped,
            failures,
        } = batch;
        let first = self.accounting.admit(first_sequence, records)?;
        self.usual_records = records;
        let failed = failures.len();
        for (place, failure) in failures {
            let sequence = sequence(first, place);
            self.accounting
                .record_results(sequence..=sequence, Err(failure))?;
        }
        let mut cost = failed * FAILURE_COST;
        let mut unsettled = 0;
        if self.validate_only {
            for place in mapped.places() {
                let sequence = sequence(first, place);
                self.accounting
                    .record_results(sequence..=sequence, Ok(()))?;
            }
        } else {
            cost += mapped.cost();
            unsettled = mapped.len();
            self.submitter.submit(first, mapped);
        }
        let last = sequence(first, records) - 1;
        let reservation = inbound.take_reservation(cost);
        self.accounting.hold(last, unsettled, failed, reservation);
        self.accounting.publish();
        Ok(())
    }

    /// Waits for verdicts. Cancel safe: none is lost.
    pub(super) async fn verdicts(&mut self) -> Vec<SettledRun> {
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
        verdicts: Vec<SettledRun>,
    ) -> Result<Option<DeferralCause>, Failure> {
        let (mut deferred, mut recorded) = (None, Ok(()));
        for SettledRun {
            first,
            last,
            verdict,
        } in verdicts
        {
            match ledger::outcome(verdict, self.delivery_timeout) {
                Ok(outcome) => {
                    let entered = self.accounting.record_results(first..=last, outcome);
                    recorded = recorded.and(entered);
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
    pub(super) fn abandon(mut self) -> (StreamAccounting, mpsc::UnboundedReceiver<SettledRun>) {
        self.submitter.abandon();
        let rest = std::iter::from_fn(|| self.settled.try_recv().ok()).collect();
        // The stream ends anyway: a record without a result stays with its sender.
        self.record_verdicts(rest).ok();
        (self.accounting, self.settled)
    }
}
