//! The engine of sagabus, simulated: the real receiver, loader, committer, relay and sagas over a
//! store and a broker that fail as a seed says, in simulated time, on one thread.
//!
//! The same seed is the same run, event by event.

// What goes wrong, and what is written down of it.
mod dice;
mod trace;
pub mod fault;
mod world;
mod link;
// What the engine talks to.
mod store;
mod door;
mod broker;
// What it does, and what must come of it.
mod messages;
mod service;
mod judge;
mod seen;
pub mod follow;
pub mod guard;
pub mod run;
pub mod seeds;
pub mod calm;

pub use fault::{Fault, Tally};
pub use follow::Followed;
pub use guard::Guard;
pub use run::{How, Ran, run};
