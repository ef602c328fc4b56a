//! The accounting of a stream: which records have a result, what they hold of the memory, and what is
//! counted of them.

use std::collections::BTreeMap;

use crate::{
    metrics::Tally,
    pb,
    server::{
        edge::memory::Reservation,
        status::Failure,
        stream::{
            acceptor::StreamLimits,
            ledger::{RecordOutcome, ResultLedger},
        },
    },
};

/// What a failed record costs in memory until it is committed: a run of its own, with the names in
/// its reason, added up and rounded up. Delivered ones share their runs.
pub(super) const FAILURE_COST: usize = 512;

/// One stream's accounting.
pub(super) struct StreamAccounting {
    ledger: ResultLedger,
    /// Nothing is counted of a stream that delivers nothing.
    tally: Option<Tally>,
    /// What batches hold, by their last sequence: until all their records have a result, and those
    /// that failed are committed.
    kept: BTreeMap<i64, BatchReservation>,
}

/// A batch's part of the memory.
struct BatchReservation {
    unsettled: usize,
    failed: usize,
    room: Reservation,
}

impl BatchReservation {
    /// A batch without a record that waits holds what is left to tell.
    fn shrink(&mut self) {
        if self.unsettled == 0 {
            self.room.resize(self.failed * FAILURE_COST);
        }
    }
}

impl StreamAccounting {
    pub(super) fn new(limits: &StreamLimits, tally: Option<Tally>) -> Self {
        Self {
            ledger: ResultLedger::new(limits.max_batch_records, limits.max_in_flight_records),
            tally,
            kept: BTreeMap::new(),
        }
    }

    /// Numbers a batch; returns the sequence of its first record.
    ///
    /// # Errors
    /// Breaking a stream rule, which ends the stream.
    pub(super) fn admit(&mut self, batch: &pb::IdentifierBatch) -> Result<i64, Failure> {
        let first = self.ledger.admit(batch)?;
        if let Some(tally) = &mut self.tally {
            tally.received(batch.records.len());
        }
        Ok(first)
    }

    /// Keeps a batch's room for as long as `unsettled` records of it, up to `last`, and the `failed`
    /// ones take it.
    pub(super) fn keep(&mut self, last: i64, unsettled: usize, failed: usize, room: Reservation) {
        if unsettled + failed > 0 {
            let mut kept = BatchReservation {
                unsettled,
                failed,
                room,
            };
            kept.shrink();
            self.kept.insert(last, kept);
        }
    }

    /// Enters a record's result.
    pub(super) fn settle(&mut self, sequence: i64, outcome: RecordOutcome) {
        if let Some(tally) = &mut self.tally {
            tally.settled(outcome.as_ref().map(|failure| failure.reason().as_str()));
        }
        let failed = outcome.is_some();
        self.ledger.settle(sequence, outcome);
        // Every batch that waits has its room here, so the next one up is the record's own. A
        // record that is rejected as it is read has none yet.
        let Some((&last, kept)) = self.kept.range_mut(sequence..).next() else {
            return;
        };
        kept.unsettled -= 1;
        kept.failed += usize::from(failed);
        kept.shrink();
        if kept.unsettled + kept.failed == 0 {
            self.kept.remove(&last);
        }
    }

    /// Shows to scrapes what was entered.
    pub(super) fn publish(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.publish(self.ledger.unsettled());
        }
    }

    /// Results that were not reported yet, and what they commit.
    pub(super) fn report(&mut self) -> Option<pb::Ack> {
        let ack = self.ledger.report()?;
        while let Some(told) = self.kept.first_entry()
            && *told.key() <= ack.committed_sequence
        {
            told.remove();
        }
        Some(ack)
    }

    /// Which records have a result.
    pub(super) fn ledger(&self) -> &ResultLedger {
        &self.ledger
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::{
        domain::DestinationUid,
        server::{edge::memory::MemoryBudget, status::Blame},
    };

    const MIB: usize = 1024 * 1024;
    const MESSAGE: usize = 1000;

    struct Bench {
        budget: MemoryBudget,
        accounting: StreamAccounting,
    }

    impl Bench {
        fn new() -> Self {
            let limits = StreamLimits {
                max_streams: 1,
                max_batch_records: MESSAGE,
                max_in_flight_records: 10 * MESSAGE,
                default_delivery_timeout: Duration::from_secs(1),
                max_stream_age: Duration::from_secs(1),
                max_stream_idle: Duration::from_secs(1),
                drain_timeout: Duration::from_secs(1),
            };
            Self {
                budget: MemoryBudget::new(100 * MIB, MIB),
                accounting: StreamAccounting::new(&limits, None),
            }
        }

        fn held(&self) -> usize {
            100 * MIB - usize::try_from(self.budget.free()).unwrap()
        }

        /// Reads a batch of records that wait, of which so many fail at once; returns its first.
        fn read(&mut self, records: usize, failed: usize) -> i64 {
            let batch = pb::IdentifierBatch {
                first_sequence: None,
                records: vec![pb::IdentifierRecord::default(); records],
            };
            let first = self.accounting.admit(&batch).unwrap();
            let sequences = first..first + i64::try_from(records).unwrap();
            for sequence in sequences.clone().take(failed) {
                self.accounting.settle(sequence, failure());
            }
            let group = self.budget.group(DestinationUid::generate());
            let room = self.budget.clone().reserve(group).now_or_never().unwrap();
            self.accounting
                .keep(sequences.end - 1, records - failed, failed, room);
            first
        }
    }

    fn failure() -> RecordOutcome {
        Some(Failure::RejectedByDestination(Blame::Record))
    }

    #[test]
    fn a_batch_holds_its_room_while_a_record_waits_and_nothing_once_all_are_delivered() {
        let mut bench = Bench::new();
        let first = bench.read(2, 0);
        bench.accounting.settle(first, None);
        assert_eq!(bench.held(), MIB);
        bench.accounting.settle(first + 1, None);
        assert_eq!(bench.held(), 0);
    }

    #[test]
    fn records_that_failed_hold_room_until_they_are_committed() {
        let mut bench = Bench::new();
        bench.read(MESSAGE, MESSAGE);
        assert_eq!(bench.held(), MESSAGE * FAILURE_COST);
        let first = bench.read(2, 0);
        bench.accounting.settle(first, failure());
        bench.accounting.settle(first + 1, None);
        assert_eq!(bench.held(), (MESSAGE + 1) * FAILURE_COST);
        while bench.accounting.report().is_some() {}
        assert_eq!(bench.held(), 0);
        assert!(bench.accounting.kept.is_empty());
    }
}
