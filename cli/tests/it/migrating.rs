//! Instances of an older release, written anew by hosts of the new one.

use std::process::{Command, Stdio};
use std::time::Duration;

use sagabus_core::admin::{HistoryOf, InstanceFilter, Page, StoreAdmin, StoredHost};
use sagabus_core::{Host, InstanceId, RunningHost, Store};
use sagabus_outbox::{PgStore, SqliteStore};
use sagabus_saga::{MachineEndpoint, Saga, StateMachine};
use sagabus_testkit::bus::releases::{self, Begin, STUCK};
use sagabus_testkit::wait::eventually;
use serde_json::Value;

use crate::postgres::{Database, on_server};
use crate::rehearsing::{hosts_are_gone, on_file};
use crate::scene::{Ran, Scene, program, run};

async fn start<T: Saga>(store: impl Store, machine: StateMachine<T>) -> RunningHost {
    let host = Host::builder("shop").store(store);
    let host = host.endpoint("orders", |e| e.machine(machine));
    host.build().unwrap().start().await.unwrap()
}

async fn data<S: StoreAdmin>(store: &S, key: u32) -> (i32, i64, String) {
    let id = InstanceId {
        kind: "order".into(),
        key: key.to_string().into(),
    };
    let one = store.instance(&id).await.unwrap().unwrap();
    let text = String::from_utf8(one.data.to_vec()).unwrap();
    (one.schema_version, one.version, text)
}

async fn left<S: StoreAdmin>(store: &S) -> usize {
    let filter = InstanceFilter {
        schema_before: Some(2),
        ..InstanceFilter::default()
    };
    store.instances(&filter, 500).await.unwrap().len()
}

/// Begins orders of the release before: more than one batch.
async fn fill<S: Store + StoreAdmin + Clone>(store: &S, count: u32) {
    let host = start(store.clone(), releases::old()).await;
    for order in 0..count {
        host.bus().send(Begin { order }).await.unwrap();
    }
    eventually("orders", || async {
        let counts = store.counts().await.unwrap();
        (counts.running == u64::from(count)).then_some(())
    })
    .await;
    assert!(host.stop(Duration::from_secs(10)).await);
}

