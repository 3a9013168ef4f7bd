//! How a message is taken over: once, by an inbox row or by deleting a row under its epoch.

use std::sync::Arc;

use sagabus_core::id::MessageId;
use sagabus_core::unit_of_work::{Outcome, RowKey};

use super::build::{api, broker, message, row};
use super::harness::{Harness, instance};

/// The inbox row is the memory of a message, and `load` sees it.
pub async fn a_first_message_is_written_and_remembered(at: Arc<Harness>) {
    let (orders, id) = (at.orders(), MessageId::new());
    assert!(!at.is_taken_over(&orders, id).await);

    let plan = broker(&orders, id).sends(message(&orders));
    assert_eq!(at.outcome(plan).await, Outcome::Committed);

    assert!(at.is_taken_over(&orders, id).await);
    let counts = at.counts().await;
    assert_eq!((counts.inbox, counts.outbox), (1, 1));
}

/// Nothing of a duplicate exists: no instance, no row, no history.
pub async fn a_known_message_is_a_duplicate_and_writes_nothing(at: Arc<Harness>) {
    let (orders, id) = (at.orders(), MessageId::new());
    at.write(broker(&orders, id)).await;
    let before = at.counts().await;

    let again = broker(&orders, id)
        .moves(&instance("1"), 0)
        .sends(message(&orders).leased())
        .records(&orders, id);
    let report = at.commit([again]).await;

    assert_eq!(report.outcomes, [Outcome::Duplicate]);
    assert_eq!(report.leased, [None]);
    assert_eq!(at.counts().await, before);
}

/// An event that two endpoints receive is taken over by each.
pub async fn one_message_at_two_endpoints_is_two_messages(at: Arc<Harness>) {
    let id = MessageId::new();
    at.write(broker(&at.orders(), id)).await;
    assert!(!at.is_taken_over(&at.audit(), id).await);
    at.write(broker(&at.audit(), id)).await;
    assert_eq!(at.counts().await.inbox, 2);
}

/// A row is the message: answering it removes it, and writes no inbox row.
pub async fn a_row_is_accepted_by_deleting_it(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let claimed = at.claim_one(&at.orders()).await;

    assert_eq!(at.outcome(row(claimed.row)).await, Outcome::Committed);

    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.inbox), (0, 0));
}

/// Whoever lost the lease has lost the message.
pub async fn a_row_under_an_old_epoch_is_a_duplicate_and_stays(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let claimed = at.claim_one(&at.orders()).await;
    let before = at.counts().await;

    for epoch in [claimed.row.epoch - 1, claimed.row.epoch + 1] {
        let old = RowKey {
            epoch,
            ..claimed.row
        };
        let plan = row(old).moves(&instance("1"), 0);
        assert_eq!(at.outcome(plan).await, Outcome::Duplicate);
    }
    assert_eq!(at.counts().await, before);
    assert_eq!(at.outcome(row(claimed.row)).await, Outcome::Committed);
}

/// A row that was answered before was taken over before.
pub async fn a_row_that_is_gone_is_a_duplicate(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let claimed = at.claim_one(&at.orders()).await;
    at.write(row(claimed.row)).await;

    let again = row(claimed.row).sends(message(&at.orders()));
    assert_eq!(at.outcome(again).await, Outcome::Duplicate);
    assert_eq!(at.counts().await.outbox, 0);
}

/// What an API sends by itself has nothing to be recognised by.
pub async fn a_unit_without_sources_is_written_every_time(at: Arc<Harness>) {
    for _ in 0..2 {
        at.write(api().sends(message(&at.orders()))).await;
    }
    assert_eq!(at.counts().await.outbox, 2);
}

/// Messages of one hot instance may share a unit, from a broker and from rows alike.
pub async fn a_merged_unit_takes_over_all_of_its_messages(at: Arc<Harness>) {
    let (orders, first, second) = (at.orders(), MessageId::new(), MessageId::new());
    at.write(api().sends(message(&orders))).await;
    let claimed = at.claim_one(&orders).await;

    let merged = broker(&orders, first)
        .and_row(claimed.row)
        .and_broker(&orders, second);
    assert_eq!(at.outcome(merged).await, Outcome::Committed);

    assert!(at.is_taken_over(&orders, first).await);
    assert!(at.is_taken_over(&orders, second).await);
    assert_eq!(at.counts().await.outbox, 0);
}

