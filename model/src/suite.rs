//! Every model, for the program and the tests.

use std::fmt::Debug;
use std::hash::Hash;

use crate::check::{self, Caught, Design, Holds};
use crate::firing::Firing;
use crate::locks::Locks;
use crate::order::Ordered;
use crate::publishing::Publishing;
use crate::retention::Retention;
use crate::taking_over::TakingOver;
use crate::timers::Timers;

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
    vec![
        suite::<TakingOver>(),
        suite::<Publishing>(),
        suite::<Ordered>(),
        suite::<Timers>(),
        suite::<Retention>(),
        suite::<Firing>(),
        suite::<Locks>(),
    ]
}

fn suite<D: Design>() -> Suite
where
    D::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    D::Action: Clone + Debug + PartialEq,
{
    Suite {
        explore: check::explore::<D>,
        catch: check::catch::<D>,
    }
}
