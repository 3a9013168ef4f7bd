//! What each word of a machine does.

use sagabus_core::admin::{HistoryOf, Page};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Bus, Ctx, HandlerError, InstanceId, Result, RunningHost, State};
use sagabus_saga::{MachineEndpoint, NotAccepted, Saga, StateMachine};
use sagabus_testkit::bus::{Log, Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;

use crate::parcel::{
    AskCustoms, Clear, Cleared, Deliver, Delivered, Inspect, Insure, Labelled, Left, Never, Parcel,
    Place, Prepay, Register, Remark, StartParcel, Touch, Uninsured, Weighed, parcel_machine,
};

on_every_store! {
    branches_are_tried_in_order,
    a_composite_happens_once_when_all_parts_have_come_in_any_order,
    what_a_state_takes_its_parts_take_too,
    a_deferred_message_is_handled_when_the_state_changes,
    a_message_that_is_deferred_for_ever_is_a_dead_letter_with_the_reason,
    deferred_messages_of_an_instance_that_ends_are_told_so,
    an_ignored_message_leaves_a_note_and_no_effect,
    hooks_run_in_the_order_of_leaving_and_entering,
    a_function_runs_inside_the_unit_and_a_failure_has_an_answer,
    a_failing_answer_to_a_failure_is_a_dead_letter,
    a_question_is_answered,
    a_question_that_becomes_a_dead_letter_has_a_branch,
    a_question_that_is_not_answered_in_time_has_a_branch,
    the_request_that_started_it_is_answered_at_the_end,
    what_a_state_does_not_take_may_be_kept_or_ignored,
}

const CUSTOMS_WAIT: u64 = 6;

async fn clear(command: AskCustoms, cx: Ctx, log: State<Log>) -> Result {
    match command.id {
        4 => Err(HandlerError::new("no customs").terminal()),
        CUSTOMS_WAIT => {
            log.wait_for(1).await;
            cx.reply(Cleared { fee: 6 }).map(drop)
        }
        id => cx.reply(Cleared { fee: id }).map(drop),
    }
}

async fn note_left(event: Left, log: State<Log>) {
    log.add(format!("left {}", event.id));
}

async fn note_uninsured(event: Uninsured, log: State<Log>) {
    log.add(format!("uninsured {}", event.id));
}

async fn host_of(scene: &Scene, machine: StateMachine<Parcel>) -> RunningHost {
    let builder = scene.builder("post");
    let builder = builder.endpoint("parcels", |e| e.machine(machine).retry(quick_retry()));
    let builder = builder.endpoint("customs", |e| e.handle(clear));
    start(builder.endpoint("notes", |e| e.handle(note_left).handle(note_uninsured))).await
}

async fn host(scene: &Scene) -> (RunningHost, Bus) {
    let host = host_of(scene, parcel_machine()).await;
    let bus = host.bus();
    (host, bus)
}

async fn instance(scene: &Scene, id: u64) -> Option<Instance> {
    let id = InstanceId {
        kind: "parcel".into(),
        key: id.to_string().into(),
    };
    scene.admin().instance(&id).await.unwrap()
}

async fn at_version(scene: &Scene, id: u64, version: i64) -> Instance {
    let what = format!("version {version} of {id}");
    let look = || async {
        instance(scene, id)
            .await
            .filter(|one| one.version == version)
    };
    eventually(&what, look).await.0
}

/// Reads the trail of an instance, also where something is kept beside it.
fn trail(instance: &Instance) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&instance.data).unwrap();
    let data = json.get("data").unwrap_or(&json);
    let parcel: Parcel = serde_json::from_value(data.clone()).unwrap();
    let is_hook = |line: &String| {
        let hooks = ["enter", "leave", "before", "after"];
        hooks.iter().any(|hook| line.starts_with(hook))
    };
    parcel
        .trail
        .into_iter()
        .filter(|line| !is_hook(line))
        .collect()
}

async fn branches_are_tried_in_order(scene: Scene) {
    let (host, bus) = host(&scene).await;
    for id in [1, 2, 102] {
        bus.send(Register { id }).await.unwrap();
        at_version(&scene, id, 1).await;
        bus.send(Inspect { id }).await.unwrap();
    }
    let heavy = at_version(&scene, 1, 2).await;
    let light = at_version(&scene, 2, 2).await;
    let large = at_version(&scene, 102, 2).await;
    stop(host).await;
    assert_eq!(trail(&heavy), ["inspected"]);
    assert_eq!(heavy.state.as_deref(), Some("checking"));
    assert_eq!(trail(&light), ["waved through"]);
    assert_eq!(light.state.as_deref(), Some("packing"));
    assert_eq!(trail(&large), ["large number", "waved through"]);
}

