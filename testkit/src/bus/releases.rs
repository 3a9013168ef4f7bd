//! Two releases of one machine: what the first has stored, the second writes anew.

use sagabus_core::{Command, HandlerError, Kind, Message, Result};
use sagabus_saga::{Correlate, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the process has this variable, the second release stands still at [`STUCK_AT`] until it is
/// killed. Its value is the test's.
pub const STUCK: &str = "SAGABUS_TEST_MIGRATING_HOST";
/// At how many euros.
pub const STUCK_AT: u32 = 300;
/// What the second release cannot read.
pub const UNREADABLE: u32 = 13;

macro_rules! message {
    ($name:ident $type:literal $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $name {
            /// Its order, which costs as many euros.
            pub order: u32,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::Command;
        }
        impl Command for $name {}

        impl Correlate<Old> for $name {
            fn key(&self) -> u32 {
                self.order
            }
        }

        impl Correlate<New> for $name {
            fn key(&self) -> u32 {
                self.order
            }
        }
    };
}

message!(Begin "orders.begin" "Begins an order.");
message!(Touch "orders.touch" "Moves an order, which stays as it is.");

/// The only state of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// For ever.
    Open,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Open];

    fn name(self) -> &'static str {
        "open"
    }
}

/// What the release of before kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Old {
    euros: u32,
}

impl Saga for Old {
    type Key = u32;
    type State = Stage;
}

/// What this release keeps.
#[derive(Debug, Serialize, Deserialize)]
pub struct New {
    cents: u32,
}

impl Saga for New {
    type Key = u32;
    type State = Stage;
    const SCHEMA_VERSION: i32 = 2;

    fn upcast(_: i32, data: Value) -> Result<Value> {
        let euros = data["euros"].as_u64();
        let euros = euros.ok_or_else(|| HandlerError::new("no euros"))?;
        if euros == u64::from(UNREADABLE) {
            return Err(HandlerError::new("nobody counts to 13"));
        }
        while euros == u64::from(STUCK_AT) && std::env::var_os(STUCK).is_some() {
            std::thread::park();
        }
        Ok(json!({ "cents": euros * 100 }))
    }
}

/// Returns the machine of the release of before.
pub fn old() -> StateMachine<Old> {
    let begin = Old::when::<Begin>().init(|m| Old { euros: m.order });
    StateMachine::named("order")
        .initially(begin.transition_to(Stage::Open))
        .during(Stage::Open, Old::when::<Touch>().stay())
        .during(Stage::Open, Old::ignore::<Begin>())
        .endless()
}

/// Returns the machine of this release.
pub fn new() -> StateMachine<New> {
    let cents = |m: &Begin| m.order * 100;
    let begin = New::when::<Begin>().init(move |m| New { cents: cents(m) });
    StateMachine::named("order")
        .initially(begin.transition_to(Stage::Open))
        .during(Stage::Open, New::when::<Touch>().stay())
        .during(Stage::Open, New::ignore::<Begin>())
        .endless()
}
