//! The transport contract on a real RabbitMQ.

use sagabus_rabbitmq::RabbitMq;
use sagabus_testkit::transport::{TransportUnderTest, unavailable};

use crate::proxy::{Proxy, authority};

/// The transport goes through a proxy that can cut it off; its peer does not.
async fn rabbitmq() -> Option<TransportUnderTest> {
    let Ok(url) = std::env::var("SAGABUS_RABBITMQ_URL") else {
        return unavailable("SAGABUS_RABBITMQ_URL is not set");
    };
    let server = authority(&url).parse().expect("the URL names an address");
    let proxy = Proxy::start(server).await;
    let transport = RabbitMq::connect(proxy.url(&url));
    let peer = RabbitMq::connect(url);
    Some(TransportUnderTest::new(transport, peer).breaking(proxy))
}

// A broker that refuses a message of a quorum queue is full or broken, and cannot be made to be so
// for one message.
sagabus_testkit::transport_suite!(rabbitmq, may_skip: [Nacks]);
