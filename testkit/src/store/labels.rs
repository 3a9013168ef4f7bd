//! Second names of instances: found by them, each one's alone.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{DeadLetterFilter, InstanceFilter, Page};
use sagabus_core::id::{InstanceId, MessageId};
use sagabus_core::store::{Question, Retention};
use sagabus_core::unit_of_work::{
    DeadLetter, InstanceChange, InstanceStatus, Label, LabelId, Outcome,
};
use sagabus_core::{StoreError, Timestamp};

use super::build::{Plan, broker, change, dead_letter, message};
use super::harness::{Harness, instance};
use crate::wait::grow_older;

/// A change with all of the labels that the instance has from now on.
fn labelled(id: &InstanceId, expected: i64, labels: &[(&'static str, &str)]) -> InstanceChange {
    let labels = labels.iter().map(|(name, value)| Label {
        name: (*name).into(),
        value: (*value).to_owned(),
    });
    InstanceChange {
        labels: Some(labels.collect()),
        ..change(id, expected)
    }
}

/// A unit of `orders` that answers a new message with a change.
fn new(at: &Harness, change: InstanceChange) -> Plan {
    broker(&at.orders(), MessageId::new()).changes(change)
}

fn asks(kind: &'static str, name: &'static str, value: &str) -> Question {
    Question {
        label: Some(LabelId {
            kind: kind.into(),
            label: Label {
                name: name.into(),
                value: value.to_owned(),
            },
        }),
        ..Question::default()
    }
}

/// The key of the instance that a label finds.
async fn found(at: &Harness, name: &'static str, value: &str) -> Option<String> {
    let kind = instance("1").kind.to_string();
    assert_eq!(kind, "order", "what the suite's instances are");
    let answer = at.load(&[asks("order", name, value)]).await.remove(0);
    answer.instance.map(|found| found.id.key.to_string())
}

/// Also beside questions by key and among labels that nobody has.
pub async fn an_instance_is_found_by_its_labels(at: Arc<Harness>) {
    let odd = "Größe 7/'x'\"\\\u{1f600}";
    let labels = [("payment", "p-1"), ("parcel", odd)];
    at.write(new(&at, labelled(&instance("1"), 0, &labels)))
        .await;
    at.write(new(&at, change(&instance("2"), 0))).await;
    let questions = [
        asks("order", "payment", "p-1"),
        asks("order", "payment", "p-2"),
        Question {
            instance: Some(instance("2")),
            ..Question::default()
        },
        asks("order", "parcel", odd),
        asks("order", "parcel", "p-1"),
        Question::default(),
    ];
    let answers = at.load(&questions).await;
    let keys: Vec<_> = answers
        .iter()
        .map(|answer| answer.instance.as_ref().map(|found| &*found.id.key))
        .collect();
    assert_eq!(keys, [Some("1"), None, Some("2"), Some("1"), None, None]);
    let whole = at.instance(&instance("1")).await;
    assert_eq!(answers[0].instance, whole, "found as by its key");
}

/// A list replaces the former one; no list leaves it.
pub async fn labels_are_replaced_as_a_whole_or_left(at: Arc<Harness>) {
    let id = instance("1");
    at.write(new(&at, labelled(&id, 0, &[("a", "1"), ("b", "2")])))
        .await;
    at.write(new(&at, change(&id, 1))).await;
    assert_eq!(found(&at, "a", "1").await.as_deref(), Some("1"));
    at.write(new(&at, labelled(&id, 2, &[("b", "3")]))).await;
    assert_eq!(found(&at, "a", "1").await, None);
    assert_eq!(found(&at, "b", "2").await, None);
    assert_eq!(found(&at, "b", "3").await.as_deref(), Some("1"));
    at.write(new(&at, labelled(&id, 3, &[]))).await;
    assert_eq!(found(&at, "b", "3").await, None);
}

/// Whoever comes second is refused, and nothing of its group is written.
pub async fn a_label_of_a_running_instance_is_refused_to_others(at: Arc<Harness>) {
    let (first, second) = (instance("1"), instance("2"));
    at.write(new(&at, labelled(&first, 0, &[("payment", "p-1")])))
        .await;
    let before = at.counts().await;
    let taken = [
        new(&at, change(&instance("3"), 0)),
        new(&at, labelled(&second, 0, &[("payment", "p-1")])),
    ];
    let group = at.group(taken);
    match at.try_commit(&group).await {
        Err(error @ StoreError::Refused(_)) => assert!(!error.is_transient()),
        other => panic!("a label that another has was not refused: {other:?}"),
    }
    let twice = [
        new(&at, labelled(&second, 0, &[("payment", "p-9")])),
        new(&at, labelled(&instance("3"), 0, &[("payment", "p-9")])),
    ];
    let group = at.group(twice);
    let answer = at.try_commit(&group).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(at.counts().await, before);
    assert_eq!(found(&at, "payment", "p-1").await.as_deref(), Some("1"));
    // With a label of its own it is welcome.
    at.write(new(&at, labelled(&second, 0, &[("payment", "p-2")])))
        .await;
    assert_eq!(found(&at, "payment", "p-2").await.as_deref(), Some("2"));
}

/// So that what comes too late is known, and numbers may come again.
pub async fn a_tombstone_keeps_its_labels_until_another_takes_them(at: Arc<Harness>) {
    let (first, second) = (instance("1"), instance("2"));
    let ended = InstanceChange {
        status: InstanceStatus::Completed,
        ..labelled(&first, 0, &[("payment", "p-1"), ("parcel", "x")])
    };
    at.write(new(&at, ended)).await;
    assert_eq!(found(&at, "payment", "p-1").await.as_deref(), Some("1"));
    at.write(new(&at, labelled(&second, 0, &[("payment", "p-1")])))
        .await;
    assert_eq!(found(&at, "payment", "p-1").await.as_deref(), Some("2"));
    assert_eq!(found(&at, "parcel", "x").await.as_deref(), Some("1"));
}

/// A unit that did not move its instance changes no label, in a group with winners.
pub async fn a_loser_changes_no_label(at: Arc<Harness>) {
    let (first, second) = (instance("1"), instance("2"));
    at.write(new(&at, labelled(&first, 0, &[("payment", "p-1")])))
        .await;
    let plans = [
        new(&at, labelled(&first, 7, &[("payment", "p-7")])),
        new(&at, labelled(&second, 0, &[("payment", "p-2")])),
    ];
    let report = at.commit(plans).await;
    assert_eq!(report.outcomes, [Outcome::Conflict, Outcome::Committed]);
    assert_eq!(found(&at, "payment", "p-1").await.as_deref(), Some("1"));
    assert_eq!(found(&at, "payment", "p-7").await, None);
    assert_eq!(found(&at, "payment", "p-2").await.as_deref(), Some("2"));
}

/// What one lets go another may take, in one group.
pub async fn a_label_passes_from_one_instance_to_another(at: Arc<Harness>) {
    let (first, second) = (instance("1"), instance("2"));
    at.write(new(&at, labelled(&first, 0, &[("seat", "12a")])))
        .await;
    let plans = [
        new(&at, labelled(&second, 0, &[("seat", "12a")])),
        new(&at, labelled(&first, 1, &[("seat", "12b")])),
    ];
    let report = at.commit(plans).await;
    assert_eq!(report.outcomes, [Outcome::Committed; 2]);
    assert_eq!(found(&at, "seat", "12a").await.as_deref(), Some("2"));
    assert_eq!(found(&at, "seat", "12b").await.as_deref(), Some("1"));
}

/// The kind is a part of the name.
pub async fn two_kinds_share_no_label(at: Arc<Harness>) {
    let order = instance("1");
    let parcel = InstanceId {
        kind: "parcel".into(),
        ..order.clone()
    };
    let plans = [
        new(&at, labelled(&order, 0, &[("number", "7")])),
        new(&at, labelled(&parcel, 0, &[("number", "7")])),
    ];
    assert_eq!(at.commit(plans).await.outcomes, [Outcome::Committed; 2]);
    let answers = at
        .load(&[asks("order", "number", "7"), asks("parcel", "number", "7")])
        .await;
    let kinds = answers.iter().map(|answer| {
        let found = answer.instance.as_ref().expect("it is found");
        found.id.kind.as_ref()
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["order", "parcel"]);
}

/// Nothing of it is left.
pub async fn a_tombstone_that_is_swept_takes_its_labels_along(at: Arc<Harness>) {
    let id = instance("1");
    let ended = InstanceChange {
        status: InstanceStatus::Completed,
        ..labelled(&id, 0, &[("payment", "p-1")])
    };
    at.write(new(&at, ended)).await;
    grow_older(Duration::from_millis(5)).await;
    let retention = Retention {
        inbox: Duration::ZERO,
        tombstones: Duration::ZERO,
        ..Retention::default()
    };
    let swept = at.store.sweep(&retention).await.expect("it is answered");
    assert_eq!(swept.tombstones, 1);
    assert_eq!(found(&at, "payment", "p-1").await, None);
    at.write(new(&at, change(&id, 0))).await;
    assert_eq!(
        found(&at, "payment", "p-1").await,
        None,
        "a new life has no old label"
    );
}

fn invoice(key: &str) -> InstanceId {
    InstanceId {
        kind: "invoice".into(),
        key: key.into(),
    }
}

/// A value with what SQL and terminals take for their own.
const ODD: &str = "Größe 7/'x'\"\\\u{1f600}";

/// Writes an order and three invoices; two of the four have the same label.
async fn write_invoices(at: &Harness) {
    let paid = [("payment", "p-1")];
    let paid_and_odd = [("payment", "p-1"), ("a", ODD)];
    for (id, labels) in [
        (instance("1"), &paid[..]),
        (invoice("1"), &paid_and_odd),
        (invoice("2"), &[("payment", "p-2")]),
        (invoice("3"), &[]),
    ] {
        at.write(new(at, labelled(&id, 0, labels))).await;
    }
}

/// Lists kind and key of what a filter lets through.
async fn listed(at: &Harness, filter: InstanceFilter) -> Vec<String> {
    let found = at.admin.instances(&filter, 10).await;
    let found = found.expect("instances are shown").into_iter();
    found
        .map(|one| format!("{} {}", one.id.kind, one.id.key))
        .collect()
}

fn with_label(name: &'static str, value: &str) -> InstanceFilter {
    InstanceFilter {
        label: Some(Label {
            name: name.into(),
            value: value.to_owned(),
        }),
        ..InstanceFilter::default()
    }
}

fn with_key(key: &str, filter: InstanceFilter) -> InstanceFilter {
    InstanceFilter {
        key: Some(key.to_owned()),
        ..filter
    }
}

/// Of any kind, or of one; alone and together.
pub async fn instances_are_found_by_key_and_label(at: Arc<Harness>) {
    write_invoices(&at).await;
    let any = InstanceFilter::default;
    let of_kind = |kind: &str, filter| InstanceFilter {
        kind: Some(kind.to_owned()),
        ..filter
    };
    let behind = |filter| InstanceFilter {
        after: Some(invoice("1")),
        ..filter
    };
    let paid = || with_label("payment", "p-1");
    let cases: [(InstanceFilter, &[&str]); 12] = [
        (paid(), &["invoice 1", "order 1"]),
        (with_label("a", ODD), &["invoice 1"]),
        (with_label("a", "p-1"), &[]),
        (of_kind("order", paid()), &["order 1"]),
        (of_kind("none", paid()), &[]),
        (behind(paid()), &["order 1"]),
        (with_key("1", any()), &["invoice 1", "order 1"]),
        (with_key("3", any()), &["invoice 3"]),
        (with_key("", any()), &[]),
        (of_kind("order", with_key("1", any())), &["order 1"]),
        (with_key("1", paid()), &["invoice 1", "order 1"]),
        (with_key("2", paid()), &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(&at, filter.clone()).await, expected, "{filter:?}");
    }
    let labels = at.admin.labels(&invoice("1")).await;
    let labels = labels.expect("they are shown");
    let labels: Vec<_> = labels
        .iter()
        .map(|one| (&*one.name, one.value.as_str()))
        .collect();
    assert_eq!(labels, [("a", ODD), ("payment", "p-1")]);
    let none = at.admin.labels(&invoice("3")).await;
    assert_eq!(none.expect("they are shown"), []);
}

/// What moved since has still begun then.
pub async fn instances_are_found_by_when_they_began(at: Arc<Harness>) {
    write_invoices(&at).await;
    grow_older(Duration::from_millis(5)).await;
    let now = at.admin.about().await.expect("it answers").now;
    at.write(new(&at, change(&invoice("3"), 1))).await;
    at.write(new(&at, change(&invoice("4"), 0))).await;
    let before = |created_before, filter| InstanceFilter {
        created_before: Some(created_before),
        ..filter
    };
    let all = ["invoice 1", "invoice 2", "invoice 3", "order 1"];
    let older = before(now, InstanceFilter::default());
    assert_eq!(listed(&at, older).await, all);
    let older = before(now, with_label("payment", "p-2"));
    assert_eq!(listed(&at, older).await, ["invoice 2"]);
    let ancient = before(Timestamp::from_micros(1), InstanceFilter::default());
    assert_eq!(listed(&at, ancient).await, [""; 0]);
}

/// List, sum and groups agree; who stands at another label, or at no instance, is not meant.
pub async fn dead_letters_are_found_by_a_label_of_their_instance(at: Arc<Harness>) {
    let orders = at.orders();
    for (key, payment) in [("1", "p-1"), ("2", "p-2")] {
        let labels = [("payment", payment), ("parcel", "p-9")];
        let labels = &labels[..if key == "1" { 1 } else { 2 }];
        at.write(new(&at, labelled(&instance(key), 0, labels)))
            .await;
    }
    for of in [Some(instance("1")), Some(instance("2")), None] {
        let envelope = message(&orders).envelope().clone();
        let dead = DeadLetter {
            instance: of,
            ..dead_letter(&orders.name, &envelope)
        };
        at.write(broker(&orders, envelope.id).gives_up(dead)).await;
    }
    let cases: [(&str, &str, &[&str]); 5] = [
        ("payment", "p-1", &["1"]),
        ("payment", "p-2", &["2"]),
        ("parcel", "p-9", &["2"]),
        ("payment", "p-9", &[]),
        ("payment", "%", &[]),
    ];
    for (name, value, expected) in cases {
        let filter = DeadLetterFilter {
            label: Some(Label {
                name: name.to_owned().into(),
                value: value.to_owned(),
            }),
            ..DeadLetterFilter::default()
        };
        let found = at.admin.find_dead_letters(&filter, Page::latest(10)).await;
        let found = found.expect("they are listed");
        let keys = found.iter().filter_map(|one| one.instance.as_ref());
        let keys: Vec<_> = keys.map(|id| &*id.key).collect();
        assert_eq!(keys, expected, "{name}={value}");
        let tally = at.admin.count_dead_letters(&filter).await;
        let groups = at.admin.dead_letter_groups(&filter, 10).await;
        let groups = groups.expect("they are grouped");
        let grouped: u64 = groups.iter().map(|group| group.count).sum();
        let count = tally.expect("they are counted").count;
        assert_eq!((count, grouped), (keys.len() as u64, count));
    }
}
