//! Long lists, a page at a time.

use sagabus_core::admin::{PAGE_MAX, Page};

/// The pages of a list, the oldest entries first and without bodies.
pub(crate) struct Pages {
    page: Page,
    left: usize,
    is_over: bool,
}

impl Pages {
    /// Begins a list of which so many pages are read at most.
    pub(crate) fn new(pages_max: usize) -> Self {
        Self {
            page: Page::oldest(PAGE_MAX).without_bodies(),
            left: pages_max,
            is_over: false,
        }
    }

    /// Returns the page that is to be read; none where the list is over, or enough was read.
    pub(crate) fn next(&self) -> Option<Page> {
        (!self.is_over && self.left > 0).then_some(self.page)
    }

    /// Notes what the page had: the id of each entry.
    pub(crate) fn had(&mut self, ids: impl ExactSizeIterator<Item = i64>) {
        self.left -= 1;
        self.is_over = ids.len() < PAGE_MAX as usize;
        self.page.after = ids.last();
    }

    /// Says whether there may be more than was read.
    pub(crate) fn are_cut(&self) -> bool {
        !self.is_over
    }
}
