//! The memory budget: a limit on the bytes of records that the process holds, and on the part of
//! them that one destination may hold.
//!
//! A reservation is granted only if the bytes that it leaves free are at least nine times what its
//! destination already holds. A stalled destination can hold 10 % of the budget, the next one 10 %
//! of the rest; with twenty stalled, 12 % is still free. No destination gets a fixed share, which
//! would be too small for some and wasted on others.
//!
//! A share is that of a destination, not of a LaunchDarkly account: where a stream is read, only its
//! destination is known.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::DestinationUid;

/// How many times what a destination holds must be left free. Ours: a tenth of the default budget
/// is some 30,000 records, many times what a destination needs while LaunchDarkly answers.
const HEADROOM: isize = 9;

/// The bytes that all streams together may hold; clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<BudgetShared>);

#[derive(Debug)]
struct BudgetShared {
    /// What the largest message takes, in bytes: what a message that is still to come reserves.
    message: isize,
    state: Mutex<BudgetState>,
    /// Notified whenever bytes are given back.
    freed: Notify,
}

#[derive(Debug)]
struct BudgetState {
    /// Negative while messages that came in the frames of others take more than there is.
    free: isize,
    shares: HashMap<DestinationUid, Weak<DestinationShare>>,
}

/// What the streams of one destination hold together.
#[derive(Debug, Default)]
pub(in crate::server) struct DestinationShare {
    /// In bytes. Changed only under the lock of the budget's state.
    held: Mutex<isize>,
    /// A FIFO queue of its streams. The first one waits for free bytes.
    turn: tokio::sync::Mutex<()>,
}

/// Bytes taken from the budget; given back when dropped.
pub(in crate::server) struct Reservation {
    budget: Arc<BudgetShared>,
    share: Arc<DestinationShare>,
    bytes: isize,
}

impl MemoryBudget {
    /// A budget of `bytes`, at least that of one message of `message` bytes.
    pub(crate) fn new(bytes: usize, message: usize) -> Self {
        Self(Arc::new(BudgetShared {
            message: signed(message),
            state: Mutex::new(BudgetState {
                free: signed(bytes.max(message)),
                shares: HashMap::new(),
            }),
            freed: Notify::new(),
        }))
    }

    /// The share of a destination.
    pub(in crate::server) fn share(&self, uid: DestinationUid) -> Arc<DestinationShare> {
        let mut state = self.0.state.lock();
        let known = state.shares.get(&uid).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            state.shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::default();
            state.shares.insert(uid, Arc::downgrade(&share));
            share
        })
    }

    /// Waits until a message may be read. Cancel safe: only the place in the queue is lost.
    pub(in crate::server) async fn reserve(self, share: Arc<DestinationShare>) -> Reservation {
        let _turn = share.turn.lock().await;
        loop {
            let freed = self.0.freed.notified();
            if self.0.try_take(&share) {
                return self.reservation(&share, self.0.message);
            }
            freed.await;
        }
    }

    /// Counts a message that is read already, however few bytes are free.
    pub(in crate::server) fn reserve_now(
        &self,
        share: &Arc<DestinationShare>,
        bytes: usize,
    ) -> Reservation {
        let bytes = signed(bytes);
        self.0.change(share, bytes);
        self.reservation(share, bytes)
    }

    fn reservation(&self, share: &Arc<DestinationShare>, bytes: isize) -> Reservation {
        Reservation {
            budget: Arc::clone(&self.0),
            share: Arc::clone(share),
            bytes,
        }
    }
}

impl BudgetShared {
    /// Takes a message's bytes if the rule allows it.
    fn try_take(&self, share: &DestinationShare) -> bool {
        let mut state = self.state.lock();
        let mut held = share.held.lock();
        let is_granted = may_take(self.message, *held, state.free);
        if is_granted {
            state.free -= self.message;
            *held += self.message;
        }
        is_granted
    }

    /// Counts so many more bytes, or fewer, as held by a destination.
    fn change(&self, share: &DestinationShare, bytes: isize) {
        let mut state = self.state.lock();
        state.free -= bytes;
        *share.held.lock() += bytes;
        drop(state);
        self.freed.notify_waiters();
    }
}

/// Whether a destination that holds `held` bytes may take a message while `free` bytes are left.
fn may_take(message: isize, held: isize, free: isize) -> bool {
    let left = free - message;
    left >= 0 && HEADROOM * held <= left
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("no machine has so much memory")
}

