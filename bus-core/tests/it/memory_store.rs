//! What only a store whose time can be stopped is able to show: the minutes of the contract.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::endpoint::EndpointName;
use sagabus_core::error::StoreError;
use sagabus_core::id::InstanceId;
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::{Claim, ClaimFrom, ClaimedRow, Scan};
use sagabus_core::unit_of_work::{Outcome, Settle, Start};
use sagabus_testkit::store::{Harness, StoreUnderTest, api, message};

const MINUTE: Duration = Duration::from_secs(60);

async fn harness() -> Arc<Harness> {
    Harness::attach("memory", StoreUnderTest::new(MemoryStore::new()), &[]).await
}

async fn claim(at: &Harness, name: &EndpointName, scan: Scan) -> Vec<ClaimedRow> {
    let claim = Claim {
        from: ClaimFrom::Endpoints(vec![(name.clone(), 10)]),
        lease: MINUTE * 60,
        scan,
    };
    at.store.claim(&claim).await.expect("a claim is answered")
}

#[tokio::test(start_paused = true)]
async fn a_hot_scan_looks_at_the_last_minute_and_a_cold_one_at_everything() {
    let at = harness().await;
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    tokio::time::advance(MINUTE + Duration::from_secs(1)).await;
    at.write(api().sends(message(&orders))).await;
    assert_eq!(claim(&at, &orders.name, Scan::Hot).await.len(), 1);
    assert_eq!(claim(&at, &orders.name, Scan::Cold).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_looked_at_again_after_a_minute_and_still_waits_for_its_elder() {
    let at = harness().await;
    let parcels = at.parcels();
    let follower = message(&parcels).keyed("a");
    let follower_id = follower.id();
    let both = api()
        .sends(message(&parcels).keyed("a").leased())
        .sends(follower);
    let head = at.write(both).await[0].expect("the head is due");
    for _ in 0..3 {
        tokio::time::advance(MINUTE + Duration::from_secs(1)).await;
        let rows = claim(&at, &parcels.name, Scan::Cold).await;
        assert!(rows.is_empty(), "{rows:#?}");
    }
    at.settle([Settle::Delete(head)]).await;
    let rows = claim(&at, &parcels.name, Scan::Hot).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].envelope.id, follower_id);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_time_and_not_before() {
    let at = harness().await;
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let first = at.claim_for(&orders, MINUTE).await.remove(0);
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert!(claim(&at, &orders.name, Scan::Cold).await.is_empty());
    assert_eq!(at.extend(&[first.row], MINUTE).await, 1);
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert!(claim(&at, &orders.name, Scan::Cold).await.is_empty());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(claim(&at, &orders.name, Scan::Cold).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_row_is_away_for_exactly_its_delay() {
    let at = harness().await;
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let row = at.claim_one(&orders).await.row;
    at.settle([Settle::Release {
        row,
        after: MINUTE,
        attempts: None,
        start: Start::Counted,
    }])
    .await;
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert!(claim(&at, &orders.name, Scan::Cold).await.is_empty());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(claim(&at, &orders.name, Scan::Cold).await.len(), 1);
}

#[tokio::test]
async fn a_timer_that_is_armed_already_is_refused_unless_its_unit_disarms_it() {
    let at = harness().await;
    let order = InstanceId {
        kind: "order".into(),
        key: "1".into(),
    };
    let timer = |generation| message(&at.orders()).timer(&order, "deadline", generation);
    at.write(api().moves(&order, 0).sends(timer(1))).await;

    let again = at.group([api().moves(&order, 1).sends(timer(2))]);
    let refused = at.try_commit(&again).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(at.counts().await.outbox, 1);
    // What would lose anyhow is told that it lost.
    let stale = api().moves(&order, 0).sends(timer(2));
    assert_eq!(at.outcome(stale).await, Outcome::Conflict);
    let disarmed = api().moves(&order, 1).disarms(&["deadline"]);
    at.write(disarmed.sends(timer(2))).await;
    assert_eq!(at.counts().await.outbox, 1);
}
