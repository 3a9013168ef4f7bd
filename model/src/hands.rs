//! Which pair of the model's hands stands for what a process of a run has in hand.

use std::collections::BTreeMap;

/// What a process has in hand: a number that is never used again.
pub type Held = u64;

/// The hands of one message or row, by what they hold.
#[derive(Debug)]
pub(crate) struct Hands {
    of: BTreeMap<Held, usize>,
    count: usize,
}

impl Hands {
    pub(crate) fn new(count: usize) -> Self {
        let of = BTreeMap::new();
        Self { of, count }
    }

    /// Gives a free pair, from the `first` on, to what was taken.
    pub(crate) fn take(&mut self, held: Held, first: usize) -> Result<usize, String> {
        let is_free = |one: &usize| !self.of.values().any(|used| used == one);
        let free = (first..self.count).find(is_free);
        let free = free.ok_or_else(|| format!("more than {} have it in hand", self.count))?;
        self.of.insert(held, free);
        Ok(free)
    }

    /// Returns the pairs that hold these.
    pub(crate) fn of(&self, held: &[Held]) -> Vec<usize> {
        let found = held.iter().filter_map(|one| self.of.get(one));
        found.copied().collect()
    }

    /// Frees a pair.
    pub(crate) fn free(&mut self, held: Held) -> Option<usize> {
        self.of.remove(&held)
    }
}
