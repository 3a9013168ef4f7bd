//! What a host promises with the database as the bus, it promises over brokers as well.

use sagabus::{Kafka, PgStore};
use sagabus_testkit::bus::BusUnderTest;
use sagabus_testkit::store::StoreUnderTest;

use crate::outage::site::Site;
use crate::{kafka, rabbitmq};

/// A fresh database, and a second store on it with connections of its own.
async fn postgres() -> Option<BusUnderTest> {
    let name = format!("suite_{}", sagabus::MessageId::new().as_uuid().simple());
    let site = Site::open(&name).await?;
    let store = PgStore::connect(&site.url).await.expect("it answers");
    let peer = PgStore::connect(&site.url).await.expect("it answers");
    Some(
        StoreUnderTest::new(store)
            .with_peer(peer)
            .keeping(site)
            .into(),
    )
}

mod over_rabbitmq {
    use super::{BusUnderTest, rabbitmq};

    async fn fresh() -> Option<BusUnderTest> {
        let url = rabbitmq::url()?;
        let namespace = rabbitmq::namespace();
        let bus = super::postgres().await?;
        let equip = move |builder: sagabus::HostBuilder| {
            builder.transport(rabbitmq::transport(&url, &namespace))
        };
        Some(bus.over("rabbitmq", equip).except(super::EXCEPT))
    }

    sagabus_testkit::bus_suite!(fresh);
}

mod over_kafka {
    use super::{BusUnderTest, Kafka, kafka};

    async fn fresh() -> Option<BusUnderTest> {
        let brokers = kafka::brokers()?;
        let config = kafka::config(&brokers, &kafka::prefix());
        let bus = super::postgres().await?;
        let equip =
            move |builder: sagabus::HostBuilder| builder.transport(Kafka::new(config.clone()));
        Some(
            bus.over("kafka", equip)
                .except(super::EXCEPT)
                .except(super::EXCEPT_KAFKA),
        )
    }

    sagabus_testkit::bus_suite!(fresh);
}

/// What is about the database as the bus, or brings brokers of its own.
const EXCEPT: &[(&str, &str)] = &[
    (
        "without_a_broker_what_is_announced_is_an_event_of_the_outbox",
        "there is a broker",
    ),
    (
        "a_command_without_owner_is_parked",
        "it is tried for about six minutes first",
    ),
    (
        "a_message_that_came_too_late_is_a_dead_letter",
        "its row is parked before it leaves",
    ),
    (
        "a_stopping_host_finishes_what_it_has_in_hand",
        "what it sent last waits for the next host",
    ),
    (
        "what_waits_at_a_paused_endpoint_is_given_back",
        "what waits is with the broker, not in the outbox",
    ),
    (
        "an_api_is_refused_while_its_outbox_is_too_old",
        "the broker takes what no endpoint takes",
    ),
    ("each_type_goes_by_its_transport", BRINGS_ITS_OWN),
    ("a_broker_that_is_down_delays_no_other", BRINGS_ITS_OWN),
    (
        "what_was_sent_from_memory_is_not_looked_for",
        BRINGS_ITS_OWN,
    ),
    (
        "a_broker_that_is_away_at_the_start_is_joined_when_it_comes",
        BRINGS_ITS_OWN,
    ),
    (
        "a_broker_that_refuses_at_the_start_is_an_error",
        BRINGS_ITS_OWN,
    ),
    (
        "an_answer_comes_back_by_the_transport_of_its_question",
        BRINGS_ITS_OWN,
    ),
    ("a_named_broker_stands_beside_the_database", BRINGS_ITS_OWN),
    (
        "rows_wait_for_a_host_that_has_their_transport",
        BRINGS_ITS_OWN,
    ),
    ("an_endpoint_of_one_place_gets_its_own_rows", BRINGS_ITS_OWN),
    (
        "a_transport_that_an_operator_paused_sends_nothing_until_it_goes_on",
        BRINGS_ITS_OWN,
    ),
    (
        "a_process_that_starts_into_a_pause_of_a_transport_does_not_break_it",
        BRINGS_ITS_OWN,
    ),
];
const BRINGS_ITS_OWN: &str = "it brings brokers of its own";
/// On Kafka alone.
const EXCEPT_KAFKA: &[(&str, &str)] = &[
    ("a_long_handler_keeps_its_lease", MOVES),
    (
        "a_process_that_starts_into_a_pause_does_not_break_it",
        MOVES,
    ),
];
const MOVES: &str = "a partition that moves takes its messages along; the inbox decides";
