//! Retention, history and counts.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{Action, AuditFilter, Page};
use sagabus_core::envelope::Due;
use sagabus_core::id::MessageId;
use sagabus_core::store::{Birth, Counts, Retention, Swept};
use sagabus_core::unit_of_work::{Outcome, Reason};
use tokio::time::Instant;

use super::build::{api, broker, dead_letter, message};
use super::harness::{HOUR, Harness, instance};
use super::operators::{dies, does};
use crate::wait::grow_older;

/// Keeps everything for `kept`, and removes at most `rows_max` per table.
fn keep(kept: Duration, rows_max: u32) -> Retention {
    Retention {
        inbox: kept,
        history: kept,
        tombstones: kept,
        rows_max,
        ..Retention::default()
    }
}

async fn sweep(at: &Harness, retention: &Retention) -> Swept {
    at.store
        .sweep(retention)
        .await
        .expect("a sweep is answered")
}

/// Writes `count` inbox rows, history entries and tombstones.
async fn write_finished(at: &Harness, count: usize) {
    let orders = at.orders();
    let plans = (0..count).map(|_| {
        let id = MessageId::new();
        broker(&orders, id)
            .completes(&instance(&id.to_string()), 0)
            .records(&orders, id)
    });
    at.commit(plans).await;
}

/// Bounded per table, until there is no more, and honest about both.
pub async fn sweep_is_bounded_and_says_when_there_is_more(at: Arc<Harness>) {
    write_finished(&at, 25).await;
    grow_older(Duration::from_millis(5)).await;
    let mut left = 25_u64;
    for removed in [10, 10, 5] {
        let swept = sweep(&at, &keep(Duration::ZERO, 10)).await;
        let expected = Swept {
            inbox: removed,
            history: removed,
            tombstones: removed,
            is_full: removed == 10,
            ..Swept::default()
        };
        assert_eq!(swept, expected);
        left -= removed;
        let counts = at.counts().await;
        assert_eq!(
            (counts.inbox, counts.history, counts.completed),
            (left, left, left)
        );
    }
    let swept = sweep(&at, &keep(Duration::ZERO, 10)).await;
    assert_eq!(swept, Swept::default());
}

/// Each table has its own retention.
pub async fn sweep_keeps_what_is_young(at: Arc<Harness>) {
    write_finished(&at, 3).await;
    grow_older(Duration::from_millis(5)).await;
    assert_eq!(sweep(&at, &keep(HOUR, 100)).await, Swept::default());
    assert_eq!(sweep(&at, &Retention::default()).await, Swept::default());

    let only_inbox = Retention {
        inbox: Duration::ZERO,
        ..keep(HOUR, 100)
    };
    let swept = sweep(&at, &only_inbox).await;
    assert_eq!((swept.inbox, swept.history, swept.tombstones), (3, 0, 0));
    let only_history = Retention {
        history: Duration::ZERO,
        ..keep(HOUR, 100)
    };
    let swept = sweep(&at, &only_history).await;
    assert_eq!((swept.inbox, swept.history, swept.tombstones), (0, 3, 0));
    let only_tombstones = Retention {
        tombstones: Duration::ZERO,
        ..keep(HOUR, 100)
    };
    // What comes again is to find that it is too late, for as long as it may come.
    let swept = sweep(&at, &only_tombstones).await;
    assert_eq!((swept.inbox, swept.history, swept.tombstones), (0, 0, 0));
    let neither = Retention {
        inbox: Duration::ZERO,
        ..only_tombstones
    };
    // A sweep may go on where the one before it ended: behind them.
    let (one, two) = (sweep(&at, &neither).await, sweep(&at, &neither).await);
    assert_eq!(one.tombstones + two.tombstones, 3);
}

/// The line between old and young is the retention, not the sweep.
pub async fn sweep_tells_old_from_young(at: Arc<Harness>) {
    let kept = Duration::from_millis(700);
    // On a very busy machine the young ones may be old before the sweep looks: then again.
    for _ in 0..20 {
        write_finished(&at, 2).await;
        grow_older(kept + Duration::from_millis(50)).await;
        let young_since = Instant::now();
        write_finished(&at, 3).await;
        let swept = sweep(&at, &keep(kept, 1_000)).await;
        if young_since.elapsed() < kept {
            assert_eq!((swept.inbox, swept.history, swept.tombstones), (2, 2, 2));
            assert_eq!(at.counts().await.completed, 3);
            return;
        }
        grow_older(Duration::from_millis(5)).await;
        sweep(&at, &keep(Duration::ZERO, 1_000)).await;
    }
    panic!("this machine is too busy to tell old from young");
}

