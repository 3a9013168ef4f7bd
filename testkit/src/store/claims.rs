//! Who gets a row, and for how long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::backlog::{Backlog, Measure, Wanted};
use sagabus_core::envelope::Due;
use sagabus_core::id::MessageId;
use sagabus_core::store::{Birth, Claim, ClaimFrom, Scan};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::{Outcome, Reason, RowKey, Settle};
use tokio::time::Instant;

use super::build::{Plan, api, message, message_to_address, row};
use super::harness::{HOUR, Harness, claim, endpoint_name, instance};
use crate::wait::{eventually, grow_older};

/// Sends many messages in one unit.
fn many(count: usize, make: impl Fn() -> super::Message) -> Plan {
    (0..count).fold(api(), |plan, _| plan.sends(make()))
}

/// What is taken stays taken until its lease ends.
pub async fn a_claimed_row_is_not_claimed_again(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(many(3, || message(&orders))).await;
    assert_eq!(at.claim(&orders).await.len(), 3);
    assert!(at.claim(&orders).await.is_empty());
    assert!(claim(&*at.peer, &[(&orders, 9)], HOUR).await.is_empty());
}

/// Also when they come at the same moment, through different connections.
pub async fn two_claims_never_return_the_same_row(at: Arc<Harness>) {
    const ROWS: usize = 400;
    let orders = at.orders();
    at.write(many(ROWS, || message(&orders))).await;

    let mut claimers = Vec::new();
    for index in 0..4 {
        let (at, orders) = (Arc::clone(&at), orders.clone());
        claimers.push(tokio::task::spawn_blocking(move || {
            let store = if index % 2 == 0 { &at.store } else { &at.peer };
            let mut mine: Vec<RowKey> = Vec::new();
            let work = async {
                let mut empty_count = 0;
                // Others' locks hide rows for a moment; three looks in a row that find nothing
                // mean that there is nothing.
                while empty_count < 3 {
                    let rows = claim(&**store, &[(&orders, 7)], HOUR).await;
                    empty_count = if rows.is_empty() { empty_count + 1 } else { 0 };
                    mine.extend(rows.iter().map(|one| one.row));
                }
            };
            tokio::runtime::Handle::current().block_on(work);
            mine
        }));
    }
    let mut seen = HashSet::new();
    for claimer in claimers {
        for key in claimer.await.expect("a claimer ends by itself") {
            assert_eq!(key.epoch, 1);
            assert!(seen.insert(key.id), "row {} was claimed twice", key.id);
        }
    }
    assert_eq!(seen.len(), ROWS, "no row is forgotten");
}

/// Each endpoint has its own number, and no other endpoint is touched.
pub async fn a_claim_takes_what_it_asks_for_and_no_more(at: Arc<Harness>) {
    let (orders, audit, parcels) = (at.orders(), at.audit(), at.parcels());
    for endpoint in [&orders, &audit, &parcels] {
        at.write(many(5, || message(endpoint))).await;
    }
    let rows = claim(&*at.store, &[(&orders, 3), (&audit, 2)], HOUR).await;
    let of = |name: &str| rows.iter().filter(|one| one.destination == name).count();
    assert_eq!((of("@orders"), of("@audit"), rows.len()), (3, 2, 5));

    let rest = claim(
        &*at.store,
        &[(&orders, 9), (&audit, 0), (&parcels, 1)],
        HOUR,
    )
    .await;
    let of = |name: &str| rest.iter().filter(|one| one.destination == name).count();
    assert_eq!((of("@orders"), of("@parcels"), rest.len()), (2, 1, 3));
}

/// A claim of nothing, and of an endpoint that nobody registered, is answered.
pub async fn a_claim_of_nothing_is_answered(at: Arc<Harness>) {
    assert!(claim(&*at.store, &[], HOUR).await.is_empty());
    let claim = Claim {
        from: ClaimFrom::Endpoints(vec![(endpoint_name("nobody"), 10)]),
        lease: HOUR,
        scan: Scan::Hot,
    };
    let rows = at.store.claim(&claim).await.expect("a claim is answered");
    assert!(rows.is_empty());
}

/// Both scans find what has just become due; which one looks further is a matter of cost.
pub async fn hot_and_cold_scans_find_what_is_due(at: Arc<Harness>) {
    let orders = at.orders();
    for scan in [Scan::Hot, Scan::Cold] {
        at.write(many(2, || message(&orders))).await;
        at.write(api().sends(message(&orders).due(Due::After(HOUR))))
            .await;
        let claim = Claim {
            from: ClaimFrom::Endpoints(vec![(orders.name.clone(), 10)]),
            lease: HOUR,
            scan,
        };
        let rows = at.store.claim(&claim).await.expect("a claim is answered");
        assert_eq!(rows.len(), 2, "{scan:?}");
    }
}

