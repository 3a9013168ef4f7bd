//! What an operator can do, each action once, as a function over a store. Command line and
//! dashboard are thin skins on it.
//!
//! A change is made in two steps: a preview counts what is meant and freezes it, and the change
//! then works exactly that off, in batches that each leave an audit entry.

mod error;
mod operator;
pub mod status;
pub mod doctor;
pub mod dead_letters;
pub mod outbox;
pub mod messages;
pub mod endpoints;
pub mod hosts;
pub mod locks;
pub mod machines;
pub mod schedules;
pub mod timers;
pub mod plan;
pub mod shape;

pub use error::OpsError;
pub use operator::Operator;
