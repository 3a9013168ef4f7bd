//! Tests against a real broker.

mod conformance;
