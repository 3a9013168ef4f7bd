//! What the macros write, seen from a crate that depends on the facade.

mod compile_fail;
mod handlers;
mod messages;
mod sagas;
