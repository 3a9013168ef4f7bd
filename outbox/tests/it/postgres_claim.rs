//! Claims of a long backlog, each of which begins where the one before it ended.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sagabus_core::store::{Claim, ClaimFrom, ClaimedRow, Scan, Store};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::{Settle, Start};

use super::postgres_support::Database;
use super::postgres_units::Site;

/// For an endpoint 400 rows, and as many for a broker: at three addresses, of which one has four.
const BACKLOG: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at) select gen_random_uuid(), 'shop.order-placed', \
    case t when 0 then '@orders' else \
        case when n % 100 = 0 then 'event/rare' when n % 2 = 0 then 'event/even' \
        else 'event/odd' end end, \
    '{}', '{}', 1000 + n / 7, 0 from generate_series(1, 400) n, generate_series(0, 1) t";

/// Rows that are due before all others, and become visible after they were claimed.
const LATE: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at) select gen_random_uuid(), 'shop.late', d, '{}', '{}', 1, 0 \
    from unnest(array['@orders', 'event/even']) d";

/// Rows of one claim. Seven become available at the same time, so that claims end between them.
const EACH: u32 = 10;

/// Who claims.
#[derive(Clone, Copy, Debug)]
enum By {
    Endpoint,
    /// With this many rows of one address at most.
    Relay(u32),
}

async fn claim(site: &Site, by: By, limit: u32) -> Vec<ClaimedRow> {
    let By::Relay(per_address) = by else {
        return site.claim("orders", limit).await;
    };
    let claim = Claim {
        from: ClaimFrom::Transport {
            name: TransportName::default(),
            limit,
            per_address,
            bounds: Vec::new(),
        },
        lease: Duration::from_secs(30),
        scan: Scan::Cold,
    };
    site.store.claim(&claim).await.unwrap()
}

fn is_late(row: &ClaimedRow) -> bool {
    &*row.envelope.message_type == "shop.late"
}

#[tokio::test]
async fn what_becomes_available_behind_a_claim_is_found_before_the_backlog_ends() {
    for by in [By::Endpoint, By::Relay(EACH), By::Relay(EACH / 2)] {
        let Some((database, store)) = Database::migrated().await else {
            return;
        };
        let site = Site::new(store).await;
        database.run(BACKLOG).await;
        let mut claimed = claim(&site, by, EACH).await;
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
            let more = claim(&site, by, EACH).await;
            if more.is_empty() {
                break;
            }
            if more.iter().any(is_late) {
                late_at = Some(n);
            }
            claimed.extend(more);
        }
        let ids: HashSet<i64> = claimed.iter().map(|one| one.row.id).collect();
        assert_eq!((claimed.len(), ids.len()), (401, 401), "{by:?}");
        let late_at = late_at.expect("the late row is found");
        assert!(late_at < 40, "{by:?}: found by claim {late_at} of 41");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_claim_that_finds_too_few_behind_its_mark_looks_from_the_front_at_once() {
    for by in [By::Endpoint, By::Relay(400)] {
        let Some((database, store)) = Database::migrated().await else {
            return;
        };
        let site = Site::new(store).await;
        database.run(BACKLOG).await;
        assert_eq!(claim(&site, by, 395).await.len(), 395, "{by:?}");
        database.run(LATE).await;
        let rest = claim(&site, by, EACH).await;
        assert_eq!(
            rest.len(),
            6,
            "{by:?}: five of the backlog, and the late one"
        );
        assert!(claim(&site, by, EACH).await.is_empty(), "{by:?}");
        site.stop().await;
    }
}

#[tokio::test]
async fn no_claim_gives_more_rows_of_one_address_than_it_was_asked_for() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    database.run(BACKLOG).await;
    let mut claims = 0;
    loop {
        let claimed = claim(&site, By::Relay(EACH), 10 * EACH).await;
        if claimed.is_empty() {
            break;
        }
        claims += 1;
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for row in &claimed {
            *counts.entry(&row.destination).or_default() += 1;
        }
        let most = counts.values().copied().max();
        assert_eq!(most, Some(EACH), "claim {claims}: {counts:?}");
    }
    // 200 rows of one address, ten by ten.
    assert_eq!(claims, 20);
    site.stop().await;
}
