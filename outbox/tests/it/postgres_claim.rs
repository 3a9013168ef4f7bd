//! Claims of a long backlog, each of which begins where the one before it ended.

use std::collections::HashSet;
use std::time::Duration;

use sagabus_core::store::Store;
use sagabus_core::unit_of_work::{Settle, Start};

use super::postgres_support::Database;
use super::postgres_units::Site;

const BACKLOG: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at) select gen_random_uuid(), 'shop.order-placed', '@orders', '{}', \
    '{}', 1000 + n / 7, 0 from generate_series(1, 400) n";

/// A row that is due before all others, and becomes visible after they were claimed.
const LATE: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at) values (gen_random_uuid(), 'shop.late', '@orders', '{}', '{}', \
    1, 0)";

/// Rows of one claim. Seven become available at the same time, so that claims end between them.
const EACH: u32 = 10;

#[tokio::test]
async fn what_becomes_available_behind_a_claim_is_found_before_the_backlog_ends() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    database.run(BACKLOG).await;
    let mut claimed = site.claim("orders", EACH).await;
    // What a host gives back at once is due later than the backlog, and is not lost either.
    let mut back = site.group(Vec::new());
    back.settles = vec![Settle::Release {
        row: claimed[0].row,
        after: Duration::ZERO,
        attempts: None,
        start: Start::GivenBack,
    }];
    site.store.commit(&back).await.unwrap();
    claimed.remove(0);
    database.run(LATE).await;
    let mut late_at = None;
    for n in 0.. {
        let more = site.claim("orders", EACH).await;
        if more.is_empty() {
            break;
        }
        if more
            .iter()
            .any(|one| &*one.envelope.message_type == "shop.late")
        {
            late_at = Some(n);
        }
        claimed.extend(more);
    }
    let ids: HashSet<i64> = claimed.iter().map(|one| one.row.id).collect();
    assert_eq!((claimed.len(), ids.len()), (401, 401));
    let late_at = late_at.expect("the late row is found");
    assert!(late_at < 30, "found by claim {late_at} of 40");
    site.stop().await;
}

#[tokio::test]
async fn a_claim_that_finds_too_few_behind_its_mark_looks_from_the_front_at_once() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    database.run(BACKLOG).await;
    assert_eq!(site.claim("orders", 395).await.len(), 395);
    database.run(LATE).await;
    let rest = site.claim("orders", EACH).await;
    assert_eq!(rest.len(), 6, "five of the backlog, and the late one");
    assert!(site.claim("orders", EACH).await.is_empty());
    site.stop().await;
}