impl Reservation {
    /// Counts `bytes` from now on, more or fewer than before.
    pub(in crate::server) fn resize(&mut self, bytes: usize) {
        let more = signed(bytes) - self.bytes;
        if more != 0 {
            self.bytes += more;
            self.budget.change(&self.share, more);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("bytes", &self.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: usize = 10;

    impl MemoryBudget {
        pub(in crate::server) fn free(&self) -> isize {
            self.0.state.lock().free
        }
    }

    fn destination(budget: &MemoryBudget) -> Arc<DestinationShare> {
        budget.share(DestinationUid::generate())
    }

    fn now(budget: &MemoryBudget, share: &Arc<DestinationShare>) -> Option<Reservation> {
        budget.clone().reserve(Arc::clone(share)).now_or_never()
    }

    /// Takes all that is granted.
    fn take_all(budget: &MemoryBudget, share: &Arc<DestinationShare>) -> Vec<Reservation> {
        std::iter::from_fn(|| now(budget, share)).collect()
    }

    #[test]
    fn twenty_stalled_destinations_leave_a_tenth_of_the_budget() {
        let budget = MemoryBudget::new(1000 * MESSAGE, MESSAGE);
        let shares: Vec<_> = (0..20).map(|_| destination(&budget)).collect();
        let taken: Vec<_> = shares
            .iter()
            .map(|share| take_all(&budget, share))
            .collect();
        let held: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(held[..3], [100, 90, 81], "a tenth of what is left, each");
        assert!(budget.free() >= 100 * signed(MESSAGE), "{held:?}");
    }

    #[test]
    fn a_share_is_that_of_all_streams_of_a_destination() {
        let budget = MemoryBudget::new(100 * MESSAGE, MESSAGE);
        let uid = DestinationUid::generate();
        let (one, other) = (budget.share(uid), budget.share(uid));
        let taken = take_all(&budget, &one);
        assert_eq!(taken.len(), 10);
        assert!(now(&budget, &other).is_none());
    }

    #[test]
    fn a_message_that_is_read_already_is_counted_and_others_wait() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let share = destination(&budget);
        let there = budget.reserve_now(&share, 5 * MESSAGE);
        assert_eq!(budget.free(), -signed(MESSAGE));
        assert!(now(&budget, &destination(&budget)).is_none());
        drop(there);
        assert!(now(&budget, &destination(&budget)).is_some());
    }

    #[tokio::test]
    async fn waiting_streams_go_on_in_order_when_bytes_are_given_back() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let share = destination(&budget);
        let mut taken = take_all(&budget, &share);
        let mut first = Box::pin(budget.clone().reserve(Arc::clone(&share)));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(budget.clone().reserve(Arc::clone(&share)));
        assert!((&mut second).now_or_never().is_none());
        taken.pop();
        assert!((&mut second).now_or_never().is_none());
        drop(first.await);
        second.await;
    }

    #[tokio::test]
    async fn a_stream_that_gives_up_waiting_holds_up_no_other() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let share = destination(&budget);
        let taken = take_all(&budget, &share);
        let mut first = Box::pin(budget.clone().reserve(Arc::clone(&share)));
        let mut second = Box::pin(budget.clone().reserve(Arc::clone(&share)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop((first, taken));
        second.await;
    }

    proptest! {
        #[test]
        fn what_is_given_back_is_what_was_taken(
            acts in prop::collection::vec((0..4usize, 0..30usize, any::<bool>()), 1..60)
        ) {
            let budget = MemoryBudget::new(30 * MESSAGE, MESSAGE);
            let shares: Vec<_> = (0..4).map(|_| destination(&budget)).collect();
            let mut held: Vec<Reservation> = Vec::new();
            for (share, bytes, takes) in acts {
                if takes {
                    held.extend(now(&budget, &shares[share]));
                } else if let Some(last) = held.last_mut() {
                    last.resize(bytes);
                }
                if bytes % 7 == 0 && !held.is_empty() {
                    held.swap_remove(bytes % held.len());
                }
                let sum: isize = held.iter().map(|one| one.bytes).sum();
                prop_assert_eq!(budget.free() + sum, 30 * signed(MESSAGE));
            }
            drop(held);
            prop_assert_eq!(budget.free(), 30 * signed(MESSAGE));
            prop_assert!(shares.iter().all(|share| *share.held.lock() == 0));
        }
    }
}
