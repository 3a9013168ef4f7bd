//! What a user's own test of a saga can say.

use std::time::Duration;

use sagabus_core::State;
use sagabus_saga::saga;
use sagabus_testkit::bus::Log;
use sagabus_testkit::saga::{Point, SagaTest};

use crate::order::{
    Order, OrderClosed, OrderShipped, PaymentTaken, PlaceOrder, Remark, Stage, TakePayment,
    order_machine,
};
use crate::shipping::{Hurry, OrderPacked, OrderPaid, Shipped, Shipping, TookTooLong};
use crate::stores::everywhere;

const DEADLINE: Duration = Duration::from_secs(15 * 60);

fn orders() -> SagaTest {
    SagaTest::machine("order", || order_machine(DEADLINE))
}

#[test]
fn one_scenario_runs_in_memory_and_on_databases() {
    everywhere(orders, |mut test| {
        test.when(PlaceOrder { id: 7 });
        test.then_state(7, Some(Stage::Paying));
        test.then_timers(7, &["payment-deadline"]);
        test.when_twice(Remark { id: 7 });
        test.when_together((0..9).map(|_| Remark { id: 7 }));
        assert_eq!(test.data::<Order>(7).remarks, 10);
        test.advance(DEADLINE - Duration::from_secs(60));
        test.then_state(7, Some(Stage::Paying));
        test.when(PlaceOrder { id: 8 });
        test.advance(Duration::from_secs(120));
        test.then_over(7);
        test.then_state(8, Some(Stage::Paying));
        test.then_timers(8, &["payment-deadline"]);
        assert_eq!(test.sent::<OrderClosed>().len(), 1);
        test.when(PaymentTaken { id: 7 });
        assert_eq!(test.dead_letters()[0].reason, "too_late");
        test.advance(DEADLINE);
        test.then_over(8);
        assert_eq!(test.sent::<OrderClosed>().len(), 2);
    });
}

#[test]
fn a_message_that_overtakes_the_one_before_it_finds_its_instance() {
    everywhere(orders, |mut test| {
        test.post(PaymentTaken { id: 7 });
        test.when(PlaceOrder { id: 7 });
        test.then_state(7, Some(Stage::Shipping));
        assert!(test.dead_letters().is_empty());
    });
}

/// Unless the machine says otherwise: half a minute.
#[test]
fn a_message_that_comes_too_early_waits_for_half_a_minute() {
    everywhere(orders, |mut test| {
        test.when(PaymentTaken { id: 8 });
        let dead = test.dead_letters();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].reason, "no_instance");
        // Pauses that double from 50 ms on (6.35 s), four of 5 s, and one of the rest: 30 s.
        let tries = dead[0].attempts.len();
        assert_eq!(tries, 1 + 7 + 4 + 1, "{:?}", dead[0].attempts);
    });
}

#[test]
fn a_host_may_die_at_every_point_of_a_message() {
    const POINTS: [Point; 6] = [
        Point::AfterClaim,
        Point::Decoded,
        Point::Loaded,
        Point::Handled,
        Point::BeforeCommit,
        Point::AfterCommit,
    ];
    everywhere(orders, |mut test| {
        for (id, point) in (1..).zip(POINTS) {
            test.when(PlaceOrder { id });
            test.crash_after(point);
            test.when(PaymentTaken { id });
            test.then_state(id, Some(Stage::Shipping));
            assert_eq!(test.instance(id).map(|one| one.version), Some(2));
        }
        test.when(PlaceOrder { id: 100 });
        test.crash_after(Point::AfterCommit);
        test.advance(DEADLINE);
        test.then_over(100);
        assert_eq!(test.sent::<TakePayment>().len(), 7);
        assert_eq!(test.sent::<OrderClosed>().len(), 1);
        assert!(test.dead_letters().is_empty());
    });
}

/// Returns the words with which something fails.
fn words_of(failing: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let failure = std::panic::catch_unwind(failing).unwrap_err();
    *failure.downcast::<String>().unwrap()
}

