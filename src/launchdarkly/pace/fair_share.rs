//! Who shares some places, and how many of them one may take: environments those of an account,
//! segments those of an environment.
//!
//! A call that hangs keeps its place for its whole time-out. So whoever has a call under way
//! already leaves a place to each of the others that has been active of late and has none, but
//! never more than half of the places: then one that hangs takes none of its neighbours' turns,
//! and one that is busy is not held up by many that rest.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How long after its last call a place is left to somebody. Ours: as long as a stream may be
/// idle by default.
const ACTIVE: Duration = Duration::from_secs(600);
/// How many are remembered before those that rest are forgotten. Some 200 bytes each.
const SWEEP_ABOVE: usize = 64;

/// Those who share some places.
#[derive(Debug)]
pub(super) struct FairShare<K> {
    members: HashMap<K, Participant>,
    under_way: usize,
    /// BatchSizeLimit at which to sweep next: twice what the last sweep had to leave.
    sweep_above: usize,
}

#[derive(Debug, Clone, Copy)]
struct Participant {
    under_way: usize,
    /// When it last wanted, began or ended a call.
    seen: Instant,
}

impl Participant {
    fn rests(&self, now: Instant) -> bool {
        self.under_way == 0 && self.seen + ACTIVE < now
    }
}

impl<K: Eq + Hash + Clone> FairShare<K> {
    pub(super) fn new() -> Self {
        Self {
            members: HashMap::new(),
            under_way: 0,
            sweep_above: SWEEP_ABOVE,
        }
    }

    /// Calls under way of all together.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many share the places.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// Whether `who` may take one more of `places` at `now`.
    pub(super) fn has_room(&self, who: &K, places: usize, now: Instant) -> bool {
        let free = places.saturating_sub(self.under_way);
        let has_one = self.members.get(who).is_some_and(|it| it.under_way > 0);
        let kept = if has_one {
            self.waiting_for_none(now, places / 2)
        } else {
            0
        };
        free > kept
    }

    /// How many, up to `most`, have been active of late and have no call under way.
    fn waiting_for_none(&self, now: Instant, most: usize) -> usize {
        let idle = |it: &&Participant| it.under_way == 0 && !it.rests(now);
        self.members.values().filter(idle).take(most).count()
    }

    /// Somebody wants a call.
    pub(super) fn wants(&mut self, who: &K, now: Instant) {
        self.sweep(now);
        self.member(who, now);
    }

    /// A call starts.
    pub(super) fn departs(&mut self, who: &K, now: Instant) {
        self.under_way += 1;
        self.member(who, now).under_way += 1;
    }

    /// A call has ended.
    pub(super) fn returns(&mut self, who: &K) {
        self.under_way -= 1;
        // Nobody is forgotten with a call under way.
        if let Some(member) = self.members.get_mut(who) {
            member.under_way -= 1;
        }
    }

    fn member(&mut self, who: &K, now: Instant) -> &mut Participant {
        // Most are known: no copy of the name for them.
        if !self.members.contains_key(who) {
            let member = Participant {
                under_way: 0,
                seen: now,
            };
            self.members.insert(who.clone(), member);
        }
        let member = self.members.get_mut(who).expect("it is there, or was put");
        member.seen = now;
        member
    }

    fn sweep(&mut self, now: Instant) {
        if self.members.len() <= self.sweep_above {
            return;
        }
        self.members.retain(|_, member| !member.rests(now));
        self.sweep_above = SWEEP_ABOVE.max(2 * self.members.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fair_share in which each of these has so many calls under way.
    fn fair_share(calls: &[(&'static str, usize)], now: Instant) -> FairShare<&'static str> {
        let mut fair_share = FairShare::new();
        for (who, calls) in calls {
            fair_share.wants(who, now);
            (0..*calls).for_each(|_| fair_share.departs(who, now));
        }
        fair_share
    }

    /// How many calls `who` gets under way beside those that are.
    fn takes(mut fair_share: FairShare<&'static str>, who: &'static str, places: usize) -> usize {
        let now = Instant::now();
        let mut taken = 0;
        while fair_share.has_room(&who, places, now) {
            fair_share.departs(&who, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn who_is_alone_may_take_every_place() {
        assert_eq!(takes(fair_share(&[], Instant::now()), "a", 8), 8);
    }

    #[test]
    fn a_place_is_left_to_each_that_has_none_but_no_more_than_half() {
        let now = Instant::now();
        assert_eq!(takes(fair_share(&[("b", 0)], now), "a", 8), 7);
        assert_eq!(takes(fair_share(&[("b", 0), ("c", 0)], now), "a", 8), 6);
        let many = [("b", 0), ("c", 0), ("d", 0), ("e", 0), ("f", 0), ("g", 0)];
        assert_eq!(takes(fair_share(&many, now), "a", 8), 4);
        // Who has a call under way has its place.
        assert_eq!(takes(fair_share(&[("b", 1)], now), "a", 8), 7);
    }

    #[test]
    fn who_has_none_takes_the_last_place() {
        let fair_share = fair_share(&[("a", 7), ("b", 0), ("c", 0)], Instant::now());
        assert_eq!(takes(fair_share, "b", 8), 1);
    }

    #[test]
    fn nothing_is_left_to_who_has_long_been_gone() {
        let long_ago = Instant::now();
        let mut fair_share = fair_share(&[("b", 0)], long_ago);
        let now = long_ago + 2 * ACTIVE;
        fair_share.wants(&"a", now);
        (0..7).for_each(|_| fair_share.departs(&"a", now));
        assert!(fair_share.has_room(&"a", 8, now));
    }

    #[test]
    fn those_that_rest_are_forgotten_once_there_are_many() {
        let long_ago = Instant::now();
        let mut fair_share = FairShare::new();
        (0..1000).for_each(|n| fair_share.wants(&n, long_ago));
        fair_share.departs(&7, long_ago);
        fair_share.wants(&5000, long_ago + 2 * ACTIVE);
        (0..2000).for_each(|n| fair_share.wants(&(6000 + n), long_ago + 2 * ACTIVE));
        assert!(fair_share.size() < 2010, "{}", fair_share.size());
        fair_share.returns(&7);
        assert_eq!(fair_share.under_way(), 0);
    }
}
