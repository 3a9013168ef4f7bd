//! The store conformance suite: what the words of [`Store`](sagabus_core::Store) mean, executable.

mod under_test;
mod harness;
mod build;
mod suite;
// The behaviours, by area.
pub mod sources;
pub mod instances;
pub mod load;
pub mod outgoing;
pub mod claims;
pub mod settles;
pub mod order;
pub mod timers;
pub mod labels;
pub mod dead_letters;
pub mod held_keys;
pub mod operators;
pub mod operations;
pub mod editing;
pub mod inspection;
pub mod searches;
pub mod moved_rows;
pub mod sent_rows;
pub mod row_operations;
pub mod shapes;
pub mod accounts;
pub mod sweeps;
pub mod hosts;
pub mod races;

pub use build::{Message, Plan, api, broker, dead_letter, message, row};
pub use harness::Harness;
pub use suite::{BEHAVIOURS, Behaviour};
pub use under_test::{Allowed, Skippable, StoreUnderTest, run, unavailable};
