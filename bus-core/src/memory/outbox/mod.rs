//! The outbox of the in-memory store.

mod rows;
mod stubs;
mod measure;
mod sent;
mod operators;

pub(super) use operators::Place;
pub(super) use rows::{NewRow, Outbox};
