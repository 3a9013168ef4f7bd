//! Tests of a user's own sagas and machines, on a clock that the test moves: in memory or on a
//! database.

mod place;
mod recorder;
mod history;
mod test;

pub use sagabus_core::faults::Point;

pub use test::SagaTest;
