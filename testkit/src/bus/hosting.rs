//! Several hosts on one database, and hosts that stop or vanish.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::{Breaker, BusError, HandlerError, Result, Retry, RunError, State};
use tokio::sync::Semaphore;

use super::scene::{Do, Done, Log, Scene, quick_retry, start, stop};

async fn note(command: Do, log: State<Log>) {
    log.add(format!("do {}", command.n));
}

async fn note_done(event: Done, log: State<Log>) {
    log.add(format!("done {}", event.n));
}

pub async fn two_hosts_share_the_work_and_handle_each_message_once(scene: Scene) {
    let first = start(
        scene
            .builder("one")
            .endpoint("work", |e| e.handle(note).capacity(8)),
    )
    .await;
    let second = scene.builder_on("two", scene.peer());
    let second = start(second.endpoint("work", |e| e.handle(note).capacity(8))).await;
    for n in 0..400 {
        first.bus().send(Do { n }).await.expect("it is stored");
    }
    scene.log.wait_for(400).await;
    scene.quiet().await;
    stop(first).await;
    stop(second).await;
    let lines = scene.log.lines();
    let distinct: HashSet<_> = lines.iter().collect();
    assert_eq!((lines.len(), distinct.len()), (400, 400));
}

/// Whoever tries, and whoever stops in between: a failure is counted once, a planned stop never.
pub async fn hosts_share_the_attempts_of_a_message_over_planned_stops(scene: Scene) {
    const MESSAGES: u32 = 12;
    async fn fail(command: Do, log: State<Log>) -> Result {
        log.add(format!("tried {}", command.n));
        Err(HandlerError::new("no luck"))
    }
    let retry = Retry {
        delayed: 3,
        ..quick_retry()
    };
    let begin = async |name: &str| {
        let builder = scene.builder_on(name, scene.peer());
        let never = Breaker::never();
        start(builder.endpoint("work", |e| {
            e.handle(fail).retry(retry.clone()).breaker(never)
        }))
        .await
    };
    let first = begin("one").await;
    let mut others = vec![begin("two").await, begin("three").await];
    for n in 0..MESSAGES {
        first.bus().send(Do { n }).await.expect("it is stored");
    }
    for (seen, name) in [(6, "four"), (18, "five"), (30, "six")] {
        scene.log.wait_for(seen).await;
        stop(others.remove(0)).await;
        others.push(begin(name).await);
    }
    let dead = scene.dead_letters(MESSAGES as usize).await;
    scene.quiet().await;
    stop(first).await;
    for other in others {
        stop(other).await;
    }
    for one in &dead {
        assert_eq!(one.attempts.len(), 5, "{one:?}");
        assert!(one.attempts.iter().all(|one| one.excused == 0), "{one:?}");
    }
    for n in 0..MESSAGES {
        assert_eq!(scene.log.count(&format!("tried {n}")), 5, "message {n}");
    }
    assert_eq!(dead.len(), MESSAGES as usize);
}

pub async fn an_event_reaches_endpoints_of_other_hosts(scene: Scene) {
    let first = start(
        scene
            .builder("one")
            .endpoint("first", |e| e.handle(note_done)),
    )
    .await;
    // The second host comes later: the first learns of it with its next commit.
    let second = scene.builder_on("two", scene.peer());
    let second = start(second.endpoint("second", |e| e.handle(note_done))).await;
    first
        .bus()
        .publish(Done { n: 1 })
        .await
        .expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await, ["done 1", "done 1"]);
    scene.quiet().await;
    stop(first).await;
    stop(second).await;
}

pub async fn what_a_lost_host_had_in_hand_is_taken_over(scene: Scene) {
    async fn hang(command: Do, log: State<Log>) {
        log.add(format!("hangs on {}", command.n));
        std::future::pending::<()>().await;
    }
    let lost = start(scene.builder("lost").endpoint("work", |e| e.handle(hang))).await;
    lost.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    // Forced at once: the handler is dropped where it is, nothing is settled.
    assert!(!lost.stop(Duration::ZERO).await);
    let heir = scene.builder_on("heir", scene.peer());
    let heir = start(heir.endpoint("work", |e| e.handle(note))).await;
    assert_eq!(scene.log.wait_for(2).await, ["hangs on 1", "do 1"]);
    scene.quiet().await;
    stop(heir).await;
}

