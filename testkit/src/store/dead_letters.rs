//! Dead letters: everything that is needed to understand and redrive a message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::envelope::Envelope;
use sagabus_core::headers::Headers;
use sagabus_core::id::MessageId;
use sagabus_core::store::{Retention, StoredDeadLetter};
use sagabus_core::unit_of_work::{DeadLetter, Outcome, Reason, Settle};

use super::build::{api, attempts, broker, dead_letter, message, row};
use super::harness::{Harness, instance};
use crate::wait::grow_older;

async fn letters(at: &Harness) -> Vec<StoredDeadLetter> {
    at.admin
        .dead_letters(100)
        .await
        .expect("dead letters are shown")
}

async fn redrive(at: &Harness, id: i64) -> bool {
    at.admin.redrive(id).await.expect("a redrive is answered")
}

/// A message that a broker brought.
fn brought(at: &Harness) -> Envelope {
    message(&at.orders()).envelope().clone()
}

/// Gives a message up that a broker brought.
async fn give_up(at: &Harness, dead: DeadLetter) {
    let plan = broker(&at.orders(), dead.envelope.id).gives_up(dead);
    at.write(plan).await;
}

/// Also what no text column would take.
pub async fn a_dead_letter_keeps_raw_bytes_headers_and_every_attempt(at: Arc<Harness>) {
    let headers: Headers = [("note", "a\u{0}b\u{1f600}"), ("z", ""), ("a", "'\"\\")]
        .into_iter()
        .collect();
    let envelope = Envelope {
        id: MessageId::new(),
        message_type: "shop.order-placed".into(),
        headers,
        body: Bytes::from_static(&[0, 159, 146, 150, 255, 0]),
    };
    let dead = DeadLetter {
        reason: Reason::Undecodable,
        attempts: attempts(&["first\nsecond line", "NUL \u{0} inside", ""]),
        key: Some("k".to_owned()),
        instance: Some(instance("1")),
        ..dead_letter(&at.orders().name, &envelope)
    };
    let before = sagabus_core::clock::now();
    give_up(&at, dead.clone()).await;

    let stored = letters(&at).await.remove(0);
    assert_eq!(stored.envelope, envelope);
    assert_eq!(stored.attempts, dead.attempts);
    assert_eq!(stored.endpoint, "orders");
    assert_eq!(stored.reason, "undecodable");
    assert_eq!((stored.key, stored.instance), (dead.key, dead.instance));
    // The database's clock may differ from ours, but it is a clock.
    let apart = (stored.at.as_micros() - before.as_micros()).abs();
    assert!(apart < 3_600_000_000, "{apart} microseconds apart");
    let counts = at.counts().await;
    assert_eq!((counts.dead_letters, counts.inbox), (1, 1));
    assert!(at.is_taken_over(&at.orders(), envelope.id).await);
}

/// Every reason has a word of its own, and all are kept.
pub async fn a_dead_letter_of_a_row_replaces_the_row(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let claimed = at.claim_one(&at.orders()).await;
    let dead = dead_letter(&at.orders().name, &claimed.envelope);
    at.write(row(claimed.row).gives_up(dead)).await;
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.dead_letters), (0, 1));
}

/// A message that comes to its end twice is one open dead letter, with what is known last.
pub async fn a_message_has_one_open_dead_letter(at: Arc<Harness>) {
    let envelope = brought(&at);
    let dead = dead_letter(&at.orders().name, &envelope);
    give_up(&at, dead.clone()).await;
    let again = DeadLetter {
        reason: Reason::Terminal,
        attempts: attempts(&["one", "two"]),
        ..dead.clone()
    };
    at.write(api().gives_up(again.clone())).await;
    let stored = letters(&at).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].reason, "terminal");
    assert_eq!(stored[0].attempts, again.attempts);

    // At another endpoint it is another dead letter.
    let elsewhere = DeadLetter {
        endpoint: at.audit().name,
        ..dead
    };
    at.write(api().gives_up(elsewhere)).await;
    assert_eq!(at.counts().await.dead_letters, 2);
}

/// What lost has given up nothing.
pub async fn a_loser_leaves_no_dead_letter(at: Arc<Harness>) {
    let envelope = brought(&at);
    let dead = dead_letter(&at.orders().name, &envelope);
    let loser = broker(&at.orders(), envelope.id)
        .moves(&instance("none"), 3)
        .gives_up(dead.clone());
    assert_eq!(at.outcome(loser).await, Outcome::Conflict);
    assert_eq!(at.counts().await.dead_letters, 0);

    give_up(&at, dead.clone()).await;
    let twice = broker(&at.orders(), envelope.id).gives_up(DeadLetter {
        reason: Reason::Terminal,
        ..dead
    });
    assert_eq!(at.outcome(twice).await, Outcome::Duplicate);
    assert_eq!(letters(&at).await[0].reason, "attempts_exhausted");
}

/// Or not at all.
pub async fn what_tells_of_a_dead_letter_is_written_with_it(at: Arc<Harness>) {
    let envelope = brought(&at);
    let dead = dead_letter(&at.orders().name, &envelope);
    let unit = || broker(&at.orders(), envelope.id).sends(message(&at.audit()));
    let loser = unit().moves(&instance("none"), 3).gives_up(dead.clone());
    assert_eq!(at.outcome(loser).await, Outcome::Conflict);
    let written = async || {
        let counts = at.counts().await;
        (counts.dead_letters, counts.outbox)
    };
    assert_eq!(written().await, (0, 0));
    at.write(unit().gives_up(dead.clone())).await;
    assert_eq!(written().await, (1, 1));
    let again = at.outcome(unit().gives_up(dead)).await;
    assert_eq!(again, Outcome::Duplicate);
    assert_eq!(written().await, (1, 1));
}

