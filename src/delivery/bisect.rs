//! Bisection: a work list that isolates the refused members of a call.
//!
//! Halving: a single poison member among 1,000 costs 2 calls on each of 10 levels beside the
//! first refusal, 21 in all; ten anywhere cost at most 151.

use std::{collections::VecDeque, ops::Range};

/// Most calls spent on one batch; what is left then is tried again later.
const MAX_CALLS: u32 = 256;
/// Refusals in a row, in a lane that never had a success, after which the refusal is systemic: the
/// request is at fault instead of its members. Breadth first they cover 32 disjoint parts of the
/// batch. So many poison members, spread so evenly, are less likely in the first batch of all.
const SYSTEMIC_REFUSALS: u32 = 63;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BisectStep {
    /// Call with these members.
    Probe(Range<usize>),
    /// Every member has its outcome.
    Done,
    /// The most calls were made: the members without an outcome are left for another batch
    /// delivery.
    Capped,
    /// The refusal is systemic: no call of the lane ever succeeded, and no member gets an outcome.
    Systemic,
}

/// What a probe's refusal means for its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedProbe {
    /// One of several is at fault; they are probed again in halves.
    Split,
    /// This one member is at fault.
    Isolated,
}

/// The work list over the members `0..len` of one call.
#[derive(Debug)]
pub(super) struct Bisect {
    parts: VecDeque<Range<usize>>,
    calls: u32,
    history: RefusalHistory,
}

/// What a lane's calls have met so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RefusalHistory {
    /// Whether the vendor ever accepted one.
    pub(super) has_succeeded: bool,
    /// How often it refused one for its payload.
    pub(super) refusals: u32,
    /// How often the history was reset. The history of a call that began before the last reset is
    /// dropped.
    resets: u32,
}

impl RefusalHistory {
    /// Forgets what calls have met.
    pub(super) fn reset(&mut self) {
        *self = Self {
            resets: self.resets + 1,
            ..Self::default()
        };
    }

    /// Adds the history of a call that began with an earlier state of this one.
    pub(super) fn merge(&mut self, call: Self) {
        if call.resets == self.resets {
            self.has_succeeded |= call.has_succeeded;
            self.refusals = self.refusals.max(call.refusals);
        }
    }
}

impl Bisect {
    /// Starts with all members in one call, with the history of the lane.
    pub(super) fn new(len: usize, history: RefusalHistory) -> Self {
        Self {
            parts: (len > 0).then_some(0..len).into_iter().collect(),
            calls: 0,
            history,
        }
    }

    pub(super) fn history(&self) -> RefusalHistory {
        self.history
    }

    /// The probe has no members left that a stream waits for.
    pub(super) fn skipped(&mut self) {
        self.parts.pop_front();
    }

    /// The next step. A probe stays at the head of the list until it has an outcome.
    pub(super) fn step(&self) -> BisectStep {
        match self.parts.front() {
            None => BisectStep::Done,
            Some(_) if self.calls >= MAX_CALLS => BisectStep::Capped,
            Some(_)
                if !self.history.has_succeeded && self.history.refusals >= SYSTEMIC_REFUSALS =>
            {
                BisectStep::Systemic
            }
            Some(part) => BisectStep::Probe(part.clone()),
        }
    }

    /// The probe was applied.
    pub(super) fn applied(&mut self) {
        self.calls += 1;
        self.history.has_succeeded = true;
        self.parts.pop_front();
    }

