//! The command line of sagabus: one file per noun, each a thin skin on `sagabus-ops`.
//!
//! [`main`] gives it to a service's own program; [`operator`] is the program `sagabus`, which knows
//! no user code.

// What is asked.
mod arguments;
mod filter;
mod row_filter;
mod config;
// Where the answer comes from and how it is shown.
mod place;
mod output;
mod gauge;
mod text;
mod confirm;
mod bulk;
mod sight;
mod failure;
// The nouns.
mod status;
mod doctor;
mod dead_letters;
mod operations;
mod outbox;
mod republish;
mod inbox;
mod sagas;
mod locks;
mod messages;
mod trace;
mod errands;
mod hosts;
mod endpoints;
mod machines;
mod schedules;
mod timers;
mod schema;
mod plan;
mod demo;
mod shop;
mod explain;
mod help;
mod accounts;
mod audit;
mod operator;
// What a service's own program can beside it.
mod own;
// For tests alone.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, unix))]
mod fuzzed;

pub use operator::{operator, run_with};
pub use own::main;
