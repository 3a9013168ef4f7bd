//! What a user's own test of a saga can say.

use std::time::Duration;

use sagabus_core::State;
use sagabus_saga::saga;
use sagabus_testkit::bus::Log;
use sagabus_testkit::saga::SagaTest;

use crate::order::{
    Order, OrderClosed, OrderShipped, PaymentTaken, PlaceOrder, Remark, Stage, TakePayment,
    order_machine,
};
use crate::shipping::{Hurry, OrderPacked, OrderPaid, Shipped, Shipping, TookTooLong};

const DEADLINE: Duration = Duration::from_secs(15 * 60);

fn orders() -> SagaTest {
    SagaTest::machine("order", || order_machine(DEADLINE))
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
