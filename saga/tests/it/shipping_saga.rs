//! What a handler-per-message saga promises.

use std::time::Duration;

use sagabus_core::admin::{Forced, HistoryOf, Page, RowFilter, Task, Verdict};
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Ctx, Host, InstanceId, Result, RunningHost, State};
use sagabus_outbox::{Postgres, Tx};
use sagabus_saga::{HandlerSaga, Missing, SagaEndpoint, saga};
use sagabus_testkit::bus::rehearsing::ask;
use sagabus_testkit::bus::{Log, Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;

use crate::shipping::{
    AskForWeight, Break, Hurry, OrderPacked, OrderPaid, Shipped, Shipping, TookTooLong, Weigh,
    Weight,
};

on_every_store! {
    messages_that_start_it_come_in_any_order,
    concurrent_starters_converge_on_one_instance,
    a_time_out_is_replaced_and_fires_once,
    an_answer_finds_its_instance_without_a_key,
    a_question_that_dies_is_told,
    an_answer_that_comes_too_late_has_no_effect,
    what_a_failed_handler_changed_is_dropped,
    a_message_that_comes_too_early_is_handled_when_the_instance_is_there,
    a_message_whose_instance_never_comes_is_a_dead_letter_after_its_budget,
    a_key_that_lives_once_is_not_started_again,
    keys_may_be_long_and_of_any_script_but_not_empty,
    a_cancelled_saga_is_over_with_its_timers,
}

fn shipping() -> HandlerSaga<Shipping> {
    saga::<Shipping>()
        .starts_with::<OrderPaid>()
        .starts_with::<OrderPacked>()
        .on::<Hurry>()
        .on::<TookTooLong>()
        .on::<Weigh>()
        .on::<Break>()
        .on_answer::<Weight>()
        .on_request_failed()
        .on_request_timed_out()
        .uses::<State<Log>>()
}

async fn note_shipped(event: Shipped, log: State<Log>) {
    log.add(format!("shipped {}", event.id));
}

async fn host_of(scene: &Scene, saga: HandlerSaga<Shipping>) -> RunningHost {
    let builder = scene.builder("shop");
    let builder = builder.endpoint("shipping", |e| e.saga(saga).retry(quick_retry()));
    start(builder.endpoint("notes", |e| e.handle(note_shipped))).await
}

fn id(key: impl ToString) -> InstanceId {
    InstanceId {
        kind: "shipping".into(),
        key: key.to_string().into(),
    }
}

async fn instance(scene: &Scene, key: u64) -> Option<Instance> {
    scene.admin().instance(&id(key)).await.unwrap()
}

async fn at_version(scene: &Scene, key: u64, version: i64) -> Instance {
    let look = || async {
        instance(scene, key)
            .await
            .filter(|one| one.version == version)
    };
    eventually("the version", look).await.0
}

async fn messages_that_start_it_come_in_any_order(scene: Scene) {
    let host = host_of(&scene, shipping()).await;
    let bus = host.bus();
    bus.publish(OrderPaid { id: 1 }).await.unwrap();
    at_version(&scene, 1, 1).await;
    bus.publish(OrderPacked { id: 1 }).await.unwrap();
    bus.publish(OrderPacked { id: 2 }).await.unwrap();
    at_version(&scene, 2, 1).await;
    bus.publish(OrderPaid { id: 2 }).await.unwrap();
    let mut lines = scene.log.wait_for(2).await;
    lines.sort();
    assert_eq!(lines, ["shipped 1", "shipped 2"]);
    scene.quiet().await;
    stop(host).await;
    for key in [1, 2] {
        let over = instance(&scene, key).await.unwrap();
        assert_eq!((over.version, over.status), (2, InstanceStatus::Completed));
        assert!(over.timers.is_empty(), "{:?}", over.timers);
    }
}

async fn concurrent_starters_converge_on_one_instance(scene: Scene) {
    const KEYS: u64 = 40;
    let host = host_of(&scene, shipping()).await;
    let builder = scene.builder_on("other", scene.peer());
    let other = start(builder.endpoint("shipping", |e| e.saga(shipping()))).await;
    for key in 0..KEYS {
        let (paid, packed) = (host.bus(), other.bus());
        let (paid, packed) = tokio::join!(
            paid.publish(OrderPaid { id: key }),
            packed.publish(OrderPacked { id: key }),
        );
        paid.and(packed).unwrap();
    }
    let mut lines = scene.log.wait_for(KEYS as usize).await;
    scene.quiet().await;
    stop(host).await;
    stop(other).await;
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), KEYS as usize, "each was shipped once");
    let counts = scene.counts().await;
    assert_eq!((counts.completed, counts.dead_letters), (KEYS, 0));
}

