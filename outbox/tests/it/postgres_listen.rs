//! Wake-ups between processes, and what happens when their connection is lost.

use std::time::Duration;

use sagabus_core::MessageId;
use sagabus_core::store::Store;
use sagabus_testkit::wait::eventually;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::postgres_support::Database;
use crate::postgres_units::Site;

/// Far above what a wake-up takes, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const LISTENERS: &str = "select count(*) from pg_stat_activity \
    where datname = current_database() and application_name = 'sagabus listener' \
    and state = 'idle'";

/// Waits until the store's listener stands, and forgets what it said so far.
async fn is_listening(database: &Database, count: i64, wakeups: &mut watch::Receiver<u64>) {
    eventually("listener", || async {
        (database.number(LISTENERS).await == count).then_some(())
    })
    .await;
    wakeups.mark_unchanged();
}

async fn commit(site: &Site) {
    let group = site.group(vec![site.unit(MessageId::new())]);
    site.store.commit(&group).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_one_process_wakes_another() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let writer = Site::new(store).await;
    let sleeper = Site::new(database.store().await).await;
    let mut wakeups = sleeper.attached.wakeups.clone();
    is_listening(&database, 2, &mut wakeups).await;
    for _ in 0..3 {
        commit(&writer).await;
        timeout(PATIENCE, wakeups.changed()).await.unwrap().unwrap();
    }
    sleeper.stop().await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listener_comes_back_and_says_so() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let writer = Site::new(store).await;
    let sleeper = Site::new(database.store().await).await;
    let mut wakeups = sleeper.attached.wakeups.clone();
    is_listening(&database, 2, &mut wakeups).await;
    let ended = database
        .number(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity \
             where datname = current_database() and application_name = 'sagabus listener'",
        )
        .await;
    assert_eq!(ended, 2);
    // Once for the new connection: what was told meanwhile is not told again.
    timeout(PATIENCE, wakeups.changed()).await.unwrap().unwrap();
    is_listening(&database, 2, &mut wakeups).await;
    commit(&writer).await;
    timeout(PATIENCE, wakeups.changed()).await.unwrap().unwrap();
    sleeper.stop().await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_ends_with_its_host() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let mut wakeups = site.attached.wakeups.clone();
    is_listening(&database, 1, &mut wakeups).await;
    site.stop().await;
    assert_eq!(site.lifecycle.task_count(), 0);
    eventually("closed listener", || async {
        (database.number(LISTENERS).await == 0).then_some(())
    })
    .await;
}
