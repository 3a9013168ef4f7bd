//! Mistakes that `build()` finds.

use std::time::Duration;

use sagabus_core::Host;
use sagabus_core::memory::MemoryStore;
use sagabus_saga::machine::Steps;
use sagabus_saga::{
    Correlate, MachineEndpoint, NotReserved, Reserve, Reserved, Saga, SagaState, StateMachine,
};
use serde::{Deserialize, Serialize};

use crate::order::{
    Order, OrderShipped, PaymentTaken, PaymentTimedOut, PlaceOrder, Remark, Stage, TakePayment,
    order_machine,
};
use crate::parcel::parcel_machine;

/// Says what `build()` says of a machine.
fn refusal(machine: StateMachine<Order>) -> String {
    let host = Host::builder("shop").store(MemoryStore::new());
    let built = host.endpoint("orders", |e| e.machine(machine)).build();
    built.expect_err("the machine is refused").to_string()
}

fn order(message: &PlaceOrder) -> Order {
    let id = message.id;
    Order { id, remarks: 0 }
}

fn starting() -> StateMachine<Order> {
    let start = Order::when::<PlaceOrder>().init(order);
    StateMachine::named("order").initially(start.transition_to(Stage::Paying))
}

/// A machine that nothing is wrong with.
fn whole() -> StateMachine<Order> {
    starting()
        .during(
            Stage::Paying,
            Order::when::<PaymentTaken>().transition_to(Stage::Shipping),
        )
        .during(Stage::Shipping, Order::when::<OrderShipped>().finalize())
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
    let fact = "state `shipping` cannot be reached, so that `shipping.shipped` \
                (saga/tests/it/declared.rs:";
    assert!(error.contains(fact), "{error}");
}

#[test]
fn a_state_that_takes_no_message_is_refused() {
    let machine = starting().during(
        Stage::Paying,
        Order::when::<PaymentTaken>().transition_to(Stage::Shipping),
    );
    let error = refusal(machine);
    let fact = "state `shipping` takes no message, and `payments.taken` \
                (saga/tests/it/declared.rs:";
    assert!(error.contains(fact), "{error}");
}

#[test]
fn one_message_declared_twice_in_one_state_is_refused() {
    let machine = starting()
        .during(Stage::Paying, Order::when::<PaymentTaken>().stay())
        .during(Stage::Paying, Order::when::<PaymentTaken>().finalize());
    let error = refusal(machine);
    assert!(
        error.contains(
            "`payments.taken` is declared twice in state `paying` (saga/tests/it/declared.rs:"
        ),
        "{error}"
    );
}

#[test]
fn a_state_without_a_way_to_the_end_is_refused_unless_that_is_meant() {
    let machine = || {
        starting()
            .during(
                Stage::Paying,
                Order::when::<PaymentTaken>().transition_to(Stage::Shipping),
            )
            .during(
                Stage::Shipping,
                Order::when::<OrderShipped>().transition_to(Stage::Paying),
            )
    };
    let error = refusal(machine());
    for (state, on) in [("paying", "orders.place"), ("shipping", "payments.taken")] {
        let fact = format!(
            "state `{state}` has no way to the end, and `{on}` (saga/tests/it/declared.rs:"
        );
        assert!(error.contains(&fact), "{error}");
    }
    assert_eq!(machine().endless().check(), [""; 0]);
}

#[test]
fn a_timer_whose_message_no_state_takes_is_refused_with_its_line() {
    let start = Order::when::<PlaceOrder>().init(order).schedule(
        "deadline",
        Duration::from_secs(1),
        |o, _| PaymentTimedOut { id: o.id },
    );
    let machine = StateMachine::named("order")
        .initially(start.transition_to(Stage::Paying))
        .during(
            Stage::Paying,
            Order::when::<PaymentTaken>().transition_to(Stage::Shipping),
        )
        .during(Stage::Shipping, Order::when::<OrderShipped>().finalize());
    let error = refusal(machine);
    for fact in [
        "timer `deadline`",
        "`orders.place` in `initially`",
        "declared.rs:",
        "brings `orders.payment-timed-out`, which no state takes",
    ] {
        assert!(error.contains(fact), "{fact}: {error}");
    }
}

