//! The result ledger of a stream: sequence numbers, the window, and results as runs.
//!
//! | a batch's `first_sequence` | the first batch begins at | a later batch |
//! |---|---|---|
//! | unset | 1 | begins at the next sequence |
//! | positive | it | is accepted if it is the next sequence; else `OUT_OF_RANGE` |
//! | not positive | it is refused | `OUT_OF_RANGE` |
//!
//! A batch without records is a heartbeat. One that sets `first_sequence` is held to the table, and
//! may begin the numbering; one that does not has no number. A heartbeat is answered by an ack with
//! the results so far, because many proxies time out each direction. Before the numbering has begun
//! there is no answer, since no sequence can be called committed.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use crate::{
    delivery::{DeferralCause, DeliveryAttempts, Verdict},
    pb,
    server::status::{Blame, Failure, Violation},
};

/// Most results in one ack, so that it stays below the 4 MiB that clients accept by default even if
/// every other one names as many identifiers as there may be, of the greatest length.
const MAX_RESULTS_PER_ACK: usize = 1000;

/// What a record got.
pub(super) type RecordOutcome = Result<(), Failure>;

/// A result that no record waits for. The ledger refuses it: to count it would commit a record that
/// has no result.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record from {first} to {last} was not received, or has a result already")]
pub(super) struct UnexpectedResult {
    first: i64,
    last: i64,
}

/// Numbers a stream's records, and keeps their results until they are reported.
#[derive(Debug)]
pub(super) struct ResultLedger {
    /// The next sequence; `None` before the first batch.
    next: Option<i64>,
    /// Every record up to here has a result that was reported.
    committed: i64,
    /// Reported runs above `committed`: first → last. There is a gap between any two.
    reported: BTreeMap<i64, i64>,
    /// Runs of the same result that were not reported yet: first → last. A client that does not
    /// read costs no more memory the more of its records are delivered.
    unreported: BTreeMap<i64, (i64, RecordOutcome)>,
    /// Whether a heartbeat waits for its answer. One ack answers all of them.
    owes_ack: bool,
    /// Records without a result.
    unsettled: usize,
    max_batch_records: usize,
    window: usize,
}

impl ResultLedger {
    pub(super) fn new(max_batch_records: usize, window: usize) -> Self {
        Self {
            next: None,
            committed: 0,
            reported: BTreeMap::new(),
            unreported: BTreeMap::new(),
            owes_ack: false,
            unsettled: 0,
            max_batch_records,
            window,
        }
    }

    /// Numbers a batch; returns the sequence of its first record, or of the next one if it has
    /// none.
    ///
    /// # Errors
    /// Breaking a stream rule, which ends the stream.
    pub(super) fn admit(
        &mut self,
        first_sequence: Option<i64>,
        len: usize,
    ) -> Result<i64, Failure> {
        // A sender that resumes may send a heartbeat before its first number.
        if len == 0 && first_sequence.is_none() {
            self.owes_ack |= self.next.is_some();
            return Ok(self.next.unwrap_or(1));
        }
        if len > self.max_batch_records {
            let limit = self.max_batch_records;
            let what = format!("holds {len} records, but at most {limit} are accepted");
            return Err(Failure::invalid("batch.records", what));
        }
        let first = self.number(first_sequence)?;
        let count = i64::try_from(len).expect("a batch is small");
        let next = first.checked_add(count).ok_or_else(|| {
            Failure::invalid(
                "batch.first_sequence",
                "leaves no room for the batch's records",
            )
        })?;
        if self.next.is_none() {
            self.committed = first - 1;
        }
        self.next = Some(next);
        self.owes_ack |= len == 0;
        self.unsettled += len;
        Ok(first)
    }

    fn number(&self, wanted: Option<i64>) -> Result<i64, Failure> {
        match (self.next, wanted) {
            (Some(next), None) => Ok(next),
            (Some(expected), Some(got)) if expected != got => {
                Err(Failure::SequenceMismatch { expected, got })
            }
            (Some(_) | None, Some(first)) if first >= 1 => Ok(first),
            (None, None) => Ok(1),
            (_, Some(_)) => Err(Failure::invalid("batch.first_sequence", "must be positive")),
        }
    }

    /// Whether another batch may be read: the uncommitted records do not fill the window.
    pub(super) fn is_window_open(&self) -> bool {
        let uncommitted = self.next.map_or(0, |next| next - 1 - self.committed);
        usize::try_from(uncommitted).is_ok_and(|uncommitted| uncommitted < self.window)
    }

