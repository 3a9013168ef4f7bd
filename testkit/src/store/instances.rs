//! How an instance moves: by expected version, or not at all.

use std::sync::Arc;

use sagabus_core::id::{CorrelationId, InstanceId, MessageId};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Origin, Outcome};

use super::build::{Plan, api, broker, change, message};
use super::harness::{Harness, data, instance};

/// A unit of `orders` that answers a new message.
fn new(at: &Harness) -> Plan {
    broker(&at.orders(), MessageId::new())
}

async fn version(at: &Harness, id: &InstanceId) -> i64 {
    at.instance(id).await.map_or(0, |found| found.version)
}

/// From nothing, which is version 0, to 1.
pub async fn a_new_instance_starts_with_version_one(at: Arc<Harness>) {
    let id = instance("1");
    assert_eq!(at.instance(&id).await, None);
    at.write(new(&at).moves(&id, 0)).await;
    assert_eq!(version(&at, &id).await, 1);
    assert_eq!(at.counts().await.running, 1);
}

/// Also where the unit answers no message at all.
pub async fn an_instance_moves_by_one_with_every_message(at: Arc<Harness>) {
    let id = instance("1");
    for expected in 0..5 {
        let plan = if expected % 2 == 0 { new(&at) } else { api() };
        at.write(plan.moves(&id, expected)).await;
        assert_eq!(version(&at, &id).await, expected + 1);
    }
}

/// From v to v + k, so that versions count messages.
pub async fn a_merged_unit_moves_its_instance_by_its_messages(at: Arc<Harness>) {
    let (id, orders) = (instance("1"), at.orders());
    let created = new(&at).and_broker(&orders, MessageId::new());
    at.write(created.moves(&id, 0)).await;
    assert_eq!(version(&at, &id).await, 2);

    let moved = new(&at)
        .and_broker(&orders, MessageId::new())
        .and_broker(&orders, MessageId::new());
    at.write(moved.moves(&id, 2)).await;
    assert_eq!(version(&at, &id).await, 5);
}

/// Every column, when it is created and when it is changed.
pub async fn an_instance_reads_back_as_it_was_written(at: Arc<Harness>) {
    let id = InstanceId {
        kind: "order".into(),
        key: "Größe 7/'x'\u{1f600}".into(),
    };
    let origin = Origin {
        reply_to: Some("@shop".to_owned()),
        correlation_id: CorrelationId::new(),
        message_id: MessageId::new(),
        request: Some(("order:paid:1".to_owned(), "1".to_owned())),
    };
    let created = InstanceChange {
        state: None,
        schema_version: 3,
        data: vec![0, 255, 10, 0].into(),
        timers: [("deadline".to_owned(), 1), ("reminder".to_owned(), 7)].into(),
        origin: Some(origin.clone()),
        ..change(&id, 0)
    };
    let changed = InstanceChange {
        expected: 1,
        status: InstanceStatus::Completed,
        state: Some("shipped".into()),
        schema_version: 4,
        data: data("all done"),
        timers: [("deadline".to_owned(), 2)].into(),
        ..created.clone()
    };
    for (step, change) in [created, changed].into_iter().enumerate() {
        at.write(new(&at).changes(change.clone())).await;
        let expected = Instance {
            id: id.clone(),
            version: i64::try_from(step).expect("two steps") + 1,
            status: change.status,
            state: change.state.map(std::borrow::Cow::into_owned),
            schema_version: change.schema_version,
            data: change.data,
            timers: change.timers,
            origin: Some(origin.clone()),
        };
        assert_eq!(at.instance(&id).await, Some(expected));
    }
}

/// Nothing of a conflict exists, whichever way the version is missed.
pub async fn a_version_miss_is_a_conflict_and_writes_nothing(at: Arc<Harness>) {
    let (id, orders) = (instance("1"), at.orders());
    for expected in 0..3 {
        at.write(new(&at).moves(&id, expected)).await;
    }
    let (before, seen) = (at.counts().await, at.instance(&id).await);

    for expected in [0, 1, 2, 4, 9] {
        let message_id = MessageId::new();
        let plan = broker(&orders, message_id)
            .moves(&id, expected)
            .sends(message(&orders).leased())
            .records(&orders, message_id);
        let report = at.commit([plan]).await;
        assert_eq!(report.outcomes, [Outcome::Conflict], "expected {expected}");
        assert_eq!(report.leased, [None]);
        assert!(!at.is_taken_over(&orders, message_id).await);
    }
    assert_eq!(at.counts().await, before);
    assert_eq!(at.instance(&id).await, seen);
}

