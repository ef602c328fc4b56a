//! Progress and totals of a transfer, on standard error.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{
    outcome::SendEvent,
    window::{RowFailure, SettledRow},
};
use crate::{
    cli::terminal::{complain, inline, printable},
    pb,
};

/// How often a line reports progress, where there is no terminal. Ours: often enough to see
/// that it is alive, and some hundred lines an hour.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts of records with a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SendTally {
    /// Accepted by LaunchDarkly.
    pub delivered: u64,
    /// Failed records, by reason.
    pub failed: BTreeMap<String, u64>,
    /// The input up to this line has results; 0 before the first.
    pub line: u64,
    /// The input up to this byte has results.
    pub bytes: u64,
}

impl SendTally {
    /// Counts one record.
    pub(crate) fn count(&mut self, settled: &SettledRow) {
        self.line = settled.line;
        self.bytes = settled.end;
        match &settled.verdict {
            Ok(()) => self.delivered += 1,
            Err(rejection) => self.fail(label(rejection)),
        }
    }

    /// Counts a record that gets no result.
    pub(crate) fn fail(&mut self, reason: &str) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
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

fn label(rejection: &RowFailure) -> &str {
    if rejection.reason.is_empty() {
        &rejection.code
    } else {
        &rejection.reason
    }
}

impl fmt::Display for SendTally {
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

/// A progress bar on a terminal, a line now and then elsewhere; on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
    /// The failures to open a stream since the last result: each is printed once.
    last_failure: Option<String>,
}

impl Progress {
    /// Progress through an input of so many bytes, or of unknown length.
    #[must_use]
    pub(crate) fn new(bytes: Option<u64>) -> Self {
        Self {
            bar: io::stderr().is_terminal().then(|| bar(bytes)),
            last_line: Instant::now(),
            last_failure: None,
        }
    }

    /// Shows the progress.
    pub(crate) fn show(&mut self, tally: &SendTally) {
        let (records, failures) = (tally.records(), tally.failures());
        let text = format!("{records} done, {failures} of them failed");
        if let Some(bar) = &self.bar {
            bar.set_position(tally.bytes);
            bar.set_message(text);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            complain(text);
        }
    }

    /// Prints a warning.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(printable(text)),
            None => complain(text),
        }
    }

    /// Prints an event of the stream; [`show`](Self::show) shows results.
    pub(crate) fn print(&mut self, event: &SendEvent<'_>) {
        match event {
            SendEvent::Settled(_) => self.last_failure = None,
            SendEvent::Opened => {}
            SendEvent::Notice(notice) => self.say(&describe(notice)),
            SendEvent::Drain => {
                self.say(
                    "the server asks to move; a new stream follows when there is more to send",
                );
            }
            SendEvent::Lost { why, pause } => self.print_failure(why, *pause),
        }
    }

    fn print_failure(&mut self, why: &str, pause: Option<Duration>) {
        let known = self.last_failure.replace(why.to_owned());
        if known.as_deref() != Some(why) {
            self.say(&format!("{why}\n  {}", next_try(pause)));
        }
    }

    /// Stops the bar at its last position.
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

fn next_try(pause: Option<Duration>) -> String {
    match pause {
        Some(pause) => format!(
            "trying again in {:.1} s, and on until --give-up-after",
            pause.as_secs_f64()
        ),
        None => "connecting again when there is something to send".into(),
    }
}

fn describe(notice: &pb::Notice) -> String {
    let state = match notice.state() {
        pb::notice::State::Throttled => "throttled",
        pb::notice::State::Unreachable => "unreachable",
        pb::notice::State::Delivering => "delivering",
        pb::notice::State::Conflicting => "conflicting",
        pb::notice::State::Unspecified => "notice",
    };
    format!("{state}: {}", inline(&notice.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_by_reason_and_says_so() {
        let mut tally = SendTally::default();
        for (line, reason) in [(2, None), (3, Some("A")), (4, Some("")), (5, Some("A"))] {
            tally.count(&SettledRow::example(line, reason));
        }
        assert_eq!((tally.records(), tally.line, tally.bytes), (4, 5, 50));
        assert_eq!(
            tally.to_string(),
            "4 records: 1 delivered, 3 failed\n         2  A\n         1  INVALID_ARGUMENT"
        );
    }

    #[test]
    fn what_is_tried_next_is_told_as_it_is() {
        let soon = next_try(Some(Duration::from_millis(140)));
        assert_eq!(soon, "trying again in 0.1 s, and on until --give-up-after");
        let later = next_try(None);
        assert_eq!(later, "connecting again when there is something to send");
    }
}
