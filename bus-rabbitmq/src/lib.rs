//! RabbitMQ as the broker of sagabus: quorum queues, publisher confirms, an own reconnect.
//!
//! ```no_run
//! # use sagabus_rabbitmq::RabbitMq;
//! let broker = RabbitMq::connect("amqp://orders:secret@localhost:5672/shop");
//! ```
//!
//! What is declared on the broker, and why, is written down in `docs/rabbitmq.md`.

// How it is set up.
mod config;
mod error;
// What is on the broker.
mod pieces;
mod topology;
// How it is reached.
mod nesting;
mod connection;
// The way out and the way in.
mod headers;
mod publisher;
mod in_hand;
mod consumer;
// All of it.
mod transport;
// For tests alone.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use config::{RabbitMqConfig, TopologyMode};
pub use sagabus_core::reach::Plaintext;
pub use transport::RabbitMq;
