//! Wake-ups between processes, and what happens when their connection is lost.

use std::time::Duration;

use futures_util::future::join_all;
use sagabus_core::MessageId;
use sagabus_core::store::Store;
use sagabus_testkit::wait::eventually;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

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

/// Each notification takes a lock that every commit with one in the whole server needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_are_told_by_few_notifications_none_of_them_in_a_commit() {
    const COMMITS: usize = 400;
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let writer = Site::new(store).await;
    let mut wakeups = writer.attached.wakeups.clone();
    is_listening(&database, 1, &mut wakeups).await;
    let mut stranger = PgListener::connect(database.url()).await.unwrap();
    stranger.listen("sagabus_wakeup").await.unwrap();
    let talks = "select pid::bigint from pg_stat_activity \
        where datname = current_database() and application_name = 'sagabus listener'";
    let talks = database.number(talks).await;
    let began = Instant::now();
    for _ in 0..COMMITS / 20 {
        join_all((0..20).map(|_| commit(&writer))).await;
    }
    let took = began.elapsed();
    let mut told = 0;
    // The last one is told once the pause behind the one before it is over.
    while let Ok(one) = timeout(Duration::from_millis(500), stranger.recv()).await {
        assert_eq!(i64::from(one.unwrap().process_id()), talks, "a commit told");
        told += 1;
    }
    let most = usize::try_from(took.as_millis() / 5).unwrap() + 2;
    println!("{COMMITS} commits in {took:?} were told by {told} notifications");
    assert!((1..=most).contains(&told), "{told} in {took:?}");
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
