//! A service's own program (`examples/own_program.rs`): it runs, shows itself, and tells before a
//! roll-out whether a release can go on with what is stored.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{InstanceId, Kind, Store};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::databases::{create_database, drop_database, server};
use crate::demo::program;

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place")]
struct PlaceOrder {
    order: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.paid")]
struct Paid {
    order: u64,
}

/// What a release sends that was rolled out and taken back.
#[derive(Serialize, Deserialize)]
struct PaidInParts {
    order: u64,
    parts: u32,
}

impl Message for PaidInParts {
    const TYPE: &'static str = Paid::TYPE;
    const KIND: Kind = Kind::Event;
    const VERSION: u32 = 2;
}
impl Event for PaidInParts {}

/// The data of one order in the shape of that release.
const NEWER: &str = "set schema_version = 2 where kind = 'order' and key = '1'";

/// Which release of the program.
#[derive(Clone, Copy)]
enum Release {
    Current,
    Later,
}

/// Names the program, with nothing but these arguments.
fn own(release: Release, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("own_program"));
    command
        .args(arguments)
        .env_remove("SAGABUS_STORE")
        .env_remove("SHOP_RELEASE")
        .stdin(Stdio::null());
    if matches!(release, Release::Later) {
        command.env("SHOP_RELEASE", "2");
    }
    command
}

