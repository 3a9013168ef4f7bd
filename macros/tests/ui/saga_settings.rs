//! What `#[saga(..)]` and `#[state(..)]` refuse.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Saga, Serialize, Deserialize)]
struct WithoutKey;

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64, states = Stage)]
struct UnknownSetting;

#[derive(Saga, Serialize, Deserialize)]
#[saga("my order", key = u64)]
struct WronglyNamed;

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64, state = String)]
struct StateOfAnotherType;

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64)]
enum SagaOfStates {
    Paying,
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct NotAnEnum;

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WithFields {
    Paying { cents: i64 },
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WithoutVariants {}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SameNames {
    Paying,
    #[state("paying")]
    AwaitingPayment,
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WrongName {
    #[state("being paid")]
    Paying,
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WithinNothing {
    #[state(within = Warehouse)]
    Paying,
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[state("paying")]
enum NameOnTheEnum {
    Paying,
}

fn main() {}
