//! Order per key: rows of one line that transactions write, claim, settle and pull forward at the
//! same time. A step is a statement, because that is where PostgreSQL takes a snapshot.

mod model;
mod state;
mod steps;

pub(crate) use model::Ordered;
