//! A store that needs nothing: for tests, and for trying things out. Keeps nothing when the
//! process ends.

mod store;
mod database;
mod commit;
mod outbox;

pub use store::MemoryStore;
