//! Tests against a real broker.

mod conformance;
mod proxy;