/// The latest first, and no more than wanted.
pub async fn dead_letters_come_latest_first(at: Arc<Harness>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        let envelope = brought(&at);
        ids.insert(0, envelope.id);
        give_up(&at, dead_letter(&at.orders().name, &envelope)).await;
        grow_older(Duration::from_millis(2)).await;
    }
    let stored: Vec<_> = letters(&at)
        .await
        .iter()
        .map(|one| one.envelope.id)
        .collect();
    assert_eq!(stored, ids);
    let few = at.admin.dead_letters(2).await.expect("two are shown");
    let few: Vec<_> = few.iter().map(|one| one.envelope.id).collect();
    assert_eq!(few, ids[..2]);
}

/// The same message, at its endpoint, as if it had never been tried.
pub async fn a_redriven_message_is_a_row_again(at: Arc<Harness>) {
    let envelope = brought(&at);
    let dead = DeadLetter {
        key: Some("k".to_owned()),
        attempts: attempts(&["one", "two"]),
        ..dead_letter(&at.orders().name, &envelope)
    };
    give_up(&at, dead).await;
    let id = letters(&at).await[0].id;
    assert!(redrive(&at, id).await);

    let claimed = at.claim_one(&at.orders()).await;
    assert_eq!(claimed.envelope, envelope);
    assert_eq!(claimed.key.as_deref(), Some("k"));
    assert_eq!((claimed.starts, claimed.failures), (1, 0));
    assert!(claimed.attempts.is_empty() && !claimed.is_expired);
    assert_eq!(claimed.timer, None);
    assert_eq!(at.counts().await.dead_letters, 0);
    assert!(letters(&at).await.is_empty());
}

/// Two operators, one row.
pub async fn a_dead_letter_is_redriven_once(at: Arc<Harness>) {
    assert!(!redrive(&at, 1).await, "there is none");
    give_up(&at, dead_letter(&at.orders().name, &brought(&at))).await;
    let id = letters(&at).await[0].id;
    assert!(redrive(&at, id).await);
    assert!(!redrive(&at, id).await);
    assert!(!redrive(&at, id + 1).await);
    assert_eq!(at.counts().await.outbox, 1);
}

/// The row is the message: whether the inbox still knows it is all the same.
pub async fn redrive_after_the_inbox_was_swept_is_claimable_once(at: Arc<Harness>) {
    let orders = at.orders();
    for is_swept in [true, false] {
        let envelope = brought(&at);
        give_up(&at, dead_letter(&orders.name, &envelope)).await;
        if is_swept {
            grow_older(Duration::from_millis(5)).await;
            let all = Retention {
                inbox: Duration::ZERO,
                ..Retention::default()
            };
            at.store.sweep(&all).await.expect("a sweep is answered");
            assert!(!at.is_taken_over(&orders, envelope.id).await);
        }
        let id = letters(&at).await[0].id;
        assert!(redrive(&at, id).await);
        let claimed = at.claim_one(&orders).await;
        assert!(at.claim(&orders).await.is_empty());
        let effect = || row(claimed.row).sends(message(&at.audit()));
        assert_eq!(at.outcome(effect()).await, Outcome::Committed);
        assert_eq!(at.outcome(effect()).await, Outcome::Duplicate);
    }
    assert_eq!(at.claim(&at.audit()).await.len(), 2);
}

/// What fails again is a dead letter again, with its new failures.
pub async fn a_redriven_message_may_die_again(at: Arc<Harness>) {
    let envelope = brought(&at);
    give_up(&at, dead_letter(&at.orders().name, &envelope)).await;
    for round in 0..3 {
        let stored = letters(&at).await.remove(0);
        assert!(redrive(&at, stored.id).await);
        let claimed = at.claim_one(&at.orders()).await;
        let error = format!("again {round}");
        let dead = DeadLetter {
            attempts: attempts(&[&error]),
            ..dead_letter(&at.orders().name, &claimed.envelope)
        };
        at.write(row(claimed.row).gives_up(dead)).await;
        let stored = letters(&at).await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].attempts[0].error, error);
    }
}

/// A redriven message stands behind what is there of its key by now.
pub async fn a_redriven_message_keeps_the_order_of_its_endpoint(at: Arc<Harness>) {
    let parcels = at.parcels();
    let envelope = brought(&at);
    let dead = DeadLetter {
        key: Some("a".to_owned()),
        ..dead_letter(&parcels.name, &envelope)
    };
    at.write(broker(&parcels, envelope.id).gives_up(dead)).await;
    let older = message(&parcels).keyed("a");
    let older_id = older.id();
    at.write(api().sends(older)).await;
    let id = letters(&at).await[0].id;
    assert!(redrive(&at, id).await);

    let head = at.claim_one(&parcels).await;
    assert_eq!(head.envelope.id, older_id);
    at.settle([Settle::Delete(head.row)]).await;
    assert_eq!(at.claim_one(&parcels).await.envelope.id, envelope.id);
}
