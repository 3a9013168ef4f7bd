//! Kafka as the broker of a sagabus host.
//!
//! A topic per message type, a group per endpoint, the key of a record is the key of its message.
//! What is sent is confirmed by all replicas in sync, by an idempotent producer; what is received
//! is committed only after the database has taken it over, up to the first record that it has not.

// What a user sets.
mod config;
mod security;
// The way to a cluster, and what is on it.
mod connection;
mod error;
mod topology;
mod owners;
mod pieces;
mod beginning;
// What travels.
mod headers;
// The way out.
mod publisher;
// The way in.
mod consumer;
mod member;
mod rebalance;
mod commits;
mod queue;
mod offsets;
mod standstill;
mod orphans;
// All of it together.
mod kafka;
// For tests alone.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use config::{Creation, KafkaConfig, Kept, Start, Topics};
pub use kafka::Kafka;
pub use sagabus_core::reach::Plaintext;
pub use security::{ClientCertificate, Mechanism, Secret, Security, Tls};
