//! Without faults the simulated store and broker are a store and a broker like any other.

mod store {
    use sagabus_sim::calm;
    use sagabus_testkit::store::StoreUnderTest;

    async fn simulated() -> Option<StoreUnderTest> {
        let calm = calm::database();
        let mut under_test = StoreUnderTest::new(calm.memory);
        under_test.store = calm.store;
        under_test.peer = calm.peer;
        Some(under_test)
    }

    sagabus_testkit::store_suite!(simulated);
}

mod broker {
    use sagabus_sim::calm;
    use sagabus_testkit::transport::TransportUnderTest;

    async fn simulated() -> Option<TransportUnderTest> {
        let (transport, peer) = calm::broker();
        Some(TransportUnderTest::new(transport, peer))
    }

    sagabus_testkit::transport_suite!(
        simulated,
        may_skip: [CutsConnections, Nacks, CutsBeforeConfirm]
    );
}
