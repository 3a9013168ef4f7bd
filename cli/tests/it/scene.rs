//! A database with what goes wrong in one, and the program run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{
    EndpointBuilder, Host, HostBuilder, Result, ResultExt, Retry, RunningHost, Store,
};
use sagabus_outbox::SqliteStore;
use uuid::Uuid;

/// A command that always fails.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Charge {
    pub(crate) order: u32,
    pub(crate) note: String,
}

impl Message for Charge {
    const TYPE: &'static str = "shop.charge";
    const KIND: Kind = Kind::Command;
}

impl message::Command for Charge {}

/// A command that nobody takes.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Ship {
    pub(crate) order: u32,
}

impl Message for Ship {
    const TYPE: &'static str = "shop.ship";
    const KIND: Kind = Kind::Command;
}

impl message::Command for Ship {}

async fn charge(command: Charge) -> Result<()> {
    let error = format!("card of order {} was declined \u{1b}[2J", command.order);
    Err::<(), _>(std::io::Error::other(error)).terminal()
}

/// Starts the host whose handler fails.
pub(crate) async fn host(store: impl Store) -> RunningHost {
    host_with(store, |builder| builder).await
}

/// Starts that host with something more.
pub(crate) async fn host_with(
    store: impl Store,
    more: impl FnOnce(HostBuilder) -> HostBuilder,
) -> RunningHost {
    let payments = |e: EndpointBuilder| e.retry(Retry::none()).handle(charge);
    let host = Host::builder("shop").store(store);
    let host = more(host.endpoint("payments", payments)).build().unwrap();
    host.start().await.unwrap()
}

/// An event that nobody publishes.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Audited;

impl Message for Audited {
    const TYPE: &'static str = "shop.audited";
    const KIND: Kind = Kind::Event;
}

impl message::Event for Audited {}

async fn note(_: Audited) -> Result<()> {
    Ok(())
}

/// Starts a host with the endpoint `spare`.
pub(crate) async fn spare_host(store: impl Store) -> RunningHost {
    let host = Host::builder("spare").store(store);
    let host = host.endpoint("spare", |e| e.handle(note)).build().unwrap();
    host.start().await.unwrap()
}

/// A file that goes with its test.
pub(crate) struct Scene {
    folder: PathBuf,
}

impl Scene {
    /// Makes a migrated file.
    pub(crate) async fn new() -> (Self, SqliteStore) {
        let name = format!("cli-{}", Uuid::now_v7());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let scene = Self { folder };
        let store = SqliteStore::open(scene.file()).await.unwrap();
        store.migrate().await.unwrap();
        (scene, store)
    }

    /// Makes a file with `dead` dead letters and one parked command, left by a host that stopped.
    pub(crate) async fn with_failures(dead: u32) -> (Self, SqliteStore) {
        let (scene, store) = Self::new().await;
        let host = host(store.clone()).await;
        for order in 0..dead {
            let note = "\u{1b}]0;owned\u{7}".to_owned();
            host.bus().send(Charge { order, note }).await.unwrap();
        }
        host.bus().send(Ship { order: 7 }).await.unwrap();
        sagabus_testkit::wait::eventually("dead letters", || async {
            let counts = store.counts().await.unwrap();
            (counts.dead_letters == u64::from(dead) && counts.parked == 1).then_some(())
        })
        .await;
        assert!(host.stop(Duration::from_secs(10)).await);
        (scene, store)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("shop.db")
    }

    /// Runs the program on the file; nobody is there to be asked.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let file = self.file();
        let store = ["--store", file.to_str().unwrap()];
        run(&[&store, arguments].concat())
    }

    /// Runs the program and reads the JSON that it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let ran = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder); // What stays is found by the next clean build.
    }
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Names the program with nothing but these arguments.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sagabus"));
    program
        .args(arguments)
        .env_remove("SAGABUS_STORE")
        .env_remove("SAGABUS_WHO")
        .env_remove("SAGABUS_ROLE")
        .env_remove("SAGABUS_CONFIG")
        .env_remove("SAGABUS_PROFILE")
        .env_remove("SAGABUS_KEYRING")
        .env("USER", "ada")
        .stdin(Stdio::null());
    program
}

/// Runs the program with nothing but these arguments.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let output: Output = program(arguments).output().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    let is_hostile = |c: char| c.is_control() && c != '\n';
    assert!(!ran.out.contains(is_hostile), "{:?}", ran.out);
    assert!(!ran.err.contains(is_hostile), "{:?}", ran.err);
    ran
}

/// Compares a text with the one that is kept; `BLESS=1` keeps this one.
pub(crate) fn compare(file: &str, text: &str) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&kept, text).unwrap();
    }
    let kept = std::fs::read_to_string(&kept).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        kept == text,
        "{file} differs, first at {differs:?}; `BLESS=1` keeps the new one"
    );
}
