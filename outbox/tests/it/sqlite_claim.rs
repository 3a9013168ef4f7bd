//! Claims, leases, sweeps and wake-ups.

use std::time::Duration;

use sagabus_core::Destination;
use sagabus_core::HostId;
use sagabus_core::MessageId;
use sagabus_core::admin::RowFilter;
use sagabus_core::store::{Birth, ClaimFrom, Extension, Retention, Store, StoreAdmin};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::RowKey;
use sagabus_outbox::SqliteStore;

use crate::sqlite_support::{Bench, bodies, message, name, received, registration, sends};

fn to(address: &str, body: &str) -> sagabus_core::Outgoing {
    message(body).to(Destination::Address(address.to_owned()))
}

#[tokio::test]
async fn a_transport_gets_its_addresses_and_no_endpoints() {
    let bench = Bench::new().await;
    let sent = [
        message("endpoint"),
        message("nowhere").to(Destination::Owner),
        to("Amqp", "x"),
        to("A", "y"),
        to("!first", "1"),
        to("zulu", "z1"),
        to("zulu", "z2"),
        to("zulu", "z3"),
        to(":archive:first", "a1"),
        to(":archive:second", "a2"),
    ];
    bench.commit(vec![sends(sent.to_vec())]).await;
    let from = |bounds: Vec<(String, u32)>, per_address| ClaimFrom::Transport {
        name: TransportName::default(),
        limit: 100,
        per_address,
        bounds,
    };
    let rows = bench.claim_from(from(vec![("zulu".into(), 0)], 2)).await;
    let mut seen = bodies(&rows);
    seen.sort_unstable();
    assert_eq!(seen, ["1", "x", "y"]);
    let rows = bench.claim_from(from(Vec::new(), 2)).await;
    assert_eq!(bodies(&rows), ["z1", "z2"]);
    assert_eq!(rows[0].destination, "zulu");
}

#[tokio::test]
async fn a_row_with_broken_headers_is_still_handed_out() {
    let bench = Bench::new().await;
    bench.commit(vec![sends(vec![message("x")])]).await;
    bench
        .change(
            "update sagabus_outbox set headers = x'ff', attempts = x'00', message_id = x'01', \
             failures = 2",
        )
        .await;
    let rows = bench.claim("plain", 5).await;
    assert_eq!(bodies(&rows), ["x"]);
    assert!(rows[0].envelope.headers.is_empty() && rows[0].attempts.is_empty());
    assert_eq!(rows[0].failures, 2);
}

/// One damaged row keeps nobody from finding the others.
#[tokio::test]
async fn rows_with_broken_attempts_are_searched_as_if_they_had_none() {
    let bench = Bench::new().await;
    let broken = [
        "x'ff00'",
        "x''",
        "'['",
        "'null'",
        "'{\"error\":\"disk\"}'",
        "replace(zeroblob(100000), x'00', '[')",
        "'[{\"error\":\"no disk\"}]'",
    ];
    for sql in broken {
        bench.commit(vec![sends(vec![message("x")])]).await;
        let latest = "(select max(id) from sagabus_outbox)";
        let broken =
            format!("update sagabus_outbox set attempts = cast({sql} as blob) where id = {latest}");
        bench.change(&broken).await;
    }
    let with_error = |text: &str| RowFilter {
        error: Some(text.to_owned()),
        ..RowFilter::default()
    };
    for (text, count) in [("disk", 1), ("", 1), ("\u{fffd}", 0)] {
        let found = bench.store.count_rows(&with_error(text)).await.unwrap();
        assert_eq!(found.count, count, "{text:?}");
    }
    let all = bench.store.count_rows(&RowFilter::default()).await.unwrap();
    assert_eq!(all.count, broken.len() as u64);
}

#[tokio::test]
async fn a_row_whose_time_is_over_says_so() {
    let bench = Bench::new().await;
    let mut short = message("short");
    short.expires_after = Some(Duration::ZERO);
    let mut long = message("long");
    long.expires_after = Some(Duration::MAX);
    bench.commit(vec![sends(vec![short, long])]).await;
    let rows = bench.claim("plain", 5).await;
    let expired: Vec<bool> = rows.iter().map(|row| row.is_expired).collect();
    assert_eq!(
        (bodies(&rows), expired),
        (vec!["short", "long"], vec![true, false])
    );
}

#[tokio::test]
async fn leases_are_extended_for_what_is_still_ours() {
    let bench = Bench::new().await;
    bench
        .commit(vec![sends(vec![message("a"), message("b")])])
        .await;
    let rows = bench.claim("plain", 5).await;
    let extension = Extension {
        is_last: false,
        clock: sagabus_core::clock::now(),
        host: HostId::new(),
        rows: vec![
            rows[0].row,
            RowKey {
                epoch: 7,
                ..rows[1].row
            },
        ],
        lease: Duration::from_secs(3000),
        measure: sagabus_core::backlog::Measure::default(),
    };
    assert_eq!(bench.extend(&extension).await.unwrap().rows, 1);
    let extended = "select count(*) from sagabus_outbox where available_at > \
                    2000000000 + unixepoch('subsec') * 1000000";
    assert_eq!(bench.ask(extended).await, 1);
}

#[tokio::test]
async fn a_sweep_is_bounded_and_ends_with_what_is_young() {
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let units = (0..25).map(|_| received(plain, MessageId::new())).collect();
    bench.commit(units).await;
    bench
        .change(
            "update sagabus_inbox set accepted_at = 0; update sagabus_history set at = 0; \
             insert into sagabus_instance select value, 'order', value, 1, value % 2, null, 1, x'', \
             x'7b7d', null, 0, 0 from json_each('[1,2,3,4,5,6]')",
        )
        .await;
    bench.commit(vec![received(plain, MessageId::new())]).await;
    let retention = Retention {
        rows_max: 10,
        ..Retention::default()
    };
    let mut removed = Vec::new();
    loop {
        let swept = bench.sweep(&retention).await.unwrap();
        removed.push((swept.inbox, swept.history, swept.tombstones));
        if !swept.is_full {
            break;
        }
    }
    assert_eq!(removed, [(10, 10, 3), (10, 10, 0), (5, 5, 0)]);
    let counts = bench.counts().await.unwrap();
    assert_eq!((counts.inbox, counts.history), (1, 1));
    assert_eq!((counts.running, counts.completed), (3, 0));
}

#[tokio::test]
async fn a_commit_of_another_process_wakes_and_our_own_leased_rows_do_not() {
    let bench = Bench::new().await;
    let mut wakeups = bench.attached.wakeups.clone();
    let other = SqliteStore::open(bench.folder.file()).await.unwrap();
    // The watch takes its first look before there is anything to see.
    let mut second = other
        .attach(&registration(), &bench.lifecycle)
        .await
        .unwrap();
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, wakeups.changed())
        .await
        .expect("attaching is a commit too")
        .unwrap();

    second.wakeups.mark_unchanged();
    wakeups.mark_unchanged();
    let group = bench.group(Birth::Leased, vec![sends(vec![message("mine")])]);
    bench.store.commit(&group).await.unwrap();
    tokio::time::timeout(patience, second.wakeups.changed())
        .await
        .expect("another process's commit wakes")
        .unwrap();
    assert!(!wakeups.has_changed().unwrap(), "nothing is left to claim");

    let group = bench.group(Birth::Available, vec![sends(vec![message("any")])]);
    bench.store.commit(&group).await.unwrap();
    assert!(wakeups.has_changed().unwrap());
    assert_eq!(name("plain").as_str(), "plain");
    assert!(bench.lifecycle.stop(patience).await);
}