async fn a_composite_happens_once_when_all_parts_have_come_in_any_order(scene: Scene) {
    let (host, bus) = host(&scene).await;
    for id in [1, 2] {
        bus.send(Register { id }).await.unwrap();
        at_version(&scene, id, 1).await;
    }
    bus.publish(Weighed { id: 2 }).await.unwrap();
    at_version(&scene, 2, 2).await;
    bus.publish(Weighed { id: 2 }).await.unwrap();
    let half = at_version(&scene, 2, 3).await;
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Labelled { id: 1 }).await.unwrap();
    at_version(&scene, 1, 2).await;
    bus.publish(Weighed { id: 1 }).await.unwrap();
    let mut lines = scene.log.wait_for(2).await;
    let (first, second) = (
        at_version(&scene, 1, 3).await,
        at_version(&scene, 2, 4).await,
    );
    scene.quiet().await;
    stop(host).await;
    lines.sort();
    assert_eq!(lines, ["left 1", "left 2"]);
    assert_eq!(half.state.as_deref(), Some("packing"));
    // In `checking` a part alone does nothing; in `packing` it has a branch of its own, too.
    assert_eq!(trail(&first), ["ready"]);
    assert_eq!(trail(&second), ["weighed", "weighed", "ready"]);
    assert_eq!(second.state.as_deref(), Some("moving"));
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn what_a_state_takes_its_parts_take_too(scene: Scene) {
    let (host, bus) = host(&scene).await;
    for id in [1, 2] {
        bus.send(Register { id }).await.unwrap();
        at_version(&scene, id, 1).await;
        bus.send(Remark { id }).await.unwrap();
        assert_eq!(trail(&at_version(&scene, id, 2).await), ["remark"]);
    }
    stop(host).await;
}

async fn a_deferred_message_is_handled_when_the_state_changes(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Register { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    bus.send(Deliver { id: 2 }).await.unwrap();
    let kept = at_version(&scene, 2, 2).await;
    scene.quiet().await;
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Weighed { id: 2 }).await.unwrap();
    let look = || async {
        let is_over = |one: &Instance| one.status == InstanceStatus::Completed;
        instance(&scene, 2).await.filter(is_over)
    };
    // Nobody asked for an answer, so the delivery itself is refused with that reason.
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "no_reply_address");
    assert_eq!(dead[0].envelope.message_type, "parcels.deliver");
    assert!(look().await.is_none());
    stop(host).await;
    assert!(String::from_utf8_lossy(&kept.data).contains("$saga"));
}

async fn a_message_that_is_deferred_for_ever_is_a_dead_letter_with_the_reason(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Register { id: 1 }).await.unwrap();
    at_version(&scene, 1, 1).await;
    for _ in 0..101 {
        bus.send(Never { id: 1 }).await.unwrap();
    }
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "deferred_too_often");
    let error = &dead[0].attempts[0].error;
    assert!(error.contains("keeps no more for later"), "{error}");
    let full = at_version(&scene, 1, 101).await;
    // Its neighbour and itself go on.
    bus.send(Remark { id: 1 }).await.unwrap();
    assert_eq!(trail(&at_version(&scene, 1, 102).await), ["remark"]);
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 1);
    assert!(full.data.len() > 100);
}

