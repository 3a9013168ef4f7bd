//! Order per key: only the oldest row of a key moves.

use std::time::Duration;

use sagabus_core::envelope::Due;
use sagabus_core::store::{Birth, Store};
use sagabus_core::unit_of_work::{Reason, Settle, Start};

use crate::sqlite_support::{Bench, answers, bodies, due, keyed, order, sends};

#[tokio::test]
async fn rows_of_one_key_come_one_after_the_other_and_other_keys_pass() {
    let bench = Bench::new().await;
    let sent = [
        keyed("a", "a1"),
        keyed("a", "a2"),
        keyed("b", "b1"),
        keyed("a", "a3"),
    ];
    bench.commit(vec![sends(sent.to_vec())]).await;
    let first = bench.claim("keyed", 10).await;
    assert_eq!(bodies(&first), ["a1", "b1"]);
    assert!(bench.claim("keyed", 10).await.is_empty());

    bench.commit(vec![answers(&first[0])]).await;
    let second = bench.claim("keyed", 10).await;
    assert_eq!(bodies(&second), ["a2"]);
    let park = Settle::Park {
        row: second[0].row,
        reason: Reason::Unroutable,
        attempts: Vec::new(),
    };
    bench.settle(vec![park]).await;
    let third = bench.claim("keyed", 10).await;
    assert_eq!(bodies(&third), ["a3"]);
}

#[tokio::test]
async fn a_retried_row_holds_back_its_key() {
    let bench = Bench::new().await;
    bench
        .commit(vec![sends(vec![keyed("a", "a1"), keyed("a", "a2")])])
        .await;
    let row = bench.claim("keyed", 10).await.remove(0);
    let release = Settle::Release {
        row: row.row,
        after: Duration::from_secs(5),
        attempts: None,
        start: Start::Counted,
    };
    bench.settle(vec![release]).await;
    bench
        .change(
            "update sagabus_outbox set available_at = 1 + (select min(available_at) from \
             sagabus_outbox) - 60000000 where body = cast('a2' as blob)",
        )
        .await;
    assert!(bench.claim("keyed", 10).await.is_empty());
    let put_off = "select available_at > 50000000 + unixepoch('subsec') * 1000000 \
                   from sagabus_outbox where body = cast('a2' as blob)";
    assert_eq!(bench.ask(put_off).await, 1);
}

#[tokio::test]
async fn a_row_that_is_pulled_forward_still_waits_for_its_time() {
    let bench = Bench::new().await;
    let later = Due::After(Duration::from_secs(3600));
    let mut retried = due(keyed("a", "later"), later);
    retried.attempts = vec![sagabus_core::unit_of_work::Attempt {
        at: sagabus_core::Timestamp::from_micros(1),
        host: "h".into(),
        error: "no".into(),
        excused: 0,
    }];
    let sent = vec![keyed("a", "now"), retried];
    bench.commit(vec![sends(sent)]).await;
    let first = bench.claim("keyed", 10).await;
    assert_eq!(bodies(&first), ["now"]);
    bench.settle(vec![Settle::Delete(first[0].row)]).await;
    assert!(bench.claim("keyed", 10).await.is_empty());
    let is_kept = "select available_at > 3000000000 + unixepoch('subsec') * 1000000 \
                   from sagabus_outbox";
    assert_eq!(bench.ask(is_kept).await, 1);
}

#[tokio::test]
async fn a_unit_that_answers_a_row_and_sends_to_its_key_keeps_the_line() {
    let bench = Bench::new().await;
    bench
        .commit(vec![sends(vec![keyed("a", "a1"), keyed("a", "a2")])])
        .await;
    let first = bench.claim("keyed", 10).await.remove(0);
    let mut unit = answers(&first);
    unit.outgoing = vec![keyed("a", "a3"), keyed("b", "b1")];
    let group = bench.group(Birth::Leased, vec![unit]);
    let report = bench.store.commit(&group).await.unwrap();
    let is_leased: Vec<bool> = report.leased.iter().map(Option::is_some).collect();
    assert_eq!(is_leased, [false, true]);
    assert_eq!(bodies(&bench.claim("keyed", 10).await), ["a2"]);
}

#[tokio::test]
async fn followers_of_a_blocked_key_do_not_hold_up_other_keys() {
    let bench = Bench::new().await;
    let mut followers: Vec<_> = (0..3000).map(|n| keyed("a", &n.to_string())).collect();
    followers.push(keyed("b", "passes"));
    bench.commit(vec![sends(followers)]).await;
    // As if their minute were over, all at once, before the other key's row.
    bench
        .change(
            "update sagabus_outbox set available_at = available_at - 70000000 where id > 1 \
             and key = 'a'",
        )
        .await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        let rows = bench.claim("keyed", 10).await;
        seen.extend(bodies(&rows).into_iter().map(str::to_owned));
    }
    assert!(seen.contains(&"passes".to_owned()), "{seen:?}");
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test]
async fn a_timer_that_waits_for_its_time_holds_back_no_message() {
    let bench = Bench::new().await;
    let mut timer = due(keyed("a", "timer"), Due::After(Duration::from_secs(900)));
    timer.timer = Some(sagabus_core::envelope::Timer {
        owner: order("a"),
        name: "deadline".into(),
        generation: 1,
    });
    bench.commit(vec![sends(vec![timer])]).await;
    bench.commit(vec![sends(vec![keyed("a", "next")])]).await;
    assert_eq!(bodies(&bench.claim("keyed", 10).await), ["next"]);
}