/// What waits longest goes first.
pub async fn what_waits_longest_is_claimed_first(at: Arc<Harness>) {
    let orders = at.orders();
    let mut ids = Vec::new();
    for _ in 0..6 {
        let sent = message(&orders);
        ids.push(sent.id());
        at.write(api().sends(sent)).await;
        grow_older(Duration::from_millis(2)).await;
    }
    let mut claimed: Vec<MessageId> = Vec::new();
    for _ in 0..3 {
        let mut rows = claim(&*at.store, &[(&orders, 2)], HOUR).await;
        rows.sort_by_key(|one| one.row.id);
        claimed.extend(rows.iter().map(|one| one.envelope.id));
    }
    assert_eq!(claimed, ids);
}

/// A host that dies holds nothing for ever; what it held is counted as started.
pub async fn a_lease_that_ends_lets_another_host_claim(at: Arc<Harness>) {
    let orders = at.orders();
    let lease = Duration::from_millis(300);
    at.write(api().sends(message(&orders))).await;
    let started = Instant::now();
    let first = super::harness::one(at.claim_for(&orders, lease).await);

    let look = || async { claim(&*at.peer, &[(&orders, 1)], HOUR).await.pop() };
    let (second, _) = eventually("row whose lease ended", look).await;
    assert!(started.elapsed() >= lease, "{:?}", started.elapsed());
    assert_eq!(second.row.id, first.row.id);
    assert_eq!((second.row.epoch, second.starts), (2, 2));
    assert_eq!(second.failures, 0);

    let late = row(first.row).sends(message(&orders));
    assert_eq!(at.outcome(late).await, Outcome::Duplicate);
    assert_eq!(at.outcome(row(second.row)).await, Outcome::Committed);
}

/// A long handler keeps its row, from the moment of extending on.
pub async fn extending_keeps_rows_ours(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(many(2, || message(&orders))).await;
    let rows = at.claim_for(&orders, Duration::from_millis(500)).await;
    let keys: Vec<_> = rows.iter().map(|one| one.row).collect();
    let longer = Duration::from_millis(1200);
    let extended = Instant::now();
    assert_eq!(at.extend(&keys, longer).await, 2);

    let look = || async { claim(&*at.peer, &[(&orders, 9)], HOUR).await.pop() };
    let (claimed, _) = eventually("row whose extended lease ended", look).await;
    assert!(extended.elapsed() >= longer, "{:?}", extended.elapsed());
    assert_eq!(claimed.row.epoch, 2, "extending is no claim");
}

/// What was settled, or claimed by others since, is not counted and not touched.
pub async fn extending_counts_only_what_is_still_ours(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(many(3, || message(&orders))).await;
    let keys: Vec<_> = at.claim(&orders).await.iter().map(|one| one.row).collect();
    at.settle([Settle::Delete(keys[0])]).await;
    let old = RowKey {
        epoch: keys[1].epoch - 1,
        ..keys[1]
    };
    assert_eq!(at.extend(&[keys[0], old, keys[2]], HOUR).await, 1);
    assert_eq!(at.extend(&[], HOUR).await, 0);
    assert_eq!(
        at.extend(&keys, HOUR).await,
        2,
        "extending again is harmless"
    );
}

/// Whoever gets it is told that nobody wants it any more.
pub async fn expired_rows_are_marked(at: Arc<Harness>) {
    let orders = at.orders();
    let brief = Duration::from_millis(50);
    let plan = api()
        .sends(message(&orders).expires_after(brief).keyed("brief"))
        .sends(message(&orders).expires_after(HOUR).keyed("long"))
        .sends(message(&orders).keyed("for ever"));
    at.write(plan).await;
    grow_older(brief * 3).await;
    let rows = at.claim(&orders).await;
    assert_eq!(rows.len(), 3);
    for one in rows {
        let is_brief = one.key.as_deref() == Some("brief");
        assert_eq!(one.is_expired, is_brief, "{:?}", one.key);
    }
}

/// How long it is wanted is counted from when it may be received, not from when it was written.
pub async fn a_message_that_was_not_due_has_not_expired(at: Arc<Harness>) {
    let orders = at.orders();
    let time = Duration::from_millis(1_500);
    let sent = message(&orders).due(Due::After(time)).expires_after(time);
    at.write(api().sends(sent)).await;
    let look = || async { at.claim(&orders).await.pop() };
    let (claimed, _) = eventually("message that is due", look).await;
    assert!(!claimed.is_expired);
}

/// The relay takes every address, and no endpoint.
pub async fn transports_get_addresses_and_endpoints_get_rows(at: Arc<Harness>) {
    let orders = at.orders();
    let plan = api()
        .sends(message_to_address("exchange:orders"))
        .sends(message(&orders))
        .sends(message_to_address("topic/audit"));
    at.write(plan).await;
    let mut addresses: Vec<_> = at
        .claim_for_transport(10, 10, &[])
        .await
        .into_iter()
        .map(|one| one.destination)
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["exchange:orders", "topic/audit"]);
    assert_eq!(at.claim_one(&orders).await.destination, "@orders");
}

