//! Warnings about an input that was read.

use std::fmt;

/// The count of one warning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FindingCount {
    /// Occurrences.
    pub count: u64,
    /// Position of the first occurrence.
    pub first_line: u64,
}

impl FindingCount {
    /// Counts one more occurrence.
    pub(super) fn note(&mut self, line: u64) {
        if self.count == 0 {
            self.first_line = line;
        }
        self.count += 1;
    }
}

/// The warnings about an input. As text: a line for each kind, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Null values.
    pub absent: FindingCount,
    /// Values that a spreadsheet may have shortened.
    pub shortened: FindingCount,
    /// Headers after the first, which were skipped.
    pub headers: FindingCount,
    /// Byte-order marks after the beginning, which were skipped.
    pub marks: FindingCount,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (
                self.absent,
                "taken as absent since they say so, as NULL does (see --null)",
                "values",
            ),
            (
                self.shortened,
                "look as if a spreadsheet had shortened them, as 1.2E+11 or 123.0 does",
                "values",
            ),
            (
                self.headers,
                "skipped since they repeat the first one",
                "headers",
            ),
            (
                self.marks,
                "skipped inside the file, which seems to be joined of several",
                "byte-order marks",
            ),
        ];
        let mut lines =
            kinds
                .iter()
                .filter(|(found, ..)| found.count > 0)
                .map(|(found, what, things)| {
                    format!(
                        "{} {things} {what}; first on line {}",
                        found.count, found.first_line
                    )
                });
        f.write_str(&lines.by_ref().collect::<Vec<_>>().join("\n"))
    }
}
