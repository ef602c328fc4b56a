//! The records of a session: each is numbered, submitted or rejected, and gets its result.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    delivery::{DeferralCause, LaneHandle, SettledRun},
    domain::Mapping,
    pb::batch::{BatchField, EncodedBatch, EncodedRecord, EncodingError},
    server::{
        status::{self, Failure},
        stream::{
            accounting::{FAILURE_COST, StreamAccounting},
            identifiers::RecordIdentifiers,
            inbound::Inbound,
            ledger,
            opening::Opening,
            responses::SessionEnd,
            submitter::{MappedRecords, RecordSubmitter},
        },
    },
};

/// A burst takes no further message once it has so many bytes. Ours: enough that what a wake-up costs
/// is spread over many small messages.
const MAX_BURST_BYTES: usize = 32 * 1024;
/// Verdicts taken from their channel at once.
const VERDICT_CHUNK: usize = 1024;

/// Where a session's records go, and what is known of them.
pub(super) struct SessionRecords {
    pub(super) submitter: RecordSubmitter,
    pub(super) accounting: StreamAccounting,
    settled: mpsc::UnboundedReceiver<SettledRun>,
    delivery_timeout: Duration,
    validate_only: bool,
    burst: Burst,
    /// Records of the last burst: the next one has about as many.
    usual_records: usize,
}

/// What was taken of messages that came together, and is to be submitted.
#[derive(Default)]
struct Burst {
    mapped: MappedRecords,
    /// Records that were rejected as they were read.
    failed: usize,
    /// The last sequence.
    last: i64,
    /// Encoded.
    bytes: usize,
}

/// A batch that was read, and has no effect yet.
#[derive(Default)]
struct ReadBatch {
    first_sequence: Option<i64>,
    records: usize,
    /// By their places in the batch.
    failures: Vec<(i64, Failure)>,
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
            burst: Burst::default(),
            usual_records: 0,
        }
    }

    /// Numbers a batch, and takes each of its records or rejects it alone. What is taken leaves with
    /// [`hand_over`](Self::hand_over).
    ///
    /// # Errors
    /// A broken stream rule, or a batch that cannot be read, which ends the stream. Nothing of the
    /// batch is taken.
    pub(super) fn take(&mut self, batch: &EncodedBatch) -> Result<(), SessionEnd> {
        // Not before a message is there: an idle stream holds no room for one.
        if self.burst.bytes == 0 {
            self.burst.mapped = MappedRecords::with_capacity(self.usual_records);
        }
        let before = self.burst.mapped.len();
        let taken = match self.read(batch) {
            Ok(read) => self.enter(read, before).map_err(SessionEnd::Failed),
            Err(error) => Err(SessionEnd::Unreadable(status::undecodable(&error))),
        };
        if taken.is_err() {
            self.burst.mapped.truncate(before);
        }
        self.burst.bytes += batch.bytes();
        taken
    }

    /// Reads a batch, and maps its records: those that can be delivered are in the burst then, by
    /// their places in the batch.
    fn read(&mut self, batch: &EncodedBatch) -> Result<ReadBatch, EncodingError> {
        let mut read = ReadBatch::default();
        let limit = self.accounting.ledger().max_batch_records();
        for field in batch.fields() {
            match field? {
                BatchField::FirstSequence(first) => read.first_sequence = Some(first),
                BatchField::Record(record) => {
                    let place = i64::try_from(read.records).expect("a message is small");
                    read.records += 1;
                    // A batch of more records than it may hold is refused as a whole.
                    if read.records <= limit
                        && let Err(failure) = self.map(place, &record)
                    {
                        read.failures.push((place, failure));
                    }
                }
            }
        }
        Ok(read)
    }

    fn map(&mut self, place: i64, record: &EncodedRecord<'_>) -> Result<(), Failure> {
        let operation = ledger::operation(record.operation)?;
        let identifiers = RecordIdentifiers::new(&record.identifiers);
        let mapped = &mut self.burst.mapped;
        Ok(self.submitter.map(place, &identifiers, operation, mapped)?)
    }

    /// Numbers a batch that was read. Its mapped records stand after the first `before` of the burst.
    fn enter(&mut self, read: ReadBatch, before: usize) -> Result<(), Failure> {
        let first = self.accounting.admit(read.first_sequence, read.records)?;
        for (place, failure) in read.failures {
            let sequence = first + place;
            self.burst.failed += 1;
            self.accounting
                .record_results(sequence..=sequence, Err(failure))?;
        }
        for (place, _) in self.burst.mapped.after(before) {
            *place += first;
        }
        if self.validate_only {
            for (sequence, _) in self.burst.mapped.after(before) {
                self.accounting
                    .record_results(*sequence..=*sequence, Ok(()))?;
            }
            self.burst.mapped.truncate(before);
        }
        let records = i64::try_from(read.records).expect("a message is small");
        self.burst.last = first + records - 1;
        Ok(())
    }

    /// Whether the burst may take another batch. Its messages share one reservation of memory, so it
    /// must not have much more than one message may.
    pub(super) fn takes_more(&self) -> bool {
        self.burst.bytes < MAX_BURST_BYTES && self.accounting.ledger().is_window_open()
    }

    /// Submits what was taken, under the reservation of its messages.
    pub(super) fn hand_over(&mut self, inbound: &Inbound) {
        let Burst {
            mapped,
            failed,
            last,
            ..
        } = std::mem::take(&mut self.burst);
        self.usual_records = mapped.len();
        let (unsettled, cost) = (mapped.len(), mapped.cost() + failed * FAILURE_COST);
        self.submitter.submit(mapped);
        let reservation = inbound.take_reservation(cost);
        self.accounting.hold(last, unsettled, failed, reservation);
        self.accounting.publish();
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
