//! How many bytes of records the process may hold, and how much of them one destination.
//!
//! Whoever asks for room gets it only while nine times what his group holds is left free. So one
//! destination whose records do not leave takes a tenth of the budget at most, another one a tenth
//! of what that has left, and so on: twenty that are stuck still leave a tenth for all others.
//! Nobody has to be given a fixed part, which would be too much for some and wasted on others.
//!
//! Groups are destinations and not LaunchDarkly accounts: what the edge knows of a stream is its
//! destination, and the rule holds for any number of groups.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::domain::DestinationUid;

/// How many times what a group holds must be left free. Ours: a tenth of the default budget is
/// some 30,000 records, many times what a destination needs that LaunchDarkly answers.
const HEADROOM: isize = 9;

/// The bytes that all streams together may hold; clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<BudgetShared>);

#[derive(Debug)]
struct BudgetShared {
    /// What the largest message takes: the least that is ever asked for.
    message: isize,
    state: Mutex<BudgetState>,
    freed: Notify,
}

#[derive(Debug)]
struct BudgetState {
    /// Less than nothing while messages came along in others' frames.
    free: isize,
    groups: HashMap<DestinationUid, Weak<DestinationShare>>,
}

/// Streams that share what they may hold.
#[derive(Debug, Default)]
pub(in crate::server) struct DestinationShare {
    /// Guarded by the budget's books, which every change goes through.
    held: Mutex<isize>,
    /// Lets its streams ask in their order; the one whose turn it is waits for room.
    turn: tokio::sync::Mutex<()>,
}

/// Bytes taken from the budget; given back when dropped.
pub(in crate::server) struct Reservation {
    budget: Arc<BudgetShared>,
    group: Arc<DestinationShare>,
    bytes: isize,
}

impl MemoryBudget {
    /// A budget of `bytes`, at least that of one message of `message` bytes.
    pub(crate) fn new(bytes: usize, message: usize) -> Self {
        Self(Arc::new(BudgetShared {
            message: signed(message),
            state: Mutex::new(BudgetState {
                free: signed(bytes.max(message)),
                groups: HashMap::new(),
            }),
            freed: Notify::new(),
        }))
    }

    /// The group of a destination's streams.
    pub(in crate::server) fn group(&self, uid: DestinationUid) -> Arc<DestinationShare> {
        let mut state = self.0.state();
        let known = state.groups.get(&uid).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            state.groups.retain(|_, group| group.strong_count() > 0);
            let group = Arc::default();
            state.groups.insert(uid, Arc::downgrade(&group));
            group
        })
    }

    /// Waits for room for a message. Cancel safe: only the place in the line is lost.
    pub(in crate::server) async fn reserve(self, group: Arc<DestinationShare>) -> Reservation {
        let _turn = group.turn.lock().await;
        loop {
            let freed = self.0.freed.notified();
            if self.0.take(&group) {
                return self.room(&group, self.0.message);
            }
            freed.await;
        }
    }

    /// Takes room for a message that is there already, whatever is left.
    pub(in crate::server) fn reserve_now(
        &self,
        group: &Arc<DestinationShare>,
        bytes: usize,
    ) -> Reservation {
        let bytes = signed(bytes);
        self.0.change(group, bytes);
        self.room(group, bytes)
    }

    fn room(&self, group: &Arc<DestinationShare>, bytes: isize) -> Reservation {
        Reservation {
            budget: Arc::clone(&self.0),
            group: Arc::clone(group),
            bytes,
        }
    }
}

impl BudgetShared {
    fn state(&self) -> MutexGuard<'_, BudgetState> {
        lock(&self.state)
    }

    fn take(&self, group: &DestinationShare) -> bool {
        let mut state = self.state();
        let mut held = lock(&group.held);
        let fits = may_take(self.message, *held, state.free);
        if fits {
            state.free -= self.message;
            *held += self.message;
        }
        fits
    }

    /// Counts so many more bytes, or fewer, as held by a group.
    fn change(&self, group: &DestinationShare, bytes: isize) {
        let mut state = self.state();
        state.free -= bytes;
        *lock(&group.held) += bytes;
        drop(state);
        self.freed.notify_waiters();
    }
}

