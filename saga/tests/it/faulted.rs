//! A machine hears that a message became a dead letter, of whichever endpoint.

use sagabus_core::fault_event::Fault;
use sagabus_core::{HandlerError, InstanceId, Message, Result};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::{Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    the_fault_of_a_command_moves_the_instance_that_sent_it,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Paying,
    Refused,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Paying, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Paying => "paying",
            Self::Refused => "refused",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Rent {
    id: u64,
    why: Option<String>,
}

impl Saga for Rent {
    type Key = u64;
    type State = Stage;
}

messages! { Rent:
    Command Owe "rents.owe",
    Command Collect "rents.collect",
}

/// What cannot be decoded belongs to none.
const NOBODY: u64 = 0;

impl Correlate<Rent> for Fault<Collect> {
    fn key(&self) -> u64 {
        self.message.as_ref().map_or(NOBODY, |collect| collect.id)
    }
}

fn rents() -> StateMachine<Rent> {
    let owe = Rent::when::<Owe>()
        .init(|m| Rent {
            id: m.id,
            why: None,
        })
        .send(|rent, _| Collect { id: rent.id })
        .transition_to(Stage::Paying);
    let refused = Rent::when::<Fault<Collect>>()
        .then(|rent, fault| rent.why = Some(fault.reason.clone()))
        .transition_to(Stage::Refused);
    StateMachine::named("rent")
        .initially(owe)
        .during(Stage::Paying, refused)
        .during(Stage::Refused, Rent::ignore::<Owe>())
        .endless()
}

async fn collect(command: Collect) -> Result {
    match command.id {
        2 => Err(HandlerError::new("nobody is at home").terminal()),
        _ => Ok(()),
    }
}

async fn the_fault_of_a_command_moves_the_instance_that_sent_it(scene: Scene) {
    let host = scene
        .builder("estate")
        .endpoint("rents", |e| e.machine(rents()).retry(quick_retry()))
        .endpoint("collectors", |e| e.handle(collect));
    let host = start(host).await;
    for id in 1..=3 {
        host.bus().send(Owe { id }).await.unwrap();
    }
    let rent = async |key: &str| {
        let id = InstanceId {
            kind: "rent".into(),
            key: key.into(),
        };
        scene.admin().instance(&id).await.unwrap()
    };
    let refused = eventually("a refused rent", || async {
        rent("2").await.filter(|one| one.version == 2)
    });
    let (refused, _) = refused.await;
    assert_eq!(refused.state.as_deref(), Some("refused"));
    let data: serde_json::Value = serde_json::from_slice(&refused.data).unwrap();
    assert_eq!(data["why"], "terminal");
    scene.quiet().await;
    for other in ["1", "3"] {
        let other = rent(other).await.expect("it is there");
        assert_eq!((other.version, other.state.as_deref()), (1, Some("paying")));
    }
    let dead = scene.admin().dead_letters(10).await.unwrap();
    let types: Vec<_> = dead.iter().map(|one| &*one.envelope.message_type).collect();
    assert_eq!(types, [Collect::TYPE]);
    stop(host).await;
}
