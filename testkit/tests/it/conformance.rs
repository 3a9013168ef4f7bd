//! A broker that is told to do nothing wrong does nothing wrong, in this process and in its own.

mod fault_broker_here {
    use sagabus_testkit::fault_broker::FaultBroker;
    use sagabus_testkit::transport::TransportUnderTest;

    async fn here() -> Option<TransportUnderTest> {
        let broker = FaultBroker::start().await.expect("a broker starts here");
        let test = TransportUnderTest::new(broker.transport(), broker.transport());
        Some(test.breaking(broker.control()).keeping(broker))
    }

    sagabus_testkit::transport_suite!(here);
}

mod fault_broker_apart {
    use sagabus_testkit::fault_broker::FaultBroker;
    use sagabus_testkit::transport::TransportUnderTest;

    async fn apart() -> Option<TransportUnderTest> {
        let broker = FaultBroker::spawn().expect("a broker starts apart");
        let test = TransportUnderTest::new(broker.transport(), broker.transport());
        Some(test.breaking(broker.control()).keeping(broker))
    }

    sagabus_testkit::transport_suite!(apart);
}
