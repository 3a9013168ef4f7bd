//! How many things may go wrong in one run of a model.

/// Faults that are left. Exploration is exhaustive up to this bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Faults(pub(crate) u8);

impl Faults {
    /// As many as happen: for a run that is followed, not explored.
    pub(crate) const ANY: Self = Self(u8::MAX);

    /// Says whether another fault may happen.
    pub(crate) fn any(self) -> bool {
        self.0 > 0
    }

    /// Lets one happen.
    pub(crate) fn strike(&mut self) {
        if *self != Self::ANY {
            self.0 -= 1;
        }
    }
}
