//! The commit call: what is written, what is not, and who is told.

use std::time::Duration;

use sagabus_core::clock::Timestamp;
use sagabus_core::envelope::{Due, Timer};
use sagabus_core::store::{Birth, Question, Store, StoreAdmin};
use sagabus_core::unit_of_work::{
    Attempt, DeadLetter, InstanceStatus, KeyAfterDeath, Origin, Reason, RowKey, Settle, Start,
};
use sagabus_core::{Destination, MessageId, Outcome, StoreError};

use crate::sqlite_support::{
    Bench, answers, bodies, due, given, keyed, message, moves, name, order, received, sends,
};

const COMMITTED: Outcome = Outcome::Committed;
const DUPLICATE: Outcome = Outcome::Duplicate;
const CONFLICT: Outcome = Outcome::Conflict;

#[tokio::test]
async fn a_unit_is_written_whole_and_reads_back_as_it_was() {
    let bench = Bench::new().await;
    let id = MessageId::new();
    let mut unit = moves(received(bench.endpoint("plain"), id), "4711", 0);
    let origin = Origin {
        reply_to: Some("@plain".into()),
        correlation_id: id.into(),
        message_id: id,
        request: None,
    };
    unit.instance.as_mut().unwrap().origin = Some(origin.clone());
    unit.outgoing.push(message("one"));
    let sent = unit.outgoing[0].envelope.clone();
    assert_eq!(bench.outcomes(vec![unit]).await, [COMMITTED]);

    let counts = bench.counts().await.unwrap();
    assert_eq!((counts.inbox, counts.running, counts.history), (1, 1, 1));
    let instance = bench.instance(&order("4711")).await.unwrap().unwrap();
    assert_eq!(instance.version, 1);
    assert_eq!(instance.state.as_deref(), Some("open"));
    assert_eq!(&instance.data[..], b"\x00data");
    assert_eq!(instance.timers["deadline"], 3);
    assert_eq!(instance.origin, Some(origin));
    let rows = bench.claim("plain", 10).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].envelope, sent);
    assert_eq!((rows[0].row.epoch, rows[0].starts), (1, 1));
}

#[tokio::test]
async fn losers_leave_nothing_and_their_neighbours_are_whole() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let known = MessageId::new();
    let first = vec![moves(received(plain, known), "a", 0)];
    assert_eq!(bench.outcomes(first).await, [COMMITTED]);

    let mut units = vec![
        moves(received(plain, MessageId::new()), "b", 0),
        moves(received(plain, known), "c", 7),
        moves(received(plain, MessageId::new()), "a", 5),
        moves(received(plain, MessageId::new()), "a", 1),
        moves(received(plain, MessageId::new()), "gone", 3),
    ];
    for (n, unit) in units.iter_mut().enumerate() {
        unit.outgoing.push(message(&n.to_string()));
    }
    let outcomes = bench.outcomes(units).await;
    assert_eq!(
        outcomes,
        [COMMITTED, DUPLICATE, CONFLICT, COMMITTED, CONFLICT]
    );
    let counts = bench.counts().await.unwrap();
    assert_eq!((counts.inbox, counts.running, counts.history), (3, 2, 3));
    let rows = bench.claim("plain", 10).await;
    assert_eq!(bodies(&rows), ["0", "3"]);
    let moved = bench.instance(&order("a")).await.unwrap().unwrap();
    assert_eq!(moved.version, 2);
}

#[tokio::test]
async fn a_merged_unit_moves_its_instance_by_its_sources() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let mut unit = moves(received(plain, MessageId::new()), "hot", 0);
    for _ in 0..2 {
        unit.sources
            .extend(received(plain, MessageId::new()).sources);
    }
    assert_eq!(bench.outcomes(vec![unit.clone()]).await, [COMMITTED]);
    let hot = bench.instance(&order("hot")).await.unwrap().unwrap();
    assert_eq!(hot.version, 3);

    unit.sources[0] = received(plain, MessageId::new()).sources[0];
    unit.instance.as_mut().unwrap().expected = 3;
    assert_eq!(bench.outcomes(vec![unit]).await, [CONFLICT]);
    assert_eq!(bench.counts().await.unwrap().inbox, 3);
}

