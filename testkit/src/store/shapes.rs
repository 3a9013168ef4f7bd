//! What is stored, summed up by what a release has to know to go on with it.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{InstanceShape, WaitingShape};
use sagabus_core::envelope::{Due, Envelope};
use sagabus_core::headers;
use sagabus_core::unit_of_work::{DeadLetter, InstanceChange, KeyAfterDeath};

use super::build::{Message, api, broker, change, dead_letter, message, message_to_address};
use super::harness::{Harness, instance};

/// Those that are over are nobody's concern.
pub async fn running_instances_are_summed_up_by_what_reads_them(at: Arc<Harness>) {
    let cases = [
        ("3", "waiting", 1),
        ("1", "waiting", 1),
        ("2", "waiting", 2),
        ("4", "paid", 1),
        ("5", "waiting", 1),
    ];
    for (key, state, schema_version) in cases {
        let change = InstanceChange {
            state: Some(state.into()),
            schema_version,
            ..change(&instance(key), 0)
        };
        at.write(api().changes(change)).await;
    }
    at.write(api().completes(&instance("5"), 1)).await;
    let stateless = InstanceChange {
        state: None,
        ..change(&instance("6"), 0)
    };
    at.write(api().changes(stateless)).await;
    let shape = |state: Option<&str>, schema_version, count, key: &str| InstanceShape {
        kind: instance(key).kind.to_string(),
        state: state.map(str::to_owned),
        schema_version,
        count,
        key: key.to_owned(),
    };
    let found = at.admin.instance_shapes().await;
    let expected = [
        shape(None, 1, 1, "6"),
        shape(Some("paid"), 1, 1, "4"),
        shape(Some("waiting"), 1, 2, "1"),
        shape(Some("waiting"), 2, 1, "2"),
    ];
    assert_eq!(found.expect("instances are summed up"), expected);
}

/// Types, versions and timers of an endpoint's own rows; not what goes to a broker, and no stub.
pub async fn what_waits_is_summed_up_by_what_handles_it(at: Arc<Harness>) {
    let versioned = |version: &str| -> Message {
        let sent = message(&at.orders());
        let mut envelope = sent.envelope().clone();
        envelope.headers.set(headers::VERSION, version);
        sent.enveloped(envelope)
    };
    let owner = instance("7");
    let timer = message(&at.orders())
        .timer(&owner, "deadline", 1)
        .due(Due::After(Duration::from_secs(3600)));
    for sent in [
        message(&at.orders()),
        message(&at.orders()),
        versioned("3"),
        versioned("latest"),
        timer,
        message(&at.audit()),
        message_to_address("event/shop.order-placed"),
    ] {
        at.write(api().sends(sent)).await;
    }
    let envelope: Envelope = message(&at.parcels()).envelope().clone();
    let dead = DeadLetter {
        key: Some("k".to_owned()),
        key_after: KeyAfterDeath::Waits,
        ..dead_letter(&at.parcels().name, &envelope)
    };
    at.write(broker(&at.parcels(), envelope.id).gives_up(dead))
        .await;
    let shape = |endpoint: &str, version, timer_of: Option<&str>, count| WaitingShape {
        endpoint: endpoint.to_owned(),
        message_type: "shop.order-placed".to_owned(),
        version,
        timer_of: timer_of.map(str::to_owned),
        count,
    };
    let found = at.admin.waiting_shapes().await;
    let mut found = found.expect("what waits is summed up");
    found.sort();
    let (audit, orders) = (at.audit().name.to_string(), at.orders().name.to_string());
    let mut expected = [
        shape(&audit, 1, None, 1),
        shape(&orders, 1, None, 2),
        shape(&orders, 1, Some(&owner.kind), 1),
        shape(&orders, 3, None, 1),
        shape(&orders, u32::MAX, None, 1),
    ];
    expected.sort();
    assert_eq!(found, expected);
}
