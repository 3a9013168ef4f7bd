//! Tests against a real broker.

// What tests share.
mod site;
// The contract.
mod conformance;
