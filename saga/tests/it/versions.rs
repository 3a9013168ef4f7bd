//! Instances that were stored by one release and go on in the next, side by side.

use std::time::Duration;

use sagabus_core::store::Instance;
use sagabus_core::{InstanceId, RunningHost};
use sagabus_testkit::bus::{Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;

on_every_store! {
    an_instance_of_an_older_release_goes_on,
    two_releases_share_an_instance_and_neither_spoils_it,
    a_timer_of_a_renamed_message_fires,
    parts_that_came_under_a_former_name_count,
    what_was_kept_for_later_comes_back_under_its_former_name,
}

/// Declares messages of one release, each with its names.
macro_rules! release {
    ($saga:ident: $($name:ident $type:literal $aliases:expr,)*) => {
        $(
            #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
            pub(super) struct $name {
                pub(super) id: u64,
            }

            impl sagabus_core::Message for $name {
                const TYPE: &'static str = $type;
                const ALIASES: &'static [&'static str] = &$aliases;
                const KIND: sagabus_core::Kind = sagabus_core::Kind::Command;
            }
            impl sagabus_core::Command for $name {}

            impl sagabus_saga::Correlate<$saga> for $name {
                fn key(&self) -> u64 {
                    self.id
                }
            }
        )*
    };
}

/// The release that started.
mod old {
    use std::time::Duration;

    use sagabus_saga::{Saga, SagaState, StateMachine};
    use serde::{Deserialize, Serialize};

