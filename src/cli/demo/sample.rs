//! Sample data of the demo: the journey members that it sends, and the expected results.
//!
//! The expected results are computed here without the service's own mapping: a mistake in that must
//! not hide itself.

use std::collections::BTreeSet;

use crate::{
    cli::send::{
        input::{self, Findings, InputFormat, InputItem, InputOptions},
        window::InputRow,
    },
    pb::identifier_record::Operation,
};

/// The sample, as `samples/generate.py` writes it.
const CSV: &[u8] = include_bytes!("../../../samples/journey-members.csv");
/// A member that joins and stays.
pub(super) const STAYS: &str = "u-000007";
/// A member that joins and leaves.
pub(super) const LEAVES: &str = "u-000056";
/// Longest context key that the service takes, in bytes.
const LONGEST_KEY: usize = 1024;

/// Where the sample is in the repository.
pub(super) const PATH: &str = "samples/journey-members.csv";

/// The length of the sample in bytes.
pub(super) fn bytes() -> u64 {
    u64::try_from(CSV.len()).expect("the sample is small")
}

/// The rows of the sample.
pub(super) fn rows() -> Vec<InputRow> {
    let settings = InputOptions::new(InputFormat::Csv);
    let mut rows = Vec::new();
    input::read(CSV, &settings, &mut Findings::default(), |item| {
        if let InputItem::Row(row) = item {
            rows.push(row);
        }
        true
    })
    .expect("the sample is good CSV, which a test confirms");
    rows
}

/// The expected results of the sample.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExpectedMembers {
    /// Records that can be delivered.
    pub(super) deliverable: u64,
    /// Records without a usable identifier.
    pub(super) unusable: u64,
    /// The segment's members at the end.
    pub(super) members: BTreeSet<String>,
}

impl ExpectedMembers {
    pub(super) fn of(rows: &[InputRow]) -> Self {
        let mut outcome = Self::default();
        for row in rows {
            outcome.follow(row);
        }
        outcome
    }

    fn follow(&mut self, row: &InputRow) {
        let Some(key) = key(row) else {
            self.unusable += 1;
            return;
        };
        self.deliverable += 1;
        if row.record.operation() == Operation::Remove {
            self.members.remove(&key);
        } else {
            self.members.insert(key);
        }
    }
}

/// The user ID, or else the e-mail address, trimmed and in lower case.
fn key(row: &InputRow) -> Option<String> {
    let filled = |name| {
        row.record
            .identifiers
            .get(name)
            .filter(|value| !value.trim().is_empty())
    };
    let key = filled("user_id")
        .or_else(|| filled("email"))?
        .trim()
        .to_lowercase();
    let usable = key.len() <= LONGEST_KEY && !key.chars().any(char::is_control);
    usable.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_everything_that_real_exports_have() {
        let rows = rows();
        let outcome = ExpectedMembers::of(&rows);
        assert!(rows.len() > 10_000, "{}", rows.len());
        assert!(outcome.unusable > 20, "{}", outcome.unusable);
        assert!(outcome.members.contains(STAYS));
        assert!(!outcome.members.contains(LEAVES));
        assert!(outcome.members.iter().any(|key| key.contains('@')));
        let removals = rows
            .iter()
            .filter(|row| row.record.operation() == Operation::Remove);
        assert!(removals.count() > 500);
        let distinct = u64::try_from(outcome.members.len()).unwrap();
        assert!(outcome.deliverable > distinct + 1_000);
        assert_eq!(rows.last().unwrap().end, bytes());
    }
}