async fn deferred_messages_of_an_instance_that_ends_are_told_so(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Register { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    bus.send(Never { id: 2 }).await.unwrap();
    at_version(&scene, 2, 2).await;
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Weighed { id: 2 }).await.unwrap();
    // Moving keeps it, too.
    at_version(&scene, 2, 5).await;
    scene.quiet().await;
    stop(host).await;
    let machine = parcel_machine().during(Place::Moving, Parcel::when::<Remark>().finalize());
    let host = host_of(&scene, machine).await;
    host.bus().send(Remark { id: 2 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "too_late");
    assert_eq!(dead[0].envelope.message_type, "parcels.never");
    stop(host).await;
}

async fn an_ignored_message_leaves_a_note_and_no_effect(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Register { id: 2 }).await.unwrap();
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Weighed { id: 2 }).await.unwrap();
    let before = at_version(&scene, 2, 3).await;
    bus.send(Touch { id: 2 }).await.unwrap();
    let after = at_version(&scene, 2, 4).await;
    stop(host).await;
    assert_eq!((&after.data, &after.state), (&before.data, &before.state));
    let of = HistoryOf::Instance(after.id);
    let told = scene.admin().history(&of, Page::latest(1)).await.unwrap();
    let detail = &told[0].entry.detail;
    assert_eq!(detail.note.as_deref(), Some("ignored"));
    assert!(detail.sent.is_empty(), "{detail:?}");
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn hooks_run_in_the_order_of_leaving_and_entering(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Prepay { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    bus.publish(Labelled { id: 2 }).await.unwrap();
    at_version(&scene, 2, 2).await;
    bus.publish(Weighed { id: 2 }).await.unwrap();
    let moving = at_version(&scene, 2, 3).await;
    stop(host).await;
    let parcel: Parcel = serde_json::from_slice(&moving.data).unwrap();
    let expected = [
        "prepaid",
        "before",
        "enter warehouse",
        "enter packing",
        "weighed",
        "ready",
        "leave packing",
        "leave warehouse",
        "before",
        "after",
        "enter moving",
    ];
    assert_eq!(parcel.trail, expected);
}

async fn a_function_runs_inside_the_unit_and_a_failure_has_an_answer(scene: Scene) {
    let (host, bus) = host(&scene).await;
    for id in [12, 13] {
        bus.send(Register { id }).await.unwrap();
        at_version(&scene, id, 1).await;
        bus.send(Insure { id }).await.unwrap();
    }
    let (good, bad) = (
        at_version(&scene, 12, 2).await,
        at_version(&scene, 13, 2).await,
    );
    let look = || async { (scene.log.count("uninsured 13") == 1).then_some(()) };
    eventually("the answer to the failure", look).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(trail(&good), ["insured"]);
    assert_eq!(trail(&bad), ["uninsured"], "what failed is gone");
    // Once, once more at once, and twice later: as often as the endpoint allows.
    assert_eq!(scene.log.count("insures 13"), 4);
    assert_eq!(
        (scene.log.count("left 12"), scene.log.count("left 13")),
        (1, 0)
    );
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_failing_answer_to_a_failure_is_a_dead_letter(scene: Scene) {
    let (host, bus) = host(&scene).await;
    bus.send(Register { id: 26 }).await.unwrap();
    at_version(&scene, 26, 1).await;
    bus.send(Insure { id: 26 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "terminal");
    assert_eq!(dead[0].attempts.len(), 2, "{:?}", dead[0].attempts);
    stop(host).await;
    assert_eq!(instance(&scene, 26).await.unwrap().version, 1);
}

async fn ask(scene: &Scene, bus: &Bus, id: u64) -> Vec<String> {
    bus.send(Register { id }).await.unwrap();
    at_version(scene, id, 1).await;
    bus.send(Clear { id }).await.unwrap();
    let answered = at_version(scene, id, 3).await;
    assert!(answered.timers.is_empty(), "{:?}", answered.timers);
    trail(&answered)
}

async fn a_question_is_answered(scene: Scene) {
    let (host, bus) = host(&scene).await;
    assert_eq!(ask(&scene, &bus, 2).await, ["cleared for 2"]);
    scene.quiet().await;
    stop(host).await;
}

async fn a_question_that_becomes_a_dead_letter_has_a_branch(scene: Scene) {
    let (host, bus) = host(&scene).await;
    assert_eq!(ask(&scene, &bus, 4).await, ["not cleared: terminal"]);
    stop(host).await;
}

async fn a_question_that_is_not_answered_in_time_has_a_branch(scene: Scene) {
    let (host, bus) = host(&scene).await;
    let trail = ask(&scene, &bus, CUSTOMS_WAIT).await;
    assert_eq!(trail, ["not cleared in time"]);
    // Now the answer comes, and has no effect.
    scene.log.add("go on");
    scene.quiet().await;
    stop(host).await;
    let after = instance(&scene, CUSTOMS_WAIT).await.unwrap();
    assert_eq!(after.version, 3);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn the_request_that_started_it_is_answered_at_the_end(scene: Scene) {
    async fn ask_for_parcel(command: StartParcel, cx: Ctx) -> Result {
        cx.send(Register { id: command.id }).map(drop)
    }
    async fn note_delivered(answer: Delivered, log: State<Log>) {
        log.add(format!("delivered {}", answer.id));
    }
    let machine = parcel_machine();
    let builder = scene
        .builder("post")
        .endpoint("parcels", |e| e.machine(machine));
    let host = start(builder).await;
    let builder = scene.builder_on("shop", scene.peer());
    let shop = builder.endpoint("shop", |e| e.handle(note_delivered).handle(ask_for_parcel));
    let shop = start(shop).await;
    shop.bus().send(StartParcel { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    let bus = host.bus();
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Weighed { id: 2 }).await.unwrap();
    at_version(&scene, 2, 3).await;
    bus.send(Deliver { id: 2 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["delivered 2"]);
    let over = at_version(&scene, 2, 4).await;
    stop(host).await;
    stop(shop).await;
    assert_eq!(over.status, InstanceStatus::Completed);
    assert!(trail(&over).contains(&"over".to_owned()));
}

async fn what_a_state_does_not_take_may_be_kept_or_ignored(scene: Scene) {
    let machine = parcel_machine().not_accepted(NotAccepted::Ignore);
    let host = host_of(&scene, machine).await;
    host.bus().send(Register { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    host.bus().send(Touch { id: 2 }).await.unwrap();
    let ignored = at_version(&scene, 2, 2).await;
    stop(host).await;
    let host = host_of(&scene, parcel_machine().not_accepted(NotAccepted::Defer)).await;
    host.bus().send(Touch { id: 2 }).await.unwrap();
    let kept = at_version(&scene, 2, 3).await;
    let bus = host.bus();
    bus.publish(Labelled { id: 2 }).await.unwrap();
    bus.publish(Weighed { id: 2 }).await.unwrap();
    // Moving ignores what was kept.
    let moving = at_version(&scene, 2, 6).await;
    scene.quiet().await;
    stop(host).await;
    assert!(!String::from_utf8_lossy(&ignored.data).contains("$saga"));
    assert!(String::from_utf8_lossy(&kept.data).contains("parcels.touch"));
    assert!(!String::from_utf8_lossy(&moving.data).contains("$saga"));
    assert_eq!(scene.counts().await.dead_letters, 0);
}
