//! What a scrape of the metrics shows of one destination.

use std::collections::BTreeMap;

/// The counts of one destination's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Reads them from the text of a scrape; failures of all reasons together.
    pub(crate) fn read(text: &str, destination: &str) -> Self {
        let label = format!("{{destination=\"{destination}\"");
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.contains(&label)) {
            let (name, rest) = line.split_once('{').unwrap();
            let value: u64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
            let name = name.trim_start_matches("connector_records_");
            let name = name.trim_end_matches("_total").to_owned();
            *counts.entry(name).or_default() += value;
        }
        Self(counts)
    }

    /// One of `received`, `delivered`, `failed`, `deferred` and `in_flight`.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether every record that was received is just one of the rest.
    pub(crate) fn add_up(&self) -> bool {
        let parts = ["delivered", "failed", "deferred", "in_flight"];
        self.get("received") == parts.iter().map(|name| self.get(name)).sum::<u64>()
    }
}
