//! Mistakes that `build()` finds.

use std::time::Duration;

use sagabus_core::Host;
use sagabus_core::memory::MemoryStore;
use sagabus_saga::{MachineEndpoint, Saga, StateMachine};

use crate::order::{Order, OrderShipped, PaymentTaken, PlaceOrder, Stage, order_machine};

/// Says what `build()` says of a machine.
fn refusal(machine: StateMachine<Order>) -> String {
    let host = Host::builder("shop").store(MemoryStore::new());
    let built = host.endpoint("orders", |e| e.machine(machine)).build();
    built.expect_err("the machine is refused").to_string()
}

fn starting() -> StateMachine<Order> {
    let start = Order::when::<PlaceOrder>().init(|e| Order {
        id: e.id,
        remarks: 0,
    });
    StateMachine::named("order").initially(start.transition_to(Stage::Paying))
}

#[test]
fn a_machine_that_nothing_starts_is_refused() {
    let machine = StateMachine::named("order")
        .during(Stage::Paying, Order::when::<PaymentTaken>().finalize());
    let error = refusal(machine);
    assert!(error.contains("nothing starts it"), "{error}");
}

#[test]
fn a_state_that_cannot_be_reached_is_refused() {
    let machine = starting()
        .during(Stage::Paying, Order::when::<PaymentTaken>().finalize())
        .during(Stage::Shipping, Order::when::<OrderShipped>().finalize());
    let error = refusal(machine);
    assert!(
        error.contains("state `shipping` cannot be reached"),
        "{error}"
    );
}

#[test]
fn a_state_that_takes_no_message_is_refused() {
    let machine = starting().during(
        Stage::Paying,
        Order::when::<PaymentTaken>().transition_to(Stage::Shipping),
    );
    let error = refusal(machine);
    assert!(
        error.contains("state `shipping` takes no message"),
        "{error}"
    );
}

#[test]
fn one_message_declared_twice_in_one_state_is_refused() {
    let machine = starting()
        .during(Stage::Paying, Order::when::<PaymentTaken>().stay())
        .during(Stage::Paying, Order::when::<PaymentTaken>().finalize());
    let error = refusal(machine);
    assert!(
        error.contains("`payments.taken` is declared twice in state `paying`"),
        "{error}"
    );
}

#[test]
fn a_machine_describes_its_states_and_transitions() {
    let description = order_machine(Duration::from_secs(1)).describe();
    assert_eq!(description["machine"], "order");
    assert_eq!(
        description["states"],
        serde_json::json!(["paying", "shipping"])
    );
    let first = &description["transitions"][0];
    assert_eq!(first["on"], "orders.place");
    assert_eq!(first["to"], "paying");
    assert_eq!(
        first["steps"],
        serde_json::json!(["send payments.take", "schedule payment-deadline"])
    );
}