#[tokio::test]
async fn a_tombstone_is_continued_by_its_version_and_never_created_anew() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let mut end = moves(received(plain, MessageId::new()), "t", 0);
    end.instance.as_mut().unwrap().status = InstanceStatus::Completed;
    assert_eq!(bench.outcomes(vec![end]).await, [COMMITTED]);
    assert_eq!(bench.counts().await.unwrap().completed, 1);

    let anew = moves(received(plain, MessageId::new()), "t", 0);
    assert_eq!(bench.outcomes(vec![anew]).await, [CONFLICT]);
    let continued = moves(received(plain, MessageId::new()), "t", 1);
    assert_eq!(bench.outcomes(vec![continued]).await, [COMMITTED]);
    let instance = bench.instance(&order("t")).await.unwrap().unwrap();
    assert_eq!(
        (instance.version, instance.status),
        (2, InstanceStatus::Running)
    );
}

#[tokio::test]
async fn a_row_is_accepted_once_and_only_under_its_epoch() {
    let bench = Bench::new().await;
    bench.commit(vec![sends(vec![message("x")])]).await;
    let row = bench.claim("plain", 1).await.remove(0);
    let mut late = answers(&row);
    late.sources = vec![sagabus_core::Source::Row(RowKey {
        epoch: row.row.epoch + 1,
        ..row.row
    })];
    let outcomes = bench.outcomes(vec![late, answers(&row)]).await;
    assert_eq!(outcomes, [DUPLICATE, COMMITTED]);
    assert_eq!(bench.outcomes(vec![answers(&row)]).await, [DUPLICATE]);
    assert_eq!(bench.counts().await.unwrap().outbox, 0);
}

#[tokio::test]
async fn keys_of_rows_born_leased_name_the_rows_of_their_placements() {
    let bench = Bench::new().await;
    let later = Due::After(Duration::from_secs(60));
    let unit = sends(vec![
        message("plain 0"),
        due(message("later"), later),
        keyed("k", "keyed 2"),
        message("plain 3"),
        keyed("k", "keyed 4"),
        due(message("past"), Due::At(Timestamp::from_micros(1))),
    ]);
    let ids: Vec<MessageId> = unit.outgoing.iter().map(|one| one.envelope.id).collect();
    let group = bench.group(Birth::Leased, vec![unit]);
    let report = bench.store.commit(&group).await.unwrap();
    let is_leased: Vec<bool> = report.leased.iter().map(Option::is_some).collect();
    assert_eq!(is_leased, [true, false, true, true, false, true]);
    for (key, id) in report.leased.iter().zip(ids) {
        let Some(key) = key else { continue };
        let found = format!(
            "select count(*) from sagabus_outbox where id = {} and epoch = 1 and starts = 1 \
             and hex(message_id) = '{:X}'",
            key.id,
            id.as_uuid().simple()
        );
        assert_eq!(bench.ask(&found).await, 1);
    }
    assert_eq!(bodies(&bench.claim("plain", 10).await), Vec::<&str>::new());
    let keys: Vec<RowKey> = report.leased.into_iter().flatten().collect();
    bench
        .settle(keys.into_iter().map(Settle::Delete).collect())
        .await;
    assert_eq!(bodies(&bench.claim("keyed", 10).await), ["keyed 4"]);
}

#[tokio::test]
async fn a_given_identity_is_written_once() {
    let bench = Bench::new().await;
    let id = MessageId::new();
    let group = bench.group(
        Birth::Leased,
        vec![sends(vec![given(message("first"), id)])],
    );
    let report = bench.store.commit(&group).await.unwrap();
    assert!(report.leased[0].is_some());

    let unit = sends(vec![given(message("again"), id), message("other")]);
    let group = bench.group(Birth::Leased, vec![unit.clone(), unit]);
    let report = bench.store.commit(&group).await.unwrap();
    assert_eq!(report.outcomes, [COMMITTED, COMMITTED]);
    let is_leased: Vec<bool> = report.leased.iter().map(Option::is_some).collect();
    assert_eq!(is_leased, [false, true, false, true]);
    let counts = bench.counts().await.unwrap();
    assert_eq!((counts.outbox, counts.inbox), (3, 1));
}

