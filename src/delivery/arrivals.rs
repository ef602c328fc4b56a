//! Arrival queue: what waits, in order of arrival.

use std::collections::{BTreeMap, VecDeque};

use itertools::Itertools;

/// The slot of a key in its batch.
pub(super) type SlotId = usize;

/// Slots by ordinal. Nearly all come in order and go from the front; both take constant time. A slot
/// that comes late, since its key was in a call, is kept beside them.
#[derive(Debug, Default)]
pub(super) struct ArrivalQueue {
    /// Ordinals rise. A slot that was removed leaves a gap; the first and last place is none.
    in_order: VecDeque<(u64, Option<SlotId>)>,
    gaps: usize,
    late: BTreeMap<u64, SlotId>,
}

impl ArrivalQueue {
    /// Adds a slot. No other may have its ordinal.
    pub(super) fn insert(&mut self, ordinal: u64, slot: SlotId) {
        if self.in_order.back().is_none_or(|(last, _)| *last < ordinal) {
            self.in_order.push_back((ordinal, Some(slot)));
        } else {
            self.late.insert(ordinal, slot);
        }
    }

    /// Takes out the slot of this ordinal, if it is there.
    pub(super) fn remove(&mut self, ordinal: u64) {
        if self.late.remove(&ordinal).is_some() {
            return;
        }
        let found = self
            .in_order
            .binary_search_by_key(&ordinal, |(each, _)| *each);
        if let Ok(place) = found
            && self.in_order[place].1.take().is_some()
        {
            self.gaps += 1;
            self.close_gaps();
        }
    }

    /// Keeps gaps from the ends, and fewer than slots.
    fn close_gaps(&mut self) {
        if self.gaps * 2 > self.in_order.len() {
            self.in_order.retain(|(_, slot)| slot.is_some());
            self.gaps = 0;
        }
        while let Some((_, None)) = self.in_order.front() {
            self.in_order.pop_front();
            self.gaps -= 1;
        }
        while let Some((_, None)) = self.in_order.back() {
            self.in_order.pop_back();
            self.gaps -= 1;
        }
    }

    pub(super) fn first(&self) -> Option<(u64, SlotId)> {
        let in_order = self.in_order.front();
        let in_order = in_order.and_then(|(ordinal, slot)| Some((*ordinal, (*slot)?)));
        let late = self.late.first_key_value();
        let late = late.map(|(ordinal, slot)| (*ordinal, *slot));
        in_order.into_iter().chain(late).min()
    }

    pub(super) fn pop_first(&mut self) -> Option<(u64, SlotId)> {
        let first = self.first()?;
        if self.late.remove(&first.0).is_none() {
            self.in_order.pop_front();
            self.close_gaps();
        }
        Some(first)
    }

    /// All slots, in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, SlotId)> {
        let late = self.late.iter().map(|(ordinal, slot)| (*ordinal, *slot));
        let in_order = self.in_order.iter();
        let in_order = in_order.filter_map(|(ordinal, slot)| Some((*ordinal, (*slot)?)));
        late.merge(in_order)
    }

    pub(super) fn len(&self) -> usize {
        self.in_order.len() - self.gaps + self.late.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Insert(u64),
        Remove(u64),
        Pop,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..40u64).prop_map(Act::Insert),
            2 => (0..40u64).prop_map(Act::Remove),
            1 => Just(Act::Pop),
        ];
        prop::collection::vec(act, 0..120)
    }

    proptest! {
        /// It holds what an ordered map would hold, and no more places than twice that.
        #[test]
        fn slots_go_in_order_of_arrival(acts in acts()) {
            let (mut queue, mut model) = (ArrivalQueue::default(), BTreeMap::new());
            for (slot, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Insert(ordinal) if !model.contains_key(&ordinal) => {
                        queue.insert(ordinal, slot);
                        model.insert(ordinal, slot);
                    }
                    Act::Insert(_) => {}
                    Act::Remove(ordinal) => {
                        queue.remove(ordinal);
                        model.remove(&ordinal);
                    }
                    Act::Pop => prop_assert_eq!(queue.pop_first(), model.pop_first()),
                }
                prop_assert_eq!(queue.len(), model.len());
                let first = model.first_key_value().map(|(ordinal, slot)| (*ordinal, *slot));
                prop_assert_eq!(queue.first(), first);
                let all: Vec<_> = queue.iter().collect();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
                prop_assert!(queue.in_order.len() <= 2 * model.len() + 1);
            }
        }
    }
}
