//! Listeners of the segment-targets calls that are applied.

use std::fmt;

use super::{hidden::Hidden, segments::SegmentUpdate};

/// A segment-targets call as it was applied.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The client-side ID that it names.
    pub environment: &'a str,
    /// The key of the segment.
    pub segment: String,
    /// Whether its members went in; else they went out.
    pub adds: bool,
    /// The members' keys, in the order sent.
    pub keys: &'a Hidden<Vec<String>>,
}

type AppliedListener = Box<dyn Fn(&Applied<'_>) + Send + Sync>;

/// The listeners, in the order in which they were added.
#[derive(Default)]
pub(super) struct AppliedListeners(Vec<AppliedListener>);

impl AppliedListeners {
    pub(super) fn add(&mut self, observer: impl Fn(&Applied<'_>) + Send + Sync + 'static) {
        self.0.push(Box::new(observer));
    }

    pub(super) fn tell(&self, integration: &str, update: &SegmentUpdate) {
        if self.0.is_empty() {
            return;
        }
        let applied = Applied {
            environment: &update.environment,
            segment: update.segment_key(integration),
            adds: update.adds(),
            keys: &update.keys,
        };
        self.0.iter().for_each(|observer| observer(&applied));
    }
}

impl fmt::Debug for AppliedListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppliedListeners({})", self.0.len())
    }
}