#[tokio::test]
async fn a_timer_may_arm_its_own_name_again() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let armed = |generation, text: &str, due: Due| {
        let mut outgoing = message(text);
        outgoing.due = due;
        outgoing.timer = Some(Timer {
            owner: order("t"),
            name: "deadline".into(),
            generation,
        });
        outgoing
    };
    let mut unit = moves(received(plain, MessageId::new()), "t", 0);
    unit.outgoing.push(armed(1, "first", Due::Now));
    assert_eq!(bench.outcomes(vec![unit]).await, [COMMITTED]);
    let fired = bench.claim("plain", 1).await.remove(0);
    let timer = fired.timer.clone().unwrap();
    assert_eq!(
        (timer.owner, timer.name.as_str(), timer.generation),
        (order("t"), "deadline", 1)
    );

    let mut unit = moves(answers(&fired), "t", 1);
    unit.outgoing.push(armed(2, "second", Due::Now));
    assert_eq!(bench.outcomes(vec![unit]).await, [COMMITTED]);

    let mut unit = moves(received(plain, MessageId::new()), "t", 2);
    unit.instance.as_mut().unwrap().disarmed = vec!["deadline".into(), "other".into()];
    unit.outgoing.push(armed(3, "third", Due::Now));
    assert_eq!(bench.outcomes(vec![unit.clone()]).await, [COMMITTED]);
    assert_eq!(bodies(&bench.claim("plain", 9).await), ["third"]);

    unit = moves(received(plain, MessageId::new()), "t", 3);
    unit.outgoing.push(armed(4, "twice", Due::Now));
    let group = bench.group(Birth::Available, vec![unit]);
    let refused = bench.store.commit(&group).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    let instance = bench.instance(&order("t")).await.unwrap().unwrap();
    assert_eq!(instance.version, 3);
}

#[tokio::test]
async fn settles_hold_whatever_becomes_of_the_units() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let known = MessageId::new();
    bench.commit(vec![received(plain, known)]).await;
    let four = ["a", "b", "c", "d"].map(message).to_vec();
    bench.commit(vec![sends(four)]).await;
    let rows = bench.claim("plain", 4).await;
    let failed = vec![Attempt {
        at: Timestamp::from_micros(5),
        host: "h".into(),
        error: "no\0pe".into(),
        excused: 0,
    }];
    let mut group = bench.group(Birth::Available, vec![received(plain, known)]);
    group.settles = vec![
        Settle::Delete(rows[0].row),
        Settle::Release {
            row: rows[1].row,
            after: Duration::ZERO,
            attempts: Some(failed.clone()),
            start: Start::GivenBack,
        },
        Settle::Park {
            row: rows[2].row,
            reason: Reason::Unroutable,
            attempts: failed.clone(),
        },
        Settle::StartSolo(rows[3].row),
        Settle::Delete(RowKey {
            epoch: 9,
            ..rows[3].row
        }),
    ];
    let report = bench.store.commit(&group).await.unwrap();
    assert_eq!(report.outcomes, [DUPLICATE]);
    let again = bench.claim("plain", 9).await;
    assert_eq!(bodies(&again), ["b"]);
    // One for the failure, one for this claim: none without a recorded end is left.
    assert_eq!((again[0].failures, again[0].starts), (1, 2));
    assert_eq!(again[0].attempts, failed);
    assert_eq!(bench.counts().await.unwrap().parked, 1);
    assert_eq!(
        bench
            .ask("select solo_starts from sagabus_outbox where body = cast('d' as blob)")
            .await,
        1
    );
}

#[tokio::test]
async fn other_routes_in_the_database_write_nothing_and_are_told() {
    let bench = Bench::new().await;
    let mut group = bench.group(Birth::Available, vec![sends(vec![message("x")])]);
    group.routes_version -= 1;
    match bench.store.commit(&group).await {
        Err(StoreError::StaleRoutes(routes)) => assert_eq!(*routes, bench.attached.routes),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.counts().await.unwrap().outbox, 0);
    bench.commit(vec![sends(vec![message("y")])]).await;
    assert_eq!(bench.counts().await.unwrap().outbox, 1);
}

