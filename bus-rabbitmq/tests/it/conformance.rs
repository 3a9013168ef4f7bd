//! The transport contract on a real RabbitMQ.

mod rabbitmq {
    use sagabus_testkit::amqp_proxy::AmqpProxy;
    use sagabus_testkit::transport::TransportUnderTest;

    use crate::site::{config, rabbitmq, url};

    /// The transport goes through a proxy that can cut it off; its peer does not.
    async fn broker() -> Option<TransportUnderTest> {
        let url = url()?;
        let proxy = AmqpProxy::before(&url).await;
        let peer = config(&url);
        let mut proxied = config(&proxy.url(&url));
        proxied.namespace.clone_from(&peer.namespace);
        let test = TransportUnderTest::new(rabbitmq(&proxied), rabbitmq(&peer));
        Some(test.breaking(proxy))
    }

    // A broker that refuses a message of a quorum queue is full or broken, and cannot be made to be
    // so for one message; `outages` fills a queue.
    sagabus_testkit::transport_suite!(broker, may_skip: [Nacks]);
}
