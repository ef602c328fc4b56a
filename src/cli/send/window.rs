//! The sliding window of unacknowledged records: what to send next, and what to send again.
//!
//! The state of the stream protocol, without a socket. Records are numbered from 1 as they are
//! read, and stored until the server has committed them. A new stream starts again after the last
//! committed record, and drops results that were not committed: their records are sent again and
//! get new results. So each record is counted once, when it is committed.

use std::collections::VecDeque;

use prost::Message;
use tonic_types::RpcStatusExt;

use crate::{cli::remote::code_name, pb};

#[cfg(test)]
mod tests;

/// Rows read ahead of what the server takes: one full batch, so that batches are full.
const READ_AHEAD: usize = 1_000;
/// Largest batch in bytes: half of the 1 MiB that a server decodes.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// A record and where in the input it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputRow {
    /// Its first line, from 1.
    pub line: u64,
    /// Bytes of the input up to its end.
    pub end: u64,
    /// What to send.
    pub record: pb::IdentifierRecord,
}

/// A record that has its final result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettledRow {
    /// Its number in the stream.
    pub sequence: i64,
    /// Its first line in the input.
    pub line: u64,
    /// Bytes of the input up to its end.
    pub end: u64,
    /// What became of it.
    pub verdict: RowResult,
}

#[cfg(test)]
impl SettledRow {
    /// A record that was delivered, or failed for a reason.
    pub(super) fn example(line: u64, reason: Option<&str>) -> Self {
        let rejection = |reason: &str| RowFailure {
            code: "INVALID_ARGUMENT".into(),
            reason: reason.into(),
            message: "why".into(),
        };
        Self {
            sequence: 7,
            line,
            end: line * 10,
            verdict: reason.map_or(Ok(()), |reason| Err(rejection(reason))),
        }
    }
}

/// What became of a record.
pub(crate) type RowResult = Result<(), RowFailure>;

/// Why a record was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowFailure {
    /// Name of the gRPC status code.
    pub code: String,
    /// Stable reason to branch on; empty if the server gave none.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl From<&tonic_types::pb::Status> for RowFailure {
    fn from(status: &tonic_types::pb::Status) -> Self {
        let info = status.get_details_error_info();
        Self {
            code: code_name(tonic::Code::from_i32(status.code)),
            reason: info.map(|info| info.reason).unwrap_or_default(),
            message: status.message.clone(),
        }
    }
}

/// The server broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolViolation {
    /// Anything else before `opened`.
    #[error("the stream did not begin with `opened`")]
    NotOpened,
    /// Results of records that are not on their way.
    #[error("results for records {first} to {last}, which are not waiting for any")]
    Unasked {
        /// First of the run.
        first: i64,
        /// Last of the run.
        last: i64,
    },
    /// A second result.
    #[error("a second result for record {0}")]
    Twice(i64),
    /// A commit over a record without a result.
    #[error("committed up to {committed}, but record {missing} has no result")]
    Gap {
        /// What was committed.
        committed: i64,
        /// The first record without a result.
        missing: i64,
    },
    /// Status OK with records unanswered.
    #[error("the stream ended well, but {0} records have no result")]
    Unanswered(usize),
}

/// The records that are read and not committed.
#[derive(Debug)]
pub(crate) struct UnackedWindow {
    /// Number of the first record in `waiting`; everything before it is committed.
    base: i64,
    waiting: VecDeque<Waiting>,
    /// How many of `waiting`, from the front, were sent on the current stream.
    sent: usize,
    max_batch_records: usize,
    max_in_flight: usize,
}

#[derive(Debug)]
struct Waiting {
    row: InputRow,
    bytes: usize,
    verdict: Option<RowResult>,
}

impl Default for UnackedWindow {
    /// An empty window; nothing may be sent before a stream is open.
    fn default() -> Self {
        Self {
            base: 1,
            waiting: VecDeque::new(),
            sent: 0,
            max_batch_records: 0,
            max_in_flight: 0,
        }
    }
}

