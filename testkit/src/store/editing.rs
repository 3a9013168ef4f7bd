//! What operators write themselves: another body for a dead letter, other data for an instance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::admin::{
    Action, Alteration, AuditEntry, AuditFilter, Change, DeadLetterFilter, DeadLetterStatus, Edit,
    Errand, Forced, Held, Page, Standing, StoredDeadLetter, Task, Transitioned,
};
use sagabus_core::codec::BODY_BYTES_MAX;
use sagabus_core::error::StoreError;
use sagabus_core::id::MessageId;
use sagabus_core::unit_of_work::{
    DeadLetter, InstanceChange, InstanceStatus, KeyAfterDeath, Outcome,
};

use super::build::{api, broker, change, dead_letter, message};
use super::harness::{Harness, data, instance};
use super::operators::{dies, does};

const AFTER: &[u8] = br#"{"order":2}"#;

async fn letter(at: &Harness, id: i64) -> StoredDeadLetter {
    let filter = DeadLetterFilter {
        id: Some(id),
        ..DeadLetterFilter::any()
    };
    let found = at.admin.find_dead_letters(&filter, Page::latest(1)).await;
    found.expect("it is shown").remove(0)
}

async fn latest_entry(at: &Harness) -> Option<AuditEntry> {
    let entries = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(1))
        .await;
    entries.expect("the audit is shown").pop()
}

fn edit(of: &StoredDeadLetter, message: MessageId) -> Action {
    Action::EditDeadLetter(Edit {
        id: of.id,
        message,
        before: of.envelope.body.clone(),
        after: AFTER.into(),
    })
}

