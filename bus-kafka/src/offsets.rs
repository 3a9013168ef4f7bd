//! How far a partition is done: the offset below which nothing is left to do.

use std::collections::BTreeSet;

/// Records of one partition that were received and are not done yet.
///
/// Records may be done in any order; only what has nothing undone before it is committed. Offsets
/// may have gaps: compaction and transactions leave them.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    /// Received and not done.
    undone: BTreeSet<i64>,
    /// One past the last that was received.
    next: Option<i64>,
    /// Where the group is, as far as we know.
    committed: i64,
}

impl Watermark {
    /// Notes a record that came. `false` for one that came before, by a fetch that was made again.
    pub(crate) fn receive(&mut self, offset: i64) -> bool {
        match self.next {
            Some(next) if offset < next => return false,
            Some(_) => {}
            // The first record is where the group is already.
            None => self.committed = offset,
        }
        self.next = Some(offset + 1);
        self.undone.insert(offset);
        true
    }

    /// Returns the offset that comes next, if a record has come.
    pub(crate) fn next(&self) -> Option<i64> {
        self.next
    }

    /// Notes that a record is done.
    pub(crate) fn finish(&mut self, offset: i64) {
        self.undone.remove(&offset);
    }

    /// Returns the offset to commit, if the group is not there yet.
    pub(crate) fn to_commit(&self) -> Option<i64> {
        let low = self.undone.first().copied().or(self.next)?;
        (low > self.committed).then_some(low)
    }

    /// Notes what was handed to the broker.
    pub(crate) fn commit(&mut self, offset: i64) {
        self.committed = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(offsets: impl IntoIterator<Item = i64>) -> Watermark {
        let mut mark = Watermark::default();
        for offset in offsets {
            assert!(mark.receive(offset));
        }
        mark
    }

    #[test]
    fn nothing_is_committed_before_something_is_done() {
        let mark = received(5..8);
        assert_eq!(mark.to_commit(), None);
        assert_eq!(Watermark::default().to_commit(), None);
    }

    #[test]
    fn what_is_done_behind_an_undone_record_waits_for_it() {
        let mut mark = received(5..8);
        mark.finish(6);
        mark.finish(7);
        assert_eq!(mark.to_commit(), None);
        mark.finish(5);
        assert_eq!(mark.to_commit(), Some(8));
        mark.commit(8);
        assert_eq!(mark.to_commit(), None);
    }

    #[test]
    fn gaps_are_no_undone_records() {
        let mut mark = received([3, 7, 20]);
        mark.finish(3);
        assert_eq!(mark.to_commit(), Some(7));
        mark.finish(7);
        mark.finish(20);
        assert_eq!(mark.to_commit(), Some(21));
    }

    #[test]
    fn a_record_that_comes_again_is_known() {
        let mut mark = received([3, 4]);
        mark.finish(3);
        assert!(!mark.receive(3));
        assert!(!mark.receive(4));
        assert_eq!(mark.to_commit(), Some(4));
        assert!(mark.receive(5));
    }

    #[test]
    fn what_comes_next_follows_the_latest_record() {
        assert_eq!(Watermark::default().next(), None);
        let mut mark = received([3, 7]);
        assert_eq!(mark.next(), Some(8));
        mark.finish(7);
        assert!(!mark.receive(3));
        assert_eq!(mark.next(), Some(8));
    }

    #[test]
    fn in_any_order_no_undone_record_is_ever_passed_and_nothing_is_left_behind() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let mut below = |n: u64| {
                // SplitMix64.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ (mixed >> 31)) % n
            };
            let mut mark = Watermark::default();
            let (mut next, mut undone, mut committed) = (below(100).cast_signed(), Vec::new(), -1);
            for _ in 0..300 {
                if undone.is_empty() || below(2) == 0 {
                    next += 1 + i64::from(below(4) == 0);
                    assert!(mark.receive(next));
                    undone.push(next);
                } else {
                    let at = usize::try_from(below(undone.len() as u64)).unwrap();
                    mark.finish(undone.swap_remove(at));
                }
                if let Some(offset) = mark.to_commit() {
                    assert!(offset > committed, "never backwards");
                    assert!(
                        undone.iter().all(|one| *one >= offset),
                        "{undone:?} {offset}"
                    );
                    mark.commit(offset);
                    committed = offset;
                }
            }
            for offset in undone.drain(..) {
                mark.finish(offset);
            }
            if let Some(offset) = mark.to_commit() {
                mark.commit(offset);
                committed = offset;
            }
            assert_eq!(committed, next + 1, "seed {seed}");
        }
    }
}
