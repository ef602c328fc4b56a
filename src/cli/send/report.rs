//! What a sender tells people while it runs and when it ends.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    input::BadInput,
    stream::Event,
    window::{Rejection, Settled},
};
use crate::pb;

/// How often a line says how far it is, where there is no terminal. Our choice: often enough to
/// see that it lives, and some hundred lines an hour.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts of records with a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Accepted by LaunchDarkly.
    pub delivered: u64,
    /// The others, by reason.
    pub failed: BTreeMap<String, u64>,
    /// The input up to this line has results; 0 before the first.
    pub line: u64,
    /// The input up to this byte has results.
    pub bytes: u64,
}

impl Tally {
    /// Counts one record.
    pub(crate) fn count(&mut self, settled: &Settled) {
        self.line = settled.line;
        self.bytes = settled.end;
        match &settled.verdict {
            Ok(()) => self.delivered += 1,
            Err(rejection) => *self.failed.entry(label(rejection)).or_default() += 1,
        }
    }

    /// Counts a row that could not be read as a record.
    pub(crate) fn count_bad_row(&mut self) {
        *self.failed.entry(BAD_ROW.into()).or_default() += 1;
    }

    /// Records that were not delivered.
    #[must_use]
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Records with a result.
    #[must_use]
    pub(crate) fn records(&self) -> u64 {
        self.delivered + self.failures()
    }
}

/// Reason of rows that could not be read as records, beside those that servers give.
const BAD_ROW: &str = "BAD_ROW";

fn label(rejection: &Rejection) -> String {
    if rejection.reason.is_empty() {
        rejection.code.clone()
    } else {
        rejection.reason.clone()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, failures) = (self.records(), self.failures());
        write!(
            f,
            "{records} records: {} delivered, {failures} failed",
            self.delivered
        )?;
        for (reason, count) in &self.failed {
            write!(f, "\n  {count:>8}  {reason}")?;
        }
        Ok(())
    }
}

/// Writes failed records as NDJSON. Holds line numbers and reasons, and no identifier.
#[derive(Debug)]
pub(crate) struct FailureFile {
    file: File,
}

#[derive(Serialize)]
struct Failure<'a> {
    line: u64,
    /// None for a row that could not be read, and so was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
    code: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl FailureFile {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        Ok(Self { file })
    }

    /// Writes a record, if it failed.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&mut self, settled: &Settled) -> io::Result<()> {
        let Err(Rejection {
            code,
            reason,
            message,
        }) = &settled.verdict
        else {
            return Ok(());
        };
        let failure = Failure {
            line: settled.line,
            sequence: Some(settled.sequence),
            code,
            reason,
            message,
        };
        self.append(&failure)
    }

    /// Writes a row that could not be read as a record.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write_bad_row(&mut self, bad: &BadInput) -> io::Result<()> {
        let at = bad.column.map(|column| format!("column {column}: "));
        self.append(&Failure {
            line: bad.line,
            sequence: None,
            code: "INVALID_ARGUMENT",
            reason: BAD_ROW,
            message: &format!("{}{}", at.unwrap_or_default(), bad.what),
        })
    }

    fn append(&mut self, failure: &Failure<'_>) -> io::Result<()> {
        // Failures are rare enough to be written at once, and so to be seen while it runs.
        let mut line = serde_json::to_vec(failure)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// A progress bar on a terminal, a line now and then elsewhere; on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Progress through an input of so many bytes, or of unknown length.
    #[must_use]
    pub(crate) fn new(bytes: Option<u64>) -> Self {
        Self {
            bar: io::stderr().is_terminal().then(|| bar(bytes)),
            last_line: Instant::now(),
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, tally: &Tally) {
        let (records, failures) = (tally.records(), tally.failures());
        let text = format!("{records} done, {failures} of them failed");
        if let Some(bar) = &self.bar {
            bar.set_position(tally.bytes);
            bar.set_message(text);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{text}");
        }
    }

    /// Says what a person should know.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Says what happens to the stream; results are [`show`](Self::show)n by whoever counts them.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Settled(_) => {}
            Event::Notice(notice) => self.say(&describe(notice)),
            Event::Drain => self.say("the server asks to move; opening a new stream"),
            Event::Lost { why, pause } => {
                let seconds = pause.as_secs_f64();
                self.say(&format!("{why}\n  trying again in {seconds:.1} s"));
            }
        }
    }

    /// Leaves the bar where it got to.
    pub(crate) fn end(self) {
        if let Some(bar) = self.bar {
            bar.abandon();
        }
    }
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {percent:>3}%  {msg}  {elapsed}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}

fn describe(notice: &pb::Notice) -> String {
    let state = match notice.state() {
        pb::notice::State::Throttled => "throttled",
        pb::notice::State::Unreachable => "unreachable",
        pb::notice::State::Delivering => "delivering",
        pb::notice::State::Conflicting => "conflicting",
        pb::notice::State::Unspecified => "notice",
    };
    format!("{state}: {}", notice.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(line: u64, reason: Option<&str>) -> Settled {
        let rejection = |reason: &str| Rejection {
            code: "INVALID_ARGUMENT".into(),
            reason: reason.into(),
            message: "why".into(),
        };
        Settled {
            sequence: 7,
            line,
            end: line * 10,
            verdict: reason.map_or(Ok(()), |reason| Err(rejection(reason))),
        }
    }

    #[test]
    fn a_tally_counts_by_reason_and_says_so() {
        let mut tally = Tally::default();
        for (line, reason) in [(2, None), (3, Some("A")), (4, Some("")), (5, Some("A"))] {
            tally.count(&settled(line, reason));
        }
        assert_eq!((tally.records(), tally.line, tally.bytes), (4, 5, 50));
        assert_eq!(
            tally.to_string(),
            "4 records: 1 delivered, 3 failed\n         2  A\n         1  INVALID_ARGUMENT"
        );
    }

    #[test]
    fn failures_are_written_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failures.ndjson");
        let mut file = FailureFile::create(&path).unwrap();
        file.write(&settled(2, None)).unwrap();
        file.write(&settled(3, Some("IDENTIFIER_MISSING"))).unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "{\"line\":3,\"sequence\":7,\"code\":\"INVALID_ARGUMENT\",\
             \"reason\":\"IDENTIFIER_MISSING\",\"message\":\"why\"}\n"
        );
    }
}
