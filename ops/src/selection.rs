//! What a bulk change would touch, looked at before it begins.

use sagabus_core::admin::Tally;

/// How many of what is meant a preview shows.
pub const SAMPLE: u32 = 5;

/// What a bulk change would touch: what comes later is not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection<F, T> {
    /// What is meant, with where it ends.
    pub filter: F,
    /// How many, when it was frozen.
    pub tally: Tally,
    /// The first few, without bodies.
    pub sample: Vec<T>,
}
