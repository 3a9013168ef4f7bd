//! A host whose handler never ends is told to stop twice: it lets go, and another host handles the
//! message.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sagabus::SqliteStore;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Where the child keeps its database.
const FOLDER: &str = "SAGABUS_TOLD_TWICE";
/// How long the second signal may take to end the process: handlers are dropped at once, and its
/// answers to the database are written.
const FORCED_MAX: Duration = Duration::from_secs(5);

#[derive(Command, Serialize, Deserialize)]
#[message("told.work")]
struct Work {
    n: u32,
}

fn database(folder: &Path) -> PathBuf {
    folder.join("told.db")
}

fn marker(folder: &Path) -> PathBuf {
    folder.join("began")
}

/// Begins, says so, and never ends.
async fn hang(_: Work, began: State<PathBuf>) -> sagabus::Result {
    std::fs::write(&*began, "")?;
    std::future::pending().await
}

/// Runs the host when this binary was started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    crate::databases::block_on(async {
        let store = SqliteStore::open(database(&folder)).await;
        let host = Host::builder("stubborn")
            .store(store.expect("the file is there"))
            .lease(1.secs())
            .state(marker(&folder))
            .endpoint("work", |e| e.handle(hang));
        let host = host.build().expect("it is put together well");
        host.run().await.expect("it runs until it is told");
    });
}

/// The child; killed where a test fails.
struct Stubborn(Child);

impl Stubborn {
    fn start(folder: &Path) -> Self {
        let this = std::env::current_exe().expect("a test binary knows its own path");
        let mut command = Command::new(this);
        command
            .args(["--exact", "killed::told_twice::runs_only_as_a_child"])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    fn is_told(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it can be told");
    }

    fn runs(&mut self) -> bool {
        let status = self.0.try_wait().expect("a child can be waited for");
        status.is_none()
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It has ended, or this ends it.
        let _ = self.0.wait();
    }
}

async fn finish(_: Work, done: State<tokio::sync::Semaphore>) {
    done.add_permits(1);
}

#[test]
fn a_second_signal_ends_a_host_whose_handler_never_does_and_another_handles_its_message() {
    let name = format!("told-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    crate::databases::block_on(check(&folder));
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

async fn check(folder: &Path) {
    let store = SqliteStore::open(database(folder)).await;
    let store = store.expect("a file can be made");
    store.migrate().await.expect("it is empty");
    let mut child = Stubborn::start(folder);
    let clerk = Host::builder("clerk").store(store.clone());
    let clerk = clerk.build().expect("a host without endpoints is one");
    let clerk = clerk.start().await.expect("it starts");
    let is_there = async || {
        let endpoints = store.endpoints().await.expect("they are read");
        (!endpoints.is_empty()).then_some(())
    };
    eventually("the child's endpoint", is_there).await;
    clerk.bus().send(Work { n: 1 }).await.expect("it is stored");
    let began = async || marker(folder).exists().then_some(());
    eventually("a handler that began", began).await;

    child.is_told();
    grow_older(Duration::from_secs(1)).await;
    assert!(child.runs(), "it waits for its handler");
    let told = Instant::now();
    child.is_told();
    while child.runs() {
        assert!(
            told.elapsed() < FORCED_MAX,
            "it runs {FORCED_MAX:?} after the second signal"
        );
        grow_older(Duration::from_millis(5)).await;
    }

    let host = Host::builder("other")
        .store(store.clone())
        .state(tokio::sync::Semaphore::new(0))
        .endpoint("work", |e| e.handle(finish));
    let host = host.build().expect("it is put together well");
    let done = host
        .state::<tokio::sync::Semaphore>()
        .expect("it was given");
    let host = host.start().await.expect("it starts");
    let look = async || {
        let counts = store.counts().await.expect("they are counted");
        (counts.outbox == 0 && done.available_permits() > 0).then_some(counts)
    };
    let (counts, _) = eventually("the message handled by another", look).await;
    assert_eq!((counts.dead_letters, done.available_permits()), (0, 1));
    assert!(host.stop(Duration::from_secs(10)).await);
    assert!(clerk.stop(Duration::from_secs(10)).await);
}
