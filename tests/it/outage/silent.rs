//! The database is there and says nothing.

use std::sync::Arc;
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{Kind, PgConfig, PgStore, Postgres, Tx};
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::databases::say;

use super::site::{Site, run, send};
use sagabus_testkit::postgres_proxy::{Mode, Proxy};

/// How long a call may go without an answer.
const CALL_MAX: Duration = Duration::from_millis(400);

async fn impatient(site: &Site, proxy: &Proxy) -> PgStore {
    let mut config = PgConfig::new(&site.behind(proxy)).expect("it is an address");
    config.call_timeout = CALL_MAX;
    config.connect_timeout = CALL_MAX;
    let store = PgStore::connect_with(config).await;
    store.expect("the proxy passes on")
}

#[test]
fn calls_that_arrive_after_a_silence_have_been_made_again_and_change_nothing() {
    const TRANSFERS: i64 = 150;
    run(async {
        let Some(site) = Site::open("silent").await else {
            return;
        };
        let proxy = site.proxy(None).await;
        let store = impatient(&site, &proxy).await;
        let host = site.start(&store).await;
        let bus = host.bus();
        let silences = async {
            for _ in 0..3 {
                grow_older(Duration::from_millis(250)).await;
                proxy.set(Mode::Swallow).await;
                grow_older(CALL_MAX * 2).await;
                // What was swallowed goes on to the server now.
                proxy.set(Mode::Pass).await;
            }
        };
        tokio::join!(send(&bus, 0..TRANSFERS), silences);
        let effects = site.judge(&host, TRANSFERS).await;
        let resubmitted = host.counters().resubmitted.get();
        say(&format!(
            "three silences: resubmitted {resubmitted}; effects {effects}, lost 0, duplicated 0; \
             {} connections\n",
            proxy.accepted(),
        ));
        assert!(resubmitted >= 1, "no commit was in doubt");
    });
}

#[derive(Serialize, Deserialize)]
struct Pay {
    cents: i64,
}

impl Message for Pay {
    const TYPE: &'static str = "silent.pay";
    const KIND: Kind = Kind::Command;
}
impl Command for Pay {}

/// Where a handler and the test wait for each other.
#[derive(Default)]
struct Meeting {
    is_open: Notify,
    may_go: Notify,
}

async fn pay(pay: Pay, mut tx: Tx<Postgres>, meeting: State<Arc<Meeting>>) -> Result {
    sqlx::query("insert into transfer values (1, $1)")
        .bind(pay.cents)
        .execute(tx.conn().await?)
        .await?;
    meeting.is_open.notify_one();
    meeting.may_go.notified().await;
    Ok(())
}

#[test]
fn a_handlers_transaction_whose_server_falls_silent_is_given_up_and_run_again() {
    run(async {
        let Some(site) = Site::open("stranded").await else {
            return;
        };
        let proxy = site.proxy(None).await;
        let store = impatient(&site, &proxy).await;
        let meeting = Arc::new(Meeting::default());
        let host = Host::builder("stranded")
            .store(store.clone())
            .state(Arc::clone(&meeting))
            .endpoint("payments", |e| e.handle(pay).retry(Retry::none()));
        let host = host.build().expect("it can be built");
        let host = host.start().await.expect("it starts");
        host.bus()
            .send(Pay { cents: 7 })
            .await
            .expect("it is stored");
        meeting.is_open.notified().await;
        // From now on nothing comes back on any connection that there is.
        proxy.set(Mode::Strand).await;
        meeting.may_go.notify_one();
        let again = async {
            meeting.is_open.notified().await;
            meeting.may_go.notify_one();
        };
        let in_time = tokio::time::timeout(Duration::from_secs(15), again).await;
        assert!(in_time.is_ok(), "the transaction was never given up");
        let direct = PgStore::connect(&site.url).await.expect("it answers");
        let is_done = || async {
            let counts = direct.counts().await.expect("rows can be counted");
            (counts.outbox == 0).then_some(())
        };
        eventually("an empty outbox", is_done).await;
        assert_eq!(site.number("select count(*) from transfer").await, 1);
        assert!(site.attempts_of_the_dead().await.is_empty());
        host.stop(Duration::from_secs(10)).await;
    });
}
