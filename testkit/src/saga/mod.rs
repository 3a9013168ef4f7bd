//! Tests of a user's own sagas and machines: in memory, on a clock that the test moves.

mod history;
mod recorder;
mod test;

pub use test::SagaTest;