async fn a_time_out_is_replaced_and_fires_once(scene: Scene) {
    let host = host_of(&scene, shipping()).await;
    host.bus().publish(OrderPaid { id: 3 }).await.unwrap();
    let first = at_version(&scene, 3, 1).await;
    host.bus().send(Hurry { id: 3 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["3 took too long"]);
    scene.quiet().await;
    stop(host).await;
    let over = instance(&scene, 3).await.unwrap();
    assert_eq!(first.timers["patience"], 1);
    assert_eq!((over.version, over.status), (3, InstanceStatus::Completed));
}

async fn weigh(_: AskForWeight) -> Weight {
    Weight { grams: 500 }
}

async fn break_the_scales(_: AskForWeight) -> Result<Weight> {
    Err(sagabus_core::HandlerError::new("no scales").terminal())
}

async fn an_answer_finds_its_instance_without_a_key(scene: Scene) {
    let builder = scene
        .builder("shop")
        .endpoint("shipping", |e| e.saga(shipping()));
    let host = start(builder.endpoint("scales", |e| e.handle(weigh))).await;
    host.bus().publish(OrderPaid { id: 4 }).await.unwrap();
    at_version(&scene, 4, 1).await;
    host.bus().send(Weigh { id: 4 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["4 weighs 500"]);
    let weighed = at_version(&scene, 4, 3).await;
    stop(host).await;
    let armed: Vec<_> = weighed.timers.keys().collect();
    assert_eq!(armed, ["patience"], "the question's time-out went with it");
}

async fn a_question_that_dies_is_told(scene: Scene) {
    let builder = scene
        .builder("shop")
        .endpoint("shipping", |e| e.saga(shipping()));
    let host = start(builder.endpoint("scales", |e| e.handle(break_the_scales))).await;
    host.bus().publish(OrderPaid { id: 6 }).await.unwrap();
    at_version(&scene, 6, 1).await;
    host.bus().send(Weigh { id: 6 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["6 weight terminal"]);
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].envelope.message_type, "scales.weigh");
    stop(host).await;
}

async fn an_answer_that_comes_too_late_has_no_effect(scene: Scene) {
    async fn weigh_slowly(_: AskForWeight, log: State<Log>, cx: Ctx) -> Result {
        // The news of the time-out comes first, then the answer.
        log.wait_for(1).await;
        cx.reply(Weight { grams: 1 })?;
        Ok(())
    }
    let builder = scene
        .builder("shop")
        .endpoint("shipping", |e| e.saga(shipping()));
    let host = start(builder.endpoint("scales", |e| e.handle(weigh_slowly))).await;
    host.bus().publish(OrderPaid { id: 5 }).await.unwrap();
    at_version(&scene, 5, 1).await;
    host.bus().send(Weigh { id: 5 }).await.unwrap();
    at_version(&scene, 5, 3).await;
    host.bus().send(Hurry { id: 5 }).await.unwrap();
    let lines = scene.log.wait_for(2).await;
    assert_eq!(lines, ["5 weight timed out", "5 took too long"]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
    assert_eq!(instance(&scene, 5).await.unwrap().version, 5);
}

async fn what_a_failed_handler_changed_is_dropped(scene: Scene) {
    let host = host_of(&scene, shipping()).await;
    host.bus().publish(OrderPaid { id: 7 }).await.unwrap();
    let before = at_version(&scene, 7, 1).await;
    host.bus().send(Break { id: 7 }).await.unwrap();
    assert_eq!(scene.dead_letters(1).await[0].reason, "terminal");
    stop(host).await;
    assert_eq!(instance(&scene, 7).await, Some(before));
    assert!(scene.log.lines().is_empty());
}

async fn a_message_that_comes_too_early_is_handled_when_the_instance_is_there(scene: Scene) {
    let host = host_of(&scene, shipping()).await;
    host.bus().send(Hurry { id: 8 }).await.unwrap();
    // It has been tried and waits.
    let counters = host.counters();
    let is_postponed = |one: &(&str, u64)| one.0 == "postponed" && one.1 > 0;
    let look = || async { counters.snapshot().iter().any(is_postponed).then_some(()) };
    eventually("a first try", look).await;
    host.bus().publish(OrderPaid { id: 8 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["8 took too long"]);
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_message_whose_instance_never_comes_is_a_dead_letter_after_its_budget(scene: Scene) {
    let budget = Missing::Wait(Duration::from_millis(120));
    let host = host_of(&scene, shipping().missing(budget)).await;
    host.bus().send(Hurry { id: 9 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "no_instance");
    assert!(dead[0].attempts.len() > 1, "{:?}", dead[0].attempts);
    let error = &dead[0].attempts[0].error;
    assert!(error.contains("no shipping exists yet"), "{error}");
    stop(host).await;
}

async fn a_key_that_lives_once_is_not_started_again(scene: Scene) {
    let host = host_of(&scene, shipping().once_per_key()).await;
    host.bus().publish(OrderPaid { id: 10 }).await.unwrap();
    host.bus().publish(OrderPacked { id: 10 }).await.unwrap();
    assert_eq!(scene.log.wait_for(1).await, ["shipped 10"]);
    host.bus().publish(OrderPaid { id: 10 }).await.unwrap();
    assert_eq!(scene.dead_letters(1).await[0].reason, "too_late");
    stop(host).await;
    assert_eq!(instance(&scene, 10).await.unwrap().version, 2);
}

async fn keys_may_be_long_and_of_any_script_but_not_empty(scene: Scene) {
    let host = crate::named::host(&scene).await;
    let long = "ß".repeat(1024);
    for key in [long.as_str(), "Größe 7/'x'\u{1f600}", "\u{1f}:;--\"", " "] {
        host.bus()
            .send(crate::named::Greet(key.to_owned()))
            .await
            .unwrap();
        let wanted = InstanceId {
            kind: "greeting".into(),
            key: key.into(),
        };
        let look = || async { scene.admin().instance(&wanted).await.unwrap() };
        assert_eq!(eventually("the instance", look).await.0.version, 1);
    }
    for key in [String::new(), "k".repeat(2049)] {
        host.bus().send(crate::named::Greet(key)).await.unwrap();
    }
    let dead = scene.dead_letters(2).await;
    assert!(
        dead.iter().all(|one| one.reason == "unusable_key"),
        "{dead:?}"
    );
    stop(host).await;
    assert_eq!(scene.counts().await.running, 4);
}

#[test]
fn what_a_saga_uses_and_the_host_has_not_is_refused() {
    let host = Host::builder("shop").store(MemoryStore::new());
    let host = host.endpoint("shipping", |e| e.saga(shipping()));
    let error = host.build().expect_err("the log is missing").to_string();
    assert!(
        error.contains("shipping") && error.contains("`.state(..)`"),
        "{error}"
    );

    let host = Host::builder("shop").store(MemoryStore::new());
    let host = host.state(Log::default());
    let sagas = shipping().uses::<Tx<Postgres>>();
    let host = host.endpoint("shipping", |e| e.saga(sagas));
    let error = host
        .build()
        .expect_err("the store is another one")
        .to_string();
    assert!(error.contains("PgStore"), "{error}");
}

#[test]
fn a_saga_that_nothing_starts_or_that_takes_a_message_twice_is_refused() {
    let refusal = |sagas: HandlerSaga<Shipping>| {
        let host = Host::builder("shop").store(MemoryStore::new());
        let host = host.endpoint("shipping", |e| e.saga(sagas));
        host.build().expect_err("it is refused").to_string()
    };
    let error = refusal(saga::<Shipping>().on::<Hurry>());
    assert!(error.contains("nothing starts it"), "{error}");
    let error = refusal(
        saga::<Shipping>()
            .starts_with::<OrderPaid>()
            .on::<OrderPaid>(),
    );
    assert!(error.contains("`shop.paid` is added twice"), "{error}");
}

async fn a_cancelled_saga_is_over_with_its_timers(scene: Scene) {
    let host = host_of(&scene, shipping()).await;
    host.bus().publish(OrderPaid { id: 9 }).await.unwrap();
    assert_eq!(at_version(&scene, 9, 1).await.timers.len(), 1);
    let cancel = Task::Transition(Box::new(Forced {
        instance: id(9),
        version: 1,
        to: None,
        before: None,
        who: "ada".to_owned(),
    }));
    let report = ask(scene.admin(), "shipping", cancel).await.report;
    assert_eq!(report.verdict, Verdict::Well);
    assert!(report.sent.is_empty(), "{report:?}");
    let over = at_version(&scene, 9, 2).await;
    assert_eq!(over.status, InstanceStatus::Completed);
    assert!(over.timers.is_empty(), "{over:?}");
    let (every, page) = (RowFilter::default(), Page::oldest(100));
    let rows = scene.admin().rows(&every, page).await.unwrap();
    assert!(rows.iter().all(|row| row.timer.is_none()), "{rows:?}");
    let of = HistoryOf::Instance(id(9));
    let history = scene.admin().history(&of, Page::latest(1)).await.unwrap();
    let detail = &history[0].entry.detail;
    assert_eq!(detail.note.as_deref(), Some("cancelled by ada"));
    assert!(detail.is_over);
    stop(host).await;
}