#[tokio::test]
async fn a_dead_letter_keeps_its_bytes_and_goes_back_under_its_identity() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let envelope = message("dead").envelope;
    for (n, reason) in [Reason::Terminal, Reason::AttemptsExhausted]
        .into_iter()
        .enumerate()
    {
        let mut unit = received(plain, MessageId::new());
        unit.failed = Some(Box::new(DeadLetter {
            endpoint: name("plain"),
            envelope: envelope.clone(),
            reason,
            attempts: vec![
                Attempt {
                    at: Timestamp::from_micros(1),
                    host: "h".into(),
                    error: "card 4711 declined".into(),
                    excused: 0,
                };
                n + 1
            ],
            key: None,
            instance: None,
            key_after: KeyAfterDeath::GoesOn,
        }));
        bench.commit(vec![unit]).await;
    }
    let dead = bench.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].envelope, envelope);
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].attempts.len()),
        ("attempts_exhausted", 2)
    );
    assert!(bench.redrive(dead[0].id).await.unwrap());
    assert!(!bench.redrive(dead[0].id).await.unwrap());
    assert_eq!(bench.counts().await.unwrap().dead_letters, 0);
    let rows = bench.claim("plain", 10).await;
    assert_eq!(rows[0].envelope, envelope);
    assert_eq!((rows[0].failures, rows[0].attempts.len()), (0, 0));
}

#[tokio::test]
async fn what_the_database_cannot_hold_is_refused_and_nothing_is_written() {
    let bench = Bench::new().await;
    let units = vec![
        sends(vec![message("good")]),
        sends(vec![keyed("a\0b", "bad")]),
    ];
    let group = bench.group(Birth::Available, units);
    let refused = bench.store.commit(&group).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(bench.counts().await.unwrap().outbox, 0);
}

#[tokio::test]
async fn a_message_that_nobody_takes_waits_for_an_operator() {
    let bench = Bench::new().await;
    let lost = message("lost").to(Destination::Owner);
    bench.commit(vec![sends(vec![lost])]).await;
    let counts = bench.counts().await.unwrap();
    assert_eq!((counts.outbox, counts.parked), (0, 1));
    let found = "select count(*) from sagabus_outbox where destination = '?test.do' \
                 and parked = 'no_owner'";
    assert_eq!(bench.ask(found).await, 1);
}

#[tokio::test]
async fn questions_are_answered_in_order() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let known = MessageId::new();
    bench
        .commit(vec![
            moves(received(plain, known), "a", 0),
            sends(vec![keyed("k", "first")]),
        ])
        .await;
    let asks = |id, instance, key: Option<&str>| Question {
        taken_over: Some((plain, id)),
        instance: Some(order(instance)),
        label: None,
        blocked: key.map(|key| (name("keyed"), key.to_owned())),
        fate: None,
    };
    let questions = [
        asks(MessageId::new(), "none", None),
        asks(known, "a", Some("other")),
        asks(MessageId::new(), "a", Some("k")),
        Question::default(),
    ];
    let answers = bench.load(&questions).await.unwrap();
    let seen: Vec<_> = answers
        .iter()
        .map(|answer| {
            (
                answer.is_taken_over,
                answer.instance.as_ref().map(|one| one.version),
                answer.is_blocked,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (false, None, false),
            (true, Some(1), false),
            (false, Some(1), true),
            (false, None, false)
        ]
    );
}

#[tokio::test]
async fn another_process_that_writes_for_too_long_is_busy_and_nothing_is_written() {
    let bench = Bench::new().await;
    let config = sagabus_outbox::SqliteConfig {
        busy_timeout: Duration::from_millis(20),
        ..sagabus_outbox::SqliteConfig::new(bench.folder.file())
    };
    let hasty = sagabus_outbox::SqliteStore::open_with(config)
        .await
        .unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.folder.file());
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    let group = bench.group(Birth::Available, vec![sends(vec![message("x")])]);
    let busy = hasty.commit(&group).await;
    assert!(matches!(busy, Err(StoreError::Busy(_))), "{busy:?}");
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    let report = hasty.commit(&group).await.unwrap();
    assert_eq!(report.outcomes, [COMMITTED]);
    assert_eq!(bench.counts().await.unwrap().outbox, 1);
}
