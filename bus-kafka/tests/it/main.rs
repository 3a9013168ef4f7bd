//! Kafka against a real broker.

mod conformance;