/// Its identity and headers are as before, or its identity is a new one; what it was stays
/// readable, and both bodies are in the audit.
pub async fn a_dead_letter_is_redriven_with_another_body(at: Arc<Harness>) {
    let orders = at.orders();
    for is_new in [false, true] {
        let before = dies(&at, &orders, "no", Some("k")).await;
        let before = letter(&at, before).await;
        let message = match is_new {
            true => MessageId::new(),
            false => before.envelope.id,
        };
        assert_eq!(does(&at, edit(&before, message)).await, [before.id]);
        let row = at.claim_one(&orders).await;
        assert_eq!((row.envelope.id, &row.envelope.body[..]), (message, AFTER));
        assert_eq!(row.envelope.headers, before.envelope.headers);
        assert_eq!(row.envelope.message_type, before.envelope.message_type);
        assert_eq!(
            (row.key.as_deref(), row.starts, row.failures),
            (Some("k"), 1, 0)
        );
        let redriven = StoredDeadLetter {
            status: DeadLetterStatus::Redriven,
            ..before.clone()
        };
        assert_eq!(letter(&at, before.id).await, redriven);
        let entry = latest_entry(&at).await.expect("it is audited");
        assert_eq!(entry.action, "edit_dead_letter");
        let expected = serde_json::json!({
            "id": before.id,
            "message_id": before.envelope.id,
            "message_type": "shop.order-placed",
            "endpoint": "orders",
            "sent_as": message,
            "before": { "text": r#"{"order":1}"# },
            "after": { "text": r#"{"order":2}"# },
        });
        assert_eq!(entry.detail, serde_json::json!([expected]));
        assert!(does(&at, edit(&before, message)).await.is_empty(), "once");
    }
}

/// What holds the place of its key becomes the edited message, whatever its identity.
pub async fn an_edited_dead_letter_comes_in_its_place(at: Arc<Harness>) {
    let parcels = at.parcels();
    let envelope = message(&parcels).envelope().clone();
    let dead = DeadLetter {
        key: Some("k".to_owned()),
        key_after: KeyAfterDeath::Waits,
        ..dead_letter(&parcels.name, &envelope)
    };
    at.write(broker(&parcels, envelope.id).gives_up(dead)).await;
    at.write(api().sends(message(&parcels).keyed("k"))).await;
    assert!(at.claim(&parcels).await.is_empty(), "the key waits");
    let dead = at
        .admin
        .dead_letters(1)
        .await
        .expect("it is shown")
        .remove(0);
    let message = MessageId::new();
    does(&at, edit(&dead, message)).await;
    let head = at.claim_one(&parcels).await;
    assert_eq!(
        (head.envelope.id, &head.envelope.body[..]),
        (message, AFTER)
    );
    assert_eq!(at.counts().await.outbox, 2);
}

/// The operator saw another body, or the dead letter was dealt with.
pub async fn what_an_operator_did_not_see_is_not_edited(at: Arc<Harness>) {
    let id = dies(&at, &at.orders(), "no", None).await;
    let mut seen = letter(&at, id).await;
    let message = seen.envelope.id;
    seen.envelope.body = Bytes::from_static(b"{}");
    assert!(does(&at, edit(&seen, message)).await.is_empty());
    seen.envelope.body = Bytes::new();
    assert!(does(&at, edit(&seen, message)).await.is_empty());
    assert_eq!(latest_entry(&at).await, None);
    assert_eq!(at.counts().await.dead_letters, 1);
}

/// What no message could carry.
pub async fn a_body_of_too_many_bytes_is_refused(at: Arc<Harness>) {
    let id = dies(&at, &at.orders(), "no", None).await;
    let seen = letter(&at, id).await;
    let action = Action::EditDeadLetter(Edit {
        id,
        message: seen.envelope.id,
        before: seen.envelope.body,
        after: vec![b'x'; BODY_BYTES_MAX + 1].into(),
    });
    let change = Change {
        who: "ada".to_owned(),
        why: String::new(),
        action,
    };
    let answer = at.admin.change(&change).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(at.counts().await.dead_letters, 1);
}

fn alteration(version: i64, after: &str) -> Action {
    let held = |state: &str, text| Held {
        state: Some(state.to_owned()),
        data: data(text),
    };
    Action::AlterInstance(Alteration {
        instance: instance("7"),
        version,
        before: held("new", "before"),
        after: held("paid", after),
    })
}

/// An instance with a timer.
async fn begin(at: &Harness) {
    let id = instance("7");
    let timer = message(&at.orders()).timer(&id, "deadline", 1);
    let created = InstanceChange {
        state: Some("new".into()),
        data: data("before"),
        timers: [("deadline".to_owned(), 1)].into(),
        ..change(&id, 0)
    };
    at.write(api().changes(created).sends(timer)).await;
}

/// State and data are new, all else is as before; a handler that has the old version in hand must
/// load and run again.
pub async fn an_altered_instance_moves_by_one_version(at: Arc<Harness>) {
    begin(&at).await;
    let id = instance("7");
    let before = at.instance(&id).await.expect("it is there");
    assert_eq!(does(&at, alteration(1, "after")).await, [2]);
    let after = at.instance(&id).await.expect("it is there");
    assert_eq!((after.version, after.state.as_deref()), (2, Some("paid")));
    assert_eq!(after.data, data("after"));
    assert_eq!(
        (&after.timers, after.status),
        (&before.timers, before.status)
    );
    let outcome = at
        .outcome(broker(&at.orders(), MessageId::new()).moves(&id, 1))
        .await;
    assert_eq!(outcome, Outcome::Conflict);
    let entry = latest_entry(&at).await.expect("it is audited");
    assert_eq!(entry.action, "alter_instance");
    let expected = serde_json::json!([{
        "kind": id.kind,
        "key": "7",
        "version": 1,
        "before": { "state": "new", "data": { "text": r#"{"note":"before"}"# } },
        "after": { "state": "paid", "data": { "text": r#"{"note":"after"}"# } },
    }]);
    assert_eq!(entry.detail, expected);

    assert!(
        does(&at, alteration(1, "late")).await.is_empty(),
        "it moved"
    );
    assert!(does(&at, alteration(3, "early")).await.is_empty());
    assert_eq!(at.instance(&id).await, Some(after));
}

/// A tombstone like any other; a message that has the old version in hand conflicts.
pub async fn a_completed_instance_is_a_tombstone_without_timers(at: Arc<Harness>) {
    begin(&at).await;
    let id = instance("7");
    assert_eq!(at.counts().await.outbox, 1);
    let complete = |version| Action::CompleteInstance {
        instance: id.clone(),
        version,
    };
    assert!(does(&at, complete(2)).await.is_empty(), "another version");
    assert_eq!(at.counts().await.outbox, 1);
    assert_eq!(does(&at, complete(1)).await, [2]);
    let tombstone = at.instance(&id).await.expect("it is there");
    assert_eq!(
        (tombstone.version, tombstone.status),
        (2, InstanceStatus::Completed)
    );
    assert!(tombstone.timers.is_empty());
    assert_eq!(at.counts().await.outbox, 0);
    assert!(
        at.claim_for(&at.orders(), Duration::from_secs(1))
            .await
            .is_empty()
    );
    assert_eq!(
        latest_entry(&at).await.expect("it is audited").action,
        "complete_instance"
    );
    for again in [complete(2), alteration(2, "dead")] {
        assert!(does(&at, again).await.is_empty(), "it is over");
    }
}

fn transitioned(version: i64) -> Transitioned {
    Transitioned {
        instance: instance("7"),
        version,
        host: "carrier".to_owned(),
        after: Standing {
            version: version + 1,
            is_over: true,
            state: Some("found".to_owned()),
            data: serde_json::json!({ "parcel": 7 }),
            timers: Vec::new(),
        },
    }
}

/// What it was and what it is, once; nothing else of the entry is written over.
pub async fn what_came_of_a_move_stands_in_the_entry_of_who_asked(at: Arc<Harness>) {
    let forced = Forced {
        instance: instance("7"),
        version: 3,
        to: Some("found".to_owned()),
        before: Some(Held {
            state: Some("lost".to_owned()),
            data: data("{}"),
        }),
        who: "ada".to_owned(),
    };
    let errand = Errand {
        endpoint: "orders".to_owned(),
        until: sagabus_core::Timestamp::NEVER,
        task: Task::Transition(Box::new(forced)),
    };
    assert_eq!(does(&at, Action::AskHost(Box::new(errand))).await, [1]);
    let asked = latest_entry(&at).await.expect("it is there");
    let note = |version| Action::NoteTransition(Box::new(transitioned(version)));
    assert_eq!(does(&at, note(2)).await, [0; 0], "nobody asked for that");
    let by_bob = Change {
        who: "bob".to_owned(),
        why: String::new(),
        action: note(3),
    };
    let by_bob = at.admin.change(&by_bob).await.expect("it is answered");
    assert_eq!(by_bob, [0; 0]);
    assert_eq!(latest_entry(&at).await.as_ref(), Some(&asked));

    assert_eq!(does(&at, note(3)).await, [4]);
    let entries = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    let mut entries = entries.expect("the audit is shown");
    assert_eq!(entries.len(), 1, "in the same entry: {entries:?}");
    let entry = entries.remove(0);
    let after = serde_json::json!({
        "version": 4, "state": "found", "is_over": true, "data": { "parcel": 7 },
    });
    assert_eq!(entry.detail[0]["after"], after, "{entry:?}");
    assert_eq!(entry.detail[0]["host"], "carrier");
    assert_eq!(entry.detail[0]["before"], asked.detail[0]["before"]);
    assert_eq!(entry.detail[0]["from"], "lost");
    let same = |one: &AuditEntry| (one.id, one.at, one.who.clone(), one.why.clone());
    assert_eq!(same(&entry), same(&asked));

    assert_eq!(does(&at, note(3)).await, [0; 0], "it is written once");
    assert_eq!(latest_entry(&at).await, Some(entry));
}

/// By the word of its own, so that who looks for it finds it.
pub async fn what_came_of_a_cancel_stands_in_the_entry_of_who_asked(at: Arc<Harness>) {
    let forced = Forced {
        instance: instance("7"),
        version: 3,
        to: None,
        before: None,
        who: "ada".to_owned(),
    };
    let errand = Errand {
        endpoint: "orders".to_owned(),
        until: sagabus_core::Timestamp::NEVER,
        task: Task::Transition(Box::new(forced)),
    };
    assert_eq!(does(&at, Action::AskHost(Box::new(errand))).await, [1]);
    let note = Action::NoteTransition(Box::new(transitioned(3)));
    assert_eq!(does(&at, note).await, [4]);
    let entry = latest_entry(&at).await.expect("it is there");
    assert_eq!(entry.action, "cancel_instance");
    assert_eq!(entry.detail[0]["after"]["is_over"], true, "{entry:?}");
}
