//! The transport conformance suite: what the words of
//! [`Transport`](sagabus_core::Transport) mean, executable.

mod under_test;
mod altered;
mod database;
mod harness;
mod suite;
// The behaviours, by area.
pub mod routing;
pub mod publishing;
pub mod deliveries;
pub mod replicas;
pub mod owners;
pub mod traffic;
pub mod faults;

pub use altered::{Alteration, Altered};
pub use database::DatabaseTransport;
pub use harness::Harness;
pub use suite::{BEHAVIOURS, Behaviour};
pub use under_test::{Allowed, Breakable, Skippable, TransportUnderTest, run, unavailable};
