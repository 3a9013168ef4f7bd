//! Kafka keeps the transport contract.

mod kafka {
    use sagabus_testkit::transport::{TransportUnderTest, unavailable};

    use crate::cluster::{config, kafka};

    async fn shared() -> Option<TransportUnderTest> {
        let Ok(brokers) = std::env::var("SAGABUS_KAFKA_BROKERS") else {
            return unavailable("SAGABUS_KAFKA_BROKERS is not set");
        };
        let config = config(&brokers);
        Some(TransportUnderTest::new(kafka(&config), kafka(&config)))
    }

    // Its links are cut where a broker is behind them alone: `tests/it/kafka` of the workspace.
    sagabus_testkit::transport_suite!(shared, may_skip: [
        CutsConnections, Nacks, CutsBeforeConfirm,
    ]);
}
