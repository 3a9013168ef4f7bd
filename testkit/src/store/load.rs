//! What the loader learns in one question.

use std::sync::Arc;

use sagabus_core::id::MessageId;
use sagabus_core::store::{Answer, Birth, Fate, Question};
use sagabus_core::unit_of_work::{Reason, Settle};

use super::build::{api, broker, dead_letter, message, row};
use super::harness::{Harness, instance};

/// One answer per question, at its place, however many there are.
pub async fn load_answers_in_the_order_of_its_questions(at: Arc<Harness>) {
    let orders = at.orders();
    let ids: Vec<_> = (0..200).map(|_| MessageId::new()).collect();
    let plans = ids.iter().enumerate().step_by(2).map(|(index, id)| {
        broker(&orders, *id).moves(&instance(&format!("{:03}", 199 - index)), 0)
    });
    at.commit(plans).await;

    let questions: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(index, id)| Question {
            taken_over: Some((orders.id, *id)),
            instance: Some(instance(&format!("{:03}", 199 - index))),
            label: None,
            blocked: None,
            fate: None,
        })
        .collect();
    for (index, answer) in at.load(&questions).await.into_iter().enumerate() {
        let is_written = index % 2 == 0;
        assert_eq!(answer.is_taken_over, is_written, "question {index}");
        let found = answer.instance.map(|found| found.id.key);
        let expected = is_written.then(|| format!("{:03}", 199 - index).into());
        assert_eq!(found, expected, "question {index}");
    }
}

/// Every part of a question may be left out, and one thing may be asked twice.
pub async fn load_answers_only_what_is_asked(at: Arc<Harness>) {
    let (orders, id) = (at.orders(), MessageId::new());
    at.write(broker(&orders, id).moves(&instance("1"), 0)).await;
    assert!(at.load(&[]).await.is_empty());

    let taken_over = Question {
        taken_over: Some((orders.id, id)),
        ..Question::default()
    };
    let moved = Question {
        instance: Some(instance("1")),
        ..Question::default()
    };
    let questions = [
        Question::default(),
        taken_over.clone(),
        moved.clone(),
        taken_over,
        moved,
    ];
    let answers = at.load(&questions).await;
    assert_eq!(answers[0], Answer::default());
    assert!(answers[1].is_taken_over && answers[1].instance.is_none());
    assert!(!answers[2].is_taken_over && answers[2].instance.is_some());
    assert_eq!(answers[1], answers[3]);
    assert_eq!(answers[2], answers[4]);
}

/// A message from a broker waits for the row of its key that came first, in whosever hands it is.
pub async fn a_key_is_blocked_while_its_row_waits(at: Arc<Harness>) {
    let parcels = at.parcels();
    at.write(api().sends(message(&parcels).keyed("a"))).await;
    at.write(api().sends(message(&at.orders()).keyed("a")))
        .await;

    assert!(at.is_blocked(&parcels, "a").await);
    assert!(!at.is_blocked(&parcels, "b").await);
    assert!(
        !at.is_blocked(&at.orders(), "a").await,
        "without order nothing is blocked"
    );
    assert!(!at.is_blocked(&at.audit(), "a").await);

    let claimed = at.claim_one(&parcels).await;
    assert!(
        at.is_blocked(&parcels, "a").await,
        "also while it is leased"
    );
    at.settle([Settle::Delete(claimed.row)]).await;
    assert!(!at.is_blocked(&parcels, "a").await);
}

/// An operator may take days; the key goes on.
pub async fn a_parked_row_blocks_nothing(at: Arc<Harness>) {
    let parcels = at.parcels();
    let parked = message(&parcels)
        .keyed("a")
        .born(Birth::Parked(Reason::NoOwner));
    at.write(api().sends(parked)).await;
    assert!(!at.is_blocked(&parcels, "a").await);
}

/// Whoever announced something asks: not here yet, waits for another try, given up, tried again by
/// an operator, applied.
pub async fn what_became_of_a_message_is_told_at_every_step(at: Arc<Harness>) {
    let orders = at.orders();
    let letter = message(&orders);
    let (id, envelope) = (letter.id(), letter.envelope().clone());
    let neighbour = MessageId::new();
    at.write(broker(&orders, neighbour)).await;
    assert_eq!(at.fate(&orders, neighbour).await, Some(Fate::Applied));
    assert_eq!(at.fate(&orders, id).await, Some(Fate::Pending));

    at.write(broker(&orders, id).sends(letter)).await;
    assert_eq!(
        at.fate(&orders, id).await,
        Some(Fate::Pending),
        "taken over"
    );
    let claimed = at.claim_one(&orders).await;
    assert_eq!(at.fate(&orders, id).await, Some(Fate::Pending), "in hand");

    let dead = dead_letter(&orders.name, &envelope);
    at.write(row(claimed.row).gives_up(dead)).await;
    assert_eq!(at.fate(&orders, id).await, Some(Fate::DeadLettered));
    assert_eq!(at.fate(&at.parcels(), id).await, Some(Fate::Pending));

    let open = at.admin.dead_letters(10).await.expect("it is shown");
    at.admin.redrive(open[0].id).await.expect("it is redriven");
    assert_eq!(at.fate(&orders, id).await, Some(Fate::Pending), "again");
    let claimed = at.claim_one(&orders).await;
    at.write(row(claimed.row)).await;
    assert_eq!(at.fate(&orders, id).await, Some(Fate::Applied));
}
