//! Same key, same lane, one after the other; different keys side by side.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// The lanes of one endpoint, by exact key. What waits is bounded by the endpoint's places.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    busy: HashMap<String, VecDeque<T>>,
}

impl<T> Lanes<T> {
    /// Makes an endpoint's lanes, all empty.
    pub(crate) fn new() -> Self {
        Self {
            busy: HashMap::new(),
        }
    }

    /// Enters a lane. Returns the item when it may run now; else it waits for its turn.
    pub(crate) fn enter(&mut self, key: &str, item: T) -> Option<T> {
        match self.busy.entry(key.to_owned()) {
            Entry::Vacant(lane) => {
                lane.insert(VecDeque::new());
                Some(item)
            }
            Entry::Occupied(mut lane) => {
                lane.get_mut().push_back(item);
                None
            }
        }
    }

    /// Leaves a lane. Returns the next item, whose turn it is.
    pub(crate) fn leave(&mut self, key: &str) -> Option<T> {
        let next = self.busy.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.busy.remove(key);
        }
        next
    }

    /// Takes more of those who wait at the head of a lane, while they are wanted. The lane stays
    /// busy.
    pub(crate) fn take_more(
        &mut self,
        key: &str,
        most: usize,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        if let Some(lane) = self.busy.get_mut(key) {
            while taken.len() < most && lane.front().is_some_and(&is_wanted) {
                taken.extend(lane.pop_front());
            }
        }
        taken
    }

    /// Takes out everything that waits, in the order of its keys; what runs goes on.
    pub(crate) fn take_waiting(&mut self) -> Vec<T> {
        let mut lanes: Vec<_> = self.busy.iter_mut().collect();
        lanes.sort_unstable_by(|one, other| one.0.cmp(other.0));
        let waiting = lanes.into_iter().flat_map(|(_, lane)| lane.drain(..));
        waiting.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_runs_in_order_and_others_beside_it() {
        let mut lanes = Lanes::new();
        assert_eq!(lanes.enter("a", 1), Some(1));
        assert_eq!(lanes.enter("a", 2), None);
        assert_eq!(lanes.enter("b", 3), Some(3));
        assert_eq!(lanes.leave("a"), Some(2));
        assert_eq!(lanes.leave("a"), None);
        assert_eq!(lanes.enter("a", 4), Some(4));
        for item in 5..9 {
            assert_eq!(lanes.enter("a", item), None);
        }
        assert_eq!(lanes.take_more("a", 2, |item| *item < 8), [5, 6]);
        assert_eq!(lanes.take_more("a", 9, |item| *item < 8), [7]);
        assert_eq!(lanes.leave("a"), Some(8), "the lane was busy meanwhile");
        assert!(lanes.take_more("c", 9, |_| true).is_empty());
        assert_eq!(lanes.leave("b"), None);
    }

    #[test]
    fn what_waits_is_taken_out_by_its_keys_and_what_runs_keeps_its_lane() {
        let mut lanes = Lanes::new();
        for (key, item) in [("b", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5), ("c", 6)] {
            lanes.enter(key, item);
        }
        assert_eq!(lanes.take_waiting(), [4, 3, 5]);
        assert!(lanes.take_waiting().is_empty());
        assert_eq!(lanes.enter("b", 7), None, "what was first still runs");
        assert_eq!(lanes.leave("b"), Some(7));
    }
}
