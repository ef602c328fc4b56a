//! Dispatcher: opens lanes, and gives each stream a handle of its lane.

use std::{fmt, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{
    batch::Change,
    directory::{LaneCommand, LaneDirectory, LaneEntry, LaneKey},
    health::DeliveryHealth,
    lane::{Lane, LaneSettings},
    live::LiveDestination,
    observed::LaneObserver,
};
use crate::domain::{Observer, SegmentClient, SegmentRef};

/// Opens lanes.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    settings: LaneSettings,
    client: Arc<dyn SegmentClient>,
    observer: Arc<dyn Observer>,
    directory: Arc<LaneDirectory>,
    /// Awaited by [`Dispatcher::ended`].
    tasks: TaskTracker,
}

impl Dispatcher {
    /// A dispatcher without a lane. The verdicts of all lanes are reported to `observer`.
    pub fn new(
        settings: LaneSettings,
        client: Arc<dyn SegmentClient>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            settings,
            client,
            observer,
            directory: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Joins the lane of this destination, segment and context kind, and starts it if there is none.
    ///
    /// The destination must have been published.
    pub fn open(&self, destination: LiveDestination, segment: &SegmentRef) -> LaneHandle {
        let key = LaneKey {
            destination: destination.uid,
            segment: segment.id.clone(),
            kind: segment.kind.clone(),
        };
        let mut lanes = self.directory.lock();
        let entry = lanes
            .entry(key.clone())
            .or_insert_with(|| self.start(&key, destination, segment));
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

    fn start(
        &self,
        key: &LaneKey,
        destination: LiveDestination,
        segment: &SegmentRef,
    ) -> LaneEntry {
        let (commands, inbox) = mpsc::unbounded_channel();
        let health = watch::Sender::new(DeliveryHealth::Delivering);
        let lane = Lane::new(
            key.clone(),
            self.settings,
            Arc::clone(&self.client),
            destination,
            segment.clone(),
            Arc::clone(&self.directory),
            inbox,
            health.clone(),
            LaneObserver::new(
                Arc::clone(&self.observer),
                key.destination,
                key.segment.clone(),
            ),
        );
        let span = tracing::info_span!(
            parent: None, "lane", destination.uid = %key.destination, segment.id = %key.segment,
            segment.kind = %key.kind,
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
    /// Hands over changes. Their acks tell what becomes of them, even if the lane is gone.
    pub fn submit(&self, changes: Vec<Change>) {
        self.send(LaneCommand::Submit(changes));
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

    /// The lane's health; a receiver sees each change of state.
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
