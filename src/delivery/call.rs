//! One call of a lane, with the isolation of refused members.

use std::sync::Arc;

use super::{
    ack::Verdict,
    batch::{Entry, Sealed},
    bisect::{Bisect, Refused, Step},
};
use crate::domain::{
    Connection, ContextKey, Delivery, Operation, Outcome, Refusal, Revision, SegmentClient,
    SegmentRef, Slot, Trouble,
};

/// A sealed batch on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) client: Arc<dyn SegmentClient>,
    pub(super) connection: Arc<Connection>,
    /// Whose credentials these are.
    pub(super) revision: Revision,
    pub(super) segment: SegmentRef,
    /// Whether the vendor ever accepted a call of this lane.
    pub(super) proven: bool,
}

/// What a call left behind. What is not left has been settled.
#[derive(Debug)]
pub(super) struct Report {
    /// Every key that was in flight.
    pub(super) keys: Vec<ContextKey>,
    /// Entries without a verdict.
    pub(super) left: Vec<Entry>,
    /// Why they were left.
    pub(super) end: End,
    /// Whether the vendor accepted anything.
    pub(super) applied: bool,
    /// Members of the smallest call that was too large.
    pub(super) too_large: Option<usize>,
    pub(super) revision: Revision,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All that could be judged was; try the rest, if any, at once.
    Judged,
    /// Try the rest later.
    Later {
        trouble: Trouble,
        retry_after: Option<std::time::Duration>,
    },
    /// The credentials or the segment are refused: trying again cannot help.
    Refused(Refusal),
}

impl Call {
    /// Calls, isolating refused members, and settles everything that gets a verdict.
    pub(super) async fn run(self, slot: Slot, sealed: Sealed) -> Report {
        let Sealed { operation, entries } = sealed;
        let keys = entries.iter().map(|entry| entry.key.clone()).collect();
        let mut work = Work {
            bisect: Bisect::new(entries.len(), self.proven),
            entries: entries.into_iter().map(Some).collect(),
            applied: false,
            too_large: None,
        };
        let end = self.work_through(&mut work, slot, operation).await;
        Report {
            keys,
            left: work.entries.into_iter().flatten().collect(),
            end,
            applied: work.applied,
            too_large: work.too_large,
            revision: self.revision,
        }
    }

    async fn work_through(&self, work: &mut Work, slot: Slot, operation: Operation) -> End {
        let mut slot = Some(slot);
        loop {
            let part = match work.bisect.step() {
                Step::Probe(part) => part,
                Step::Done | Step::Capped => return End::Judged,
                Step::Systemic => return End::Refused(Refusal::Segment),
            };
            let members = &work.entries[part.clone()];
            if !members.iter().flatten().any(Entry::is_wanted) {
                // Every stream that wanted these is gone: no further call for them.
                return End::Judged;
            }
            let delivery = self.delivery(operation, members);
            let slot = match slot.take() {
                Some(slot) => slot,
                None => self.client.ready(&self.connection).await,
            };
            match self.client.apply(slot, &delivery).await {
                Outcome::Applied => work.apply(part),
                Outcome::Refused(Refusal::Payload) => work.refuse(part),
                Outcome::Refused(Refusal::TooLarge) => {
                    work.too_large = Some(part.len());
                    work.refuse(part);
                }
                Outcome::Refused(refusal) => return End::Refused(refusal),
                Outcome::Retry {
                    trouble,
                    retry_after,
                } => {
                    work.entries
                        .iter_mut()
                        .flatten()
                        .for_each(|entry| entry.failed(trouble));
                    return End::Later {
                        trouble,
                        retry_after,
                    };
                }
            }
        }
    }

    fn delivery(&self, operation: Operation, members: &[Option<Entry>]) -> Delivery {
        Delivery {
            connection: Arc::clone(&self.connection),
            segment: self.segment.clone(),
            operation,
            keys: members
                .iter()
                .flatten()
                .map(|entry| entry.key.clone())
                .collect(),
        }
    }
}

/// A call's entries, by their place, until each has its verdict.
#[derive(Debug)]
struct Work {
    bisect: Bisect,
    entries: Vec<Option<Entry>>,
    applied: bool,
    too_large: Option<usize>,
}

impl Work {
    fn apply(&mut self, part: std::ops::Range<usize>) {
        self.bisect.applied();
        self.applied = true;
        self.settle(part, Verdict::Delivered);
    }

    fn refuse(&mut self, part: std::ops::Range<usize>) {
        if self.bisect.refused() == Refused::Isolated {
            let proven = self.bisect.proven();
            self.settle(part, Verdict::Rejected { proven });
        }
    }

    fn settle(&mut self, part: std::ops::Range<usize>, verdict: Verdict) {
        let settled = self.entries[part].iter_mut().filter_map(Option::take);
        settled.for_each(|entry| entry.settle(verdict));
    }
}
