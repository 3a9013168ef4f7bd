//! A real process is killed at every named point of a message's way, restarted, and the ledger is
//! checked: nothing lost, nothing twice, nothing invented.
//!
//! The child is this test binary itself, run with the workload instead of the tests. It says on its
//! standard error which point it reached before it dies, so that a cell counts only if the fault
//! really happened with messages in flight.

pub(crate) mod child;
pub(crate) mod guards;
pub(crate) mod ledger;
mod locks;
mod matrix;
mod merged;
pub(crate) mod machine;
pub(crate) mod plan;
pub(crate) mod process;
mod recurring;
mod regressions;
mod told_twice;
