//! The books of a stream: which records have a result, what they hold of the memory, and what is
//! counted of them.

use std::collections::BTreeMap;

use crate::{
    metrics::Tally,
    pb,
    server::{
        budget::Room,
        protocol::{Ledger, Outcome},
        status::Failure,
        streams::Limits,
    },
};

/// One stream's books.
pub(super) struct Books {
    ledger: Ledger,
    /// Nothing is counted of a stream that delivers nothing.
    tally: Option<Tally>,
    /// What batches hold until all their records have a result, by their last sequence.
    kept: BTreeMap<i64, Kept>,
}

/// A batch's part of the memory.
struct Kept {
    unsettled: usize,
    _room: Room,
}

impl Books {
    pub(super) fn new(limits: &Limits, tally: Option<Tally>) -> Self {
        Self {
            ledger: Ledger::new(limits.batch_records, limits.in_flight_records),
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

    /// Keeps a batch's room until `unsettled` more of its records, up to `last`, have a result.
    pub(super) fn keep(&mut self, last: i64, unsettled: usize, room: Room) {
        if unsettled > 0 {
            let _room = room;
            self.kept.insert(last, Kept { unsettled, _room });
        }
    }

    /// Enters a record's result. A batch whose last record has one holds no more memory.
    pub(super) fn settle(&mut self, sequence: i64, outcome: Outcome) {
        if let Some(tally) = &mut self.tally {
            tally.settled(outcome.as_ref().map(|failure| failure.reason().as_str()));
        }
        self.ledger.settle(sequence, outcome);
        // Every batch that waits has its room here, so the next one up is the record's own. A
        // record that is rejected as it is read has none yet.
        let Some((&last, kept)) = self.kept.range_mut(sequence..).next() else {
            return;
        };
        kept.unsettled -= 1;
        if kept.unsettled == 0 {
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
        self.ledger.report()
    }

    /// Which records have a result.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