impl UnackedWindow {
    /// Whether another row should be read.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() - self.sent < READ_AHEAD
    }

    /// Whether every row that was read is committed.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether every row that was read is at least sent.
    #[must_use]
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.waiting.len()
    }

    /// The last record that the server committed; 0 before the first.
    #[must_use]
    pub(crate) fn committed(&self) -> i64 {
        self.base - 1
    }

    /// Where the first record that is not committed begins.
    #[must_use]
    pub(crate) fn first_line(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.row.line)
    }

    /// Takes in the next row of the input.
    pub(crate) fn push(&mut self, row: InputRow) {
        self.waiting.push_back(Waiting {
            // Its tag and length inside the batch take a few bytes more.
            bytes: row.record.encoded_len() + 8,
            row,
            verdict: None,
        });
    }

    /// Starts again on a new stream, after the last committed record.
    pub(crate) fn reopen(&mut self, opened: &pb::StreamOpened) {
        self.sent = 0;
        self.max_batch_records = at_least_one(opened.max_batch_records);
        self.max_in_flight = at_least_one(opened.max_in_flight_records);
        for waiting in &mut self.waiting {
            waiting.verdict = None;
        }
    }

    /// Whether no batch could be larger than the next one.
    #[must_use]
    pub(crate) fn has_full_batch(&self) -> bool {
        self.waiting.len() - self.sent >= self.max_batch_records.min(READ_AHEAD)
    }

    /// Whether [`next_batch`](Self::next_batch) would give one.
    #[must_use]
    pub(crate) fn may_send(&self) -> bool {
        !self.is_sent() && self.sent < self.max_in_flight
    }

    /// The next batch that may be sent; it counts as sent.
    pub(crate) fn next_batch(&mut self) -> Option<pb::IdentifierBatch> {
        let most = self
            .max_batch_records
            .min(self.max_in_flight.saturating_sub(self.sent));
        let mut bytes = 0;
        let records: Vec<_> = self
            .waiting
            .range(self.sent..)
            .take(most)
            .take_while(|next| {
                let first = bytes == 0;
                bytes += next.bytes;
                first || bytes <= MAX_BATCH_BYTES
            })
            .map(|next| next.row.record.clone())
            .collect();
        if records.is_empty() {
            return None;
        }
        let first_sequence = Some(self.base + as_sequence(self.sent));
        self.sent += records.len();
        Some(pb::IdentifierBatch {
            first_sequence,
            records,
        })
    }

    /// Records results, and returns the records that they commit, in order.
    ///
    /// # Errors
    /// The server broke the protocol.
    pub(crate) fn settle(&mut self, ack: &pb::Ack) -> Result<Vec<SettledRow>, ProtocolViolation> {
        for run in &ack.results {
            self.note(run)?;
        }
        if let Some(records) = ack.max_in_flight_records {
            self.max_in_flight = at_least_one(records);
        }
        self.commit(ack.committed_sequence)
    }

    /// Confirms that a stream may end well here: what was sent is committed.
    ///
    /// # Errors
    /// Some of it is not.
    pub(crate) fn end(&self) -> Result<(), ProtocolViolation> {
        match self.sent {
            0 => Ok(()),
            unanswered => Err(ProtocolViolation::Unanswered(unanswered)),
        }
    }

    fn note(&mut self, run: &pb::RecordResult) -> Result<(), ProtocolViolation> {
        let (first, last) = (run.first_sequence, run.last_sequence);
        let end = self.base + as_sequence(self.sent);
        if first < self.base || last < first || last >= end {
            return Err(ProtocolViolation::Unasked { first, last });
        }
        let verdict = run.error.as_ref().map_or(Ok(()), |error| Err(error.into()));
        for sequence in first..=last {
            let waiting = &mut self.waiting[as_index(sequence - self.base)];
            if waiting.verdict.replace(verdict.clone()).is_some() {
                return Err(ProtocolViolation::Twice(sequence));
            }
        }
        Ok(())
    }

    fn commit(&mut self, committed: i64) -> Result<Vec<SettledRow>, ProtocolViolation> {
        let mut settled = Vec::new();
        while self.base <= committed {
            let missing = self.base;
            settled.push(
                self.commit_next()
                    .ok_or(ProtocolViolation::Gap { committed, missing })?,
            );
        }
        Ok(settled)
    }

    fn commit_next(&mut self) -> Option<SettledRow> {
        let verdict = self.waiting.front_mut()?.verdict.take()?;
        let Waiting { row, .. } = self.waiting.pop_front()?;
        let sequence = self.base;
        self.base += 1;
        self.sent -= 1;
        Some(SettledRow {
            sequence,
            line: row.line,
            end: row.end,
            verdict,
        })
    }
}

/// A limit of the server; at least one record.
fn at_least_one(limit: i32) -> usize {
    usize::try_from(limit).unwrap_or(0).max(1)
}

fn as_sequence(index: usize) -> i64 {
    i64::try_from(index).expect("a window holds far fewer records than i64 counts")
}

fn as_index(offset: i64) -> usize {
    usize::try_from(offset).expect("checked to lie in the window")
}