/// All known: there is nothing left to do.
pub async fn a_merged_unit_of_known_messages_is_a_duplicate(at: Arc<Harness>) {
    let (orders, first, second) = (at.orders(), MessageId::new(), MessageId::new());
    at.write(broker(&orders, first)).await;
    at.write(broker(&orders, second)).await;

    let merged = broker(&orders, first).and_broker(&orders, second);
    assert_eq!(at.outcome(merged).await, Outcome::Duplicate);
}

/// Some known: nothing is written, also not of the new ones, which have to be run again.
pub async fn a_merged_unit_that_is_partly_known_is_a_conflict_and_writes_nothing(at: Arc<Harness>) {
    let (orders, known) = (at.orders(), MessageId::new());
    at.write(broker(&orders, known)).await;
    at.write(api().sends(message(&orders))).await;
    let claimed = at.claim_one(&orders).await;
    let before = at.counts().await;

    for new in [MessageId::new(), MessageId::new()] {
        let merged = broker(&orders, new)
            .and_broker(&orders, known)
            .and_row(claimed.row)
            .moves(&instance("1"), 0)
            .sends(message(&orders));
        assert_eq!(at.outcome(merged).await, Outcome::Conflict);
        assert!(!at.is_taken_over(&orders, new).await);
    }
    assert_eq!(at.counts().await, before);
    assert_eq!(at.outcome(row(claimed.row)).await, Outcome::Committed);
}

/// Its effects would be there twice: what is merged comes apart, and each copy finds out alone.
pub async fn a_merged_unit_that_names_a_message_twice_is_a_conflict_and_writes_nothing(
    at: Arc<Harness>,
) {
    let (orders, copied) = (at.orders(), MessageId::new());
    let before = at.counts().await;

    let merged = broker(&orders, copied)
        .and_broker(&orders, MessageId::new())
        .and_broker(&orders, copied)
        .moves(&instance("1"), 0)
        .sends(message(&orders));
    assert_eq!(at.outcome(merged).await, Outcome::Conflict);
    assert!(!at.is_taken_over(&orders, copied).await);
    assert_eq!(at.counts().await, before);

    let alone = || broker(&orders, copied).moves(&instance("1"), 0);
    assert_eq!(at.outcome(alone()).await, Outcome::Committed);
    assert_eq!(at.outcome(alone()).await, Outcome::Duplicate);
}

/// A commit in doubt is resolved by asking again.
pub async fn resubmitting_a_group_answers_duplicate_for_its_own_units(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let claimed = at.claim_one(&orders).await;
    let (first, second) = (MessageId::new(), MessageId::new());
    let group = at.group([
        broker(&orders, first)
            .moves(&instance("1"), 0)
            .sends(message(&orders)),
        broker(&orders, second).sends(message(&orders).leased()),
        row(claimed.row)
            .moves(&instance("2"), 0)
            .records(&orders, first),
    ]);

    let report = at.commit_group(&group).await;
    assert_eq!(report.outcomes, [Outcome::Committed; 3]);
    let after = at.counts().await;

    for _ in 0..2 {
        let report = at.commit_group(&group).await;
        assert_eq!(report.outcomes, [Outcome::Duplicate; 3]);
        assert_eq!(report.leased, [None, None]);
    }
    assert_eq!(at.counts().await, after);
}

/// Every unit gets its own answer, at its own place, alone and in company.
pub async fn outcomes_come_in_the_order_of_units(at: Arc<Harness>) {
    let orders = at.orders();
    let known = MessageId::new();
    at.write(broker(&orders, known).moves(&instance("taken"), 0))
        .await;

    let plans = |size: usize| {
        (0..size).map(|index| match index % 3 {
            0 => broker(&at.orders(), MessageId::new()),
            1 => broker(&at.orders(), known),
            // Versions that never were, of one instance each: a group has one unit per instance.
            _ => broker(&at.orders(), MessageId::new()).moves(&instance(&index.to_string()), 9),
        })
    };
    let expected = [Outcome::Committed, Outcome::Duplicate, Outcome::Conflict];
    // `known` stands once in a group: a group has one unit per message.
    for size in [1, 2, 3] {
        let report = at.commit(plans(size)).await;
        assert_eq!(report.outcomes, expected[..size]);
    }
    for (index, plan) in plans(3).enumerate() {
        assert_eq!(at.outcome(plan).await, expected[index]);
    }
}

/// Nothing to write is no error.
pub async fn an_empty_group_is_answered(at: Arc<Harness>) {
    let report = at.commit([]).await;
    assert!(report.outcomes.is_empty() && report.leased.is_empty());
}
