//! What a machine promises while it runs.

use std::time::Duration;

use sagabus_core::admin::{HistoryOf, Page};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{InstanceId, MessageId, RunningHost, State};
use sagabus_saga::{MachineEndpoint, Missing};
use sagabus_testkit::bus::{Log, Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;

use crate::order::{
    Order, OrderClosed, OrderShipped, PaymentTaken, PlaceOrder, Remark, TakePayment, order_machine,
};

on_every_store! {
    an_order_goes_from_state_to_state_and_leaves_a_tombstone,
    a_timer_fires_and_an_answer_that_comes_later_is_too_late,
    an_event_that_its_state_does_not_take_is_a_stored_decision,
    a_message_without_an_instance_waits_for_it_and_then_says_so,
    a_message_without_an_instance_may_be_ignored_or_given_up_at_once,
    many_messages_for_one_instance_are_applied_once_each,
    a_finished_key_begins_a_new_life_whose_versions_go_on,
}

async fn take(command: TakePayment, log: State<Log>) {
    log.add(format!("take {}", command.id));
}

async fn close(event: OrderClosed, log: State<Log>) {
    log.add(format!("closed {}", event.id));
}

async fn host(scene: &Scene, deadline: Duration) -> RunningHost {
    let builder = scene.builder("shop");
    let builder = builder.endpoint("orders", |e| {
        e.machine(order_machine(deadline)).retry(quick_retry())
    });
    start(
        builder
            .endpoint("payments", |e| e.handle(take))
            .endpoint("audit", |e| e.handle(close)),
    )
    .await
}

async fn instance(scene: &Scene, id: u64) -> Option<Instance> {
    let id = InstanceId {
        kind: "order".into(),
        key: id.to_string().into(),
    };
    scene
        .admin()
        .instance(&id)
        .await
        .expect("instances can be read")
}

/// Waits until order `id` is in `state`.
async fn in_state(scene: &Scene, id: u64, state: &str) -> Instance {
    let look = || async {
        instance(scene, id)
            .await
            .filter(|one| one.state.as_deref() == Some(state))
    };
    eventually(state, look).await.0
}

const LONG: Duration = Duration::from_secs(3600);

async fn an_order_goes_from_state_to_state_and_leaves_a_tombstone(scene: Scene) {
    let host = host(&scene, LONG).await;
    let bus = host.bus();
    bus.send(PlaceOrder { id: 1 }).await.unwrap();
    let paying = in_state(&scene, 1, "paying").await;
    assert_eq!((paying.version, paying.timers.len()), (1, 1));
    assert_eq!(scene.log.wait_for(1).await, ["take 1"]);
    bus.publish(PaymentTaken { id: 1 }).await.unwrap();
    let shipping = in_state(&scene, 1, "shipping").await;
    assert_eq!((shipping.version, shipping.timers.len()), (2, 0));
    bus.publish(OrderShipped { id: 1 }).await.unwrap();
    assert_eq!(scene.log.wait_for(2).await, ["take 1", "closed 1"]);
    scene.quiet().await;
    stop(host).await;
    let over = instance(&scene, 1).await.expect("the tombstone stays");
    assert_eq!((over.version, over.status), (3, InstanceStatus::Completed));
    assert_eq!(
        scene.counts().await.outbox,
        0,
        "the timer's row went with the timer"
    );
}

async fn a_timer_fires_and_an_answer_that_comes_later_is_too_late(scene: Scene) {
    let host = host(&scene, Duration::from_millis(100)).await;
    host.bus().send(PlaceOrder { id: 2 }).await.unwrap();
    let mut lines = scene.log.wait_for(2).await;
    lines.sort();
    assert_eq!(lines, ["closed 2", "take 2"]);
    host.bus().publish(PaymentTaken { id: 2 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "too_late");
    stop(host).await;
}

async fn an_event_that_its_state_does_not_take_is_a_stored_decision(scene: Scene) {
    let host = host(&scene, LONG).await;
    host.bus().send(PlaceOrder { id: 3 }).await.unwrap();
    in_state(&scene, 3, "paying").await;
    host.bus().publish(OrderShipped { id: 3 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "event_not_accepted_in_state");
    let of = dead[0].instance.as_ref().map(|id| (&*id.kind, &*id.key));
    assert_eq!(of, Some(("order", "3")), "it says for which instance");
    assert!(
        dead[0].attempts[0].error.contains("in state `paying`"),
        "{:?}",
        dead[0].attempts
    );
    assert_eq!(instance(&scene, 3).await.expect("it goes on").version, 1);
    stop(host).await;
}

async fn a_message_without_an_instance_waits_for_it_and_then_says_so(scene: Scene) {
    let host = host(&scene, LONG).await;
    host.bus().publish(Remark { id: 4 }).await.unwrap();
    assert_eq!(scene.dead_letters(1).await[0].reason, "no_instance");
    stop(host).await;
}

async fn a_message_without_an_instance_may_be_ignored_or_given_up_at_once(scene: Scene) {
    let machine = order_machine(LONG).missing(Missing::Ignore);
    let machine = machine.missing_for::<OrderShipped>(Missing::DeadLetter);
    let builder = scene.builder("shop");
    let host = start(builder.endpoint("orders", |e| e.machine(machine))).await;
    let id = MessageId::new();
    let bus = host.bus();
    let sent = bus.publish(PaymentTaken { id: 7 }).with_id(id);
    sent.await.unwrap();
    let told = || async {
        let of = HistoryOf::Message(id);
        let found = scene.admin().history(&of, Page::oldest(10)).await.unwrap();
        found.into_iter().next()
    };
    let told = eventually("a note", told).await.0;
    assert_eq!(told.entry.detail.note.as_deref(), Some("no_instance"));
    assert_eq!(scene.counts().await.dead_letters, 0);
    bus.publish(OrderShipped { id: 7 }).await.unwrap();
    let dead = scene.dead_letters(1).await;
    stop(host).await;
    assert_eq!(dead[0].reason, "no_instance");
    assert_eq!(dead[0].attempts.len(), 1, "{:?}", dead[0].attempts);
    assert!(instance(&scene, 7).await.is_none());
}

async fn many_messages_for_one_instance_are_applied_once_each(scene: Scene) {
    let host = host(&scene, LONG).await;
    let bus = host.bus();
    bus.send(PlaceOrder { id: 5 }).await.unwrap();
    in_state(&scene, 5, "paying").await;
    for _ in 0..200 {
        bus.publish(Remark { id: 5 }).await.unwrap();
    }
    let look = || async { instance(&scene, 5).await.filter(|one| one.version == 201) };
    let (hot, _) = eventually("version 201", look).await;
    let order: Order = serde_json::from_slice(&hot.data).unwrap();
    assert_eq!(order.remarks, 200);
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_finished_key_begins_a_new_life_whose_versions_go_on(scene: Scene) {
    let host = host(&scene, Duration::from_millis(50)).await;
    host.bus().send(PlaceOrder { id: 6 }).await.unwrap();
    let is_over = |one: &Instance| one.status == InstanceStatus::Completed;
    let look = || async { instance(&scene, 6).await.filter(is_over) };
    let (over, _) = eventually("the end", look).await;
    host.bus().send(PlaceOrder { id: 6 }).await.unwrap();
    let look = || async {
        instance(&scene, 6)
            .await
            .filter(|one| one.version > over.version)
    };
    let (again, _) = eventually("a new life", look).await;
    assert_eq!(over.version, 2);
    assert!(again.version >= 3);
    scene.log.wait_for(4).await;
    stop(host).await;
}
