//! Values that a database may not like, and rows that somebody damaged.

use sagabus_core::admin::RowFilter;
use sagabus_core::store::{Store, StoreAdmin};
use sagabus_core::unit_of_work::{Attempt, DeadLetter, KeyAfterDeath, Outcome, Reason, UnitOfWork};
use sagabus_core::{EndpointName, Envelope, MessageId, StoreError, Timestamp};

use crate::postgres_support::Database;
use crate::postgres_units::{Site, change, outgoing};

/// Failed tries that nobody can read; the last can be.
const BROKEN_ATTEMPTS: [&str; 8] = [
    "'\\xff00'",
    "''",
    "'['",
    "'null'",
    "'{\"error\":\"disk\"}'",
    "'[{\"error\":\"disk \\\\ud800\"}]'",
    "convert_to(repeat('[', 100000), 'UTF8')",
    "'[{\"error\":\"no disk\"}]'",
];

/// Makes a unit bad.
type Spoil = fn(&mut UnitOfWork);

/// One bad unit among a hundred, however it is bad.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_refused_refuses_its_group_and_writes_nothing() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let cases: [(&str, Spoil); 5] = [
        ("NUL in a key", |unit| {
            unit.instance = Some(change("a\0b", 0));
        }),
        ("NUL in a type", |unit| {
            unit.outgoing[0].envelope.message_type = "a\0b".into();
        }),
        ("a key too long for an index", |unit| {
            let long: String = (0..4000_u32)
                .map(|n| char::from_u32(0x4e00 + n * 7 % 20_000).unwrap())
                .collect();
            unit.instance = Some(change(&long, 0));
        }),
        ("an instance twice", |unit| {
            unit.instance = Some(change("twice", 0));
        }),
        ("NUL in a state", |unit| {
            let mut bad = change("state", 0);
            bad.state = Some("a\0b".into());
            unit.instance = Some(bad);
        }),
    ];
    for (what, spoil) in cases {
        let mut units: Vec<_> = (0..100).map(|_| site.unit(MessageId::new())).collect();
        units[0].instance = Some(change("twice", 0));
        spoil(&mut units[57]);
        let group = site.group(units);
        let error = site.store.commit(&group).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{what}: {error:?}");
        let rows = database.number("select count(*) from sagabus.inbox").await;
        assert_eq!(rows, 0, "{what}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_takes_whatever_the_message_was() {
    let Some((_database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let error = "cannot read \0 \u{1f600}".to_owned();
    let dead = DeadLetter {
        endpoint: EndpointName::new("orders").unwrap(),
        envelope: Envelope {
            message_type: "un\0known".into(),
            body: vec![0, 255, 0].into(),
            headers: [("note", "a\0b")].into_iter().collect(),
            ..outgoing("").envelope
        },
        reason: Reason::Undecodable,
        attempts: vec![Attempt {
            at: Timestamp::from_micros(1),
            host: "first".to_owned(),
            error: error.clone(),
            excused: 0,
        }],
        key: None,
        instance: None,
        key_after: KeyAfterDeath::GoesOn,
    };
    let unit = UnitOfWork {
        failed: Some(Box::new(dead.clone())),
        ..UnitOfWork::default()
    };
    let report = site.store.commit(&site.group(vec![unit])).await.unwrap();
    assert_eq!(report.outcomes, [Outcome::Committed]);
    let stored = site.store.dead_letters(10).await.unwrap().remove(0);
    assert_eq!(stored.envelope.body, dead.envelope.body);
    assert_eq!(stored.envelope.headers, dead.envelope.headers);
    assert_eq!(stored.attempts[0].error, error);
    assert_eq!(stored.envelope.message_type, "un\u{fffd}known");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_broken_headers_and_attempts_is_still_claimed() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let group = site.group(vec![site.unit(MessageId::new())]);
    site.store.commit(&group).await.unwrap();
    database
        .run("update sagabus.outbox set headers = '\\x7b', attempts = '\\xff00'")
        .await;
    let row = site.claim("orders", 1).await.remove(0);
    assert!(row.envelope.headers.is_empty() && row.attempts.is_empty());
    assert_eq!(row.envelope.body, group.units[0].outgoing[0].envelope.body);
    site.stop().await;
}

/// One damaged row keeps nobody from finding the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_broken_attempts_are_searched_as_if_they_had_none() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    for sql in BROKEN_ATTEMPTS {
        let group = site.group(vec![site.unit(MessageId::new())]);
        site.store.commit(&group).await.unwrap();
        let latest = "(select max(id) from sagabus.outbox)";
        let broken = format!("update sagabus.outbox set attempts = {sql} where id = {latest}");
        database.run_text(&broken).await;
    }
    let with_error = |text: &str| RowFilter {
        error: Some(text.to_owned()),
        ..RowFilter::default()
    };
    for (text, count) in [("disk", 1), ("", 1), ("\u{fffd}", 0)] {
        let found = site.store.count_rows(&with_error(text)).await.unwrap();
        assert_eq!(found.count, count, "{text:?}");
    }
    let all = site.store.count_rows(&RowFilter::default()).await.unwrap();
    assert_eq!(all.count, BROKEN_ATTEMPTS.len() as u64);
    site.stop().await;
}

/// A follower that is written while its head is being answered must not wait for its time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_written_beside_its_head_is_not_stranded() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let other = Site::new(database.store().await).await;
    let ordered = |body: &str| {
        let mut one = outgoing(body);
        one.key = Some("k".to_owned());
        UnitOfWork {
            outgoing: vec![one],
            ..UnitOfWork::default()
        }
    };
    let first = site.group_to("parcels", vec![ordered("0")]);
    site.store.commit(&first).await.unwrap();
    for round in 1..=150 {
        let head = site.claim("parcels", 10).await;
        assert_eq!(
            head.len(),
            1,
            "round {round}: the one row of the key is there"
        );
        let answer = UnitOfWork {
            sources: vec![sagabus_core::Source::Row(head[0].row)],
            ..UnitOfWork::default()
        };
        let answer = site.group(vec![answer]);
        let follower = other.group_to("parcels", vec![ordered(&round.to_string())]);
        let write = async {
            loop {
                match other.store.commit(&follower).await {
                    Ok(report) => break report,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        };
        let (answered, _) = tokio::join!(site.store.commit(&answer), write);
        assert_eq!(answered.unwrap().outcomes, [Outcome::Committed]);
    }
    site.stop().await;
    other.stop().await;
}

/// Whatever brought it about, a strange door or a time-out: what is due but not first stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_are_due_are_put_off_by_the_claim() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let ordered = |key: &str| {
        let mut one = outgoing(key);
        one.key = Some(key.to_owned());
        one
    };
    let unit = UnitOfWork {
        outgoing: ["a", "a", "b", "a"].map(ordered).into(),
        ..UnitOfWork::default()
    };
    let group = site.group_to("parcels", vec![unit]);
    site.store.commit(&group).await.unwrap();
    database
        .run("update sagabus.outbox set available_at = sagabus.now_micros() - id")
        .await;
    let rows = site.claim("parcels", 10).await;
    let mut keys: Vec<_> = rows.iter().map(|one| one.key.clone().unwrap()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    let first = rows.iter().map(|one| one.row.id).min();
    let oldest = database.number("select min(id) from sagabus.outbox").await;
    assert_eq!(first, Some(oldest));
    let due = "select count(*) from sagabus.outbox where available_at <= sagabus.now_micros()";
    assert_eq!(database.number(due).await, 0);
    site.stop().await;
}
