//! How many things may go wrong in one run of a model.

/// Faults that are left. Exploration is exhaustive up to this bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Faults(pub(crate) u8);

impl Faults {
    /// Says whether another fault may happen.
    pub(crate) fn any(self) -> bool {
        self.0 > 0
    }

    /// Lets one happen.
    pub(crate) fn strike(&mut self) {
        self.0 -= 1;
    }
}
