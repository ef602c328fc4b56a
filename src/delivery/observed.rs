//! Lane observer: reports the verdict of each change of one lane to the observer, if there is one.

use std::sync::Arc;

use crate::domain::{
    ContextKey, DestinationUid, Observer, Operation, SegmentId, SettledChange, Verdict,
};

/// The observer of one lane; it costs nothing where there is none.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneObserver(Option<Arc<Observed>>);

#[derive(Debug)]
struct Observed {
    observer: Arc<dyn Observer>,
    destination: DestinationUid,
    segment: SegmentId,
}

impl LaneObserver {
    pub(super) fn new(
        observer: Option<&Arc<dyn Observer>>,
        destination: DestinationUid,
        segment: &SegmentId,
    ) -> Self {
        Self(observer.map(|observer| {
            Arc::new(Observed {
                observer: Arc::clone(observer),
                destination,
                segment: segment.clone(),
            })
        }))
    }

    /// A change has its verdict.
    pub(super) fn settled(&self, key: &ContextKey, operation: Operation, verdict: Verdict) {
        if let Some(observed) = &self.0 {
            observed.observer.settled(&SettledChange {
                destination: observed.destination,
                segment: &observed.segment,
                key,
                operation,
                verdict,
            });
        }
    }
}
