//! Conformance suites and fault injection for sagabus.
//!
//! A backend proves itself with one line in its `tests/it/conformance.rs`:
//!
//! ```text
//! sagabus_testkit::store_suite!(fresh_store);
//! ```

// What every suite uses.
pub mod wait;
pub mod service;
pub mod saying;
pub mod authority;
// Stores.
pub mod store;
// Transports.
pub mod transport;
pub mod fault_broker;
pub mod kafka_broker;
pub mod mishap;
pub mod kafka_proxy;
pub mod rabbitmq_broker;
pub mod amqp_proxy;
// Clients of another language.
pub mod python;
// Databases that fail.
pub mod postgres_server;
pub mod postgres_proxy;
// Hosts on a store.
pub mod bus;
pub mod transfers;
// Sagas and machines of a user's own.
pub mod saga;
