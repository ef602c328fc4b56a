//! Fences: of the streams with one `stream_id`, only the newest may write.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::domain::OrganizationId;

/// Whose log, which, and whether in earnest: ids of different organizations never meet, and a dry
/// run, which writes nothing, must not end the stream that does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StreamKey {
    pub(super) organization: OrganizationId,
    pub(super) stream_id: String,
    pub(super) dry_run: bool,
}

/// The streams of this process by their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Fences {
    holders: Arc<Mutex<HashMap<StreamKey, FenceHolder>>>,
}

#[derive(Debug)]
struct FenceHolder {
    superseded: CancellationToken,
    ended: CancellationToken,
}

/// One stream's place; given up when dropped, which tells the next one that it may write.
#[derive(Debug)]
pub(super) struct Fence {
    fences: Fences,
    key: StreamKey,
    superseded: CancellationToken,
    ended: CancellationToken,
    previous: Option<CancellationToken>,
}

impl Fences {
    /// Takes the log over from whoever has it.
    pub(super) fn enter(&self, key: StreamKey) -> Fence {
        let (superseded, ended) = (CancellationToken::new(), CancellationToken::new());
        let holder = FenceHolder {
            superseded: superseded.clone(),
            ended: ended.clone(),
        };
        let mut holders = self.lock();
        let previous = holders.insert(key.clone(), holder).map(|before| {
            before.superseded.cancel();
            before.ended
        });
        drop(holders);
        Fence {
            fences: self.clone(),
            key,
            superseded,
            ended,
            previous,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<StreamKey, FenceHolder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence {
    /// Waits until nothing of the stream before can reach the vendor any more; returns whether
    /// there was one. Also a stream that is superseded itself must wait, since the next one waits
    /// only for it. At the longest one attempt, or a second in line for another: no further probe
    /// of a refused call is made for it.
    pub(super) async fn previous_ended(&self) -> bool {
        let Some(previous) = &self.previous else {
            return false;
        };
        previous.cancelled().await;
        true
    }

    /// Waits until a newer stream takes over. Cancel safe.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    pub(super) fn stream_id(&self) -> &str {
        &self.key.stream_id
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let mut holders = self.fences.lock();
        // Superseding happens under the same lock: the place is still this stream's, or not.
        if !self.is_superseded() {
            holders.remove(&self.key);
        }
        drop(holders);
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(dry_run: bool) -> StreamKey {
        StreamKey {
            organization: OrganizationId::parse_parent("organizations/acme").unwrap(),
            stream_id: "journey-7".into(),
            dry_run,
        }
    }

    fn enter(fences: &Fences) -> Fence {
        fences.enter(key(false))
    }

    #[tokio::test]
    async fn dry_runs_fence_each_other_alone() {
        let fences = Fences::default();
        let live = enter(&fences);
        let [dry, next] = [(); 2].map(|()| fences.enter(key(true)));
        assert!(!live.is_superseded() && dry.is_superseded());
        assert!(next.previous_ended().now_or_never().is_none());
        drop(dry);
        next.previous_ended().await;
    }

    #[tokio::test]
    async fn each_stream_waits_for_all_before_it() {
        let fences = Fences::default();
        let first = enter(&fences);
        first.previous_ended().await;
        let second = enter(&fences);
        assert!(first.is_superseded());
        let third = enter(&fences);
        assert!(second.is_superseded() && !third.is_superseded());
        assert!(second.previous_ended().now_or_never().is_none());
        drop(first);
        second.previous_ended().await;
        assert!(third.previous_ended().now_or_never().is_none());
        drop(second);
        third.previous_ended().await;
        drop(third);
        assert!(fences.lock().is_empty());
    }
}
