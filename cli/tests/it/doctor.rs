//! `sagabus doctor`.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::transport::{Capabilities, Deliveries, Transport};
use sagabus_core::{Host, Order, Result, ResultExt, cron};
use sagabus_testkit::transport::{Alteration, Altered};
use sagabus_testkit::wait::eventually;

use crate::scene::{Charge, Scene, Ship, host, host_with, spare_host};

/// A broker whose queues have such a limit.
#[derive(Debug)]
struct Impatient(MemoryTransport, Deliveries);

impl Alteration for Impatient {
    fn transport(&self) -> &dyn Transport {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "rabbitmq",
            deliveries: self.1,
            ..self.0.capabilities()
        }
    }
}

/// Runs statements beside the program.
async fn run_sql(scene: &Scene, text: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.file());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query(text).execute(&mut connection).await.unwrap();
}

/// Returns the codes of what it finds.
fn codes(scene: &Scene) -> Vec<String> {
    let ran = scene.run(&["doctor", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let checks = found["checks"].as_array().unwrap().iter();
    let findings = checks.flat_map(|check| check["findings"].as_array().unwrap());
    let codes: Vec<_> = findings
        .map(|one| one["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ran.code, if codes.is_empty() { 0 } else { 6 }, "{ran:?}");
    assert_eq!(found["is_well"], codes.is_empty());
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_well_passes_every_check() {
    let (scene, store) = Scene::new().await;
    let host = host(store).await;
    let ran = scene.run(&["doctor"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.lines().all(|line| line.starts_with("ok  ")),
        "{}",
        ran.out
    );
    assert_eq!(codes(&scene), Vec::<String>::new());
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_status_finds_the_doctor_finds_too() {
    let (scene, _) = Scene::with_failures(2).await;
    // Its host was stopped, and said so.
    assert_eq!(codes(&scene), ["no_host", "parked", "dead_letters"]);
    let ran = scene.run(&["doctor"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    for text in [
        "!!  parked",
        "2 messages are dead letters",
        "-> `sagabus dead-letters groups`",
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    assert!(ran.err.contains("3 findings"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_a_stuck_instance_and_a_short_memory_are_found() {
    let (scene, store) = Scene::new().await;
    let host = host(store).await;
    run_sql(&scene, "update sagabus_host set behind = 7000000").await;
    assert_eq!(codes(&scene), ["clock_skew"]);
    run_sql(
        &scene,
        "update sagabus_host set behind = 0, definitions = cast(json_set(cast(definitions as text), \
         '$.inbox_retention_seconds', 1.5, '$.endpoints[0].retry.horizon_seconds', 60.0) as blob)",
    )
    .await;
    assert_eq!(codes(&scene), ["retention_short"]);
    run_sql(
        &scene,
        "insert into sagabus_instance (kind, key, version, completed, schema_version, data, timers, \
         created_at, updated_at) values ('parcel', 'p-1', 1, 0, 1, x'7b7d', x'7b7d', 0, 0)",
    )
    .await;
    assert_eq!(codes(&scene), ["instances_idle", "retention_short"]);
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_takes_and_endpoints_that_nobody_runs_are_found() {
    let (scene, store) = Scene::new().await;
    let shop = host(store.clone()).await;
    assert!(shop.stop(Duration::from_secs(10)).await);
    let spare = spare_host(store).await;
    run_sql(
        &scene,
        "update sagabus_host set heartbeat_at = 1 where name = 'shop'",
    )
    .await;
    assert_eq!(codes(&scene), ["endpoint_without_host"]);
    let note = String::new();
    let sent = spare.bus().send(Charge { order: 1, note }).await;
    sent.unwrap();
    assert_eq!(codes(&scene), ["endpoint_without_host"], "it is young");
    let age = "update sagabus_outbox set available_at = available_at - 120000000";
    run_sql(&scene, age).await;
    assert_eq!(codes(&scene), ["endpoint_without_host", "overdue"]);
    let ran = scene.run(&["doctor"]);
    for text in [
        "endpoint `payments` is run by no live host",
        "1 rows for `@payments` are due and nobody takes them",
        "look whether a host with this endpoint runs and keeps up: `sagabus hosts`",
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    assert!(spare.stop(Duration::from_secs(10)).await);
    run_sql(&scene, "update sagabus_host set heartbeat_at = 1").await;
    assert_eq!(codes(&scene), ["no_host", "overdue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_held_up_is_found() {
    async fn refuse(_: Charge) -> Result<()> {
        Err::<(), _>(std::io::Error::other("declined")).terminal()
    }
    let (scene, store) = Scene::new().await;
    let host = Host::builder("shop").store(store.clone());
    let host = host.endpoint("payments", |e| e.order(Order::PerKey).handle(refuse));
    let host = host.build().unwrap().start().await.unwrap();
    let note = String::new();
    let bus = host.bus();
    let charge = bus.send(Charge { order: 1, note }).key("ada");
    charge.await.unwrap();
    let dies = async || store.dead_letters(1).await.unwrap().pop();
    eventually("a dead letter", dies).await;
    assert_eq!(codes(&scene), ["dead_letters", "keys_held"]);
    let ran = scene.run(&["doctor"]);
    let fact = "1 dead letters hold up the later messages of their keys";
    assert!(ran.out.contains(fact), "{ran:?}");
    let done = scene.run(&["dead-letters", "discard", "1", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(codes(&scene), [""; 0]);
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_be_fired_and_a_change_that_stands_still_are_found() {
    let (scene, store) = Scene::with_failures(30).await;
    let host = host_with(store, |builder| {
        builder.recurring("report", cron("0 6 1 1 *"), |_| Ship { order: 1 })
    })
    .await;
    let ran = scene.run(&["dead-letters", "retry", "--all", "--canary", "4", "--yes"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
    // By its heartbeat the host lives, and has not fired what was due.
    run_sql(&scene, "update sagabus_host set stopped_at = null").await;
    assert_eq!(codes(&scene), ["parked", "operation", "dead_letters"]);
    let due = "update sagabus_instance set data = cast(json_set(cast(data as text), '$.next', 1) \
        as blob) where kind = '@schedule'";
    run_sql(&scene, due).await;
    let found = ["schedule_overdue", "parked", "operation", "dead_letters"];
    assert_eq!(codes(&scene), found);
    let cancelled = scene.run(&["operations", "cancel", "1"]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    assert_eq!(
        codes(&scene),
        ["schedule_overdue", "parked", "dead_letters"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_gives_messages_up_is_found() {
    for (deliveries, found, says) in [
        (Deliveries::Unlimited, None, "ok  deliveries"),
        (Deliveries::Limited(1_000_000), None, "ok  deliveries"),
        (
            Deliveries::Limited(20),
            Some("delivery_limit_low"),
            "drops a message after 20 deliveries; endpoint `payments`",
        ),
        (
            Deliveries::Unknown,
            Some("delivery_limit_unknown"),
            "`rabbitmqctl list_queues name arguments effective_policy_definition`",
        ),
    ] {
        let (scene, store) = Scene::new().await;
        let broker = Altered(Impatient(MemoryTransport::new(), deliveries));
        let host = host_with(store, |builder| builder.transport(broker)).await;
        assert_eq!(codes(&scene), Vec::from_iter(found), "{deliveries:?}");
        let ran = scene.run(&["doctor"]);
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
        assert!(host.stop(Duration::from_secs(10)).await);
    }
}
