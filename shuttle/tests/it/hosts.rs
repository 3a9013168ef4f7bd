//! Lanes, loader, committer, relay and shutdown of whole hosts.

use std::time::Duration;

use sagabus_shuttle::sync::time;

use super::orders::in_many_orders;
use super::workload::{Place, all, send_all};

/// Far beyond what passes.
const LONG: Duration = Duration::from_secs(3600);
/// What passes at any moment where polls do.
const POLLS: Duration = Duration::from_secs(1);
/// What passes where they do not: pauses between tries, and looks of a host that stops.
const PAUSES: Duration = Duration::from_millis(150);

/// One host handles everything, once and in order, and stops: without polls, so that each step
/// depends on its wake-up.
async fn handles_everything(has_broker: bool, passes: Duration) {
    time::passes(passes);
    let place = Place::new(has_broker);
    let host = place.start("one", LONG).await;
    send_all(&host.bus()).await;
    place.handled.until_told(all().len()).await;
    assert!(host.stop(LONG).await, "everything in hand is finished");
    assert_eq!(place.handled.told(), all(), "each once");
    place.handled.assert_in_order();
    assert_eq!(place.store.due_count(), 0, "no row is left");
}

#[test]
fn every_wake_up_comes_where_the_database_is_the_bus() {
    in_many_orders(|| handles_everything(false, PAUSES));
}

#[test]
fn every_wake_up_comes_where_a_broker_carries_the_messages() {
    in_many_orders(|| handles_everything(true, PAUSES));
}

#[test]
fn polls_and_pauses_may_end_at_any_moment() {
    in_many_orders(|| handles_everything(false, POLLS));
}

/// A host is told to stop in the middle of everything, and ends; another one finishes.
async fn stops_and_another_goes_on(has_broker: bool) {
    time::passes(PAUSES);
    let place = Place::new(has_broker);
    let first = place.start("one", LONG).await;
    send_all(&first.bus()).await;
    assert!(first.stop(LONG).await, "a stop finishes what is in hand");
    let second = place.start("two", LONG).await;
    place.handled.until_told(all().len()).await;
    assert!(second.stop(LONG).await);
    assert_eq!(
        place.handled.told(),
        all(),
        "a planned stop repeats nothing"
    );
    place.handled.assert_in_order();
    assert_eq!(place.store.due_count(), 0, "no row is left");
}

#[test]
fn a_host_that_stops_in_the_middle_leaves_the_rest_to_another() {
    in_many_orders(|| stops_and_another_goes_on(false));
}

#[test]
fn a_host_that_stops_in_the_middle_leaves_the_rest_to_another_at_the_broker() {
    in_many_orders(|| stops_and_another_goes_on(true));
}