#[test]
fn a_failed_check_says_what_happened() {
    let words = words_of(|| {
        let mut test = orders();
        test.when(PlaceOrder { id: 7 });
        test.when(OrderShipped { id: 7 });
        test.then_state(7, Some(Stage::Shipping));
    });
    for fact in [
        "order/7 is elsewhere",
        "v1 orders.place: - -> paying, sent payments.take, orders.payment-timed-out",
        "the timer `payment-deadline`",
        "shipping.shipped: event_not_accepted_in_state",
    ] {
        assert!(words.contains(fact), "{fact}: {words}");
    }
}

#[test]
fn a_crash_that_never_comes_is_a_failed_test() {
    let words = words_of(|| {
        let mut test = orders();
        test.crash_after(Point::AfterPublish);
        test.when(PlaceOrder { id: 7 });
    });
    assert!(words.contains("never came to `after_publish`"), "{words}");
}

#[test]
fn a_machine_is_led_through_its_states() {
    let mut test = orders();
    test.when(PlaceOrder { id: 7 });
    test.then_state(7, Some(Stage::Paying));
    test.then_timers(7, &["payment-deadline"]);
    assert_eq!(test.sent::<TakePayment>().len(), 1);
    test.when(PaymentTaken { id: 7 });
    test.then_state(7, Some(Stage::Shipping));
    test.then_timers(7, &[]);
    test.when(OrderShipped { id: 7 });
    test.then_over(7);
    assert_eq!(test.sent_types(), ["payments.take", "orders.closed"]);
    assert!(test.dead_letters().is_empty());
}

#[test]
fn time_passes_only_when_the_test_says_so() {
    let mut test = orders();
    test.when(PlaceOrder { id: 1 });
    test.advance(DEADLINE - Duration::from_secs(1));
    test.then_state(1, Some(Stage::Paying));
    test.advance(Duration::from_secs(2));
    test.then_over(1);
    assert_eq!(test.sent::<OrderClosed>().len(), 1);
    test.when(PaymentTaken { id: 1 });
    assert_eq!(test.dead_letters()[0].reason, "too_late");
}

#[test]
fn an_instance_can_be_put_in_place_and_messages_come_twice_and_together() {
    let mut test = orders();
    test.given(3, Some(Stage::Paying), &Order { id: 3, remarks: 40 });
    test.when_twice(Remark { id: 3 });
    assert_eq!(test.data::<Order>(3).remarks, 41);
    test.when_together((0..9).map(|_| Remark { id: 3 }));
    assert_eq!(test.data::<Order>(3).remarks, 50);
    assert_eq!(test.instance(3).map(|one| one.version), Some(11));
}

#[test]
fn a_host_may_die_between_two_messages() {
    let mut test = orders();
    test.when(PlaceOrder { id: 5 });
    test.crash();
    test.when(PaymentTaken { id: 5 });
    test.then_state(5, Some(Stage::Shipping));
    test.crash();
    test.when(OrderShipped { id: 5 });
    test.then_over(5);
    assert_eq!(test.sent::<OrderClosed>().len(), 1);
}

#[test]
fn a_saga_with_what_it_uses_is_tested_too() {
    let log = Log::default();
    let given = log.clone();
    let shipping = || {
        saga::<Shipping>()
            .starts_with::<OrderPaid>()
            .starts_with::<OrderPacked>()
            .on::<Hurry>()
            .on::<TookTooLong>()
            .uses::<State<Log>>()
    };
    let mut test = SagaTest::saga("shipping", shipping)
        .with(move |host| host.state(given.clone()))
        .receives::<Shipped>();
    test.when(OrderPaid { id: 1 });
    test.then_timers(1, &["patience"]);
    test.when(OrderPacked { id: 1 });
    test.then_over(1);
    assert_eq!(test.sent::<Shipped>().len(), 1);
    test.when(OrderPaid { id: 2 });
    test.advance(Duration::from_secs(3601));
    assert_eq!(log.lines(), ["2 took too long"]);
}
