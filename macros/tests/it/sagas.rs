use sagabus::{NamedSaga, Saga, SagaState, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    AwaitingPayment,
    HTTPDone,
    #[state("over", within = HTTPDone)]
    Finished,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(version = 4, state = Stage, key = Uuid)]
#[saga(crate = ::sagabus)]
struct Order {
    id: Uuid,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga("shipping-policy", key = String, version = 2, upcast = pay)]
struct Policy {
    paid: bool,
}

fn pay(from: i32, mut data: serde_json::Value) -> sagabus::Result<serde_json::Value> {
    data["paid"] = (from == 1).into();
    Ok(data)
}

#[test]
fn a_saga_may_have_a_name_and_an_upcaster() {
    assert_eq!(Policy::NAME, "shipping-policy");
    let data = Policy::upcast(1, serde_json::json!({})).unwrap();
    assert_eq!(data, serde_json::json!({ "paid": true }));
}

#[test]
fn states_are_stored_by_name_in_the_order_of_the_enum() {
    let names: Vec<_> = Stage::ALL.iter().map(|state| state.name()).collect();
    assert_eq!(names, ["awaiting-payment", "http-done", "over"]);
}

#[test]
fn a_state_may_be_a_part_of_another() {
    assert_eq!(Stage::Finished.within(), Some(Stage::HTTPDone));
    assert_eq!(Stage::HTTPDone.within(), None);
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
    assert_eq!(check::<Policy, String, ()>(), 2);
}
