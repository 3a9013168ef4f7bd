//! What must not be done in a handler, or after it, says so and does nothing.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::sync::Mutex;

use sagabus_core::{Bus, Ctx, State};

use super::scene::{Do, Done, Log, Scene, stop};

pub async fn the_bus_refuses_to_be_used_inside_a_handler(scene: Scene) {
    async fn misuse(_: Do, bus: State<Mutex<Option<Bus>>>, log: State<Log>) {
        let bus = bus
            .lock()
            .expect("nobody panics here")
            .clone()
            .expect("it was put there");
        let refused = bus.publish(Done { n: 1 }).await;
        log.add(refused.map_or_else(|error| error.to_string(), |_| "sent".to_owned()));
    }
    let builder = scene.builder("host").state(Mutex::new(None::<Bus>));
    let host = builder
        .endpoint("work", |e| e.handle(misuse))
        .build()
        .expect("it can be built");
    host.state::<Mutex<Option<Bus>>>()
        .expect("it was given")
        .lock()
        .expect("nobody panics here")
        .replace(host.bus());
    let host = host.start().await.expect("it starts");
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let lines = scene.log.wait_for(1).await;
    assert!(lines[0].contains("used inside a handler"), "{lines:?}");
    stop(host).await;
}

pub async fn a_context_refuses_to_be_used_after_its_handler(scene: Scene) {
    async fn keep(_: Do, cx: Ctx, kept: State<Mutex<Option<Ctx>>>, log: State<Log>) {
        kept.lock().expect("nobody panics here").replace(cx);
        log.add("kept");
    }
    let builder = scene.builder("host").state(Mutex::new(None::<Ctx>));
    let host = builder
        .endpoint("work", |e| e.handle(keep))
        .build()
        .expect("it can be built");
    let kept = host.state::<Mutex<Option<Ctx>>>().expect("it was given");
    let host = host.start().await.expect("it starts");
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    scene.quiet().await;
    let cx = kept
        .lock()
        .expect("nobody panics here")
        .take()
        .expect("the handler kept it");
    let refused = cx
        .publish(Done { n: 1 })
        .expect_err("the handler has returned");
    assert!(
        refused.chain().contains("after its handler returned"),
        "{refused:?}"
    );
    stop(host).await;
    assert_eq!(scene.counts().await.outbox, 0);
}