    release! { Crate:
        Pack "crates.pack" [],
        Weigh "crates.weigh" [],
        Overdue "crates.overdue" [],
        Paid "crates.paid" [],
        Loaded "crates.loaded" [],
        Unpack "crates.unpack" [],
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(super) enum Stage {
        Packed,
        Gone,
    }

    impl SagaState for Stage {
        const ALL: &'static [Self] = &[Self::Packed, Self::Gone];

        fn name(self) -> &'static str {
            match self {
                Self::Packed => "packed",
                Self::Gone => "gone",
            }
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Crate {
        pub(super) kilos: i64,
    }

    impl Saga for Crate {
        type Key = u64;
        type State = Stage;
    }

    pub(super) fn machine(overdue: Duration) -> StateMachine<Crate> {
        StateMachine::named("crate")
            .initially(
                Crate::when::<Pack>()
                    .init(|_| Crate { kilos: 3 })
                    .schedule("overdue", overdue, |_, message| Overdue { id: message.id })
                    .transition_to(Stage::Packed),
            )
            .during(
                Stage::Packed,
                Crate::when::<Weigh>().then(|one, _| one.kilos += 1).stay(),
            )
            .during(Stage::Packed, Crate::when::<Overdue>().finalize())
            .during(
                Stage::Packed,
                Crate::when_all::<(Paid, Loaded)>("ready").transition_to(Stage::Gone),
            )
            .during(Stage::Packed, Crate::defer::<Unpack>())
            .during(Stage::Gone, Crate::when::<Unpack>().finalize())
    }
}

/// Two versions later: every name has changed, and the data twice.
mod new {
    use std::time::Duration;

    use sagabus_core::{HandlerError, Result};
    use sagabus_saga::{Saga, SagaState, StateMachine};
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    release! { Crate:
        Wrap "boxes.wrap" ["crates.pack"],
        Measure "boxes.measure" ["crates.weigh"],
        Late "boxes.late" ["crates.overdue"],
        Settled "boxes.settled" ["crates.paid"],
        OnBoard "boxes.on-board" ["crates.loaded"],
        Open "boxes.open" ["crates.unpack"],
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(super) enum Stage {
        Wrapped,
        UnderWay,
    }

    impl SagaState for Stage {
        const ALL: &'static [Self] = &[Self::Wrapped, Self::UnderWay];

        fn name(self) -> &'static str {
            match self {
                Self::Wrapped => "wrapped",
                Self::UnderWay => "under-way",
            }
        }

        fn aliases(self) -> &'static [&'static str] {
            match self {
                Self::Wrapped => &["packed"],
                Self::UnderWay => &["left", "gone"],
            }
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Crate {
        pub(super) grams: i64,
        pub(super) carrier: String,
    }

    impl Saga for Crate {
        type Key = u64;
        type State = Stage;
        const SCHEMA_VERSION: i32 = 3;

        fn upcast(from: i32, mut data: Value) -> Result<Value> {
            if from == 1 {
                let kilos = data["kilos"].as_i64();
                let kilos = kilos.ok_or_else(|| HandlerError::new("no kilos"))?;
                return Ok(json!({ "grams": kilos * 1000 }));
            }
            data["carrier"] = "unknown".into();
            Ok(data)
        }
    }

    pub(super) fn machine(overdue: Duration) -> StateMachine<Crate> {
        let init = |_: &Wrap| Crate {
            grams: 0,
            carrier: "post".to_owned(),
        };
        StateMachine::named("crate")
            .initially(
                Crate::when::<Wrap>()
                    .init(init)
                    .schedule("overdue", overdue, |_, message| Late { id: message.id })
                    .transition_to(Stage::Wrapped),
            )
            .during(
                Stage::Wrapped,
                Crate::when::<Measure>()
                    .then(|one, _| one.grams += 1)
                    .stay(),
            )
            .during(Stage::Wrapped, Crate::when::<Late>().finalize())
            .during(
                Stage::Wrapped,
                Crate::when_all::<(Settled, OnBoard)>("ready").transition_to(Stage::UnderWay),
            )
            .during(Stage::Wrapped, Crate::defer::<Open>())
            .during(Stage::UnderWay, Crate::when::<Open>().finalize())
    }
}

const LONG: Duration = Duration::from_secs(3600);

async fn old_host(scene: &Scene, overdue: Duration) -> RunningHost {
    use sagabus_saga::MachineEndpoint;
    let machine = old::machine(overdue);
    let builder = scene.builder("old");
    start(builder.endpoint("yard", |e| e.machine(machine).retry(quick_retry()))).await
}

async fn new_host(scene: &Scene) -> RunningHost {
    use sagabus_saga::MachineEndpoint;
    let machine = new::machine(LONG);
    let builder = scene.builder_on("new", scene.peer());
    start(builder.endpoint("yard", |e| e.machine(machine).retry(quick_retry()))).await
}

async fn instance(scene: &Scene) -> Option<Instance> {
    let id = InstanceId {
        kind: "crate".into(),
        key: "1".into(),
    };
    scene.admin().instance(&id).await.unwrap()
}

async fn at_version(scene: &Scene, version: i64) -> Instance {
    let look = || async { instance(scene).await.filter(|one| one.version == version) };
    eventually(&format!("version {version}"), look).await.0
}

/// A crate that the old release packed.
async fn packed(scene: &Scene) -> RunningHost {
    let host = old_host(scene, LONG).await;
    host.bus().send(old::Pack { id: 1 }).await.unwrap();
    at_version(scene, 1).await;
    host
}

fn looks(instance: &Instance) -> (&str, i32, &str) {
    let data = std::str::from_utf8(&instance.data).unwrap();
    let state = instance.state.as_deref().unwrap_or_default();
    (state, instance.schema_version, data)
}

async fn an_instance_of_an_older_release_goes_on(scene: Scene) {
    let host = packed(&scene).await;
    assert_eq!(
        looks(&at_version(&scene, 1).await),
        ("packed", 1, r#"{"kilos":3}"#)
    );
    stop(host).await;
    let host = new_host(&scene).await;
    host.bus().send(old::Weigh { id: 1 }).await.unwrap();
    at_version(&scene, 2).await;
    host.bus().send(new::Measure { id: 1 }).await.unwrap();
    let moved = at_version(&scene, 3).await;
    let expected = r#"{"grams":3002,"carrier":"unknown"}"#;
    assert_eq!(looks(&moved), ("wrapped", 3, expected));
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn two_releases_share_an_instance_and_neither_spoils_it(scene: Scene) {
    let old_host = packed(&scene).await;
    let new_host = new_host(&scene).await;
    // What a host sends to an endpoint of its own it handles itself.
    old_host.bus().send(old::Weigh { id: 1 }).await.unwrap();
    assert_eq!(
        looks(&at_version(&scene, 2).await),
        ("packed", 1, r#"{"kilos":4}"#)
    );
    new_host.bus().send(new::Measure { id: 1 }).await.unwrap();
    let moved = at_version(&scene, 3).await;
    assert_eq!(moved.schema_version, 3);
    old_host.bus().send(old::Weigh { id: 1 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "state_undecodable");
    assert_eq!(instance(&scene).await.unwrap(), moved, "as it was");
    stop(old_host).await;
    assert!(scene.admin().redrive(dead[0].id).await.unwrap());
    let moved = at_version(&scene, 4).await;
    let expected = r#"{"grams":4002,"carrier":"unknown"}"#;
    assert_eq!(looks(&moved), ("wrapped", 3, expected));
    stop(new_host).await;
}

async fn a_timer_of_a_renamed_message_fires(scene: Scene) {
    let host = old_host(&scene, Duration::from_millis(300)).await;
    host.bus().send(old::Pack { id: 1 }).await.unwrap();
    at_version(&scene, 1).await;
    stop(host).await;
    let host = new_host(&scene).await;
    let over = at_version(&scene, 2).await;
    assert_eq!(
        over.status,
        sagabus_core::unit_of_work::InstanceStatus::Completed
    );
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn parts_that_came_under_a_former_name_count(scene: Scene) {
    let host = packed(&scene).await;
    host.bus().send(old::Paid { id: 1 }).await.unwrap();
    at_version(&scene, 2).await;
    stop(host).await;
    let host = new_host(&scene).await;
    host.bus().send(new::OnBoard { id: 1 }).await.unwrap();
    let moved = at_version(&scene, 3).await;
    assert_eq!(looks(&moved).0, "under-way");
    stop(host).await;
}

async fn what_was_kept_for_later_comes_back_under_its_former_name(scene: Scene) {
    let host = packed(&scene).await;
    host.bus().send(old::Unpack { id: 1 }).await.unwrap();
    at_version(&scene, 2).await;
    stop(host).await;
    let host = new_host(&scene).await;
    host.bus().send(new::Settled { id: 1 }).await.unwrap();
    host.bus().send(old::Loaded { id: 1 }).await.unwrap();
    // Both parts, and then what was kept.
    let over = at_version(&scene, 5).await;
    assert_eq!(
        over.status,
        sagabus_core::unit_of_work::InstanceStatus::Completed
    );
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

#[test]
fn two_states_that_answer_to_one_name_are_refused() {
    use sagabus_saga::{Saga, SagaState, StateMachine};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Torn {
        This,
        That,
    }

    impl SagaState for Torn {
        const ALL: &'static [Self] = &[Self::This, Self::That];

        fn name(self) -> &'static str {
            match self {
                Self::This => "this",
                Self::That => "that",
            }
        }

        fn aliases(self) -> &'static [&'static str] {
            match self {
                Self::This => &["that"],
                Self::That => &[],
            }
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Thing {}

    impl Saga for Thing {
        type Key = u64;
        type State = Torn;
    }

    release! { Thing: Begin "things.begin" [], Go "things.go" [], }
    let machine = StateMachine::named("thing")
        .initially(
            Thing::when::<Begin>()
                .init(|_| Thing {})
                .transition_to(Torn::This),
        )
        .during(Torn::This, Thing::when::<Go>().transition_to(Torn::That))
        .during(Torn::That, Thing::when::<Go>().finalize());
    let faults = machine.check().join("; ");
    assert!(faults.contains("both answer to `that`"), "{faults}");
}
