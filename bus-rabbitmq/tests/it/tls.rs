//! A broker that speaks TLS, with certificates of an authority that was made for the test.

use sagabus_core::error::{TransportError, chain};
use sagabus_core::id::StoreId;
use sagabus_core::memory::MemoryStore;
use sagabus_core::transport::Transport;
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus_testkit::authority::Authority;
use sagabus_testkit::bus::parcels::{Pack, note, pack, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;

use crate::refused::spec;
use crate::site::{builder, config};

fn trusting(authority: &Authority, port: u16) -> RabbitMqConfig {
    let mut config = config(&format!("amqps://guest:guest@localhost:{port}"));
    config.ca_certificates = Some(authority.pem().to_owned());
    config
}

async fn refused(config: RabbitMqConfig) -> String {
    let transport = RabbitMq::with(config);
    let declared = transport.declare(StoreId::new(), &[spec()]).await;
    let error = declared.expect_err("this is not to be trusted");
    assert!(!matches!(error, TransportError::Refused(_)), "{error:?}");
    chain(&error)
}

#[test]
fn messages_travel_by_tls_and_a_certificate_that_is_not_trusted_is_refused() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let own = authority.certify(&["localhost"]);
    let port = broker.listen_tls(&own.der, &own.key_der);
    let elsewhere = authority.certify(&["elsewhere.example"]);
    let misnamed = broker.listen_tls(&elsewhere.der, &elsewhere.key_der);
    block_on(async {
        let (config, store, log) = (
            trusting(&authority, port),
            MemoryStore::new(),
            Log::default(),
        );
        let builder = builder(&config, &store, &log).endpoint("packing", |e| e.handle(pack));
        let host = start(builder.endpoint("audit", |e| e.handle(note))).await;
        for n in 0..50 {
            host.bus().send(Pack { n }).await.expect("it is stored");
        }
        assert_eq!(log.wait_for(100).await.len(), 100);
        quiet(&store).await;
        stop(host).await;

        let untrusted = refused(trusting(&other, port)).await;
        let misnamed = refused(trusting(&authority, misnamed)).await;
        let mut plain = RabbitMqConfig::new(format!("amqp://guest:guest@localhost:{port}"));
        plain.connect_timeout = std::time::Duration::from_secs(3);
        let plain = refused(plain).await;
        for (error, words) in [
            (
                &untrusted,
                ["certificate", "UnknownIssuer", "`ca_certificates`"],
            ),
            (
                &misnamed,
                ["certificate", "elsewhere.example", "`ca_certificates`"],
            ),
            (&plain, ["localhost", "TLS", "`amqps://`"]),
        ] {
            for word in words {
                assert!(error.contains(word), "no {word} in: {error}");
            }
        }
    });
}