/// One address with much to do leaves room for the others, and a broken one is left alone.
pub async fn a_claim_for_transports_keeps_its_bounds(at: Arc<Harness>) {
    for (address, count) in [("busy", 10), ("calm", 2), ("down", 10)] {
        at.write(many(count, || message_to_address(address))).await;
    }
    let of = |rows: &[sagabus_core::store::ClaimedRow], address: &str| {
        rows.iter().filter(|one| one.destination == address).count()
    };
    let rows = at.claim_for_transport(100, 4, &[("down", 0)]).await;
    assert_eq!(
        (of(&rows, "busy"), of(&rows, "calm"), rows.len()),
        (4, 2, 6)
    );

    let rows = at.claim_for_transport(3, 100, &[("down", 0)]).await;
    assert_eq!((of(&rows, "busy"), rows.len()), (3, 3));

    // One that is tried again gets as many as it is trusted with; a bound is no wish for more.
    let bounds = [("down", 2), ("busy", 9)];
    let rows = at.claim_for_transport(100, 1, &bounds).await;
    assert_eq!(
        (of(&rows, "busy"), of(&rows, "down"), rows.len()),
        (1, 1, 2)
    );
    let rows = at.claim_for_transport(100, 100, &bounds).await;
    assert_eq!(
        (of(&rows, "busy"), of(&rows, "down"), rows.len()),
        (2, 2, 4)
    );
    let rows = at.claim_for_transport(100, 100, &[]).await;
    assert_eq!((of(&rows, "down"), rows.len()), (7, 7));
}

/// A broker that is down fills nobody else's claims, and a host without it leaves its rows alone.
pub async fn a_claim_for_a_transport_takes_its_rows_and_no_others(at: Arc<Harness>) {
    let name = |name: &str| TransportName::new(name).expect("it is a name");
    let plan = api()
        .sends(message_to_address("event/a"))
        .sends(message_to_address(":archive:event/a"))
        .sends(message_to_address(":archive:event/b"))
        .sends(message_to_address(":archive-old:event/a"))
        .sends(message_to_address(":zoo:event/a"))
        .sends(message_to_address("zoo"))
        .sends(message(&at.orders()));
    at.write(plan).await;
    let addresses = |rows: Vec<sagabus_core::store::ClaimedRow>| {
        let mut addresses: Vec<_> = rows.into_iter().map(|one| one.destination).collect();
        addresses.sort();
        addresses
    };
    let none = at.claim_by(name("attic"), 10, 10, &[]).await;
    assert!(none.is_empty(), "{none:?}");
    let except = [(":archive:event/a", 0)];
    let some = at.claim_by(name("archive"), 10, 10, &except).await;
    assert_eq!(addresses(some), [":archive:event/b"]);
    let rest = at.claim_by(name("archive"), 10, 10, &[]).await;
    assert_eq!(addresses(rest), [":archive:event/a"]);
    let default = at.claim_for_transport(10, 10, &[]).await;
    assert_eq!(addresses(default), ["event/a", "zoo"]);
    let last = at.claim_by(name("zoo"), 10, 10, &[]).await;
    assert_eq!(addresses(last), [":zoo:event/a"]);
    let old = at.claim_by(name("archive-old"), 10, 10, &[]).await;
    assert_eq!(addresses(old), [":archive-old:event/a"]);
}

/// A host asks with its heartbeat: how many messages an endpoint has, and for how long the longest
/// due of all could have been taken.
pub async fn what_waits_is_measured(at: Arc<Harness>) {
    let (orders, parcels) = (at.orders(), at.parcels());
    let asked = |limit| Measure {
        endpoints: vec![(orders.name.clone(), limit), (parcels.name.clone(), limit)],
        oldest: Wanted::Yes,
    };
    let nothing = at.measure(asked(9)).await;
    assert_eq!((nothing.counts, nothing.oldest), (vec![0, 0], None));
    assert_eq!(at.measure(Measure::default()).await, Backlog::default());

    // A timer is nobody's backlog; what waits for another try is, and so is what is in hand.
    let id = instance("one");
    let timer = message(&orders).timer(&id, "deadline", 1);
    at.write(api().sends(timer.due(Due::After(HOUR)))).await;
    let later = message(&orders).due(Due::After(HOUR));
    at.write(api().sends(later)).await;
    at.write(api().sends(message(&orders).leased())).await;
    at.write(api().sends(message(&orders).born(Birth::Parked(Reason::NoOwner))))
        .await;
    let counted = at.measure(asked(9)).await;
    assert_eq!((counted.counts, counted.oldest), (vec![2, 0], None));

    at.write(api().sends(message(&parcels))).await;
    let waited = Duration::from_millis(120);
    grow_older(waited).await;
    at.write(api().sends(message_to_address("shop.orders")))
        .await;
    let measured = at.measure(asked(1)).await;
    assert_eq!(measured.counts, [1, 1], "no more is counted than asked");
    let (destination, age) = measured.oldest.expect("something could be taken");
    assert_eq!(destination, "@parcels");
    assert!(age >= waited && age < HOUR, "{age:?}");
    at.claim(&parcels).await;
    let measured = at.measure(asked(1)).await;
    let (destination, age) = measured.oldest.expect("something could be taken");
    assert!(
        destination == "shop.orders" && age < HOUR,
        "{destination} {age:?}"
    );
}
