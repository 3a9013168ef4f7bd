//! What a host promises on every store, with the database as the bus or over a broker, one behaviour
//! each.

mod under_test;
mod scene;
mod suite;
// The behaviours, by area.
pub mod announcing;
pub mod asking;
pub mod failing;
pub mod fault_events;
pub mod hosting;
pub mod misusing;
pub mod ordering;
pub mod pausing;
pub mod protecting;
pub mod rehearsing;
pub mod recurring;
pub mod retrying;
pub mod sending;
pub mod transports;
pub mod versions;

// What tests of one broker send.
pub mod parcels;
// What tests of migrations run.
pub mod releases;

pub use scene::{Answered, Do, Done, Log, Scene, quick_retry, run, start, stop};
pub use suite::{BEHAVIOURS, Behaviour};
pub use under_test::BusUnderTest;
