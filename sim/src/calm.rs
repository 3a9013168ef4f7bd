//! Store and broker without faults, for the suites that say what every store and broker keeps.

use std::sync::Arc;

use sagabus_core::memory::{MemoryStore, MemoryTransport};
use sagabus_core::{Lifecycle, Store, Transport};

use crate::broker::SimBroker;
use crate::link::Link;
use crate::store::Database;
use crate::world::World;

/// Two processes' ways to one database.
#[derive(Debug)]
pub struct Calm {
    /// What an operator reaches.
    pub memory: MemoryStore,
    /// One process's way.
    pub store: Arc<dyn Store>,
    /// The other's.
    pub peer: Arc<dyn Store>,
}

/// Makes a database in which nothing goes wrong.
pub fn database() -> Calm {
    let (one, other) = links();
    let database = Database::new(&Lifecycle::new());
    Calm {
        memory: database.memory.clone(),
        store: Arc::new(database.store(&one, true)),
        peer: Arc::new(database.store(&other, true)),
    }
}

/// Makes two processes' ways to a broker with which nothing goes wrong.
pub fn broker() -> (impl Transport + 'static, impl Transport + 'static) {
    let (one, other) = links();
    let memory = MemoryTransport::new();
    (
        SimBroker::new(&memory, &one),
        SimBroker::new(&memory, &other),
    )
}

fn links() -> (Arc<Link>, Arc<Link>) {
    let world = World::new(0, None, false);
    let link = |name: &str| Link::new(&world, name.to_owned());
    (link("one"), link("other"))
}
