//! Live destinations: the current state of the destinations in use.
//!
//! Streams and lanes watch their destination here, so that a rotated token is used by the next
//! call, and a deleted or refused destination ends its streams at once.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::permissions::Permissions;
use crate::domain::{Connection, DestinationUid, Revision, SegmentId};

/// Whether and how a destination can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveState {
    /// With this connection.
    Active(Arc<Connection>),
    /// The vendor refused its credentials.
    Rejected,
    /// It is gone.
    Deleted,
}

/// A destination whose credentials the vendor refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCredentials {
    /// The destination.
    pub uid: DestinationUid,
    /// The revision whose credentials were refused.
    pub revision: Revision,
}

#[derive(Debug, Clone)]
struct KnownState {
    revision: Revision,
    /// `None` until it is published.
    state: Option<LiveState>,
}

/// The directory of destinations in use.
#[derive(Debug)]
pub struct LiveDestinations {
    known: Mutex<HashMap<DestinationUid, watch::Sender<KnownState>>>,
    /// They outlive the last stream: refusals end streams, one segment after another.
    permissions: Mutex<HashMap<DestinationUid, Permissions>>,
    /// At most one message per destination and revision.
    refusals: mpsc::UnboundedSender<RefusedCredentials>,
}

impl LiveDestinations {
    /// An empty directory, and where it reports refused credentials.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<RefusedCredentials>) {
        let (refusals, reports) = mpsc::unbounded_channel();
        (
            Arc::new(Self {
                known: Mutex::default(),
                permissions: Mutex::default(),
                refusals,
            }),
            reports,
        )
    }

    /// Watches a destination. Watch first, then look it up and [`publish`](Self::publish): in
    /// this order no change in between can be missed.
    pub fn watch(self: &Arc<Self>, uid: DestinationUid) -> LiveDestination {
        let mut known = self.known.lock();
        // A refusal stays until the destination changes: it may not be stored yet.
        known.retain(|_, sender| {
            sender.receiver_count() > 0 || sender.borrow().state == Some(LiveState::Rejected)
        });
        let now = Instant::now();
        self.permissions
            .lock()
            .retain(|_, each| each.are_recent(now));
        let unknown = || {
            watch::Sender::new(KnownState {
                revision: Revision(0),
                state: None,
            })
        };
        let seen = known.entry(uid).or_insert_with(unknown).subscribe();
        LiveDestination {
            uid,
            seen,
            directory: Arc::clone(self),
        }
    }

    /// Makes a destination's state known, unless a later revision is known already.
    pub fn publish(&self, uid: DestinationUid, revision: Revision, state: LiveState) {
        self.update(uid, |known| {
            let newer = revision > known.revision;
            if newer {
                *known = KnownState {
                    revision,
                    state: Some(state),
                };
            }
            newer
        });
    }

    /// Whether the vendor has refused the credentials of this revision.
    #[must_use]
    pub fn are_credentials_refused(&self, uid: DestinationUid, revision: Revision) -> bool {
        let known = self.known.lock();
        known.get(&uid).is_some_and(|sender| {
            let known = sender.borrow();
            known.revision == revision && known.state == Some(LiveState::Rejected)
        })
    }

    /// Waits until a later revision than this is known.
    pub async fn superseded(&self, uid: DestinationUid, revision: Revision) {
        let seen = {
            let known = self.known.lock();
            known.get(&uid).map(watch::Sender::subscribe)
        };
        if let Some(mut seen) = seen {
            // While it is watched here, the directory keeps its sender.
            seen.wait_for(|known| known.revision > revision).await.ok();
        }
    }

    /// Makes known that a destination is gone for ever.
    pub fn publish_deleted(&self, uid: DestinationUid) {
        self.publish(uid, Revision(i64::MAX), LiveState::Deleted);
    }

    fn update(&self, uid: DestinationUid, change: impl FnOnce(&mut KnownState) -> bool) -> bool {
        let known = self.known.lock();
        known
            .get(&uid)
            .is_some_and(|sender| sender.send_if_modified(change))
    }
}

/// One destination, watched.
#[derive(Debug, Clone)]
pub struct LiveDestination {
    /// The destination.
    pub uid: DestinationUid,
    seen: watch::Receiver<KnownState>,
    directory: Arc<LiveDestinations>,
}

