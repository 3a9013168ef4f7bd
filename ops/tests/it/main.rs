//! What operators may do, over a store in memory.
#![allow(
    clippy::unwrap_used,
    reason = "a step that fails is a test that fails, also in what tests share"
)]

mod findings;
mod roles;
mod sight;
