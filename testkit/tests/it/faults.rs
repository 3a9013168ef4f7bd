//! Every fault does what it says, is counted, and leaves its trace in the log.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::envelope::Envelope;
use sagabus_core::error::TransportError;
use sagabus_core::headers::Headers;
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Delivery, Publication, Transport, address};
use sagabus_testkit::fault_broker::{Control, Effect, Fault, FaultBroker, FaultTransport};
use sagabus_testkit::wait::{PATIENCE, eventually};
use tokio::time::Instant;

/// A broker with one endpoint that takes one event.
struct Scene {
    _broker: FaultBroker,
    transport: FaultTransport,
    control: Control,
    endpoint: EndpointSpec,
}

async fn scene() -> Scene {
    let broker = FaultBroker::start().await.expect("a broker starts here");
    let endpoint = EndpointSpec {
        name: EndpointName::new("orders").expect("a usable name"),
        order: Order::Unordered,
        subscriptions: vec![Subscription {
            message_type: "shop.placed".into(),
            kind: Kind::Event,
        }],
    };
    let transport = broker.transport();
    let endpoints = std::slice::from_ref(&endpoint);
    let declared = transport.declare(StoreId::new(), endpoints).await;
    declared.expect("the endpoint is declared");
    Scene {
        transport,
        control: broker.control(),
        endpoint,
        _broker: broker,
    }
}

impl Scene {
    fn event(&self) -> Publication {
        Publication {
            address: address(Kind::Event, "shop.placed"),
            envelope: Envelope {
                id: MessageId::new(),
                message_type: "shop.placed".into(),
                headers: Headers::new(),
                body: Bytes::from_static(b"{}"),
            },
            key: None,
        }
    }

    async fn publish(&self, one: &Publication) -> Result<(), TransportError> {
        let mut answers = self.transport.publish(std::slice::from_ref(one)).await;
        answers.remove(0)
    }

    async fn receive(&self) -> BoxStream<'static, Delivery> {
        let subscribed = self.transport.subscribe(&self.endpoint, 50).await;
        subscribed.expect("the endpoint is declared")
    }

    async fn fired(&self, name: &str) -> u64 {
        let fired = self.control.fired().await;
        fired.get(name).copied().unwrap_or_default()
    }
}

async fn next(deliveries: &mut BoxStream<'static, Delivery>) -> MessageId {
    let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await;
    let delivery = delivery
        .expect("a delivery comes")
        .expect("the stream goes on");
    let id = delivery.envelope.id;
    delivery.ack().await;
    id
}

/// Names an answer.
fn word(answer: &Result<(), TransportError>) -> &'static str {
    match answer {
        Ok(()) => "ok",
        Err(TransportError::Refused(_)) => "refused",
        Err(TransportError::Unroutable { .. }) => "unroutable",
        Err(TransportError::Unknown(_)) => "unknown",
        Err(_) => "another error",
    }
}

#[tokio::test]
async fn each_answer_is_as_it_was_told() {
    let scene = scene().await;
    // Which answer, and whether the broker has the message.
    let cases = [
        (Effect::Nack, "refused", false),
        (Effect::Return, "unroutable", false),
        (Effect::CutBeforeTaking, "unknown", false),
        (Effect::CutBeforeConfirm, "unknown", true),
        (Effect::CutAfterConfirm, "ok", true),
        (Effect::Withhold, "unknown", true),
    ];
    let mut deliveries = scene.receive().await;
    for (effect, expected, is_taken) in cases {
        scene.control.inject(Fault::once(effect)).await;
        let event = scene.event();
        let answer = scene.publish(&event).await;
        assert_eq!(word(&answer), expected, "{effect:?}: {answer:?}");
        assert_eq!(scene.fired(effect.name()).await, 1);
        let log = scene.control.log().await;
        let last = log.published.last().expect("it is logged");
        assert_eq!(
            (last.id, last.is_taken),
            (event.envelope.id, is_taken),
            "{effect:?}"
        );
        assert_eq!(last.effect, Some(effect));
        if is_taken {
            assert_eq!(next(&mut deliveries).await, event.envelope.id, "{effect:?}");
        }
        let after = scene.event();
        let again = scene.publish(&after).await;
        assert!(again.is_ok(), "after {effect:?}: {again:?}");
        assert_eq!(
            next(&mut deliveries).await,
            after.envelope.id,
            "after {effect:?}"
        );
    }
}

#[tokio::test]
async fn a_duplicate_is_delivered_twice() {
    let scene = scene().await;
    scene.control.inject(Fault::once(Effect::Duplicate)).await;
    let (first, second) = (scene.event(), scene.event());
    for event in [&first, &second] {
        scene.publish(event).await.expect("it is taken");
    }
    let mut deliveries = scene.receive().await;
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(next(&mut deliveries).await);
    }
    let (first, second) = (first.envelope.id, second.envelope.id);
    assert_eq!(got, [first, first, second]);
}