async fn is_migrated<S: Store + StoreAdmin + Clone>(
    store: S,
    hosts_are_gone: impl Future<Output = ()>,
    run: impl Fn(&[&str]) -> Ran,
) {
    const COUNT: u32 = 520;
    fill(&store, COUNT).await;
    hosts_are_gone.await;
    let migrate = ["sagas", "migrate", "order", "--yes", "--why", "release 2"];
    let host = start(store.clone(), releases::new()).await;
    let ran = run(&["sagas", "migrate", "order"]);
    assert_eq!(ran.code, 2, "not without a word: {ran:?}");
    let ran = run(&[&migrate[..], &["--at-most", "519"]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("520 instances are meant"), "{ran:?}");
    let ran = run(&["sagas", "migrate", "order", "--dry-run"]);
    assert!(
        ran.out
            .contains("migrate 520 running `order` to version 2 (520 of version 1)"),
        "{ran:?}"
    );
    assert_eq!(left(&store).await, 500, "a page of them, and nothing moved");

    let ran = run(&migrate);
    assert_eq!(ran.code, 5, "one cannot be read: {ran:?}");
    assert!(
        ran.out.contains("migrated 519 `order` to version 2"),
        "{ran:?}"
    );
    assert!(ran.out.contains("13 stays as it was: "), "{ran:?}");
    assert!(ran.out.contains("nobody counts to 13"), "{ran:?}");
    assert_eq!(data(&store, 7).await, (2, 2, r#"{"cents":700}"#.to_owned()));
    assert_eq!(data(&store, 13).await, (1, 1, r#"{"euros":13}"#.to_owned()));
    assert_eq!(left(&store).await, 1);

    // Again: only what is left is looked at.
    let ran = run(&[&migrate[..], &["--json"]].concat());
    assert_eq!(ran.code, 5, "{ran:?}");
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["migrated"]["migrated"], 0, "{json}");
    assert_eq!(json["migrated"]["failed"][0][0], "13", "{json}");
    assert_eq!(data(&store, 7).await.1, 2);

    let show = run(&["sagas", "show", "order", "7"]);
    assert!(show.out.contains("migrated by ada, by shop"), "{show:?}");
    let audit = run(&["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit.out).unwrap();
    let entries = audit["audit"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "two batches, and one again: {audit:#}");
    assert_eq!(entries[2]["action"], "migrate_instances");
    assert_eq!(
        entries[2]["detail"][0]["keys"].as_array().unwrap().len(),
        500
    );

    let ran = run(&["sagas", "migrate", "parcel", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no live host described"), "{ran:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_an_older_release_are_migrated_by_its_successor() {
    let (scene, store) = Scene::new().await;
    is_migrated(store, hosts_are_gone(&scene), |arguments| {
        scene.run(arguments)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_a_server_are_migrated_as_well() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let url = database.url.clone();
    let age = "update sagabus.host set heartbeat_at = 1".to_owned();
    is_migrated(store.clone(), on_server(&database.url, age), |arguments| {
        run(&[&["--store", &url], arguments].concat())
    })
    .await;
    store.close();
    database.drop().await;
}

/// Not a test of its own: the host that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stands_still() {
    let Ok(place) = std::env::var(STUCK) else {
        return;
    };
    let _host = match place.starts_with("postgres:") {
        true => start(PgStore::connect(&place).await.unwrap(), releases::new()).await,
        false => start(SqliteStore::open(&place).await.unwrap(), releases::new()).await,
    };
    std::future::pending::<()>().await;
}

/// A host is killed while it writes instances anew, and with it who asked for that; another one
/// finishes.
async fn a_host_is_killed<S: Store + StoreAdmin + Clone>(
    store: S,
    place: &str,
    nobody_waits: impl Future<Output = ()>,
    hosts_are_gone: impl Future<Output = ()>,
) {
    const COUNT: u32 = 400;
    fill(&store, COUNT).await;
    hosts_are_gone.await;
    let mut host = Command::new(std::env::current_exe().unwrap());
    let host = host.args(["--exact", "migrating::a_host_that_stands_still"]);
    let mut host = host
        .env(STUCK, place)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let alive = || async {
        let now = store.about().await.unwrap().now;
        let hosts = store.hosts().await.unwrap();
        let mut hosts = hosts.iter();
        let is_new = |host: &StoredHost| {
            let age = now.as_micros() - host.heartbeat_at.as_micros();
            age < 60_000_000
        };
        hosts.any(is_new).then_some(())
    };
    eventually("a host in a process of its own", alive).await;
    let migrate = ["--store", place, "sagas", "migrate", "order", "--yes"];
    let mut asking = program(&migrate).stderr(Stdio::null()).spawn().unwrap();
    // The last one before the order at which the host stands still, as keys are sorted.
    let there = || async { (data(&store, 30).await.0 == 2).then_some(()) };
    eventually("half a batch", there).await;
    host.kill().unwrap();
    host.wait().unwrap();
    asking.kill().unwrap();
    asking.wait().unwrap();
    let half = left(&store).await;
    assert!((1..COUNT as usize - 1).contains(&half), "{half} are left");

    let host = start(store.clone(), releases::new()).await;
    let ran = run(&migrate);
    assert_eq!(ran.code, 1, "nobody knows yet that it was killed: {ran:?}");
    assert!(ran.err.contains("is about another rehearsal"), "{ran:?}");
    nobody_waits.await;
    let ran = run(&[&migrate[..], &["--json"]].concat());
    assert_eq!(ran.code, 5, "one cannot be read: {ran:?}");
    let done: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(done["migrated"]["migrated"], half - 1, "{done}");
    assert_eq!(done["migrated"]["failed"].as_array().unwrap().len(), 1);
    for key in (0..COUNT).filter(|key| *key != 13) {
        let cents = format!(r#"{{"cents":{}}}"#, key * 100);
        assert_eq!(data(&store, key).await, (2, 2, cents), "once, and whole");
    }
    let of = HistoryOf::Instance(InstanceId {
        kind: "order".into(),
        key: "30".into(),
    });
    let history = store.history(&of, Page::oldest(100)).await.unwrap();
    assert_eq!(history.len(), 2, "begun, and migrated once: {history:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_finishes_what_one_was_killed_over() {
    let (scene, store) = Scene::new().await;
    let file = scene.file().display().to_string();
    let age = "update sagabus_instance set updated_at = 1 where kind = '@errand'";
    a_host_is_killed(store, &file, on_file(&scene, age), hosts_are_gone(&scene)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_finishes_on_a_server_as_well() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let age = "update sagabus.instance set updated_at = 1 where kind = '@errand'".to_owned();
    let gone = "update sagabus.host set heartbeat_at = 1".to_owned();
    let (age, gone) = (
        on_server(&database.url, age),
        on_server(&database.url, gone),
    );
    a_host_is_killed(store.clone(), &database.url, age, gone).await;
    store.close();
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_migrated_while_live_hosts_differ() {
    let (scene, store) = Scene::new().await;
    fill(&store, 1).await;
    // The one that began them lives on, as far as one can tell.
    on_file(&scene, "update sagabus_host set stopped_at = null").await;
    let after = start(store.clone(), releases::new()).await;
    let ran = scene.run(&["sagas", "migrate", "order", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err
            .contains("live hosts have different versions of `order`"),
        "{ran:?}"
    );
    assert_eq!(left(&store).await, 1);
    assert!(after.stop(Duration::from_secs(10)).await);
}
