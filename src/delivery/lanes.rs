//! The directory of lanes: which lane delivers to which segment.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{
    ack::Ack,
    lane::{DeliveryHealth, Lane, LaneCommand, LaneSettings},
    live::LiveDestination,
    observed::LaneObserver,
};
use crate::domain::{
    ContextKey, DestinationUid, Observer, Operation, SegmentClient, SegmentId, SegmentRef,
};

/// What a lane delivers to. Uids are unique across organizations, so lanes never mix them.
pub(super) type LaneKey = (DestinationUid, SegmentId);

/// Opens lanes.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    settings: LaneSettings,
    client: Arc<dyn SegmentClient>,
    observer: Option<Arc<dyn Observer>>,
    directory: Arc<LaneDirectory>,
    /// Awaited by [`Dispatcher::ended`].
    tasks: TaskTracker,
}

impl Dispatcher {
    /// Without any lane yet. The verdicts of all lanes are told to `observer`.
    pub fn new(
        settings: LaneSettings,
        client: Arc<dyn SegmentClient>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self {
            settings,
            client,
            observer,
            directory: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Joins the lane of this destination and segment, and starts it if there is none.
    ///
    /// The target must have been published.
    pub fn open(&self, live: LiveDestination, segment: &SegmentRef) -> LaneHandle {
        let key = (live.uid, segment.id.clone());
        let mut lanes = self.directory.lock();
        let entry = lanes
            .entry(key.clone())
            .or_insert_with(|| self.start(&key, live, segment));
        entry.handles += 1;
        LaneHandle {
            commands: entry.commands.clone(),
            health: entry.health.subscribe(),
            directory: Arc::clone(&self.directory),
            key,
        }
    }

    /// Waits until every lane has retired. Cancel safe.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn start(&self, key: &LaneKey, live: LiveDestination, segment: &SegmentRef) -> LaneEntry {
        let (commands, inbox) = mpsc::unbounded_channel();
        let health = watch::Sender::new(DeliveryHealth::Delivering);
        let lane = Lane::new(
            key.clone(),
            self.settings,
            Arc::clone(&self.client),
            live,
            segment.clone(),
            Arc::clone(&self.directory),
            inbox,
            health.clone(),
            LaneObserver::new(self.observer.as_ref(), key.0, &key.1),
        );
        let span = tracing::info_span!(
            parent: None, "lane", destination.uid = %key.0, segment.id = %key.1
        );
        self.tasks.spawn(lane.run().instrument(span));
        LaneEntry {
            commands,
            health,
            handles: 0,
        }
    }
}

/// A stream's side of a lane.
pub struct LaneHandle {
    /// Bounded by the window of the stream.
    commands: mpsc::UnboundedSender<LaneCommand>,
    health: watch::Receiver<DeliveryHealth>,
    directory: Arc<LaneDirectory>,
    key: LaneKey,
}

impl LaneHandle {
    /// Hands over a change. Its ack tells what becomes of it, also if the lane is no more.
    pub fn submit(&self, key: ContextKey, operation: Operation, ack: Ack) {
        self.send(LaneCommand::Submit {
            key,
            operation,
            ack,
        });
    }

    /// Makes calls from now on use this name for the segment.
    pub fn rename(&self, segment: SegmentRef) {
        self.send(LaneCommand::Rename(segment));
    }

    /// Makes what was submitted leave without lingering.
    pub fn flush(&self) {
        self.send(LaneCommand::Flush);
    }

    /// Makes the lane forget changes of abandoned streams.
    pub fn sweep(&self) {
        self.send(LaneCommand::Sweep);
    }

    /// How delivery goes; changes are worth telling.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<DeliveryHealth> {
        self.health.clone()
    }

    fn send(&self, command: LaneCommand) {
        // A lane that panicked is gone; dropping the command defers its ack.
        self.commands.send(command).ok();
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        if let Some(entry) = self.directory.lock().get_mut(&self.key)
            && entry.commands.same_channel(&self.commands)
        {
            entry.handles -= 1;
        }
        self.send(LaneCommand::Close);
    }
}

impl fmt::Debug for LaneHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneHandle")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// All lanes of the process.
#[derive(Debug, Default)]
pub(super) struct LaneDirectory {
    lanes: Mutex<HashMap<LaneKey, LaneEntry>>,
}

#[derive(Debug)]
struct LaneEntry {
    commands: mpsc::UnboundedSender<LaneCommand>,
    health: watch::Sender<DeliveryHealth>,
    handles: usize,
}

impl LaneDirectory {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LaneKey, LaneEntry>> {
        // Every critical section leaves the map whole.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
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
        if lanes
            .get(key)
            .is_some_and(|entry| entry.health.same_channel(health))
        {
            lanes.remove(key);
        }
    }
}