#[test]
fn a_question_needs_a_branch_for_each_way_not_to_be_answered() {
    let asking = || {
        let asks = Order::when::<Remark>().ask("payment", Duration::from_secs(1), |o, _| {
            TakePayment { id: o.id }
        });
        whole().during(Stage::Paying, asks.stay())
    };
    let error = refusal(asking());
    assert!(error.contains("with `when_failed(\"payment\")`"), "{error}");
    assert!(
        error.contains("with `when_timed_out(\"payment\")`"),
        "{error}"
    );
    assert!(error.contains("state `paying`"), "{error}");
    let answered = asking()
        .during(Stage::Paying, Order::when_failed("payment").finalize())
        .during(Stage::Paying, Order::when_timed_out("payment").finalize());
    assert_eq!(answered.check(), [""; 0]);
    // `pay` is no question because `payment` is one.
    for question in ["refund", "pay"] {
        let branch = Order::when_failed(question).finalize();
        let error = asking().during(Stage::Shipping, branch).check().join("; ");
        let fact = format!("question `{question}` has a branch (saga/tests/it/declared.rs:");
        assert!(error.contains(&fact), "{error}");
        assert!(error.contains("is never asked"), "{error}");
    }
}

/// What is done in one case only is checked, and described, as what is always done.
#[test]
fn steps_in_one_case_are_checked_under_their_own_names() {
    let second = Duration::from_secs(1);
    let sometimes = |asks: fn(Steps<Order, Remark>) -> Steps<Order, Remark>| {
        let asks = Order::when::<Remark>().only_if(|o, _| o.remarks > 1, asks);
        whole().during(Stage::Paying, asks.stay())
    };
    let room = || sometimes(|s| s.reserve("room", |_, _| Reserve::key("room", 1)));
    let has = |answer| whole_with_room(room(), answer).check();
    assert_eq!(has(true), [""; 0]);
    let error = has(false).join("; ");
    assert!(error.contains("when_answered::<NotReserved>"), "{error}");
    let late = sometimes(|s| {
        s.schedule("late", Duration::from_secs(1), |o, _| PaymentTimedOut {
            id: o.id,
        })
    });
    let late = late
        .during(
            Stage::Shipping,
            Order::when::<Remark>()
                .ask("late", second, |o, _| TakePayment { id: o.id })
                .stay(),
        )
        .check()
        .join("; ");
    for fact in [
        "timer `late` (`orders.remark` in state `paying`",
        "question `late` (`orders.remark` in state `shipping`",
        "has the name of a timer",
    ] {
        assert!(late.contains(fact), "{fact}: {late}");
    }
    let described = room().describe().to_string();
    assert!(
        described.contains("reserve room (in one case)"),
        "{described}"
    );
}

/// Adds what the room's lock is answered with; without the second branch, not all of it.
fn whole_with_room(machine: StateMachine<Order>, has_both: bool) -> StateMachine<Order> {
    let machine = machine.during(
        Stage::Paying,
        Order::when_answered::<Reserved>("room").stay(),
    );
    match has_both {
        true => machine.during(
            Stage::Paying,
            Order::when_answered::<NotReserved>("room").stay(),
        ),
        false => machine,
    }
}

#[test]
fn a_message_that_is_expected_and_handled_nowhere_is_refused() {
    let machine = whole().expects::<OrderShipped>().expects::<Remark>();
    let error = refusal(machine);
    assert!(error.contains("`orders.remark` is expected"), "{error}");
    assert!(error.contains("declared.rs:"), "{error}");
    assert!(!error.contains("shipping.shipped"), "{error}");
}

#[test]
fn a_branch_behind_one_that_takes_everything_is_refused() {
    let machine = whole()
        .during(Stage::Paying, Order::when::<Remark>().stay())
        .during(
            Stage::Paying,
            Order::when_if::<Remark>(|o, _| o.remarks > 1).stay(),
        );
    let error = refusal(machine);
    assert!(
        error.contains("`orders.remark` is declared twice in state `paying`"),
        "{error}"
    );
    let machine = whole()
        .during(
            Stage::Paying,
            Order::when_if::<Remark>(|o, _| o.remarks > 1).stay(),
        )
        .during(Stage::Paying, Order::when_else::<Remark>().stay());
    assert_eq!(machine.check(), [""; 0]);
}

#[test]
fn a_composite_has_one_list_of_messages() {
    let machine = whole()
        .during(
            Stage::Paying,
            Order::when_all::<(Remark, OrderShipped)>("both").finalize(),
        )
        .during(
            Stage::Shipping,
            Order::when_all::<(Remark, PaymentTaken)>("both").finalize(),
        );
    let error = refusal(machine);
    let fact = "`both` is declared with different messages (saga/tests/it/declared.rs:";
    assert!(error.contains(fact), "{error}");
}

#[test]
fn machines_whose_names_no_store_keeps_are_refused() {
    for name in ["", "my order", &"m".repeat(101)] {
        let start = Order::when::<PlaceOrder>().init(order);
        let error = refusal(StateMachine::named(name).initially(start.finalize()));
        assert!(error.contains("1 to 100 visible ASCII"), "{error}");
    }
}

