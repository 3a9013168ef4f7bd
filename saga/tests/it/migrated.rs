//! Instances of an older release that an operator has a host of the new one write anew.

use sagabus_core::admin::{Batch, HistoryOf, Migrated, Page, Task, Verdict};
use sagabus_core::{InstanceId, RunningHost};
use sagabus_saga::MachineEndpoint;
use sagabus_testkit::bus::rehearsing::ask;
use sagabus_testkit::bus::releases::{self, Begin, Touch};
use sagabus_testkit::bus::{Scene, start, stop};
use sagabus_testkit::wait::eventually;
use serde_json::{Value, json};

on_every_store! {
    instances_of_an_older_release_are_written_anew_once,
    another_host_goes_on_where_one_was_lost,
    an_instance_that_a_message_moved_is_not_written_again,
}

const COUNT: u32 = 12;

fn order(key: u32) -> InstanceId {
    InstanceId {
        kind: "order".into(),
        key: key.to_string().into(),
    }
}

/// Begins orders with the release of before, and ends it.
async fn fill(scene: &Scene) {
    let host = scene.builder("old");
    let host = start(host.endpoint("orders", |e| e.machine(releases::old()))).await;
    for order in 0..COUNT {
        host.bus().send(Begin { order }).await.unwrap();
    }
    let begun = || async { (scene.counts().await.running == u64::from(COUNT)).then_some(()) };
    eventually("orders", begun).await;
    stop(host).await;
}

async fn new(scene: &Scene, name: &str) -> RunningHost {
    let host = scene.builder(name);
    start(host.endpoint("orders", |e| e.machine(releases::new()))).await
}

async fn migrate(scene: &Scene, keys: impl Iterator<Item = u32>) -> (String, Migrated) {
    let batch = Batch {
        kind: "order".to_owned(),
        keys: keys.map(|key| key.to_string()).collect(),
        who: "ada".to_owned(),
    };
    let task = Task::Migrate(Box::new(batch));
    let answer = ask(scene.admin(), "orders", task).await;
    assert_eq!(answer.report.verdict, Verdict::Well);
    (answer.host, answer.report.migrated.unwrap())
}

fn done(migrated: u64, current: u64) -> Migrated {
    Migrated {
        migrated,
        current,
        failed: Vec::new(),
    }
}

/// Each order was written anew, at this version, and by an operator's hand so often.
async fn check(scene: &Scene, key: u32, version: i64, by_hand: usize) {
    let found = scene.admin().instance(&order(key)).await.unwrap().unwrap();
    assert_eq!((found.schema_version, found.version), (2, version), "{key}");
    let data: Value = serde_json::from_slice(&found.data).unwrap();
    assert_eq!(data, json!({ "cents": key * 100 }));
    assert_eq!(found.state.as_deref(), Some("open"));
    let of = HistoryOf::Instance(order(key));
    let history = scene.admin().history(&of, Page::oldest(100)).await.unwrap();
    let notes = history.iter().map(|one| one.entry.detail.note.as_deref());
    let hands = notes.filter(|note| *note == Some("migrated by ada"));
    assert_eq!(hands.count(), by_hand, "{key}");
}

async fn instances_of_an_older_release_are_written_anew_once(scene: Scene) {
    fill(&scene).await;
    let host = new(&scene, "new").await;
    let beyond = 0..=COUNT; // The last one is not there.
    let (by, first) = migrate(&scene, beyond.clone()).await;
    assert_eq!((by.as_str(), first), ("new", done(COUNT.into(), 1)));
    let (_, again) = migrate(&scene, beyond).await;
    assert_eq!(again, done(0, u64::from(COUNT) + 1));
    for key in 0..COUNT {
        check(&scene, key, 2, 1).await;
    }
    stop(host).await;
}

async fn another_host_goes_on_where_one_was_lost(scene: Scene) {
    fill(&scene).await;
    let host = new(&scene, "first").await;
    assert_eq!(migrate(&scene, 0..5).await.1, done(5, 0));
    host.stop(std::time::Duration::ZERO).await;
    let host = new(&scene, "second").await;
    let (by, rest) = migrate(&scene, 0..COUNT).await;
    assert_eq!((by.as_str(), rest), ("second", done(7, 5)));
    for key in 0..COUNT {
        check(&scene, key, 2, 1).await;
    }
    stop(host).await;
}

async fn an_instance_that_a_message_moved_is_not_written_again(scene: Scene) {
    fill(&scene).await;
    let host = new(&scene, "new").await;
    host.bus().send(Touch { order: 3 }).await.unwrap();
    let moved = || async {
        let found = scene.admin().instance(&order(3)).await.unwrap().unwrap();
        (found.version == 2).then_some(())
    };
    eventually("a moved order", moved).await;
    let (_, all) = migrate(&scene, 0..COUNT).await;
    assert_eq!(all, done(u64::from(COUNT) - 1, 1));
    check(&scene, 3, 2, 0).await;
    check(&scene, 4, 2, 1).await;
    stop(host).await;
}