#[tokio::test]
async fn an_overtaken_message_comes_after_the_next_one_or_by_itself() {
    let scene = scene().await;
    let mut deliveries = scene.receive().await;
    scene.control.inject(Fault::once(Effect::Overtake)).await;
    let (first, second) = (scene.event(), scene.event());
    for event in [&first, &second] {
        scene.publish(event).await.expect("it is taken");
    }
    assert_eq!(next(&mut deliveries).await, second.envelope.id);
    assert_eq!(next(&mut deliveries).await, first.envelope.id);

    scene.control.inject(Fault::once(Effect::Overtake)).await;
    let alone = scene.event();
    scene.publish(&alone).await.expect("it is taken");
    assert_eq!(next(&mut deliveries).await, alone.envelope.id);
}

#[tokio::test]
async fn a_delayed_message_comes_later_though_its_connection_is_gone() {
    let scene = scene().await;
    let delay = Duration::from_millis(300);
    scene.control.inject(Fault::delay(delay, 1)).await;
    let (late, early) = (scene.event(), scene.event());
    let started = Instant::now();
    scene.publish(&late).await.expect("it is confirmed at once");
    scene.control.cut_connections().await;
    let publish = || async { scene.publish(&early).await.ok() };
    eventually("publication after the cut", publish).await;

    let mut deliveries = scene.receive().await;
    assert_eq!(next(&mut deliveries).await, early.envelope.id);
    assert_eq!(next(&mut deliveries).await, late.envelope.id);
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_frame_that_is_cut_is_lost_and_its_message_unknown() {
    let scene = scene().await;
    scene.control.cut_at_frame(3).await;
    let window: Vec<_> = (0..5).map(|_| scene.event()).collect();
    let answers = scene.transport.publish(&window).await;
    let is_ok: Vec<_> = answers.iter().map(Result::is_ok).collect();
    // Confirms that were written before the cut may or may not have arrived.
    assert!(!is_ok[2] && !is_ok[3] && !is_ok[4], "{answers:?}");
    assert_eq!(scene.fired("cut_at_frame").await, 1);
    assert_eq!(scene.control.log().await.published.len(), 2);
    scene
        .publish(&window[2])
        .await
        .expect("the next one goes through");
}

#[tokio::test]
async fn the_log_tells_repeated_from_changed() {
    let scene = scene().await;
    let (same, mut changing) = (scene.event(), scene.event());
    for _ in 0..2 {
        scene.publish(&same).await.expect("it is taken");
        scene.publish(&changing).await.expect("it is taken");
        changing.envelope.headers.set("note", "other");
    }
    let log = scene.control.log().await;
    let (same, changing) = (same.envelope.id, changing.envelope.id);
    assert_eq!(log.counts(), [(same, 2), (changing, 2)].into());
    assert_eq!(log.taken_ids(), [same, changing].into());
    assert_eq!(log.changed_ids(), [changing].into());
}

#[tokio::test]
async fn a_broker_that_refuses_for_a_while_is_reached_again() {
    let scene = scene().await;
    let mut deliveries = scene.receive().await;
    let time = Duration::from_millis(300);
    let started = Instant::now();
    scene.control.refuse_for(time).await;
    let event = scene.event();
    let answer = scene.publish(&event).await;
    assert!(answer.is_err());
    let publish = || async { scene.publish(&event).await.ok() };
    eventually("publication after the refusal", publish).await;
    assert!(started.elapsed() >= time, "{:?}", started.elapsed());
    assert_eq!(next(&mut deliveries).await, event.envelope.id);
    assert!(scene.fired("refuse").await > 0);
}

#[tokio::test]
async fn what_is_not_acked_is_seen_and_cleared_faults_do_not_happen() {
    let scene = scene().await;
    scene.control.inject(Fault::times(Effect::Nack, 9)).await;
    scene.control.clear().await;
    for _ in 0..3 {
        scene
            .publish(&scene.event())
            .await
            .expect("nothing goes wrong");
    }
    let name = &scene.endpoint.name;
    assert_eq!(scene.control.depth(name).await, (3, 0));
    let mut deliveries = scene.receive().await;
    let held = deliveries.next().await.expect("one is there");
    let all_in_hand = || async { (scene.control.depth(name).await == (0, 3)).then_some(()) };
    eventually("prefetch of all three", all_in_hand).await;
    drop(held);
    drop(deliveries);
    let all_back = || async { (scene.control.depth(name).await == (3, 0)).then_some(()) };
    eventually("return of all three", all_back).await;
}

#[tokio::test]
async fn a_broker_that_is_gone_is_unavailable() {
    let scene = scene().await;
    let broker = FaultBroker::spawn().expect("a broker starts apart");
    assert!(broker.process_id().is_some());
    let transport = broker.transport();
    let window = [scene.event()];
    assert!(transport.publish(&window).await[0].is_ok());
    drop(broker);
    for _ in 0..2 {
        let answer = transport.publish(&window).await.remove(0);
        let is_away = matches!(
            answer,
            Err(TransportError::Unavailable(_) | TransportError::Unknown(_))
        );
        assert!(is_away, "{answer:?}");
    }
    let answer = transport.publish(&window).await.remove(0);
    assert!(
        matches!(answer, Err(TransportError::Unavailable(_))),
        "{answer:?}"
    );
}
