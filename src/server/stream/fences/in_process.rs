//! Fences of one process: they hold among the streams of this server alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Acquired, Fencing, Lease, StreamKey};
use crate::server::status::Failure;

/// Grants leases to the streams of this process; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct InProcessFences(Arc<Mutex<HashMap<StreamKey, Fence>>>);

/// The streams of one key.
#[derive(Debug)]
struct Fence {
    /// Supersedes the newest.
    newest: CancellationToken,
    /// One for each stream that may still write, the newest included: cancelled by its release.
    unreleased: Vec<CancellationToken>,
}

#[derive(Debug)]
struct InProcessLease {
    fences: InProcessFences,
    key: StreamKey,
    superseded: CancellationToken,
    released: CancellationToken,
}

impl InProcessFences {
    /// Supersedes the newest stream of this key; returns the new one's lease, and the releases to
    /// wait for. They are all of those before, so that no stream waits on behalf of its successor.
    fn supersede(&self, key: StreamKey) -> (InProcessLease, Vec<CancellationToken>) {
        let (superseded, released) = (CancellationToken::new(), CancellationToken::new());
        let mut fences = self.0.lock();
        let fence = fences.entry(key.clone()).or_insert_with(|| Fence {
            newest: CancellationToken::new(),
            unreleased: vec![],
        });
        fence.newest.cancel();
        fence.newest = superseded.clone();
        let earlier = fence.unreleased.clone();
        fence.unreleased.push(released.clone());
        drop(fences);
        let lease = InProcessLease {
            fences: self.clone(),
            key,
            superseded,
            released,
        };
        (lease, earlier)
    }
}

#[async_trait]
impl Fencing for InProcessFences {
    async fn acquire(&self, key: StreamKey) -> Result<Acquired, Failure> {
        let (lease, earlier) = self.supersede(key);
        for released in &earlier {
            released.cancelled().await;
        }
        if lease.superseded.is_cancelled() {
            let stream_id = lease.key.stream_id.clone();
            lease.give_back();
            return Err(Failure::StreamSuperseded(stream_id));
        }
        Ok(Acquired {
            lease: Box::new(lease),
            has_waited: !earlier.is_empty(),
        })
    }
}

impl InProcessLease {
    fn give_back(&self) {
        let mut fences = self.fences.0.lock();
        self.released.cancel();
        if let Entry::Occupied(mut fence) = fences.entry(self.key.clone()) {
            let unreleased = &mut fence.get_mut().unreleased;
            unreleased.retain(|released| !released.is_cancelled());
            if unreleased.is_empty() {
                fence.remove();
            }
        }
    }
}

#[async_trait]
impl Lease for InProcessLease {
    fn key(&self) -> &StreamKey {
        &self.key
    }

    async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    async fn release(self: Box<Self>) {
        self.give_back();
    }
}

impl Drop for InProcessLease {
    /// A session that panics must not fence its successors for ever.
    fn drop(&mut self) {
        if !self.released.is_cancelled() {
            warn!("a lease is dropped without its release");
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::domain::OrganizationId;

    fn key(dry_run: bool) -> StreamKey {
        StreamKey {
            organization: OrganizationId::parse_parent("organizations/acme").unwrap(),
            stream_id: "journey-7".into(),
            dry_run,
        }
    }

    fn at_once(fences: &InProcessFences, dry_run: bool) -> Acquired {
        answered(fences.acquire(key(dry_run))).unwrap()
    }

    fn answered<T>(acquiring: impl Future<Output = T>) -> T {
        acquiring
            .now_or_never()
            .expect("it has nothing to wait for")
    }

    fn is_superseded(acquired: &Acquired) -> bool {
        acquired.lease.superseded().now_or_never().is_some()
    }

    #[tokio::test]
    async fn dry_runs_fence_each_other_alone() {
        let fences = InProcessFences::default();
        let [live, dry] = [false, true].map(|dry_run| at_once(&fences, dry_run));
        let mut next = fences.acquire(key(true));
        assert!((&mut next).now_or_never().is_none());
        assert!(!is_superseded(&live) && is_superseded(&dry));
        dry.lease.release().await;
        let next = answered(next).unwrap();
        assert!(next.has_waited && !live.has_waited);
    }

    #[tokio::test]
    async fn each_stream_waits_for_all_before_it_and_only_the_newest_writes() {
        let fences = InProcessFences::default();
        let first = at_once(&fences, false);
        let mut second = fences.acquire(key(false));
        assert!((&mut second).now_or_never().is_none() && is_superseded(&first));
        let mut third = fences.acquire(key(false));
        assert!((&mut third).now_or_never().is_none());
        first.lease.release().await;
        let refused = answered(second).unwrap_err();
        assert_eq!(refused, Failure::StreamSuperseded("journey-7".into()));
        let third = answered(third).unwrap();
        assert!(third.has_waited && !is_superseded(&third));
        third.lease.release().await;
        assert!(fences.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_gives_up_waiting_does_not_free_its_successor() {
        let fences = InProcessFences::default();
        let first = at_once(&fences, false);
        let mut second = fences.acquire(key(false));
        assert!((&mut second).now_or_never().is_none());
        let mut third = fences.acquire(key(false));
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        assert!((&mut third).now_or_never().is_none());
        first.lease.release().await;
        answered(third).unwrap().lease.release().await;
        assert!(fences.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_session_that_panics_gives_its_lease_back() {
        let fences = InProcessFences::default();
        let lease = at_once(&fences, false);
        let session = tokio::spawn(async move {
            let _held = lease;
            panic!("a fault");
        });
        assert!(session.await.unwrap_err().is_panic());
        assert!(!at_once(&fences, false).has_waited);
    }
}
