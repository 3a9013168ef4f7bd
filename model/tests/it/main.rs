//! What a run may do, and what no model has a step for.

mod follow;