/// Runs the program, and says how it ended: exit code, standard output, standard error.
fn run(release: Release, arguments: &[&str]) -> (i32, String, String) {
    let output: Output = own(release, arguments).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ends by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

/// The service at work; killed where a test fails.
struct Running(Child);

impl Running {
    fn start(url: &str) -> Self {
        let mut command = own(Release::Current, &["--store", url, "run"]);
        Self(command.spawn().expect("it starts"))
    }

    /// Asks it to stop, and returns its exit code.
    fn stop(mut self) -> Option<i32> {
        let id = Pid::from_child(&self.0);
        kill_process(id, Signal::TERM).expect("it can be told");
        let status = self.0.wait().expect("it ends");
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It has ended, or this ends it.
        let _ = self.0.wait();
    }
}

/// Lets the service place two orders and stop; then one more message waits.
async fn live(url: &str, store: Arc<dyn Store>, admin: &dyn StoreAdmin) {
    let running = Running::start(url);
    let clerk = Host::builder("clerk").shared_store(store);
    let clerk = clerk.build().expect("a host without endpoints is one");
    let clerk = clerk.start().await.expect("it starts");
    let served = async || {
        let endpoints = admin.endpoints().await.expect("they are read");
        (endpoints.len() == 2).then_some(())
    };
    eventually("the service's endpoints", served).await;
    for order in [1, 2] {
        let sent = clerk.bus().send(PlaceOrder { order }).await;
        sent.expect("it is stored");
    }
    let reminded = async || {
        let state = async |key: &str| {
            let id = InstanceId {
                kind: "order".into(),
                key: key.into(),
            };
            let found = admin.instance(&id).await.expect("it is read");
            found.and_then(|one| one.state)
        };
        let counts = admin.counts().await.expect("they are counted");
        let is_there = state("1").await.as_deref() == Some("reminded")
            && state("2").await.as_deref() == Some("reminded")
            && counts.running == 4;
        is_there.then_some(())
    };
    eventually("two orders and two parcels", reminded).await;
    assert_eq!(running.stop(), Some(0));
    let sent = clerk.bus().publish(Paid { order: 1 }).await;
    sent.expect("it is stored");
    assert!(clerk.stop(Duration::from_secs(10)).await);
}

/// What both engines show alike.
async fn plans(url: &str, store: Arc<dyn Store>, admin: &dyn StoreAdmin) {
    let (code, out, err) = run(Release::Current, &["plan", "--against", url]);
    assert_eq!((code, err.as_str()), (0, ""), "an empty database: {out}");
    live(url, store, admin).await;

    let (code, out, err) = run(Release::Current, &["plan", "--against", url]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // Two orders, their timers, two parcels, one payment.
    assert!(out.contains("compared 7 running instances"), "{out}");

    let (code, out, err) = run(Release::Later, &["plan", "--against", url]);
    assert_eq!(code, 6, "{out}{err}");
    assert!(err.contains("3 findings"), "{err}");
    let facts = [
        "2 running `order` (`1` is one) in state `reminded`, which it does not have",
        "2 running `parcel` (`1` is one), and no saga or machine of that name",
        "2 timers of `order` bring `orders.reminder` to `orders`, which takes no such type",
    ];
    for fact in facts {
        assert!(out.contains(fact), "{fact}: {out}");
    }
    let (code, out, _) = run(Release::Later, &["--store", url, "plan", "--json"]);
    assert_eq!(code, 6);
    let plan: Value = serde_json::from_str(&out).expect("it is one document");
    let codes = plan["findings"].as_array().expect("there are findings");
    let codes: Vec<_> = codes.iter().map(|one| one["code"].as_str()).collect();
    let expected = ["state_unknown", "saga_gone", "timer_unhandled"];
    assert_eq!(codes, expected.map(Some));
    assert_eq!((&plan["compared"], &plan["others"]), (&5.into(), &2.into()));

    let (code, out, _) = run(Release::Current, &["--store", url, "sagas", "list"]);
    assert!(code == 0 && out.contains("reminded"), "{out}");
}

/// A newer release was here: what it left is found, too.
async fn plans_after_a_newer_release(url: &str, store: Arc<dyn Store>) {
    let clerk = Host::builder("clerk").shared_store(store);
    let clerk = clerk.build().expect("a host without endpoints is one");
    let clerk = clerk.start().await.expect("it starts");
    let later = PaidInParts { order: 2, parts: 3 };
    let sent = clerk.bus().publish(later).await;
    sent.expect("it is stored");
    assert!(clerk.stop(Duration::from_secs(10)).await);
    let (code, out, err) = run(Release::Current, &["plan", "--against", url]);
    assert_eq!(code, 6, "{out}{err}");
    assert!(err.contains("2 findings"), "{err}");
    for fact in [
        "1 running `order` (`1` is one) of schema version 2, and it reads up to 1",
        "1 `orders.paid` wait at `orders` in version 2, and it reads up to 1",
    ] {
        assert!(out.contains(fact), "{fact}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_compared_with_a_file() {
    let name = format!("own-program-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let file: PathBuf = folder.join("shop.db");
    let url = file.to_str().expect("the path is text");
    let (code, _, err) = run(Release::Current, &["plan", "--against", url]);
    assert_eq!(code, 4, "there is no file: {err}");
    let (code, ..) = run(Release::Current, &["--store", url, "schema", "migrate"]);
    assert_eq!(code, 0);
    let store = SqliteStore::open(&file).await.expect("it can be opened");
    plans(url, Arc::new(store.clone()), &store).await;
    let connection = SqliteConnection::connect(&format!("sqlite://{url}")).await;
    let mut connection = connection.expect("it can be opened");
    let newer = format!("update sagabus_instance {NEWER}");
    let done = connection.execute(AssertSqlSafe(newer)).await;
    done.expect("it is there");
    connection.close().await.expect("it can be closed");
    plans_after_a_newer_release(url, Arc::new(store)).await;
    remove(&folder);
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("our own folder can be removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_compared_with_a_server() {
    let Some(server) = server() else { return };
    let id = sagabus::MessageId::new().as_uuid().simple();
    let url = create_database(&server, &format!("own_program_{id}")).await;
    let (code, _, err) = run(Release::Current, &["plan", "--against", &url]);
    assert_eq!(code, 4, "there is no schema: {err}");
    let (code, ..) = run(Release::Current, &["--store", &url, "schema", "migrate"]);
    assert_eq!(code, 0);
    let store = PgStore::connect(&url).await.expect("it answers");
    plans(&url, Arc::new(store.clone()), &store).await;
    let mut connection = PgConnection::connect(&url).await.expect("it answers");
    let newer = format!("update sagabus.instance {NEWER}");
    let done = connection.execute(AssertSqlSafe(newer)).await;
    done.expect("it is there");
    connection.close().await.expect("it can be closed");
    plans_after_a_newer_release(&url, Arc::new(store.clone())).await;
    store.close();
    drop(store);
    drop_database(&server, &url).await;
}

#[test]
fn a_program_shows_itself_without_a_database() {
    let (code, out, _) = run(Release::Current, &["machines", "show", "order"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("waiting --> reminded : orders.reminder"),
        "{out}"
    );
    let (_, out, _) = run(Release::Current, &["machines", "list"]);
    assert!(out.contains("order    orders    2       4"), "{out}");
    let (code, _, err) = run(Release::Current, &["machines", "show", "parcel"]);
    assert_eq!(code, 3);
    assert!(err.contains("no machine `parcel`"), "{err}");
    let (_, out, _) = run(Release::Current, &["describe"]);
    assert!(out.contains("event orders.opened -> parcel"), "{out}");
    let (_, out, _) = run(Release::Later, &["describe", "--json"]);
    let said: Value = serde_json::from_str(&out).expect("it is one document");
    assert_eq!(said["hosts"][0]["host"], "shop");
    for nowhere in [&["run"][..], &["plan"], &["status"]] {
        let (code, _, err) = run(Release::Current, nowhere);
        assert_eq!(code, 2, "{nowhere:?}");
        assert!(err.contains("which database?"), "{err}");
    }
}
