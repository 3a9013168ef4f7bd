//! A message that kills its process, on a broker that does not count deliveries.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sagabus::Kind;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually_within;
use serde::{Deserialize, Serialize};

use crate::databases::say;
use crate::killed::process::{Child, Ended, run_child};

use super::{brokers, prefix, transport};

const FOLDER: &str = "SAGABUS_FATAL_FOLDER";
const CLUSTER: &str = "SAGABUS_FATAL_CLUSTER";
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a life may take: the group waits until it knows that the one before is dead.
const LIFE_MAX: Duration = Duration::from_secs(60);
const MESSAGES: u32 = 60;
const KILLER: u32 = 30;

#[derive(Debug, Serialize, Deserialize)]
struct Work {
    n: u32,
}

impl Message for Work {
    const TYPE: &'static str = "fatal.work";
    const KIND: Kind = Kind::Command;
}
impl Command for Work {}

async fn open(folder: &Path) -> SqliteStore {
    let store = SqliteStore::open(folder.join("bus.db")).await;
    let store = store.expect("the file can be opened");
    store.migrate().await.expect("it can be migrated");
    store
}

/// Notes in a file of its own, which no transaction takes back, that a handler is done.
async fn work(command: Work, folder: State<PathBuf>) {
    if command.n == KILLER {
        std::process::abort();
    }
    let notes = OpenOptions::new().append(true).open(folder.join("notes"));
    let line = format!("{}\n", command.n);
    let written = notes.expect("it was made").write_all(line.as_bytes());
    written.expect("it can be appended to");
}

#[test]
fn runs_only_as_a_fatal_child() {
    let told = (std::env::var_os(FOLDER), std::env::var(CLUSTER));
    let (Some(folder), Ok(cluster)) = told else {
        return;
    };
    let folder = PathBuf::from(folder);
    let (brokers, prefix) = cluster.split_once(' ').expect("brokers and prefix");
    block_on(async {
        let store = open(&folder).await;
        let host = Host::builder("fatal")
            .store(store.clone())
            .transport(transport(brokers, prefix))
            .state(folder.clone())
            .lease(Duration::from_millis(500))
            .endpoint("work", |e| e.handle(work));
        let host = host.build().expect("it is put together well");
        let host = host.start().await.expect("it starts");
        if !folder.join("sent").exists() {
            for n in 0..MESSAGES {
                host.bus().send(Work { n }).await.expect("it is stored");
            }
            File::create(folder.join("sent")).expect("a file can be made");
        }
        let is_over = || async {
            let counts = store.counts().await.expect("rows can be counted");
            let is_over = counts.outbox == 0 && counts.dead_letters == 1;
            // What is in Kafka is in no table yet.
            (is_over && noted(&folder).len() == MESSAGES as usize - 1).then_some(())
        };
        eventually_within(LIFE_MAX, "a dead letter and every neighbour", is_over).await;
        host.stop(Duration::from_secs(10)).await;
    });
}

/// Returns which neighbours were handled.
fn noted(folder: &Path) -> BTreeSet<String> {
    let notes = std::fs::read_to_string(folder.join("notes")).expect("it was made");
    notes.lines().map(str::to_owned).collect()
}

#[test]
fn a_message_that_kills_its_process_is_a_dead_letter_and_its_neighbours_are_handled() {
    let Some(brokers) = brokers() else { return };
    let folder = std::env::temp_dir();
    let folder = folder.join(format!("sagabus-fatal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    File::create(folder.join("notes")).expect("a file can be made");
    let cluster = format!("{brokers} {}", prefix());
    block_on(async {
        let child = || {
            Child::new("kafka::fatal::runs_only_as_a_fatal_child")
                .with(FOLDER, folder.display().to_string())
                .with(CLUSTER, cluster.clone())
        };
        let (mut aborts, mut in_vain, mut handled) = (0, 0, 0);
        while run_child(child(), PATIENCE).await == Ended::Aborted {
            let before = std::mem::replace(&mut handled, noted(&folder).len());
            aborts += 1;
            // What is done in a life forgets how often the partition was begun before: a busy
            // machine dies more often, but not in vain.
            in_vain = if handled > before { 0 } else { in_vain + 1 };
            assert!(in_vain < 20, "it is tried for ever");
        }
        let dead = open(&folder).await.dead_letters(10).await;
        let dead = dead.expect("dead letters can be read");
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert_eq!(dead[0].reason, "killed_host");
        let neighbours = noted(&folder).len();
        assert_eq!(
            neighbours,
            MESSAGES as usize - 1,
            "every neighbour was handled"
        );
        say(&format!(
            "kafka message that kills its process: {aborts} processes died, then a dead letter; \
             {neighbours} neighbours handled\n"
        ));
    });
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}
