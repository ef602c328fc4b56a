//! A bounded log of the calls that arrived, without tokens.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::{hidden::Hidden, segments::SegmentUpdate};

/// Room for the calls of a long test; older ones leave first.
const MAX_CALLS: usize = 20_000;
/// Bounds the memory: a million keys of 50 bytes are some 75 MB.
const MAX_KEYS: usize = 1_000_000;

/// One call that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordedCall {
    /// Counts calls from 1 in order of arrival, over what the log has dropped too.
    pub number: u64,
    /// When it arrived, in milliseconds since the epoch.
    pub arrived_ms: u64,
    /// HTTP method.
    pub method: String,
    /// Path without query; a context in it is shown as `{context}`.
    pub path: String,
    /// The status that was answered; none as long as nothing was, or for a hang or a reset.
    pub status: Option<u16>,
    /// The fault that hit it.
    pub fault: Option<&'static str>,
    /// `action` of a segment-targets call, as it was sent, or the word that the integration has in
    /// its place; none if it has none.
    pub action: Option<String>,
    /// The client-side ID that a segment-targets call names.
    pub environment: Option<String>,
    /// The key of the segment that a segment-targets call updates; of several the first.
    pub segment: Option<String>,
    /// The keys of all segments that it updates.
    pub segments: Vec<String>,
    /// The context kind of its members.
    pub kind: Option<String>,
    /// How many members it holds.
    pub members: usize,
    /// How many of them it removes; it adds the others.
    pub removals: usize,
    /// The members' keys, in the order sent.
    pub keys: Hidden<Vec<String>>,
    /// The rank of this call among those that were applied, from 1; none if it was not.
    pub applied: Option<u64>,
}

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Calls that arrived.
    pub calls: u64,
    /// Segment-targets calls that were applied.
    pub applied: u64,
    /// Members of the calls that were applied.
    pub members: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
}

/// The number of a call in the log, for handlers that have more to note.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallNumber(pub(super) u64);

/// The log.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    calls: VecDeque<RecordedCall>,
    keys: usize,
    totals: Totals,
    last: u64,
}

impl CallLog {
    /// Notes an arrival and answers the number by which the rest is noted.
    pub(super) fn open(&mut self, call: RecordedCall) -> u64 {
        self.totals.calls += 1;
        self.last += 1;
        self.calls.push_back(RecordedCall {
            number: self.last,
            ..call
        });
        self.trim();
        self.last
    }

    pub(super) fn describe(&mut self, number: u64, integration: &str, update: &SegmentUpdate) {
        let Some(call) = self.find(number) else {
            return;
        };
        call.action.clone_from(&update.action);
        call.environment = Some(update.environment.clone());
        call.segments = update.segments(integration).map(|(key, _)| key).collect();
        call.segment = call.segments.first().cloned();
        call.kind = Some(update.kind.clone());
        call.keys = Hidden(update.changes().map(|change| change.key.clone()).collect());
        call.members = call.keys.len();
        call.removals = update.changes().filter(|change| !change.adds).count();
        let members = call.members;
        self.keys += members;
        self.trim();
    }

    pub(super) fn apply(&mut self, number: u64, members: usize) {
        self.totals.applied += 1;
        self.totals.members += u64::try_from(members).unwrap_or(u64::MAX);
        let rank = self.totals.applied;
        if let Some(call) = self.find(number) {
            call.applied = Some(rank);
        }
    }

    pub(super) fn close(&mut self, number: u64, status: Option<u16>, fault: Option<&'static str>) {
        if let Some(status) = status {
            *self.totals.statuses.entry(status).or_default() += 1;
        }
        if let Some(call) = self.find(number) {
            call.status = status;
            call.fault = fault;
        }
    }

    /// The calls after this number that are still held, oldest first.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &RecordedCall> {
        self.calls.iter().filter(move |call| call.number > number)
    }

    /// The number of the latest call, 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Forgets calls and counts. Numbers go on, so that a call in progress is not taken for another.
    pub(super) fn clear(&mut self) {
        *self = Self {
            last: self.last,
            ..Self::default()
        };
    }

    fn find(&mut self, number: u64) -> Option<&mut RecordedCall> {
        let index = self
            .calls
            .binary_search_by_key(&number, |call| call.number)
            .ok()?;
        self.calls.get_mut(index)
    }

    fn trim(&mut self) {
        while self.calls.len() > MAX_CALLS || self.keys > MAX_KEYS {
            let Some(dropped) = self.calls.pop_front() else {
                return;
            };
            self.keys -= dropped.keys.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_calls_leave_and_totals_stay() {
        let mut log = CallLog::default();
        for _ in 0..MAX_CALLS + 5 {
            let number = log.open(RecordedCall::default());
            log.close(number, Some(204), None);
        }
        assert_eq!(log.calls.len(), MAX_CALLS);
        assert_eq!(log.after(0).next().unwrap().number, 6);
        assert_eq!(log.totals().statuses[&204], MAX_CALLS as u64 + 5);
        log.close(1, Some(500), None);
        assert!(log.after(0).all(|call| call.status == Some(204)));
    }

    #[test]
    fn a_call_that_began_before_a_clear_is_not_taken_for_another() {
        let mut log = CallLog::default();
        let before = log.open(RecordedCall::default());
        log.clear();
        let after = log.open(RecordedCall::default());
        log.apply(before, 1);
        assert_eq!(log.after(0).next().unwrap().applied, None);
        assert_eq!(after, before + 1);
    }
}
