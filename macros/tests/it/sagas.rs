use sagabus::{Saga, SagaState, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    AwaitingPayment,
    HTTPDone,
    #[state("over")]
    Finished,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(version = 4, state = Stage, key = Uuid)]
#[saga(crate = ::sagabus)]
struct Order {
    id: Uuid,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = String)]
struct Policy {
    paid: bool,
}

#[test]
fn states_are_stored_by_name_in_the_order_of_the_enum() {
    let names: Vec<_> = Stage::ALL.iter().map(|state| state.name()).collect();
    assert_eq!(names, ["awaiting-payment", "http-done", "over"]);
}

#[test]
fn every_state_is_found_by_its_stored_name() {
    for state in Stage::ALL {
        assert_eq!(Stage::named(state.name()), Some(*state));
    }
    assert_eq!(Stage::named("Finished"), None);
}

#[test]
fn a_saga_has_the_key_states_and_version_that_it_names() {
    fn check<S: Saga<Key = K, State = T>, K: ToString, T: SagaState>() -> i32 {
        S::SCHEMA_VERSION
    }
    assert_eq!(check::<Order, Uuid, Stage>(), 4);
    assert_eq!(check::<Policy, String, ()>(), 1);
}
