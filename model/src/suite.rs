//! Every model, for the program and the tests.

use crate::check::{self, Caught, Holds};
use crate::taking_over::TakingOver;

/// One model with its mutants.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Explores the design as it is.
    pub explore: fn() -> Holds,
    /// Looks for a counterexample to each mutant.
    pub catch: fn() -> Vec<Caught>,
}

/// Returns every model, in the order in which a message meets them.
pub fn all() -> Vec<Suite> {
    vec![Suite {
        explore: check::explore::<TakingOver>,
        catch: check::catch::<TakingOver>,
    }]
}
