//! Kafka against a real broker.

// What tests share.
mod cluster;
// What holds.
mod conformance;
mod bus;
mod orphans;
mod members;
mod log_lines;
mod foreign;
mod raw;
mod python;
mod refused;
#[cfg(feature = "tls")]
mod tls;
mod secret;