impl LiveDestination {
    /// What is known now, and of which revision.
    ///
    /// # Panics
    /// If the destination was not published since it is watched.
    #[must_use]
    pub fn current(&self) -> (Revision, LiveState) {
        // Not marked as seen: `changed` still reports each change that was not waited for.
        let known = self.seen.borrow().clone();
        (
            known.revision,
            known
                .state
                .expect("a destination is published before it is used"),
        )
    }

    /// Whether calls may still be made by what `revision` says.
    #[must_use]
    pub fn is_in_force(&self, revision: Revision) -> bool {
        let known = self.seen.borrow();
        known.revision == revision && matches!(known.state, Some(LiveState::Active(_)))
    }

    /// Waits for the next change. Cancel safe.
    pub async fn changed(&mut self) {
        // The directory outlives its handles, and keeps each watched sender.
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says that the vendor has accepted a change of this segment by what `revision` says.
    pub(super) fn permit(&self, revision: Revision, segment: &SegmentId) {
        self.note(revision, segment, true);
    }

    /// Says that the vendor forbids to change this segment by what `revision` says; returns
    /// whether that is so for all segments that the destination has used recently.
    pub(super) fn forbid(&self, revision: Revision, segment: &SegmentId) -> bool {
        self.note(revision, segment, false)
    }

    fn note(&self, revision: Revision, segment: &SegmentId, permitted: bool) -> bool {
        let now = Instant::now();
        let mut permissions = self.directory.permissions.lock();
        let known = permissions
            .entry(self.uid)
            .or_insert_with(|| Permissions::new(revision, now));
        known.note(revision, segment, permitted, now);
        known.are_all_refused(now)
    }

    /// Says that the vendor refused the credentials of `revision`; returns whether that is news:
    /// these were in force until now. Refusing old credentials must not affect rotated ones.
    pub fn refuse_credentials(&self, revision: Revision) -> bool {
        let is_news = self.directory.update(self.uid, |known| {
            let active = matches!(known.state, Some(LiveState::Active(_)));
            let news = known.revision == revision && active;
            if news {
                known.state = Some(LiveState::Rejected);
            }
            news
        });
        if is_news {
            // Without a listener the refusal still ends the streams that saw it.
            self.directory
                .refusals
                .send(RefusedCredentials {
                    uid: self.uid,
                    revision,
                })
                .ok();
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ClientSideId, Instance},
        secret::AccessToken,
    };

    fn active(token: &str) -> LiveState {
        LiveState::Active(Arc::new(Connection {
            access_token: AccessToken::new(token.into()),
            client_side_id: ClientSideId::new("env".into()),
            instance: Instance::Commercial,
        }))
    }

    #[test]
    fn an_older_revision_never_replaces_a_newer_one() {
        let (directory, _reports) = LiveDestinations::new();
        let live = directory.watch(DestinationUid::generate());
        directory.publish(live.uid, Revision(2), active("new"));
        directory.publish(live.uid, Revision(1), active("old"));
        assert_eq!(live.current(), (Revision(2), active("new")));
        directory.publish_deleted(live.uid);
        directory.publish(live.uid, Revision(3), active("late"));
        assert_eq!(live.current().1, LiveState::Deleted);
    }

    #[test]
    fn refusing_old_credentials_does_not_affect_rotated_ones() {
        let (directory, mut reports) = LiveDestinations::new();
        let live = directory.watch(DestinationUid::generate());
        directory.publish(live.uid, Revision(2), active("new"));
        assert!(!live.refuse_credentials(Revision(1)));
        assert_eq!(live.current().1, active("new"));
        assert!(live.refuse_credentials(Revision(2)));
        assert!(!live.refuse_credentials(Revision(2)), "once is enough");
        assert_eq!(live.current().1, LiveState::Rejected);
        let report = reports.try_recv().unwrap();
        assert_eq!(
            report,
            RefusedCredentials {
                uid: live.uid,
                revision: Revision(2)
            }
        );
        // Looking the same revision up again must not revive it, not even when it was not watched.
        let uid = live.uid;
        drop(live);
        directory.watch(DestinationUid::generate());
        let live = directory.watch(uid);
        directory.publish(live.uid, Revision(2), active("new"));
        assert_eq!(live.current().1, LiveState::Rejected);
    }
}
