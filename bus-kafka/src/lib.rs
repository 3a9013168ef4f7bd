//! Kafka as a transport.
