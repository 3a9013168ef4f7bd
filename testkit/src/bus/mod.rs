//! The database as the bus: what a host promises on every store, one behaviour each.

mod scene;
mod suite;
// The behaviours, by area.
pub mod announcing;
pub mod failing;
pub mod hosting;
pub mod ordering;
pub mod sending;
pub mod transports;

pub use scene::{Answered, Do, Done, Log, Scene, quick_retry, run, start, stop};
pub use suite::{BEHAVIOURS, Behaviour};
