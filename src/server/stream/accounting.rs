//! The accounting of a stream: its results, what its records reserve of the memory budget, and what
//! metrics count of it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use tracing::error;

use crate::{
    metrics::Tally,
    pb,
    server::{
        edge::memory::Reservation,
        status::Failure,
        stream::{
            context::StreamLimits,
            ledger::{RecordOutcome, ResultLedger},
        },
    },
};

/// What a failed record costs in memory until it is committed: a run of its own, with the names in
/// its reason, added up and rounded up. Delivered records share their runs.
pub(super) const FAILURE_COST: usize = 512;

/// One stream's accounting.
pub(super) struct StreamAccounting {
    ledger: ResultLedger,
    /// `None` for a stream that delivers nothing: nothing is counted of it.
    tally: Option<Tally>,
    /// Reservations of batches, by their last sequence. Each is held until all records of its batch
    /// have a result, and those that failed are committed.
    held: BTreeMap<i64, BatchReservation>,
}

/// What a batch reserves of the memory budget.
struct BatchReservation {
    unsettled: usize,
    failed: usize,
    reservation: Reservation,
}

impl BatchReservation {
    /// A batch whose records all have a result holds only the failures that are left to report.
    fn shrink(&mut self) {
        if self.unsettled == 0 {
            self.reservation.resize(self.failed * FAILURE_COST);
        }
    }
}

impl StreamAccounting {
    pub(super) fn new(limits: &StreamLimits, tally: Option<Tally>) -> Self {
        Self {
            ledger: ResultLedger::new(limits.max_batch_records, limits.max_in_flight_records),
            tally,
            held: BTreeMap::new(),
        }
    }

    /// Numbers a batch; returns the sequence of its first record.
    ///
    /// # Errors
    /// Breaking a stream rule, which ends the stream.
    pub(super) fn admit(
        &mut self,
        first_sequence: Option<i64>,
        records: usize,
    ) -> Result<i64, Failure> {
        let first = self.ledger.admit(first_sequence, records)?;
        if let Some(tally) = &mut self.tally {
            tally.received(records);
        }
        Ok(first)
    }

    /// Holds a batch's reservation for its `unsettled` records, up to `last`, and its `failed` ones.
    pub(super) fn hold(
        &mut self,
        last: i64,
        unsettled: usize,
        failed: usize,
        reservation: Reservation,
    ) {
        if unsettled + failed > 0 {
            let mut batch = BatchReservation {
                unsettled,
                failed,
                reservation,
            };
            batch.shrink();
            self.held.insert(last, batch);
        }
    }

    /// Records the result of each record of a run.
    ///
    /// # Errors
    /// A result that no record waits for is a fault of this service, and ends the stream. Nothing is
    /// changed.
    pub(super) fn record_results(
        &mut self,
        run: RangeInclusive<i64>,
        outcome: RecordOutcome,
    ) -> Result<(), Failure> {
        let reason = outcome
            .as_ref()
            .err()
            .map(|failure| failure.reason().as_str());
        let recorded = self.ledger.record_results(run.clone(), outcome);
        let records = recorded.map_err(|fault| {
            error!(%fault, "a result is refused");
            Failure::Internal
        })?;
        if let Some(tally) = &mut self.tally {
            tally.settled(records, reason);
        }
        self.release(run, reason.is_some());
        Ok(())
    }

    /// Shrinks the reservations of the batches that records with a result came in.
    fn release(&mut self, run: RangeInclusive<i64>, failed: bool) {
        let (mut first, last) = run.into_inner();
        // Every batch with records under way has an entry, so the next one up is the record's own.
        // A record that is rejected as it is read has none yet.
        while first <= last
            && let Some((&end, batch)) = self.held.range_mut(first..).next()
        {
            let records = usize::try_from(last.min(end) - first + 1).expect("a batch is small");
            batch.unsettled -= records;
            batch.failed += if failed { records } else { 0 };
            batch.shrink();
            if batch.unsettled + batch.failed == 0 {
                self.held.remove(&end);
            }
            first = end + 1;
        }
    }

    /// Shows to scrapes what was counted.
    pub(super) fn publish(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.publish(self.ledger.unsettled());
        }
    }

    /// Results that were not reported yet, and what they commit. Reservations of committed batches
    /// are given back.
    pub(super) fn report(&mut self) -> Option<pb::Ack> {
        let ack = self.ledger.report()?;
        while let Some(batch) = self.held.first_entry()
            && *batch.key() <= ack.committed_sequence
        {
            batch.remove();
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

        /// Reads a batch of records, of which so many fail at once; returns its first sequence.
        fn read(&mut self, records: usize, failed: usize) -> i64 {
            let first = self.accounting.admit(None, records).unwrap();
            let sequences = first..first + i64::try_from(records).unwrap();
            for sequence in sequences.clone().take(failed) {
                self.accounting
                    .record_results(sequence..=sequence, failure())
                    .unwrap();
            }
            let share = self.budget.share(DestinationUid::generate());
            let reservation = self.budget.clone().reserve(share).now_or_never().unwrap();
            self.accounting
                .hold(sequences.end - 1, records - failed, failed, reservation);
            first
        }
    }

    fn failure() -> RecordOutcome {
        Err(Failure::RejectedByDestination(Blame::Record))
    }

    #[test]
    fn a_batch_holds_its_reservation_until_all_its_records_are_delivered() {
        let mut bench = Bench::new();
        let first = bench.read(2, 0);
        bench
            .accounting
            .record_results(first..=first, Ok(()))
            .unwrap();
        assert_eq!(bench.held(), MIB);
        bench
            .accounting
            .record_results(first + 1..=first + 1, Ok(()))
            .unwrap();
        assert_eq!(bench.held(), 0);
    }

    #[test]
    fn a_result_that_no_record_waits_for_ends_the_stream_and_holds_the_reservation() {
        let mut bench = Bench::new();
        let first = bench.read(2, 0);
        bench
            .accounting
            .record_results(first..=first, Ok(()))
            .unwrap();
        for sequence in [first, first + 2] {
            let refused = bench
                .accounting
                .record_results(sequence..=sequence, failure());
            assert_eq!(refused, Err(Failure::Internal));
        }
        assert_eq!(bench.accounting.ledger().unsettled(), 1);
        assert_eq!(bench.held(), MIB);
    }

    #[test]
    fn records_that_failed_hold_memory_until_they_are_committed() {
        let mut bench = Bench::new();
        bench.read(MESSAGE, MESSAGE);
        assert_eq!(bench.held(), MESSAGE * FAILURE_COST);
        let first = bench.read(2, 0);
        bench
            .accounting
            .record_results(first..=first, failure())
            .unwrap();
        bench
            .accounting
            .record_results(first + 1..=first + 1, Ok(()))
            .unwrap();
        assert_eq!(bench.held(), (MESSAGE + 1) * FAILURE_COST);
        while bench.accounting.report().is_some() {}
        assert_eq!(bench.held(), 0);
        assert!(bench.accounting.held.is_empty());
    }
}