/// What is open stays, and so does what the inbox would still recognise; bounded like the others.
pub async fn dealt_with_dead_letters_and_the_audit_are_swept(at: Arc<Harness>) {
    let orders = at.orders();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(dies(&at, &orders, "no", None).await);
    }
    does(&at, Action::DiscardDeadLetters(ids[..2].to_vec())).await;
    does(&at, Action::RedriveDeadLetters(ids[2..5].to_vec())).await;
    grow_older(Duration::from_millis(5)).await;
    let letters = |rows_max| Retention {
        dead_letters: Duration::ZERO,
        ..keep(Duration::ZERO, rows_max)
    };
    let remembered = Retention {
        inbox: HOUR,
        ..letters(100)
    };
    assert_eq!(sweep(&at, &remembered).await.dead_letters, 0);
    let first = sweep(&at, &letters(3)).await;
    assert_eq!((first.dead_letters, first.audit), (3, 0));
    assert!(first.is_full);
    assert_eq!(sweep(&at, &letters(3)).await.dead_letters, 2);
    assert_eq!(at.counts().await.dead_letters, 1, "what is open stays");
    let rows = at.claim(&orders).await;
    assert_eq!(rows.len(), 3, "what was redriven is on its way");

    let audit = Retention {
        audit: Duration::ZERO,
        ..keep(HOUR, 1)
    };
    for removed in [1, 1, 0] {
        assert_eq!(sweep(&at, &audit).await.audit, removed);
    }
    does(&at, Action::DiscardDeadLetters(vec![ids[5]])).await;
    let entries = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    let entries = entries.expect("the audit is shown");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].id, 3, "no id is given out twice");
}

/// What has still to be done is not old, whatever its age.
pub async fn sweep_leaves_what_is_not_finished(at: Arc<Harness>) {
    let orders = at.orders();
    let parked = Birth::Parked(Reason::NoOwner);
    at.write(
        api()
            .moves(&instance("running"), 0)
            .sends(message(&orders))
            .sends(message(&orders).due(Due::After(HOUR)))
            .sends(message(&orders).born(parked))
            .gives_up(dead_letter(&orders.name, message(&orders).envelope())),
    )
    .await;
    let before = at.counts().await;
    grow_older(Duration::from_millis(5)).await;
    assert_eq!(
        sweep(&at, &keep(Duration::ZERO, 100)).await,
        Swept::default()
    );
    assert_eq!(at.counts().await, before);
}

/// Deduplication ends with the retention, and a swept tombstone's key begins anew.
pub async fn what_was_swept_is_new_again(at: Arc<Harness>) {
    let (orders, id, order) = (at.orders(), MessageId::new(), instance("1"));
    at.write(broker(&orders, id).completes(&order, 0)).await;
    grow_older(Duration::from_millis(5)).await;
    sweep(&at, &keep(Duration::ZERO, 100)).await;
    assert_eq!(at.instance(&order).await, None);
    at.write(broker(&orders, id).moves(&order, 0)).await;
    assert_eq!(at.outcome(broker(&orders, id)).await, Outcome::Duplicate);
}

/// One entry per message, also where a unit answers many, and none of losers.
pub async fn history_has_one_entry_per_message_of_a_winner(at: Arc<Harness>) {
    let orders = at.orders();
    let ids: Vec<_> = (0..3).map(|_| MessageId::new()).collect();
    let merged = ids
        .iter()
        .fold(api(), |plan, id| plan.and_broker(&orders, *id));
    let merged = merged.moves(&instance("1"), 0);
    let merged = ids
        .iter()
        .fold(merged, |plan, id| plan.records(&orders, *id));
    at.write(merged).await;
    assert_eq!(at.counts().await.history, 3);

    let duplicate = broker(&orders, ids[0]).records(&orders, ids[0]);
    let new = MessageId::new();
    let conflict = broker(&orders, new)
        .moves(&instance("1"), 9)
        .records(&orders, new);
    at.commit([duplicate, conflict]).await;
    assert_eq!(at.counts().await.history, 3);
}

/// What an operator sees first.
pub async fn counts_say_what_there_is(at: Arc<Harness>) {
    assert_eq!(at.counts().await, Counts::default());
    let (orders, id) = (at.orders(), MessageId::new());
    let parked = Birth::Parked(Reason::NoOwner);
    let plans = [
        broker(&orders, id)
            .moves(&instance("1"), 0)
            .records(&orders, id)
            .sends(message(&orders))
            .sends(message(&orders).leased())
            .sends(message(&orders).due(Due::After(HOUR)))
            .sends(message(&orders).born(parked)),
        api().completes(&instance("2"), 0),
        api().moves(&instance("3"), 0),
        api().gives_up(dead_letter(&orders.name, message(&orders).envelope())),
    ];
    at.commit(plans).await;
    let expected = Counts {
        outbox: 3,
        parked: 1,
        inbox: 1,
        running: 2,
        completed: 1,
        dead_letters: 1,
        history: 1,
    };
    assert_eq!(at.counts().await, expected);
}
