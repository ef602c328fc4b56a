//! Lane observer: reports the verdict of each change of one lane to the observer.

use std::sync::Arc;

use crate::domain::{
    ContextKey, DestinationUid, Observer, Operation, SegmentId, SettledChange, Verdict,
};

/// The observer of one lane.
#[derive(Debug, Clone)]
pub(super) struct LaneObserver(Arc<Observed>);

#[derive(Debug)]
struct Observed {
    observer: Arc<dyn Observer>,
    destination: DestinationUid,
    segment: SegmentId,
}

impl LaneObserver {
    pub(super) fn new(
        observer: Arc<dyn Observer>,
        destination: DestinationUid,
        segment: SegmentId,
    ) -> Self {
        Self(Arc::new(Observed {
            observer,
            destination,
            segment,
        }))
    }

    /// One that tells no observer.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        let segment = SegmentId::new("vip").expect("letters are an id");
        Self::new(Arc::new(()), DestinationUid::generate(), segment)
    }

    /// A change has its verdict.
    pub(super) fn settled(&self, key: &ContextKey, operation: Operation, verdict: Verdict) {
        self.0.observer.settled(&SettledChange {
            destination: self.0.destination,
            segment: &self.0.segment,
            key,
            operation,
            verdict,
        });
    }
}
