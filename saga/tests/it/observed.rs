//! Who observes a host is told how its instances moved.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{HistoryOf, Page};
use sagabus_core::unit_of_work::HistoryEntry;
use sagabus_core::{Ctx, HandlerError, InstanceId, Observer, Result};
use sagabus_saga::MachineEndpoint;
use sagabus_testkit::bus::{Scene, quick_retry, stop};

use crate::order::{OrderShipped, PaymentTaken, PlaceOrder, TakePayment, order_machine};

on_every_store! {
    an_observer_is_told_what_history_has_of_an_instance,
    an_observer_is_told_of_the_try_that_committed_and_of_no_other,
}

const DEADLINE: Duration = Duration::from_secs(60);

async fn take(_: TakePayment, cx: Ctx) -> Result {
    match cx.attempt() {
        1 => Err(HandlerError::new("the first try fails")),
        _ => Ok(()),
    }
}

fn host(scene: &Scene) -> sagabus_core::Host {
    let builder = scene.builder("shop");
    let builder = builder.endpoint("orders", |e| {
        e.machine(order_machine(DEADLINE)).retry(quick_retry())
    });
    let builder = builder.endpoint("payments", |e| e.handle(take).retry(quick_retry()));
    builder.build().unwrap()
}

/// Returns the next entry of this message type.
async fn told_of(observer: &mut Observer, message_type: &str) -> Arc<HistoryEntry> {
    loop {
        let entry = observer.next().await.expect("the host runs");
        if entry.message_type == message_type {
            return entry;
        }
    }
}

async fn an_observer_is_told_what_history_has_of_an_instance(scene: Scene) {
    let host = host(&scene);
    let mut observer = host.observe();
    let host = host.start().await.unwrap();
    let mut told = Vec::new();
    host.bus().send(PlaceOrder { id: 7 }).await.unwrap();
    told.push(told_of(&mut observer, "orders.place").await);
    host.bus().publish(PaymentTaken { id: 7 }).await.unwrap();
    told.push(told_of(&mut observer, "payments.taken").await);
    host.bus().publish(OrderShipped { id: 7 }).await.unwrap();
    told.push(told_of(&mut observer, "shipping.shipped").await);
    let moves: Vec<_> = told
        .iter()
        .map(|entry| {
            let (_, version) = entry.instance.as_ref().unwrap();
            let detail = &entry.detail;
            let from = detail.state_from.as_deref();
            (*version, from, detail.state_to.as_deref(), detail.is_over)
        })
        .collect();
    let expected = [
        (1, None, Some("paying"), false),
        (2, Some("paying"), Some("shipping"), false),
        (3, Some("shipping"), Some("shipping"), true),
    ];
    assert_eq!(moves, expected);

    let id = InstanceId {
        kind: "order".into(),
        key: "7".into(),
    };
    let of = HistoryOf::Instance(id);
    let stored = scene.admin().history(&of, Page::oldest(10)).await.unwrap();
    let stored: Vec<_> = stored.into_iter().map(|one| Arc::new(one.entry)).collect();
    assert_eq!(told, stored);

    stop(host).await;
    while observer.next().await.is_some() {}
    assert_eq!(observer.missed(), 0);
}

async fn an_observer_is_told_of_the_try_that_committed_and_of_no_other(scene: Scene) {
    let host = host(&scene);
    let mut observer = host.observe();
    let host = host.start().await.unwrap();
    host.bus().send(PlaceOrder { id: 8 }).await.unwrap();
    let tried = told_of(&mut observer, "payments.take").await;
    assert_eq!((tried.detail.attempt, &tried.instance), (2, &None));
    stop(host).await;
    while let Some(entry) = observer.next().await {
        assert_ne!(entry.message_type, "payments.take");
    }
}
