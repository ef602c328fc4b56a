//! Lane directory: which lanes run, and the inbox of each.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};

use super::{batch::Change, health::DeliveryHealth};
use crate::domain::{ContextKind, DestinationUid, SegmentId, SegmentRef};

/// What a lane delivers to. Uids are unique across organizations, so lanes never mix them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub(super) destination: DestinationUid,
    pub(super) segment: SegmentId,
    pub(super) kind: ContextKind,
}

/// A command of a stream to its lane.
#[derive(Debug)]
pub(super) enum LaneCommand {
    /// Deliver these changes.
    Submit(Vec<Change>),
    /// Use this name for the segment.
    Rename(SegmentRef),
    /// A stream waits for its results: do not linger.
    Flush,
    /// A stream is gone: forget its changes.
    Sweep,
    /// A handle is gone: perhaps it was the last.
    Close,
}

/// All lanes of the process.
#[derive(Debug, Default)]
pub(super) struct LaneDirectory {
    lanes: Mutex<HashMap<LaneKey, LaneEntry>>,
}

/// One lane, as its handles see it.
#[derive(Debug)]
pub(super) struct LaneEntry {
    /// Bounded by the windows of the streams that submit.
    pub(super) commands: mpsc::UnboundedSender<LaneCommand>,
    pub(super) health: watch::Sender<DeliveryHealth>,
    /// How many handles are open.
    pub(super) handles: usize,
}

impl LaneDirectory {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, LaneEntry>> {
        self.lanes.lock()
    }

    /// Takes an idle lane out, unless a handle has appeared; then the lane must go on.
    pub(super) fn retire(&self, key: &LaneKey) -> bool {
        let mut lanes = self.lock();
        let unused = lanes.get(key).is_none_or(|entry| entry.handles == 0);
        if unused {
            lanes.remove(key);
        }
        unused
    }

    /// Takes out the lane that reports to `health`, and no other that has its key by now.
    pub(super) fn forget(&self, key: &LaneKey, health: &watch::Sender<DeliveryHealth>) {
        let mut lanes = self.lock();
        let is_it = |entry: &LaneEntry| entry.health.same_channel(health);
        if lanes.get(key).is_some_and(is_it) {
            lanes.remove(key);
        }
    }
}
