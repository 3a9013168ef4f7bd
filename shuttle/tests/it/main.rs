//! Hosts whose tasks meet in thousands of orders: nothing waits for ever, nothing is handled twice.

#![allow(
    clippy::disallowed_types,
    reason = "what a test notes is no part of what is tried"
)]

mod orders;
mod workload;
mod hosts;
