//! What operators have a live host do with instances: rehearse a message for one, and move one to
//! another state by its machine.

use std::time::Duration;

use sagabus_core::admin::{
    Forced, HistoryOf, Page, Report, RowFilter, Standing, StoreAdmin, Task, Verdict,
};
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Envelope, InstanceId, RunningHost};
use sagabus_saga::{MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::rehearsing::{ask, rehearsal};
use sagabus_testkit::bus::{Scene, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use serde_json::json;

on_every_store! {
    a_rehearsed_message_shows_how_its_instance_would_move,
    an_instance_is_moved_with_what_its_machine_does_on_the_way,
    a_move_that_its_machine_cannot_make_changes_nothing,
    a_cancelled_instance_ends_as_its_machine_would_end_it,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Shut,
    Ajar,
    Open,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Shut, Self::Ajar, Self::Open];

    fn name(self) -> &'static str {
        match self {
            Self::Shut => "shut",
            Self::Ajar => "ajar",
            Self::Open => "open",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Gate {
    opened: u32,
}

impl Saga for Gate {
    type Key = u64;
    type State = Stage;

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("opened", format!("times-{}", self.opened))]
    }
}

messages! { Gate:
    Command Build "gates.build",
    Command Nudge "gates.nudge",
    Command Push "gates.push",
    Command Shut "gates.shut",
    Event Creaked "gates.creaked",
}

/// A gate that creaks whenever it opens and when it goes, shuts by itself, and takes a push while
/// ajar for later.
fn gates() -> StateMachine<Gate> {
    let build = Gate::when::<Build>()
        .init(|_| Gate { opened: 0 })
        .schedule("rust", Duration::from_secs(3600), |_, m| Shut { id: m.id })
        .transition_to(Stage::Shut);
    let push = Gate::when::<Push>()
        .then(|gate, _| gate.opened += 1)
        .unschedule("rust")
        .transition_to(Stage::Open);
    StateMachine::named("gate")
        .initially(build)
        .during(Stage::Shut, push)
        .during(
            Stage::Shut,
            Gate::when::<Nudge>().transition_to(Stage::Ajar),
        )
        .during(Stage::Ajar, Gate::defer::<Push>())
        .during(Stage::Open, Gate::when::<Push>().stay())
        .during_any(Gate::when::<Shut>().finalize())
        .on_enter(Stage::Open, |hook| hook.publish(|_, ()| Creaked { id: 1 }))
        .on_leave(Stage::Ajar, |hook| hook.publish(|_, ()| Creaked { id: 2 }))
}

fn gate() -> InstanceId {
    InstanceId {
        kind: "gate".into(),
        key: "1".into(),
    }
}

async fn built(scene: &Scene) -> RunningHost {
    let host = start(
        scene
            .builder("one")
            .endpoint("gates", |e| e.machine(gates())),
    )
    .await;
    host.bus().send(Build { id: 1 }).await.unwrap();
    version(scene, 1).await;
    host
}

async fn version(scene: &Scene, version: i64) {
    let look = || async {
        let found = scene.admin().instance(&gate()).await.unwrap();
        found.filter(|one| one.version == version)
    };
    eventually("a version", look).await;
}

/// What a rehearsal must leave as it is.
async fn everything(admin: &dyn StoreAdmin) -> String {
    let of = HistoryOf::Instance(gate());
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        admin.counts().await.unwrap(),
        admin
            .rows(&RowFilter::default(), Page::oldest(100))
            .await
            .unwrap(),
        admin.instance(&gate()).await.unwrap(),
        admin.labels(&gate()).await.unwrap(),
        admin.history(&of, Page::oldest(100)).await.unwrap(),
    )
}

async fn a_rehearsed_message_shows_how_its_instance_would_move(scene: Scene) {
    let host = built(&scene).await;
    let before = everything(scene.admin()).await;
    let push = Envelope::new(&Push { id: 1 }).unwrap();
    let report = ask(scene.admin(), "gates", rehearsal(&push)).await.report;
    assert_eq!(report.handler.as_deref(), Some("gate"));
    let moved = report.instance.clone().unwrap();
    let (was, is) = (moved.before.unwrap(), moved.after.unwrap());
    let told = |one: &Standing| (one.version, one.state.clone().unwrap(), one.data.clone());
    assert_eq!(told(&was), (1, "shut".to_owned(), json!({ "opened": 0 })));
    assert_eq!(told(&is), (2, "open".to_owned(), json!({ "opened": 1 })));
    assert_eq!(report.cancelled, ["rust"]);
    let label = ("opened".to_owned(), "times-1".to_owned());
    assert_eq!(report.labels, Some(vec![label]));
    assert_eq!(types(&report), ["gates.creaked"]);
    // A new one would begin.
    let build = Envelope::new(&Build { id: 2 }).unwrap();
    let report = ask(scene.admin(), "gates", rehearsal(&build)).await.report;
    let moved = report.instance.clone().unwrap();
    assert_eq!((moved.before, moved.key.as_str()), (None, "2"));
    let armed: Vec<_> = report.sent.iter().map(|one| one.timer.as_deref()).collect();
    assert_eq!(armed, [Some("rust")]);
    assert_eq!(everything(scene.admin()).await, before);
    stop(host).await;
}

