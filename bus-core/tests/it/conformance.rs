//! The in-memory backends keep the contracts.

mod memory_store {
    use sagabus_core::memory::MemoryStore;
    use sagabus_testkit::store::StoreUnderTest;

    async fn memory() -> Option<StoreUnderTest> {
        Some(StoreUnderTest::new(MemoryStore::new()))
    }

    sagabus_testkit::store_suite!(memory);
}

mod memory_bus {
    use sagabus_core::memory::MemoryStore;
    use sagabus_testkit::store::StoreUnderTest;

    async fn memory() -> Option<StoreUnderTest> {
        Some(StoreUnderTest::new(MemoryStore::new()))
    }

    sagabus_testkit::bus_suite!(memory);
}

mod memory_transport {
    use sagabus_core::memory::MemoryTransport;
    use sagabus_testkit::transport::TransportUnderTest;

    async fn memory() -> Option<TransportUnderTest> {
        let broker = MemoryTransport::new();
        Some(TransportUnderTest::new(broker.clone(), broker))
    }

    sagabus_testkit::transport_suite!(
        memory,
        may_skip: [CutsConnections, Nacks, CutsBeforeConfirm]
    );
}