    /// The probe was refused; `members` are those of its part that were in the call, at least one.
    pub(super) fn refused(&mut self, members: &[usize]) -> RefusedProbe {
        self.calls += 1;
        self.history.refusals += 1;
        let part = self.parts.pop_front().expect("only a probe can be refused");
        if members.len() == 1 {
            return RefusedProbe::Isolated;
        }
        let middle = members[members.len().div_ceil(2)];
        let (left, right) = (part.start..middle, middle..part.end);
        if self.history.has_succeeded {
            // Depth first: some members must be isolated before the most calls were made.
            self.parts.push_front(right);
            self.parts.push_front(left);
        } else {
            // Breadth first: the first probes must sample the whole batch.
            self.parts.push_back(left);
            self.parts.push_back(right);
        }
        RefusedProbe::Split
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    struct Found {
        applied: BTreeSet<usize>,
        isolated: BTreeSet<usize>,
        end: BisectStep,
        calls: u32,
    }

    fn run(len: usize, poison: &BTreeSet<usize>, has_succeeded: bool) -> Found {
        run_without(&BTreeSet::new(), len, poison, has_succeeded)
    }

    /// As after the members `gone` have been taken back: they are in no call any more.
    fn run_without(
        gone: &BTreeSet<usize>,
        len: usize,
        poison: &BTreeSet<usize>,
        has_succeeded: bool,
    ) -> Found {
        let mut bisect = Bisect::new(
            len,
            RefusalHistory {
                has_succeeded,
                ..RefusalHistory::default()
            },
        );
        let (mut applied, mut isolated) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let members: Vec<_> = match bisect.step() {
                BisectStep::Probe(part) => part.filter(|i| !gone.contains(i)).collect(),
                end => {
                    return Found {
                        applied,
                        isolated,
                        end,
                        calls: bisect.calls,
                    };
                }
            };
            if members.is_empty() {
                bisect.skipped();
            } else if members.iter().any(|i| poison.contains(i)) {
                if bisect.refused(&members) == RefusedProbe::Isolated {
                    isolated.extend(members);
                }
            } else {
                applied.extend(members);
                bisect.applied();
            }
        }
    }

    proptest! {
        #[test]
        fn every_member_is_judged_once_and_rightly(
            len in 1..=1000usize,
            poison in prop::collection::btree_set(0..1000usize, 0..12),
        ) {
            let poison: BTreeSet<_> = poison.into_iter().filter(|i| *i < len).collect();
            let found = run(len, &poison, true);
            prop_assert_eq!(&found.isolated, &poison);
            prop_assert_eq!(found.applied.len() + poison.len(), len);
            prop_assert!(found.applied.is_disjoint(&poison));
            prop_assert_eq!(found.end, BisectStep::Done);
        }

        #[test]
        fn a_few_poison_members_cost_few_calls(
            poison in prop::collection::btree_set(0..1000usize, 1..=10),
        ) {
            let found = run(1000, &poison, false);
            let most = if poison.len() == 1 { 21 } else { 151 };
            prop_assert!(found.calls <= most);
            prop_assert_eq!(found.isolated, poison);
        }

        #[test]
        fn members_that_have_gone_cost_no_calls(
            left in prop::collection::btree_set(0..1000usize, 1..=64),
            poison in any::<prop::sample::Index>(),
        ) {
            let gone = (0..1000).filter(|i| !left.contains(i)).collect();
            let poison = BTreeSet::from([*poison.get(&left.iter().copied().collect::<Vec<_>>())]);
            let found = run_without(&gone, 1000, &poison, true);
            prop_assert_eq!(&found.isolated, &poison);
            prop_assert_eq!(found.applied.len() + 1, left.len());
            // Two calls for each halving of those that are left.
            let halvings = left.len().next_power_of_two().ilog2();
            prop_assert!(found.calls <= 2 * halvings + 1, "{}", found.calls);
        }
    }

    #[test]
    fn refusals_on_a_lane_without_a_success_are_systemic() {
        let all = (0..1000).collect();
        let found = run(1000, &all, false);
        assert!(found.end == BisectStep::Systemic);
        assert_eq!(found.calls, SYSTEMIC_REFUSALS);
        assert!(found.isolated.is_empty() && found.applied.is_empty());
    }

    #[test]
    fn calls_from_before_a_reset_do_not_count() {
        let mut history = RefusalHistory::default();
        let mut call = history;
        call.refusals = SYSTEMIC_REFUSALS;
        history.merge(call);
        assert_eq!(history.refusals, SYSTEMIC_REFUSALS);
        history.reset();
        history.merge(call);
        assert_eq!((history.refusals, history.has_succeeded), (0, false));
    }

    #[test]
    fn at_the_most_calls_the_rest_is_left_but_some_are_isolated_each_time() {
        let all = (0..1000).collect();
        let found = run(1000, &all, true);
        assert!(found.end == BisectStep::Capped);
        assert_eq!(found.calls, MAX_CALLS);
        assert!(!found.isolated.is_empty() && found.isolated.len() < 1000);
    }
}