/// Version 0 means that it must not exist.
pub async fn creating_what_exists_is_a_conflict(at: Arc<Harness>) {
    let id = instance("1");
    at.write(new(&at).moves(&id, 0)).await;
    assert_eq!(at.outcome(new(&at).moves(&id, 0)).await, Outcome::Conflict);
    assert_eq!(version(&at, &id).await, 1);
}

/// An upsert must not give birth to what was to be moved.
pub async fn moving_what_does_not_exist_is_a_conflict_and_creates_nothing(at: Arc<Harness>) {
    let id = instance("1");
    assert_eq!(at.outcome(new(&at).moves(&id, 1)).await, Outcome::Conflict);
    assert_eq!(at.instance(&id).await, None);
    // In a group, where creates and moves share one statement.
    let group = [
        new(&at).moves(&instance("2"), 0),
        new(&at).moves(&id, 7),
        new(&at).moves(&instance("3"), 0),
    ];
    let report = at.commit(group).await;
    assert_eq!(
        report.outcomes,
        [Outcome::Committed, Outcome::Conflict, Outcome::Committed]
    );
    assert_eq!(at.instance(&id).await, None);
    assert_eq!(at.counts().await.running, 2);
}

/// The losers' inbox rows are taken back, the winners' stay.
pub async fn a_version_miss_inside_a_mixed_group_leaves_no_inbox_row(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(new(&at).moves(&instance("hot"), 0)).await;
    let ids: Vec<_> = (0..40).map(|_| MessageId::new()).collect();
    let plans = ids.iter().enumerate().map(|(index, id)| {
        let plan = broker(&orders, *id).sends(message(&orders));
        match index {
            // A stale create, a stale move, a move of nothing.
            5 => plan.moves(&instance("hot"), 0),
            17 => plan.moves(&instance("17"), 3),
            31 => plan,
            _ => plan.moves(&instance(&index.to_string()), 0),
        }
    });
    let report = at.commit(plans).await;

    for (index, id) in ids.iter().enumerate() {
        let is_loser = index == 5 || index == 17;
        let expected = if is_loser {
            Outcome::Conflict
        } else {
            Outcome::Committed
        };
        assert_eq!(report.outcomes[index], expected, "unit {index}");
        assert_eq!(at.is_taken_over(&orders, *id).await, !is_loser);
    }
    let counts = at.counts().await;
    assert_eq!((counts.inbox, counts.outbox), (39, 38));
}

/// A message that was taken over needs no second run, however its instance stands.
pub async fn duplicate_is_decided_before_conflict(at: Arc<Harness>) {
    let (orders, id, known) = (at.orders(), instance("1"), MessageId::new());
    at.write(broker(&orders, known).moves(&id, 0)).await;
    let stale = broker(&orders, known).moves(&id, 0);
    assert_eq!(at.outcome(stale.clone()).await, Outcome::Duplicate);
    let report = at.commit([new(&at).moves(&instance("2"), 0), stale]).await;
    assert_eq!(report.outcomes, [Outcome::Committed, Outcome::Duplicate]);
}

/// A second life of one key goes on counting, so that nothing of the first is mistaken for it.
pub async fn a_tombstone_goes_on_with_its_version(at: Arc<Harness>) {
    let id = instance("1");
    at.write(new(&at).moves(&id, 0)).await;
    at.write(new(&at).completes(&id, 1)).await;
    let counts = at.counts().await;
    assert_eq!((counts.running, counts.completed), (0, 1));
    let tombstone = at.instance(&id).await.expect("the tombstone is seen");
    assert_eq!(tombstone.version, 2);
    assert_eq!(tombstone.status, InstanceStatus::Completed);

    at.write(new(&at).moves(&id, 2)).await;
    assert_eq!(version(&at, &id).await, 3);
    let counts = at.counts().await;
    assert_eq!((counts.running, counts.completed), (1, 0));
}

/// A tombstone exists.
pub async fn creating_over_a_tombstone_is_a_conflict(at: Arc<Harness>) {
    let id = instance("1");
    at.write(new(&at).completes(&id, 0)).await;
    assert_eq!(at.outcome(new(&at).moves(&id, 0)).await, Outcome::Conflict);
}

/// Kind and key together are the name.
pub async fn instances_of_two_kinds_share_no_key(at: Arc<Harness>) {
    let order = instance("1");
    let parcel = InstanceId {
        kind: "parcel".into(),
        ..order.clone()
    };
    let report = at
        .commit([new(&at).moves(&order, 0), new(&at).moves(&parcel, 0)])
        .await;
    assert_eq!(report.outcomes, [Outcome::Committed; 2]);
    at.write(new(&at).moves(&order, 1)).await;
    assert_eq!(version(&at, &order).await, 2);
    assert_eq!(version(&at, &parcel).await, 1);
}