/// States of which one was forgotten in `ALL`, and two that contain each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Odd {
    Listed,
    Forgotten,
    Inner,
    Outer,
}

impl SagaState for Odd {
    const ALL: &'static [Self] = &[Self::Listed, Self::Inner, Self::Outer];

    fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Forgotten => "forgotten",
            Self::Inner => "inner",
            Self::Outer => "outer",
        }
    }

    fn within(self) -> Option<Self> {
        match self {
            Self::Inner => Some(Self::Outer),
            Self::Outer => Some(Self::Inner),
            Self::Listed | Self::Forgotten => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct OddOne;

impl Saga for OddOne {
    type Key = u64;
    type State = Odd;
}

impl Correlate<OddOne> for PlaceOrder {
    fn key(&self) -> u64 {
        self.id
    }
}

#[test]
fn a_target_that_is_no_declared_state_is_refused_with_its_line() {
    let start = OddOne::when::<PlaceOrder>().init(|_| OddOne);
    let machine = StateMachine::named("odd").initially(start.transition_to(Odd::Forgotten));
    let error = machine.check().join("; ");
    let fact = "`orders.place` (saga/tests/it/declared.rs:";
    assert!(error.contains(fact), "{error}");
    let fact = "state `forgotten` is not in `ALL`";
    assert!(error.contains(fact), "{error}");
}

#[test]
fn a_branch_or_hook_of_a_state_that_is_none_is_refused_with_its_line() {
    let machine = || {
        let start = OddOne::when::<PlaceOrder>().init(|_| OddOne);
        StateMachine::named("odd").initially(start.finalize())
    };
    let branch = machine().during(Odd::Forgotten, OddOne::when::<PlaceOrder>().stay());
    let hook = machine().on_leave(Odd::Forgotten, |steps| steps);
    let cases = [
        (branch, "`orders.place` (saga/tests/it/declared.rs:"),
        (hook, "a hook (saga/tests/it/declared.rs:"),
    ];
    for (machine, what) in cases {
        let faults = machine.check();
        let is_it = |fault: &&String| fault.contains("state `forgotten` is not in `ALL`");
        let fault = faults.iter().find(is_it);
        assert!(fault.is_some_and(|one| one.contains(what)), "{faults:?}");
    }
}

#[test]
fn a_state_that_is_within_itself_is_refused() {
    let start = OddOne::when::<PlaceOrder>().init(|_| OddOne);
    let machine = StateMachine::named("odd").initially(start.transition_to(Odd::Inner));
    let error = machine.check().join("; ");
    for state in ["inner", "outer"] {
        let fact = format!("state `{state}` is within itself");
        assert!(error.contains(&fact), "{error}");
    }
}

#[test]
fn a_question_has_a_name_of_its_own_that_headers_keep() {
    let asking = |name| {
        let second = Duration::from_secs(1);
        let asks = Order::when::<Remark>()
            .schedule("deadline", second, |o, _| PaymentTimedOut { id: o.id })
            .ask(name, second, |o, _| TakePayment { id: o.id });
        let late = Order::when::<PaymentTimedOut>().finalize();
        let machine = whole().during(Stage::Paying, asks.stay());
        machine.during(Stage::Paying, late).check().join("; ")
    };
    let cases = [
        (
            "deadline",
            "question `deadline` (`orders.remark` in state `paying`",
        ),
        ("deadline", "has the name of a timer"),
        (
            "pay:ment",
            "needs a name of visible ASCII characters without `:`",
        ),
    ];
    for (name, fact) in cases {
        let error = asking(name);
        assert!(error.contains(fact), "{fact}: {error}");
    }
}

#[test]
fn diagrams_show_every_transition() {
    let machine = parcel_machine();
    let mermaid = machine.to_mermaid();
    for line in [
        "stateDiagram-v2",
        "    state warehouse {",
        "    [*] --> checking : parcels.register (if)",
        "    warehouse --> moving : parcels.weighed + parcels.labelled",
        "    moving --> [*] : parcels.deliver",
        "    moving --> moving : parcels.insure (gives up)",
        "    packing --> packing : sagabus.request-failed.parcel [customs]",
    ] {
        assert!(mermaid.contains(line), "{line} is not in\n{mermaid}");
    }
    let dot = machine.to_dot();
    for line in [
        "digraph \"parcel\" {",
        "    start -> \"packing\" [label=\"parcels.prepay\"];",
        "    \"moving\" -> end [label=\"parcels.deliver\"];",
    ] {
        assert!(dot.contains(line), "{line} is not in\n{dot}");
    }
    assert_eq!(
        mermaid,
        parcel_machine().to_mermaid(),
        "the same every time"
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
