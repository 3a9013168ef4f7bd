//! What an operator can do, each action once, as a function over a store. Command line and
//! dashboard are thin skins on it.
//!
//! A change of many rows is made in two steps: a preview counts what is meant, and an operation
//! then works exactly that off, in steps that each leave an audit entry.

mod error;
mod operator;
mod pages;
mod selection;
mod role;
mod sight;
mod guarded;
pub mod status;
pub mod doctor;
pub mod dead_letters;
pub mod operations;
pub mod outbox;
pub mod sent;
pub mod transports;
pub mod messages;
pub mod trace;
pub mod errands;
pub mod difference;
pub mod accounts;
pub mod endpoints;
pub mod hosts;
pub mod locks;
pub mod instances;
pub mod migration;
pub mod machines;
pub mod schedules;
pub mod timers;
pub mod plan;
pub mod shape;

pub use error::OpsError;
pub use guarded::Guarded;
pub use operator::{Operator, demand_at_most};
pub use role::Role;
pub use selection::{SAMPLE, Selection};
pub use sight::{Masks, Sight};
