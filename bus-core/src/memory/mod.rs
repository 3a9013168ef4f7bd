//! A store and a broker that need nothing: for tests, and for trying things out. They keep nothing
//! when the process ends.

mod store;
mod database;
mod commit;
mod labels;
mod outbox;
mod admin;
mod shapes;
mod accounts;
mod change;
mod rows;
mod operations;
mod transport;
mod queue;

pub use store::MemoryStore;
pub use transport::MemoryTransport;