/// Whether a group that holds `held` may take a message while `free` is left.
fn may_take(message: isize, held: isize, free: isize) -> bool {
    let left = free - message;
    left >= 0 && HEADROOM * held <= left
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("no machine has so much memory")
}

impl Reservation {
    /// Counts `bytes` from now on, be they more or less.
    pub(in crate::server) fn resize(&mut self, bytes: usize) {
        let more = signed(bytes) - self.bytes;
        if more != 0 {
            self.bytes += more;
            self.budget.change(&self.group, more);
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

/// What these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: usize = 10;

    impl MemoryBudget {
        pub(in crate::server) fn free(&self) -> isize {
            self.0.state().free
        }
    }

    fn destination(budget: &MemoryBudget) -> Arc<DestinationShare> {
        budget.group(DestinationUid::generate())
    }

    fn now(budget: &MemoryBudget, group: &Arc<DestinationShare>) -> Option<Reservation> {
        budget.clone().reserve(Arc::clone(group)).now_or_never()
    }

    /// Takes all it gets.
    fn hog(budget: &MemoryBudget, group: &Arc<DestinationShare>) -> Vec<Reservation> {
        std::iter::from_fn(|| now(budget, group)).collect()
    }

    #[test]
    fn twenty_that_take_all_they_get_leave_a_tenth() {
        let budget = MemoryBudget::new(1000 * MESSAGE, MESSAGE);
        let groups: Vec<_> = (0..20).map(|_| destination(&budget)).collect();
        let taken: Vec<_> = groups.iter().map(|group| hog(&budget, group)).collect();
        let held: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(held[..3], [100, 90, 81], "a tenth of what is left, each");
        assert!(budget.free() >= 100 * signed(MESSAGE), "{held:?}");
    }

    #[test]
    fn room_is_shared_by_the_streams_of_a_destination() {
        let budget = MemoryBudget::new(100 * MESSAGE, MESSAGE);
        let uid = DestinationUid::generate();
        let (one, other) = (budget.group(uid), budget.group(uid));
        let taken = hog(&budget, &one);
        assert_eq!(taken.len(), 10);
        assert!(now(&budget, &other).is_none());
    }

    #[test]
    fn what_is_there_already_is_counted_beyond_what_is_left_and_others_wait() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let group = destination(&budget);
        let there = budget.reserve_now(&group, 5 * MESSAGE);
        assert_eq!(budget.free(), -signed(MESSAGE));
        assert!(now(&budget, &destination(&budget)).is_none());
        drop(there);
        assert!(now(&budget, &destination(&budget)).is_some());
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_room_is_given_back_and_in_order() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let group = destination(&budget);
        let mut taken = hog(&budget, &group);
        let mut first = Box::pin(budget.clone().reserve(Arc::clone(&group)));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(budget.clone().reserve(Arc::clone(&group)));
        assert!((&mut second).now_or_never().is_none());
        taken.pop();
        assert!((&mut second).now_or_never().is_none());
        let room = first.await;
        drop(room);
        second.await;
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let budget = MemoryBudget::new(4 * MESSAGE, MESSAGE);
        let group = destination(&budget);
        let taken = hog(&budget, &group);
        let mut first = Box::pin(budget.clone().reserve(Arc::clone(&group)));
        let mut second = Box::pin(budget.clone().reserve(Arc::clone(&group)));
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
            let groups: Vec<_> = (0..4).map(|_| destination(&budget)).collect();
            let mut rooms: Vec<Reservation> = Vec::new();
            for (group, bytes, takes) in acts {
                if takes {
                    rooms.extend(now(&budget, &groups[group]));
                } else if let Some(room) = rooms.last_mut() {
                    room.resize(bytes);
                }
                if bytes % 7 == 0 && !rooms.is_empty() {
                    rooms.swap_remove(bytes % rooms.len());
                }
                let held: isize = rooms.iter().map(|room| room.bytes).sum();
                prop_assert_eq!(budget.free() + held, 30 * signed(MESSAGE));
            }
            drop(rooms);
            prop_assert_eq!(budget.free(), 30 * signed(MESSAGE));
            prop_assert!(groups.iter().all(|group| *lock(&group.held) == 0));
        }
    }
}
