//! A release without a state in which instances are, and one that defers in a circle: stored
//! reasons, nothing lost, neighbours go on.

use std::time::Duration;

use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Command, Event, InstanceId, Kind, Message};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::{Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    instances_in_a_state_that_a_release_has_not_wait_for_one_that_has,
    a_message_that_two_states_defer_in_a_circle_is_a_dead_letter_with_the_reason,
}

/// Declares what doors take, in both releases.
macro_rules! messages {
    ($($kind:ident $name:ident $type:literal,)*) => {
        $(
            #[derive(Clone, Debug, Serialize, Deserialize)]
            struct $name {
                id: u64,
            }

            impl Message for $name {
                const TYPE: &'static str = $type;
                const KIND: Kind = Kind::$kind;
            }
            impl $kind for $name {}

            impl Correlate<Door> for $name {
                fn key(&self) -> u64 {
                    self.id
                }
            }

            impl Correlate<LaterDoor> for $name {
                fn key(&self) -> u64 {
                    self.id
                }
            }
        )*
    };
}

messages! {
    Command Hang "doors.hang",
    Command Swing "doors.swing",
    Command Paint "doors.paint",
    Event Creak "doors.creak",
}

/// Declares a release: its states and its data.
macro_rules! release {
    ($saga:ident $stage:ident: $($state:ident $name:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        enum $stage {
            $($state,)*
        }

        impl SagaState for $stage {
            const ALL: &'static [Self] = &[$(Self::$state,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$state => $name,)*
                }
            }
        }

        #[derive(Debug, Default, Serialize, Deserialize)]
        struct $saga {
            swings: u32,
        }

        impl Saga for $saga {
            type Key = u64;
            type State = $stage;
        }
    };
}

release! { Door Stage: Shut "shut", Ajar "ajar", }
release! { LaterDoor LaterStage: Shut "shut", }

/// What does not happen in a test.
const NEVER: Duration = Duration::from_secs(3600);

fn doors(creaks_after: Duration) -> StateMachine<Door> {
    StateMachine::named("door")
        .initially(
            Door::when::<Hang>()
                .init(|_| Door::default())
                .transition_to(Stage::Shut),
        )
        .during(
            Stage::Shut,
            Door::when::<Swing>()
                .then(|d, _| d.swings += 1)
                .schedule("creak", creaks_after, |_, m| Creak { id: m.id })
                .transition_to(Stage::Ajar),
        )
        .during(
            Stage::Ajar,
            Door::when::<Swing>()
                .then(|d, _| d.swings += 1)
                .unschedule("creak")
                .transition_to(Stage::Shut),
        )
        .during(Stage::Ajar, Door::when::<Creak>().finalize())
        .during([Stage::Shut, Stage::Ajar], Door::defer::<Paint>())
}

/// The next release: no door is ever ajar.
fn later_doors() -> StateMachine<LaterDoor> {
    let swing = || LaterDoor::when::<Swing>().then(|d, _| d.swings += 1);
    StateMachine::named("door")
        .endless()
        .initially(
            LaterDoor::when::<Hang>()
                .init(|_| LaterDoor::default())
                .transition_to(LaterStage::Shut),
        )
        .during(LaterStage::Shut, swing().stay())
        .during_any(LaterDoor::when::<Creak>().stay())
}

async fn instance(scene: &Scene, key: u64) -> Option<Instance> {
    let id = InstanceId {
        kind: "door".into(),
        key: key.to_string().into(),
    };
    scene.admin().instance(&id).await.unwrap()
}

async fn at_version(scene: &Scene, key: u64, version: i64) -> Instance {
    let look = || async {
        let found = instance(scene, key).await;
        found.filter(|one| one.version == version)
    };
    let what = format!("version {version} of door {key}");
    eventually(&what, look).await.0
}

async fn instances_in_a_state_that_a_release_has_not_wait_for_one_that_has(scene: Scene) {
    // Later than the first host is stopped.
    const CREAKS_AFTER: Duration = Duration::from_secs(3);
    let of =
        |machine| move |e: sagabus_core::EndpointBuilder| e.machine(machine).retry(quick_retry());
    let host = start(
        scene
            .builder("first")
            .endpoint("doors", of(doors(CREAKS_AFTER))),
    )
    .await;
    for id in [1, 2] {
        host.bus().send(Hang { id }).await.unwrap();
        at_version(&scene, id, 1).await;
    }
    host.bus().send(Swing { id: 1 }).await.unwrap();
    let ajar = at_version(&scene, 1, 2).await;
    stop(host).await;
    assert_eq!(ajar.state.as_deref(), Some("ajar"));

    let later = scene.builder("later");
    let later = later.endpoint("doors", |e| e.machine(later_doors()).retry(quick_retry()));
    let host = start(later).await;
    host.bus().send(Swing { id: 1 }).await.unwrap();
    // The message, and the timer that has fired meanwhile.
    let dead = scene.dead_letters(2).await;
    let mut types: Vec<_> = dead.iter().map(|one| &*one.envelope.message_type).collect();
    types.sort_unstable();
    assert_eq!(types, ["doors.creak", "doors.swing"]);
    for one in &dead {
        assert_eq!(one.reason, "state_undecodable");
        let error = &one.attempts[0].error;
        assert!(error.contains("unknown state \"ajar\""), "{error}");
    }
    assert_eq!(instance(&scene, 1).await, Some(ajar), "it is as it was");
    host.bus().send(Swing { id: 2 }).await.unwrap();
    at_version(&scene, 2, 2).await;
    stop(host).await;

    let host = start(scene.builder("again").endpoint("doors", of(doors(NEVER)))).await;
    let swing = dead
        .iter()
        .find(|one| one.envelope.message_type == "doors.swing");
    assert!(scene.admin().redrive(swing.unwrap().id).await.unwrap());
    let shut = at_version(&scene, 1, 3).await;
    assert_eq!(shut.state.as_deref(), Some("shut"));
    assert_eq!(shut.status, InstanceStatus::Running);
    stop(host).await;
}

async fn a_message_that_two_states_defer_in_a_circle_is_a_dead_letter_with_the_reason(
    scene: Scene,
) {
    let builder = scene.builder("doors");
    let host = start(builder.endpoint("doors", |e| e.machine(doors(NEVER)))).await;
    for id in [1, 2] {
        host.bus().send(Hang { id }).await.unwrap();
        at_version(&scene, id, 1).await;
    }
    host.bus().send(Paint { id: 1 }).await.unwrap();
    at_version(&scene, 1, 2).await;
    // Each change of state gives it back, and it is kept again: two moves.
    for turn in 1..20 {
        host.bus().send(Swing { id: 1 }).await.unwrap();
        at_version(&scene, 1, 2 + turn * 2).await;
    }
    assert_eq!(scene.counts().await.dead_letters, 0);
    host.bus().send(Swing { id: 1 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "deferred_too_often");
    let error = &dead[0].attempts[0].error;
    assert!(error.contains("kept for later 20 times"), "{error}");
    assert_eq!(dead[0].envelope.message_type, "doors.paint");
    host.bus().send(Swing { id: 2 }).await.unwrap();
    at_version(&scene, 2, 2).await;
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 1);
}
