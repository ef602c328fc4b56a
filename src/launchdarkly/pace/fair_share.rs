//! Fair sharing of a concurrency limit: the environments of an account share the calls that it may
//! have under way, and the segments of an environment share that environment's.
//!
//! A call that hangs occupies its slot for its whole time-out. So a participant with a call under
//! way leaves one slot to each other participant that was active recently and has none, but never
//! more than half of the slots. A participant that hangs then does not delay the others, and a busy
//! one is not delayed by many idle ones.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How long after its last call a slot is reserved for a participant. Ours: as long as a stream may
/// be idle by default.
const ACTIVE: Duration = Duration::from_secs(600);
/// How many participants are remembered before idle ones are forgotten. Some 200 bytes each.
const SWEEP_ABOVE: usize = 64;

/// The participants that share a limit, and their calls under way.
#[derive(Debug)]
pub(super) struct FairShare<K> {
    participants: HashMap<K, Participant>,
    under_way: usize,
    /// Size at which to sweep next: twice what the last sweep had to leave.
    sweep_above: usize,
}

#[derive(Debug, Clone, Copy)]
struct Participant {
    under_way: usize,
    /// When it last waited for a call or began one.
    last_active: Instant,
}

impl Participant {
    /// Whether it has no call under way and was not active recently.
    fn is_expired(&self, now: Instant) -> bool {
        self.under_way == 0 && self.last_active + ACTIVE < now
    }
}

impl<K: Eq + Hash + Clone> FairShare<K> {
    pub(super) fn new() -> Self {
        Self {
            participants: HashMap::new(),
            under_way: 0,
            sweep_above: SWEEP_ABOVE,
        }
    }

    /// Calls under way of all participants together.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many participants there are.
    pub(super) fn size(&self) -> usize {
        self.participants.len()
    }

    /// Whether `key` may take one more of `slots` at `now`.
    pub(super) fn has_free_slot(&self, key: &K, slots: usize, now: Instant) -> bool {
        let free = slots.saturating_sub(self.under_way);
        let has_call = self
            .participants
            .get(key)
            .is_some_and(|it| it.under_way > 0);
        let reserved = if has_call {
            self.idle_participants(now, slots / 2)
        } else {
            0
        };
        free > reserved
    }

    /// How many participants, up to `limit`, were active recently and have no call under way.
    fn idle_participants(&self, now: Instant, limit: usize) -> usize {
        let idle = |it: &&Participant| it.under_way == 0 && !it.is_expired(now);
        self.participants.values().filter(idle).take(limit).count()
    }

    /// A call of `key` begins to wait.
    pub(super) fn waits(&mut self, key: &K, now: Instant) {
        self.sweep(now);
        self.participant(key, now);
    }

    /// A call of `key` starts.
    pub(super) fn starts(&mut self, key: &K, now: Instant) {
        self.under_way += 1;
        self.participant(key, now).under_way += 1;
    }

    /// A call of `key` has ended.
    pub(super) fn ends(&mut self, key: &K) {
        self.under_way -= 1;
        // A participant with a call under way is not forgotten.
        if let Some(participant) = self.participants.get_mut(key) {
            participant.under_way -= 1;
        }
    }

    fn participant(&mut self, key: &K, now: Instant) -> &mut Participant {
        // Most are known: their key is not copied.
        if !self.participants.contains_key(key) {
            let participant = Participant {
                under_way: 0,
                last_active: now,
            };
            self.participants.insert(key.clone(), participant);
        }
        let participant = self
            .participants
            .get_mut(key)
            .expect("it is there, or was put");
        participant.last_active = now;
        participant
    }

    fn sweep(&mut self, now: Instant) {
        if self.participants.len() <= self.sweep_above {
            return;
        }
        self.participants
            .retain(|_, participant| !participant.is_expired(now));
        self.sweep_above = SWEEP_ABOVE.max(2 * self.participants.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share in which each of these participants has so many calls under way.
    fn fair_share(calls: &[(&'static str, usize)], now: Instant) -> FairShare<&'static str> {
        let mut fair_share = FairShare::new();
        for (key, calls) in calls {
            fair_share.waits(key, now);
            (0..*calls).for_each(|_| fair_share.starts(key, now));
        }
        fair_share
    }

    /// How many calls of `key` may start, beside those under way.
    fn takes(mut fair_share: FairShare<&'static str>, key: &'static str, slots: usize) -> usize {
        let now = Instant::now();
        let mut taken = 0;
        while fair_share.has_free_slot(&key, slots, now) {
            fair_share.starts(&key, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_single_participant_may_take_every_slot() {
        assert_eq!(takes(fair_share(&[], Instant::now()), "a", 8), 8);
    }

    #[test]
    fn one_slot_is_reserved_for_each_idle_participant_up_to_half() {
        let now = Instant::now();
        assert_eq!(takes(fair_share(&[("b", 0)], now), "a", 8), 7);
        assert_eq!(takes(fair_share(&[("b", 0), ("c", 0)], now), "a", 8), 6);
        let many = [("b", 0), ("c", 0), ("d", 0), ("e", 0), ("f", 0), ("g", 0)];
        assert_eq!(takes(fair_share(&many, now), "a", 8), 4);
        // A participant with a call under way has its slot.
        assert_eq!(takes(fair_share(&[("b", 1)], now), "a", 8), 7);
    }

    #[test]
    fn a_participant_without_a_call_takes_the_last_slot() {
        let fair_share = fair_share(&[("a", 7), ("b", 0), ("c", 0)], Instant::now());
        assert_eq!(takes(fair_share, "b", 8), 1);
    }

    #[test]
    fn no_slot_is_reserved_for_a_participant_long_idle() {
        let long_ago = Instant::now();
        let mut fair_share = fair_share(&[("b", 0)], long_ago);
        let now = long_ago + 2 * ACTIVE;
        fair_share.waits(&"a", now);
        (0..7).for_each(|_| fair_share.starts(&"a", now));
        assert!(fair_share.has_free_slot(&"a", 8, now));
    }

    #[test]
    fn idle_participants_are_forgotten_once_there_are_many() {
        let long_ago = Instant::now();
        let mut fair_share = FairShare::new();
        (0..1000).for_each(|n| fair_share.waits(&n, long_ago));
        fair_share.starts(&7, long_ago);
        fair_share.waits(&5000, long_ago + 2 * ACTIVE);
        (0..2000).for_each(|n| fair_share.waits(&(6000 + n), long_ago + 2 * ACTIVE));
        assert!(fair_share.size() < 2010, "{}", fair_share.size());
        fair_share.ends(&7);
        assert_eq!(fair_share.under_way(), 0);
    }
}