fn types(report: &Report) -> Vec<&str> {
    let sent = report.sent.iter();
    sent.map(|one| one.message_type.as_str()).collect()
}

fn by_hand(to: &str, version: i64) -> Task {
    forced(gate(), Some(to), version)
}

fn forced(instance: InstanceId, to: Option<&str>, version: i64) -> Task {
    Task::Transition(Box::new(Forced {
        instance,
        version,
        to: to.map(str::to_owned),
        before: None,
        who: "ada".to_owned(),
    }))
}

async fn an_instance_is_moved_with_what_its_machine_does_on_the_way(scene: Scene) {
    let host = built(&scene).await;
    let report = ask(scene.admin(), "gates", by_hand("ajar", 1)).await.report;
    assert_eq!(report.verdict, Verdict::Well);
    host.bus().send(Push { id: 1 }).await.unwrap();
    version(&scene, 3).await; // It is kept for a later state.
    let report = ask(scene.admin(), "gates", by_hand("open", 3)).await.report;
    assert_eq!(report.verdict, Verdict::Well);
    // The hooks' events, and what was kept comes back.
    let hooks = "gates.creaked";
    assert_eq!(types(&report), [hooks, hooks, "gates.push"]);
    version(&scene, 5).await;
    let found = scene.admin().instance(&gate()).await.unwrap().unwrap();
    assert_eq!(found.state.as_deref(), Some("open"));
    assert!(found.timers.contains_key("rust"), "nobody cancelled it");
    let of = HistoryOf::Instance(gate());
    let history = scene.admin().history(&of, Page::oldest(10)).await.unwrap();
    let notes: Vec<_> = history
        .iter()
        .map(|one| one.entry.detail.note.as_deref())
        .collect();
    let hand = Some("moved by ada");
    assert_eq!(notes, [None, hand, Some("deferred"), hand, None]);
    let detail = &history[3].entry.detail;
    let states = (detail.state_from.as_deref(), detail.state_to.as_deref());
    assert_eq!(states, (Some("ajar"), Some("open")));
    stop(host).await;
}

async fn a_move_that_its_machine_cannot_make_changes_nothing(scene: Scene) {
    let host = built(&scene).await;
    let before = everything(scene.admin()).await;
    let door = || InstanceId {
        kind: "door".into(),
        key: "1".into(),
    };
    for (task, why) in [
        (by_hand("flying", 1), "machine `gate` has no state `flying`"),
        (by_hand("open", 7), "moved meanwhile"),
        (forced(door(), Some("open"), 1), "has no machine `door`"),
        (forced(door(), None, 1), "has no saga or machine `door`"),
        (forced(gate(), None, 7), "moved meanwhile"),
    ] {
        let report = ask(scene.admin(), "gates", task).await.report;
        let Verdict::Refused { error, .. } = report.verdict else {
            panic!("{why}: {report:?}");
        };
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(everything(scene.admin()).await, before);
    stop(host).await;
}

async fn a_cancelled_instance_ends_as_its_machine_would_end_it(scene: Scene) {
    let host = built(&scene).await;
    let report = ask(scene.admin(), "gates", by_hand("ajar", 1)).await.report;
    assert_eq!(report.verdict, Verdict::Well);
    host.bus().send(Push { id: 1 }).await.unwrap();
    version(&scene, 3).await; // It is kept for a later state.
    let cancel = forced(gate(), None, 3);
    let report = ask(scene.admin(), "gates", cancel.clone()).await.report;
    assert_eq!(report.verdict, Verdict::Well);
    // The hook's event, and what was kept, which comes too late now.
    assert_eq!(types(&report), ["gates.creaked", "gates.push"]);
    let after = report.instance.unwrap().after.unwrap();
    assert!(after.is_over && after.timers.is_empty(), "{after:?}");
    let dead = || async { (scene.counts().await.dead_letters == 1).then_some(()) };
    eventually("the push is too late", dead).await;
    let found = scene.admin().instance(&gate()).await.unwrap().unwrap();
    assert_eq!((found.version, found.timers.len()), (4, 0));
    assert_eq!(found.status, InstanceStatus::Completed);
    let (every, page) = (RowFilter::default(), Page::oldest(100));
    let rows = scene.admin().rows(&every, page).await.unwrap();
    assert!(rows.iter().all(|row| row.timer.is_none()), "{rows:?}");
    let of = HistoryOf::Instance(gate());
    let history = scene.admin().history(&of, Page::latest(1)).await.unwrap();
    let detail = &history[0].entry.detail;
    assert_eq!(detail.note.as_deref(), Some("cancelled by ada"));
    assert_eq!(
        (detail.state_from.as_deref(), detail.is_over),
        (Some("ajar"), true)
    );
    let again = ask(scene.admin(), "gates", cancel).await.report;
    assert!(
        matches!(again.verdict, Verdict::Refused { .. }),
        "{again:?}"
    );
    stop(host).await;
}
