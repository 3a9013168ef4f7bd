//! Integration tests of the contracts and the in-memory backends.

mod build;
mod conformance;
mod hostile;
mod memory_store;
mod health;
mod refusing;
mod copies;
mod traced;
mod patience;
