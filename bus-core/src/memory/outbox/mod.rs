//! The outbox of the in-memory store.

mod rows;
mod stubs;
mod measure;
mod operators;

pub(super) use rows::{NewRow, Outbox};
