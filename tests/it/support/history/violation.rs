//! A broken rule, in words and with the events that tell of it.

use std::fmt;

use super::{Event, Incarnation};

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Phantom,
    Rejected,
    Fence,
    Order,
    Loss,
    OneResult,
    Prefix,
    Complete,
    Converged,
    Replay,
    Malformed,
}

/// A broken rule.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Place of the event that shows it.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    /// What it is about, if it is about one log or one key.
    pub(super) log: Option<String>,
    pub(super) key: Option<String>,
    pub(super) what: String,
}

impl Violation {
    /// Whether an event belongs to the story of this violation.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        let of_log = |by: &Incarnation| self.log.as_deref() == Some(&*by.log);
        let of_key = |key: &str| self.key.as_deref().is_none_or(|of| of == key);
        match event {
            Event::Opened(by) | Event::Ended { by, .. } => of_log(by),
            Event::Committed { by, .. } => of_log(by) && self.key.is_none(),
            Event::Sent { by, key, .. } => of_log(by) && of_key(key),
            // Results do not name their key; those of the log would drown it.
            Event::Result { by, .. } => of_log(by) && self.key.is_none(),
            Event::Applied { keys, .. } => self.key.is_some() && keys.iter().any(|key| of_key(key)),
            Event::Final { .. } => false,
        }
    }

    /// An event in words, without the keys that do not matter here.
    pub(super) fn excerpt(&self, event: &Event) -> String {
        match (event, &self.key) {
            (Event::Applied { operation, keys }, Some(key)) => {
                format!("applied {operation} {key} (of {} members)", keys.len())
            }
            _ => event.to_string(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at event {}: {}", self.kind, self.at, self.what)
    }
}
