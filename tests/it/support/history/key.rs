//! What the applications of one key by one stream can have been.

use super::Operation;

/// One record of the key, as its stream sent it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: i64,
    operation: Operation,
    /// Its result says that LaunchDarkly does not have it, whatever is applied.
    rejected: bool,
}

/// The records that the last applied operation can have been: those of its operation in a range
/// of places in `sent`. All of them are told by their first, since no record sent later than the
/// application can join, and those before the first have dropped out for ever.
#[derive(Clone, Copy, Debug)]
struct Last {
    operation: Operation,
    /// A record that fits, and the earliest one.
    first: usize,
    /// Beyond the last record that was sent by then.
    end: usize,
}

/// A key's records of one stream, and how far their delivery has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: Vec<Sent>,
    last: Option<Last>,
}

/// Why an application cannot be of this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unexplained {
    /// The stream sent no such record so far.
    NotSent,
    /// It did, but all of them have been rejected.
    Rejected,
    /// It did, but only before what was applied already.
    OutOfOrder,
}

impl Progress {
    pub(super) fn send(&mut self, sequence: i64, operation: Operation, rejected: bool) {
        self.sent.push(Sent {
            sequence,
            operation,
            rejected,
        });
    }

    /// Takes in an application. The earliest record that it can have been is the best guess:
    /// whatever comes later is bound by it the least.
    pub(super) fn apply(&mut self, operation: Operation) -> Result<(), Unexplained> {
        let from = self.last.map_or(0, |last| last.first);
        let end = self.sent.len();
        match self.find(operation, from, end) {
            Some(first) => {
                self.last = Some(Last {
                    operation,
                    first,
                    end,
                });
                Ok(())
            }
            None => Err(self.why_not(operation)),
        }
    }

    /// Takes in that a record has been applied, or a later one of its key: so the last
    /// application was of such a one. Answers whether it can have been.
    pub(super) fn confirm(&mut self, sequence: i64) -> bool {
        let Some(last) = self.last else {
            return false;
        };
        let from = self.sent.partition_point(|sent| sent.sequence < sequence);
        if from <= last.first {
            return true;
        }
        let narrowed = self.find(last.operation, from, last.end);
        if let Some(first) = narrowed {
            self.last = Some(Last { first, ..last });
        }
        narrowed.is_some()
    }

    fn find(&self, operation: Operation, from: usize, end: usize) -> Option<usize> {
        let fits = |place: &usize| {
            let sent = self.sent[*place];
            sent.operation == operation && !sent.rejected
        };
        (from..end).find(fits)
    }

    fn why_not(&self, operation: Operation) -> Unexplained {
        let mut same = self.sent.iter().filter(|sent| sent.operation == operation);
        match (same.clone().next(), same.any(|sent| !sent.rejected)) {
            (None, _) => Unexplained::NotSent,
            (Some(_), false) => Unexplained::Rejected,
            (Some(_), true) => Unexplained::OutOfOrder,
        }
    }
}
