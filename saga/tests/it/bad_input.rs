//! What nobody should do, and somebody does: each is a stored reason, and neighbours go on.

use std::time::Duration;

use sagabus_core::store::{Group, Instance};
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, UnitOfWork};
use sagabus_core::{InstanceId, Outcome, Result, RunningHost, State};
use sagabus_saga::{
    Handles, MachineEndpoint, NamedSaga, Saga, SagaCtx, SagaEndpoint, SagaState, Starts,
    StateMachine, saga,
};
use sagabus_testkit::bus::{Log, Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::order::{PaymentTimedOut, PlaceOrder, Remark, order_machine};

on_every_store! {
    an_instance_that_cannot_be_read_is_left_as_it_is,
    a_panic_in_a_closure_or_function_of_the_users_is_an_error,
    a_mebibyte_of_data_is_kept,
    a_timer_of_an_instance_that_is_over_has_no_effect,
}

const LONG: Duration = Duration::from_secs(3600);

async fn orders(scene: &Scene) -> RunningHost {
    let builder = scene.builder("shop");
    let machine = order_machine(LONG);
    start(builder.endpoint("orders", |e| e.machine(machine).retry(quick_retry()))).await
}

fn id(kind: &'static str, key: u64) -> InstanceId {
    InstanceId {
        kind: kind.into(),
        key: key.to_string().into(),
    }
}

async fn instance(scene: &Scene, id: &InstanceId) -> Option<Instance> {
    scene.admin().instance(id).await.unwrap()
}

async fn at_version(scene: &Scene, id: &InstanceId, version: i64) -> Instance {
    let look = || async {
        instance(scene, id)
            .await
            .filter(|one| one.version == version)
    };
    eventually(&format!("version {version} of {id}"), look)
        .await
        .0
}

/// Writes an order as somebody with an editor might.
async fn edit(scene: &Scene, key: u64, state: &'static str, schema_version: i32, data: &str) {
    let change = InstanceChange {
        id: id("order", key),
        expected: 0,
        status: InstanceStatus::Running,
        state: Some(state.into()),
        schema_version,
        data: data.to_owned().into(),
        timers: std::collections::BTreeMap::new(),
        disarmed: Vec::new(),
        origin: None,
        labels: None,
    };
    let group = Group {
        units: vec![UnitOfWork {
            instance: Some(change),
            ..UnitOfWork::default()
        }],
        ..Group::default()
    };
    let report = scene.store().commit(&group).await.unwrap();
    assert_eq!(report.outcomes, [Outcome::Committed]);
}

async fn an_instance_that_cannot_be_read_is_left_as_it_is(scene: Scene) {
    let host = orders(&scene).await;
    let good = r#"{"id":1,"remarks":0}"#;
    let cases = [
        ("paying", 1, "nonsense", "expected"),
        ("paying", 1, "{}", "missing field"),
        ("paying", 1, "", "EOF"),
        ("paying", 1, r#"{"$saga":7,"data":{}}"#, "invalid type"),
        ("paying", 99, good, "schema version 99"),
        ("paid-in-gold", 1, good, "unknown state \"paid-in-gold\""),
        ("", 1, good, "unknown state"),
    ];
    for (key, (state, version, data, fact)) in (1..).zip(cases) {
        edit(&scene, key, state, version, data).await;
        let before = instance(&scene, &id("order", key)).await;
        host.bus().publish(Remark { id: key }).await.unwrap();
        let count = usize::try_from(key).unwrap();
        let dead = scene.dead_letters(count).await;
        assert_eq!(dead[0].reason, "state_undecodable");
        let error = &dead[0].attempts[0].error;
        assert!(error.contains(fact), "{fact}: {error}");
        // A start does not write over it either.
        assert_eq!(instance(&scene, &id("order", key)).await, before);
    }
    host.bus().send(PlaceOrder { id: 1 }).await.unwrap();
    let dead = scene.dead_letters(cases.len() + 1).await;
    assert_eq!(
        dead[0].reason, "state_undecodable",
        "it is not created anew"
    );
    host.bus().send(PlaceOrder { id: 100 }).await.unwrap();
    at_version(&scene, &id("order", 100), 1).await;
    stop(host).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Open,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Open];

    fn name(self) -> &'static str {
        "open"
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Fuse {
    uses: u32,
}

impl Saga for Fuse {
    type Key = u64;
    type State = Stage;
}

messages! { Fuse:
    Command Light "fuses.light",
    Command Touch "fuses.touch",
}

async fn explode(fuse: Fuse, message: Touch) -> Result<Fuse> {
    assert!(message.id != 2, "the function explodes");
    Ok(fuse)
}

fn fuses() -> StateMachine<Fuse> {
    StateMachine::named("fuse")
        .endless()
        .initially(
            Fuse::when::<Light>()
                .init(|_| Fuse { uses: 0 })
                .transition_to(Stage::Open),
        )
        .during(
            Stage::Open,
            Fuse::when::<Touch>()
                .then(|fuse, message| {
                    assert!(message.id != 1, "the closure explodes");
                    fuse.uses += 1;
                })
                .run(explode)
                .stay(),
        )
}

async fn a_panic_in_a_closure_or_function_of_the_users_is_an_error(scene: Scene) {
    let builder = scene.builder("shop");
    let host = start(builder.endpoint("fuses", |e| e.machine(fuses()).retry(quick_retry()))).await;
    for key in 1..=3 {
        host.bus().send(Light { id: key }).await.unwrap();
        at_version(&scene, &id("fuse", key), 1).await;
        host.bus().send(Touch { id: key }).await.unwrap();
    }
    at_version(&scene, &id("fuse", 3), 2).await;
    let mut dead = scene.dead_letters(2).await;
    dead.sort_by_key(|one| one.attempts[0].error.clone());
    stop(host).await;
    for (one, fact) in dead
        .iter()
        .zip(["the closure explodes", "the function explodes"])
    {
        assert_eq!(one.reason, "attempts_exhausted");
        let error = &one.attempts[0].error;
        assert!(error.contains(fact), "{error}");
    }
    for key in [1, 2] {
        assert_eq!(instance(&scene, &id("fuse", key)).await.unwrap().version, 1);
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hoard {
    text: String,
}

impl Saga for Hoard {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Hoard {
    const NAME: &'static str = "hoard";
}

impl sagabus_saga::Correlate<Hoard> for Light {
    fn key(&self) -> u64 {
        self.id
    }
}

impl Starts<Light> for Hoard {
    fn start(_: &Light) -> Self {
        let text = String::new();
        Self { text }
    }
}

impl Handles<Light> for Hoard {
    async fn handle(&mut self, _: Light, _: &mut SagaCtx) -> Result {
        self.text.push_str(&"\u{e4}\"".repeat(350_000));
        Ok(())
    }
}

async fn a_mebibyte_of_data_is_kept(scene: Scene) {
    let hoards = saga::<Hoard>().starts_with::<Light>();
    let host = start(scene.builder("shop").endpoint("hoards", |e| e.saga(hoards))).await;
    for version in 1..=2 {
        host.bus().send(Light { id: 7 }).await.unwrap();
        at_version(&scene, &id("hoard", 7), version).await;
    }
    stop(host).await;
    let kept = instance(&scene, &id("hoard", 7)).await.unwrap();
    let hoard: Hoard = serde_json::from_slice(&kept.data).unwrap();
    assert_eq!(hoard.text.chars().count(), 1_400_000);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_timer_of_an_instance_that_is_over_has_no_effect(scene: Scene) {
    async fn close(event: crate::order::OrderClosed, log: State<Log>) {
        log.add(format!("closed {}", event.id));
    }
    let machine = order_machine(Duration::from_millis(40));
    let builder = scene
        .builder("shop")
        .endpoint("orders", |e| e.machine(machine));
    let host = start(builder.endpoint("audit", |e| e.handle(close))).await;
    host.bus().send(PlaceOrder { id: 1 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["closed 1"]);
    // What somebody sends under a timer's type is no timer: it comes too late, and is told so.
    host.bus().publish(PaymentTimedOut { id: 1 }).await.unwrap();
    assert_eq!(scene.dead_letters(1).await[0].reason, "too_late");
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 1);
}
