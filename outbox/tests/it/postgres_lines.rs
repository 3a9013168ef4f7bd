//! Order per key where a claim, or another settle, meets a settle that has not committed: its
//! statements are run one by one, so that what is a matter of microseconds happens every time.

use sagabus_core::store::Store;
use sagabus_core::unit_of_work::{RowKey, Source, UnitOfWork};
use sagabus_testkit::wait::eventually;
use sqlx::postgres::PgConnection;

use crate::postgres_support::Database;
use crate::postgres_units::{Site, outgoing};

/// A database with a line of three rows, all of which may be claimed, and their ids.
async fn line() -> Option<(Database, Site, Vec<i64>)> {
    let (database, store) = Database::migrated().await?;
    let site = Site::new(store).await;
    let mut unit = UnitOfWork::default();
    for body in ["first", "second", "third"] {
        let mut one = outgoing(body);
        one.key = Some("a".to_owned());
        unit.outgoing.push(one);
    }
    site.store
        .commit(&site.group_to("parcels", vec![unit]))
        .await
        .unwrap();
    let mut connection = database.connection().await;
    let ids = sqlx::query_scalar("select id from sagabus.outbox order by id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    Some((database, site, ids))
}

/// Runs a settle's statements up to its commit: the row goes, and what comes next is pulled.
async fn settle_without_commit(database: &Database, id: i64) -> PgConnection {
    let mut settle = database.connection().await;
    sqlx::raw_sql("begin").execute(&mut settle).await.unwrap();
    sqlx::query("delete from sagabus.outbox where id = $1")
        .bind(id)
        .execute(&mut settle)
        .await
        .unwrap();
    sqlx::query("select sagabus.pull_v1(array['@parcels'], array['a'])")
        .execute(&mut settle)
        .await
        .unwrap();
    settle
}

async fn commit(mut settle: PgConnection) {
    sqlx::raw_sql("commit").execute(&mut settle).await.unwrap();
}

/// Claims the line's head as soon as it is given: long before the minutes are over for which a
/// follower is deferred.
async fn claim_soon(site: &Site) -> RowKey {
    let look = || async {
        let rows = site.claim("parcels", 10).await;
        rows.first().map(|row| row.row)
    };
    let (row, _) = eventually("row at the head of its line", look).await;
    row
}

#[tokio::test]
async fn a_row_claimed_while_the_one_before_it_goes_is_not_left_behind() {
    let Some((database, site, ids)) = line().await else {
        return;
    };
    let head = claim_soon(&site).await;
    assert_eq!(head.id, ids[0]);
    // As a transaction writes it that cannot know whether the head is about to go.
    database
        .run("update sagabus.outbox set available_at = 0 where epoch = 0")
        .await;
    let settle = settle_without_commit(&database, head.id).await;
    let rows = site.claim("parcels", 10).await;
    assert!(rows.is_empty(), "the head is still there: {rows:?}");
    commit(settle).await;

    let next = claim_soon(&site).await;
    assert_eq!(next.id, ids[1]);
    site.stop().await;
}

#[tokio::test]
async fn whoever_goes_last_of_two_pulls_the_row_behind_both() {
    let Some((database, site, ids)) = line().await else {
        return;
    };
    // Two transactions that knew nothing of each other left two rows in hand. A third one comes
    // when the first of them has pulled already, and knows of the second, which is still there.
    database
        .run(
            "update sagabus.outbox set epoch = 1, starts = 1, available_at = available_at + 3600000000 \
             where id <> (select max(id) from sagabus.outbox); \
             update sagabus.outbox set available_at = available_at + 300000000, parked = 'not yet' \
             where epoch = 0",
        )
        .await;
    let first = settle_without_commit(&database, ids[0]).await;
    database
        .run("update sagabus.outbox set parked = null where parked = 'not yet'")
        .await;
    let second = settle_without_commit(&database, ids[1]).await;
    commit(first).await;
    commit(second).await;

    let third = claim_soon(&site).await;
    assert_eq!(third.id, ids[2]);
    let source = vec![Source::Row(third)];
    let unit = UnitOfWork {
        sources: source,
        ..UnitOfWork::default()
    };
    site.store
        .commit(&site.group_to("parcels", vec![unit]))
        .await
        .unwrap();
    assert_eq!(
        database.number("select count(*) from sagabus.outbox").await,
        0
    );
    site.stop().await;
}