pub async fn a_long_handler_keeps_its_lease(scene: Scene) {
    async fn wait(command: Do, gate: State<Semaphore>, log: State<Log>) {
        log.add(format!("waits with {}", command.n));
        gate.acquire().await.expect("it is never closed").forget();
        log.add(format!("ends with {}", command.n));
    }
    let builder = scene.builder("one").state(Semaphore::new(0));
    let host = builder
        .endpoint("work", |e| e.handle(wait))
        .build()
        .expect("it can be built");
    let gate: Arc<Semaphore> = host.state().expect("it was given");
    let first = host.start().await.expect("it starts");
    first.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    // Another host looks for work over three leases of 600 ms and finds none.
    let second = scene
        .builder_on("two", scene.peer())
        .endpoint("work", |e| e.handle(note));
    let second = start(second).await;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    assert_eq!(scene.log.lines(), ["waits with 1"]);
    gate.add_permits(1);
    assert_eq!(scene.log.wait_for(2).await, ["waits with 1", "ends with 1"]);
    scene.quiet().await;
    stop(first).await;
    stop(second).await;
    assert_eq!(scene.log.lines().len(), 2);
}

pub async fn a_stopping_host_finishes_what_it_has_in_hand(scene: Scene) {
    async fn slow(command: Do, log: State<Log>) -> Done {
        log.add(format!("starts {}", command.n));
        tokio::time::sleep(Duration::from_millis(200)).await;
        log.add(format!("ends {}", command.n));
        Done { n: command.n }
    }
    let host = scene.host("work", |e| e.handle(slow)).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["starts 1", "ends 1"]);
    assert_eq!(scene.counts().await.outbox, 0);
}

pub async fn a_host_that_stops_says_so_and_one_that_is_lost_does_not(scene: Scene) {
    let stays = scene.host("work", |e| e.handle(note)).await;
    let goes = scene.builder_on("goes", scene.peer());
    let goes = start(goes.endpoint("work", |e| e.handle(note))).await;
    let stopped = async || {
        let hosts = scene.admin().hosts().await.expect("hosts are read");
        let stopped = hosts.into_iter().filter(|one| one.stopped_at.is_some());
        stopped.map(|one| one.name).collect::<Vec<_>>()
    };
    assert!(stopped().await.is_empty());
    stop(goes).await;
    assert_eq!(stopped().await, ["goes"]);
    stop(stays).await;
}

pub async fn a_stopped_host_gives_back_what_it_never_started(scene: Scene) {
    async fn wait(command: Do, gate: State<Semaphore>, log: State<Log>) {
        log.add(format!("starts {}", command.n));
        let _turn = gate.acquire().await.expect("it is never closed");
    }
    let builder = scene.builder("one").state(Semaphore::new(0));
    let endpoint =
        |e: sagabus_core::EndpointBuilder| e.handle(wait).order(sagabus_core::Order::PerKey);
    let host = builder
        .endpoint("work", endpoint)
        .build()
        .expect("it can be built");
    let gate: Arc<Semaphore> = host.state().expect("it was given");
    let host = host.start().await.expect("it starts");
    for n in 0..10 {
        host.bus()
            .send(Do { n })
            .key("same")
            .await
            .expect("it is stored");
    }
    scene.log.wait_for(1).await;
    let stopping = host.stop(Duration::from_secs(10));
    let (is_clean, ()) = tokio::join!(stopping, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.add_permits(1);
    });
    assert!(is_clean);
    assert_eq!(scene.log.lines(), ["starts 0"]);
    let heir = scene.builder_on("heir", scene.peer());
    let heir = heir.endpoint("work", |e| {
        e.handle(note).order(sagabus_core::Order::PerKey)
    });
    let heir = start(heir).await;
    scene.log.wait_for(10).await;
    scene.quiet().await;
    stop(heir).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn a_second_owner_of_a_command_is_refused(scene: Scene) {
    let first = start(scene.builder("one").endpoint("work", |e| e.handle(note))).await;
    let second = scene
        .builder_on("two", scene.peer())
        .endpoint("rival", |e| e.handle(note));
    let second = second.build().expect("alone it is well put together");
    let refused = second.start().await.expect_err("`test.do` has an owner");
    let RunError::Store(error) = refused else {
        panic!("{refused:?}")
    };
    let error = error.to_string();
    assert!(
        error.contains("`test.do`") && error.contains("work") && error.contains("rival"),
        "{error}"
    );
    // The refused host has left nothing behind: the first still is the owner.
    first.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["do 1"]);
    stop(first).await;
}

pub async fn a_bus_without_a_running_host_says_so(scene: Scene) {
    let host = scene.builder("host").endpoint("work", |e| e.handle(note));
    let host = host.build().expect("it can be built");
    let bus = host.bus();
    assert!(matches!(
        bus.send(Do { n: 1 }).await,
        Err(BusError::NotRunning)
    ));
    let host = host.start().await.expect("it starts");
    bus.send(Do { n: 1 }).await.expect("now it is stored");
    scene.log.wait_for(1).await;
    stop(host).await;
    assert!(matches!(
        bus.send(Do { n: 2 }).await,
        Err(BusError::NotRunning)
    ));
}
