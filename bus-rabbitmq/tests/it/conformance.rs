//! The transport contract on a real RabbitMQ.

use sagabus_rabbitmq::RabbitMq;
use sagabus_testkit::transport::{TransportUnderTest, unavailable};

async fn rabbitmq() -> Option<TransportUnderTest> {
    let Ok(url) = std::env::var("SAGABUS_RABBITMQ_URL") else {
        return unavailable("SAGABUS_RABBITMQ_URL is not set");
    };
    let transport = RabbitMq::connect(url.clone());
    let peer = RabbitMq::connect(url);
    Some(TransportUnderTest::new(transport, peer))
}

sagabus_testkit::transport_suite!(rabbitmq, may_skip: [CutsConnections, Nacks, CutsBeforeConfirm]);
