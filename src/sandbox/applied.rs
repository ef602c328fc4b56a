//! Listeners of the segment-targets calls that are applied.

use std::fmt;

use super::{hidden::Hidden, segments::SegmentUpdate};

/// A segment-targets call as it was applied. A call that updates several segments, or adds and
/// removes, is told in parts; one without members is not told.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The client-side ID that it names.
    pub environment: &'a str,
    /// The key of the segment.
    pub segment: String,
    /// The context kind of its members.
    pub kind: &'a str,
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
        for (segment, cohort) in update.segments(integration) {
            for part in cohort.changes.chunk_by(|one, next| one.adds == next.adds) {
                let keys = part.iter().map(|change| change.key.clone());
                let applied = Applied {
                    environment: &update.environment,
                    segment: segment.clone(),
                    kind: &update.kind,
                    adds: part.iter().any(|change| change.adds),
                    keys: &Hidden(keys.collect()),
                };
                self.0.iter().for_each(|observer| observer(&applied));
            }
        }
    }
}

impl fmt::Debug for AppliedListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppliedListeners({})", self.0.len())
    }
}
