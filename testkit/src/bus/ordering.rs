//! Order is a promise per key, and nothing else is held up by it.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::sync::Mutex;
use std::time::Duration;

use sagabus_core::memory::MemoryTransport;
use sagabus_core::{Ctx, HandlerError, KeyAfterDeath, Order, Result, State};

use super::scene::{Do, Log, Scene, quick_retry, start, stop};

pub async fn messages_of_one_key_are_handled_in_order(scene: Scene) {
    async fn note(command: Do, log: State<Log>) {
        tokio::task::yield_now().await;
        log.add(format!("do {}", command.n));
    }
    let host = scene
        .host("work", |e| e.handle(note).order(Order::PerKey))
        .await;
    for n in 0..60 {
        host.bus()
            .send(Do { n })
            .key(format!("k{}", n % 3))
            .await
            .expect("it is stored");
    }
    scene.log.wait_for(60).await;
    scene.quiet().await;
    let lines = scene.log.lines();
    for key in 0..3 {
        let mut of_key: Vec<u32> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("do ")?.parse().ok())
            .filter(|n| n % 3 == key)
            .collect();
        // Where a commit was not to be had, the handler runs again before the next message.
        of_key.dedup();
        assert!(
            of_key.is_sorted() && of_key.len() == 20,
            "key {key}: {of_key:?}"
        );
    }
    stop(host).await;
}

pub async fn a_failing_message_holds_back_its_own_key_only(scene: Scene) {
    async fn note(command: Do, cx: Ctx, log: State<Log>) -> Result {
        if command.n == 0 && cx.attempt() <= 3 {
            return Err(HandlerError::new("the first of its key"));
        }
        log.add(format!("do {}", command.n));
        Ok(())
    }
    let mut retry = quick_retry();
    retry.delay = Duration::from_millis(150);
    retry.delay_max = Duration::from_millis(150);
    let host = scene
        .host("work", |e| e.handle(note).order(Order::PerKey).retry(retry))
        .await;
    for n in 0..6 {
        let key = if n < 3 { "failing" } else { "healthy" };
        host.bus()
            .send(Do { n })
            .key(key)
            .await
            .expect("it is stored");
    }
    let lines = scene.log.wait_for(6).await;
    assert_eq!(lines, ["do 3", "do 4", "do 5", "do 0", "do 1", "do 2"]);
    scene.quiet().await;
    stop(host).await;
}

pub async fn a_message_for_later_holds_back_nobody(scene: Scene) {
    async fn note(command: Do, log: State<Log>) {
        log.add(format!("do {}", command.n));
    }
    let host = scene
        .host("work", |e| e.handle(note).order(Order::PerKey))
        .await;
    let bus = host.bus();
    let later = bus.send(Do { n: 1 }).key("same");
    later
        .after(Duration::from_millis(400))
        .await
        .expect("it is stored");
    host.bus()
        .send(Do { n: 2 })
        .key("same")
        .await
        .expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await, ["do 2", "do 1"]);
    scene.quiet().await;
    stop(host).await;
}

/// Over a restart of its host, and with a broker or without: the key goes on where it stopped.
pub async fn a_dead_letter_holds_back_its_key_until_it_is_redriven(scene: Scene) {
    type Ill = Mutex<bool>;
    async fn work(command: Do, ill: State<Ill>, log: State<Log>) -> Result {
        if command.n == 0 && *ill.lock().expect("nobody panics") {
            return Err(HandlerError::new("the first of its key").terminal());
        }
        log.add(format!("do {}", command.n));
        Ok(())
    }
    for broker in [None, Some(MemoryTransport::new())] {
        let before = scene.log.lines().len();
        let started = async |is_ill: bool| {
            let builder = scene.builder("host").state(Ill::new(is_ill));
            let builder = match &broker {
                Some(broker) => builder.transport(broker.clone()),
                None => builder,
            };
            start(builder.endpoint("work", |e| e.handle(work).order(Order::PerKey))).await
        };
        let host = started(true).await;
        for n in 0..6 {
            let key = if n < 3 { "ill" } else { "healthy" };
            host.bus()
                .send(Do { n })
                .key(key)
                .await
                .expect("it is stored");
        }
        let dead = scene.dead_letters(1).await.remove(0);
        let lines = scene.log.wait_for(before + 3).await;
        stop(host).await;
        let host = started(false).await;
        let bus = host.bus();
        let more = bus.send(Do { n: 6 }).key("ill");
        more.await.expect("it is stored");
        let other = bus.send(Do { n: 7 }).key("healthy");
        other.await.expect("it is stored");
        scene.log.wait_for(before + 4).await;
        assert_eq!(lines[before..], ["do 3", "do 4", "do 5"]);
        assert!(scene.admin().redrive(dead.id).await.expect("it is open"));
        let lines = scene.log.wait_for(before + 8).await;
        let wanted = ["do 7", "do 0", "do 1", "do 2", "do 6"];
        assert_eq!(lines[before + 3..], wanted);
        scene.quiet().await;
        stop(host).await;
    }
}

pub async fn a_key_may_go_on_without_its_dead_letter(scene: Scene) {
    async fn work(command: Do, log: State<Log>) -> Result {
        if command.n == 0 {
            return Err(HandlerError::new("the first of its key").terminal());
        }
        log.add(format!("do {}", command.n));
        Ok(())
    }
    let host = scene
        .host("work", |e| {
            e.handle(work)
                .order(Order::PerKey)
                .key_after_death(KeyAfterDeath::GoesOn)
        })
        .await;
    let bus = host.bus();
    for n in 0..3 {
        let one = bus.send(Do { n }).key("same");
        one.await.expect("it is stored");
    }
    assert_eq!(scene.log.wait_for(2).await, ["do 1", "do 2"]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 1);
}
