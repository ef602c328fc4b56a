//! What happened to records, in order: the history that [`check()`] judges.
//!
//! One [`History`] is shared by all who see a part of a run: executors note what they send and
//! hear, the LaunchDarkly side notes what it applies, under its own lock and before it answers.
//! The order of the events is the order of time. Nothing else of time is in it, and nothing that
//! is drawn anew in each run, such as a uid: two simulated runs of one seed are equal.

mod check;
mod key;
mod stream;
mod violation;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use launchdarkly_connector::sandbox::Sandbox;

pub(crate) use check::{Summary, check};
pub(crate) use violation::{Kind, Violation};

/// Violations that a report shows; the first ones tell the story.
const MAX_SHOWN: usize = 12;
/// Events that a report shows before a violation, of those that concern its key or log.
const CONTEXT: usize = 40;

/// What a record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Add,
    Remove,
}

/// One stream of a log: they are counted from 1, also those that were never opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) log: Arc<str>,
    pub(crate) number: u32,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// With the reason of its `ErrorInfo`.
    Failed(Arc<str>),
}

/// How a stream ended, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Ok,
    /// With a status of the server's.
    Status {
        code: tonic::Code,
        reason: String,
    },
    /// Without one: a connection that broke or was given up.
    Lost,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The stream's client has read `opened`.
    Opened(Incarnation),
    /// A record is about to be handed to the transport.
    Sent {
        by: Incarnation,
        sequence: i64,
        key: Arc<str>,
        operation: Operation,
    },
    /// The client has read a record's result.
    Result {
        by: Incarnation,
        sequence: i64,
        outcome: Outcome,
    },
    /// The client has read a `committed_sequence` other than the one before.
    Committed { by: Incarnation, sequence: i64 },
    /// The stream is over.
    Ended { by: Incarnation, how: Ending },
    /// LaunchDarkly has applied a call.
    Applied {
        operation: Operation,
        keys: Vec<Arc<str>>,
    },
    /// The members at the end.
    Final { members: BTreeSet<String> },
}

/// A recorder; clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Event>>>);

impl History {
    /// Notes what has just happened, or is just about to.
    pub(crate) fn record(&self, event: Event) {
        self.lock().push(event);
    }

    /// Notes several things that happened at once.
    pub(crate) fn record_all(&self, events: impl IntoIterator<Item = Event>) {
        self.lock().extend(events);
    }

    /// Notes every call that a sandbox applies to one segment from now on.
    pub(crate) fn observe(&self, sandbox: &Sandbox, environment: &str, segment: &str) {
        let history = self.clone();
        let wanted = (environment.to_owned(), segment.to_owned());
        sandbox.observe(move |applied| {
            if (applied.environment, &applied.segment) == (&wanted.0, &wanted.1) {
                history.record(Event::Applied {
                    operation: if applied.adds {
                        Operation::Add
                    } else {
                        Operation::Remove
                    },
                    keys: applied.keys.iter().map(|key| key.as_str().into()).collect(),
                });
            }
        });
    }

    /// Notes the members at the end.
    pub(crate) fn conclude(&self, members: BTreeSet<String>) {
        self.record(Event::Final { members });
    }

    /// All that happened so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// Judges all that happened so far.
    ///
    /// # Errors
    /// The first violations in words, each with the events that led to it.
    pub(crate) fn check(&self) -> Result<Summary, String> {
        let events = self.lock();
        check(&events).map_err(|violations| report(&events, &violations))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        // Events are whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.events() == other.events()
    }
}

/// What is wrong, with what led to it.
fn report(events: &[Event], violations: &[Violation]) -> String {
    let mut text = format!("{} violations", violations.len());
    for violation in violations.iter().take(MAX_SHOWN) {
        text += &format!("\n\n{violation}");
        let until = violation.at.min(events.len().saturating_sub(1));
        let concern = |event: &&(usize, &Event)| violation.concerns(event.1);
        let all: Vec<_> = events[..=until].iter().enumerate().collect();
        let led: Vec<_> = all.iter().filter(concern).collect();
        for (at, event) in &led[led.len().saturating_sub(CONTEXT)..] {
            text += &format!("\n  {at:>6}  {}", violation.excerpt(event));
        }
    }
    text
}

/// One line an event, the same in every run that is the same.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock()
            .iter()
            .try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(by) => write!(f, "{by} opened"),
            Self::Sent {
                by,
                sequence,
                key,
                operation,
            } => write!(f, "{by} sent {sequence}: {operation} {key}"),
            Self::Result {
                by,
                sequence,
                outcome: Outcome::Ok,
            } => write!(f, "{by} result {sequence}: OK"),
            Self::Result {
                by,
                sequence,
                outcome: Outcome::Failed(reason),
            } => write!(f, "{by} result {sequence}: {reason}"),
            Self::Committed { by, sequence } => write!(f, "{by} committed {sequence}"),
            Self::Ended { by, how } => write!(f, "{by} ended {how}"),
            Self::Applied { operation, keys } => {
                write!(f, "applied {operation} {}", keys.join(" "))
            }
            Self::Final { members } => {
                let members: Vec<_> = members.iter().map(String::as_str).collect();
                write!(f, "final {}", members.join(" "))
            }
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.log, self.number)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Remove => "remove",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("OK"),
            Self::Status { code, reason } => write!(f, "{code:?} {reason}"),
            Self::Lost => f.write_str("lost"),
        }
    }
}