    /// Records what each record of a run got; returns how many they are.
    ///
    /// # Errors
    /// A result that one of them does not wait for. Nothing is changed.
    pub(super) fn record_results(
        &mut self,
        run: RangeInclusive<i64>,
        outcome: RecordOutcome,
    ) -> Result<usize, UnexpectedResult> {
        let (first, last) = run.into_inner();
        if !self.awaits(first, last) {
            return Err(UnexpectedResult { first, last });
        }
        let records = usize::try_from(last - first + 1).expect("they are within the window");
        self.unsettled -= records;
        self.join_runs(first, last, outcome);
        Ok(records)
    }

    /// Whether the records of a run were all received and none has a result.
    fn awaits(&self, first: i64, last: i64) -> bool {
        let are_received = (self.committed + 1..=last).contains(&first)
            && self.next.is_some_and(|next| last < next);
        let reported = self.reported.range(..=last).next_back();
        let unreported = self.unreported.range(..=last).next_back();
        let unreported = unreported.map(|(first, (last, _))| (first, last));
        let have_results = ends_at_or_after(first, reported) || ends_at_or_after(first, unreported);
        are_received && !have_results
    }

    fn join_runs(&mut self, first: i64, last: i64, outcome: RecordOutcome) {
        let next = last + 1;
        let last = match self.unreported.get(&next) {
            Some((end, same)) if *same == outcome => {
                let end = *end;
                self.unreported.remove(&next);
                end
            }
            _ => last,
        };
        match self.unreported.range_mut(..first).next_back() {
            Some((_, (end, same))) if *end + 1 == first && *same == outcome => *end = last,
            _ => drop(self.unreported.insert(first, (last, outcome))),
        }
    }

    /// Most records in one batch.
    pub(super) fn max_batch_records(&self) -> usize {
        self.max_batch_records
    }

    /// Records without a result.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Whether every record has a result.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether there is something to report.
    pub(super) fn has_news(&self) -> bool {
        self.owes_ack || !self.unreported.is_empty()
    }

    /// Every record up to here has a result that was reported.
    pub(super) fn committed(&self) -> i64 {
        self.committed
    }

    /// Unreported results, oldest first, and the prefix that they commit.
    pub(super) fn report(&mut self) -> Option<pb::Ack> {
        let mut results = Vec::new();
        while results.len() < MAX_RESULTS_PER_ACK
            && let Some((first, (last, outcome))) = self.unreported.pop_first()
        {
            self.commit(first, last);
            results.push(result(first, last, outcome));
        }
        let answers = std::mem::take(&mut self.owes_ack);
        (answers || !results.is_empty()).then_some(pb::Ack {
            committed_sequence: self.committed,
            results,
            // Reserved: the window does not change while a stream is open.
            max_in_flight_records: None,
        })
    }

    fn commit(&mut self, first: i64, mut last: i64) {
        let first = match self.reported.range(..first).next_back() {
            Some((&start, &end)) if end + 1 == first => start,
            _ => first,
        };
        if let Some(end) = self.reported.remove(&(last + 1)) {
            last = end;
        }
        if first == self.committed + 1 {
            self.reported.remove(&first);
            self.committed = last;
        } else {
            self.reported.insert(first, last);
        }
    }
}

fn ends_at_or_after(sequence: i64, run: Option<(&i64, &i64)>) -> bool {
    run.is_some_and(|(_, last)| sequence <= *last)
}

fn result(first_sequence: i64, last_sequence: i64, outcome: RecordOutcome) -> pb::RecordResult {
    pb::RecordResult {
        first_sequence,
        last_sequence,
        error: outcome.err().map(|failure| failure.to_rpc()),
    }
}

/// A verdict as a record's outcome.
///
/// # Errors
/// Why the record cannot have one, and stays with its sender.
pub(super) fn outcome(
    verdict: Verdict,
    tried_for: Duration,
) -> Result<RecordOutcome, DeferralCause> {
    match verdict {
        Verdict::Delivered => Ok(Ok(())),
        Verdict::Rejected { lane_has_succeeded } => {
            let blame = if lane_has_succeeded {
                Blame::Record
            } else {
                Blame::Unproven
            };
            Ok(Err(Failure::RejectedByDestination(blame)))
        }
        Verdict::TimedOut(DeliveryAttempts { calls, error }) => Ok(Err(Failure::DeliveryTimeout {
            error,
            tried_for,
            attempts: calls,
        })),
        Verdict::Deferred(cause) => Err(cause),
    }
}

/// The operation of a record.
///
/// # Errors
/// A value that the contract does not have, which rejects this record alone.
pub(super) fn operation(number: i32) -> Result<crate::domain::Operation, Failure> {
    use pb::identifier_record::Operation as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified | Wire::Add) => Ok(crate::domain::Operation::Add),
        Ok(Wire::Remove) => Ok(crate::domain::Operation::Remove),
        Err(_) => Err(Failure::InvalidFields(vec![Violation::new(
            "operation",
            "must be OPERATION_ADD or OPERATION_REMOVE",
        )])),
    }
}

#[cfg(test)]
mod tests;
