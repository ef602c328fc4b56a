//! What one stream has sent and heard so far.

use super::Outcome;

/// One opened stream.
pub(super) struct Stream<'a> {
    pub(super) number: u32,
    /// Sequence of its first record.
    pub(super) first: i64,
    pub(super) records: Vec<Record<'a>>,
    /// How many of the first records have results.
    prefix: usize,
    pub(super) results: usize,
    pub(super) committed: Option<i64>,
    pub(super) ended: bool,
}

/// A record as the stream sent it.
pub(super) struct Record<'a> {
    pub(super) key: &'a str,
    pub(super) outcome: Option<&'a Outcome>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            first: 0,
            records: Vec::new(),
            prefix: 0,
            results: 0,
            committed: None,
            ended: false,
        }
    }

    pub(super) fn send(&mut self, key: &'a str) {
        self.records.push(Record { key, outcome: None });
    }

    pub(super) fn next(&self) -> i64 {
        self.first + i64::try_from(self.records.len()).expect("a history is small")
    }

    fn place(&self, sequence: i64) -> Option<usize> {
        usize::try_from(sequence - self.first).ok()
    }

    pub(super) fn record(&mut self, sequence: i64) -> Option<&mut Record<'a>> {
        let place = self.place(sequence)?;
        self.records.get_mut(place)
    }

    pub(super) fn outcome(&self, sequence: i64) -> Option<&'a Outcome> {
        self.records.get(self.place(sequence)?)?.outcome
    }

    /// The least and the greatest sequence that may be committed now.
    pub(super) fn committable(&mut self) -> (i64, i64) {
        let has_result = |record: &&Record<'_>| record.outcome.is_some();
        let more = self.records[self.prefix..].iter().take_while(has_result);
        self.prefix += more.count();
        let before = self.first - 1;
        let ceiling = before + i64::try_from(self.prefix).expect("a history is small");
        (self.committed.unwrap_or(before), ceiling)
    }
}
