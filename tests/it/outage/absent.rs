//! The database is not there: at the start of a host, and while it works.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus::error::chain;
use sagabus::prelude::*;
use sagabus::{BusError, MessageId, PgStore, StoreError};
use sagabus_testkit::wait::grow_older;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::databases::{block_on, say};
use crate::killed::child::postgres;
use sagabus_testkit::transfers::StartTransfer;

use super::site::{Site, assert_dead, run, send};
use sagabus_testkit::postgres_proxy::Mode;

#[test]
fn a_host_says_which_database_does_not_answer_and_starts_when_it_does() {
    run(async {
        let Some(site) = Site::open("absent").await else {
            return;
        };
        let proxy = site.proxy(None).await;
        let url = site.behind(&proxy);
        let store = PgStore::connect(&url).await.expect("the proxy passes on");
        let host = || {
            let host = postgres::equip(Host::builder("absent"), &store);
            host.build().expect("the workload is put together well")
        };
        proxy.set(Mode::Refuse).await;
        let connecting = PgStore::connect(&url).await.expect_err("nobody listens");
        let starting = host().start().await.expect_err("nobody listens");
        for error in [chain(&connecting), chain(&starting)] {
            say(&format!("absent database: {error}\n"));
            let place = proxy.address().to_string();
            assert!(error.contains("cannot be reached"), "{error}");
            assert!(error.contains(&place), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        proxy.set(Mode::Pass).await;
        let host = host().start().await.expect("it is back");
        send(&host.bus(), 0..5).await;
        assert!(site.judge(&host, 5).await > 0);
    });
}

#[test]
fn work_goes_on_by_itself_after_an_outage_and_each_part_says_so_once() {
    const TRANSFERS: i64 = 120;
    let lines = Lines::default();
    // Two: of a single one, `tracing` thinks that all threads have it or none.
    let _other = tracing::Dispatch::new(lines.clone());
    let _guard = tracing::subscriber::set_default(lines.clone());
    block_on(async {
        let Some(site) = Site::open("outage").await else {
            return;
        };
        let proxy = site.proxy(None).await;
        let store = PgStore::connect(&site.behind(&proxy)).await;
        let store = store.expect("the proxy passes on");
        let host = site.start(&store).await;
        let bus = host.bus();
        let sending = send(&bus, 0..TRANSFERS);
        let outage = async {
            grow_older(Duration::from_millis(300)).await;
            lines.clear();
            proxy.set(Mode::Refuse).await;
            grow_older(Duration::from_millis(300)).await;
            // A transaction of an API's own is told; a message alone waits.
            let refused = store.begin(&bus).await.err();
            let is_told = matches!(refused, Some(BusError::Store(StoreError::Unavailable(_))));
            assert!(is_told, "{refused:?}");
            let mut waiting =
                std::pin::pin!(bus.send(StartTransfer { id: TRANSFERS }).into_future());
            tokio::select! {
                answer = &mut waiting => panic!("sent without a database: {answer:?}"),
                () = grow_older(Duration::from_millis(1700)) => {}
            }
            let during = lines.warnings();
            proxy.set(Mode::Pass).await;
            waiting
                .await
                .expect("it is stored when the database is back");
            during
        };
        let ((), during) = tokio::join!(sending, outage);
        let effects = site.judge(&host, TRANSFERS + 1).await;
        let attempts = site.attempts_of_the_dead().await;
        say(&format!(
            "two seconds without a database: effects {effects}, lost 0, duplicated 0; resubmitted \
             {}; warnings {during:?}\n",
            host.counters().resubmitted.get(),
        ));
        assert_dead(&attempts, TRANSFERS + 1);
        assert!(!during.is_empty(), "an outage is said");
        // Two commit calls may be under way, each of which is a part. A `Tx` in doubt is said of its
        // message, not of the outage: at most one for each of the ten connections.
        let allowed = |what: &str| match what {
            "commit: failed; trying again" => 2,
            what if what.contains("in doubt") => 10,
            _ => 1,
        };
        let too_often = during.iter().filter(|(what, n)| **n > allowed(what));
        assert_eq!(too_often.count(), 0, "{during:?}");
    });
}

#[test]
fn a_sender_whose_host_is_stopped_during_an_outage_learns_that_nobody_knows() {
    run(async {
        let Some(site) = Site::open("unknown").await else {
            return;
        };
        let proxy = site.proxy(None).await;
        let store = PgStore::connect(&site.behind(&proxy)).await;
        let store = store.expect("the proxy passes on");
        let host = site.start(&store).await;
        let bus = host.bus();
        proxy.set(Mode::Refuse).await;
        let id = MessageId::new();
        let sending = bus.send(StartTransfer { id: 0 }).with_id(id).into_future();
        let stopping = async {
            grow_older(Duration::from_millis(200)).await;
            host.stop(Duration::ZERO).await
        };
        let (sent, is_clean) = tokio::join!(sending, stopping);
        assert!(!is_clean, "a commit was in hand");
        match sent {
            Err(BusError::CommitUnknown { message_ids }) => assert_eq!(message_ids, [id]),
            other => panic!("{other:?}"),
        }
        let late = bus.send(StartTransfer { id: 1 }).await;
        assert!(matches!(late, Err(BusError::NotRunning)), "{late:?}");
    });
}

/// What was said on this thread, as warnings and worse.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<BTreeMap<String, usize>>>);

impl Lines {
    fn clear(&self) {
        self.0.lock().expect("nobody panics with it").clear();
    }

    fn warnings(&self) -> BTreeMap<String, usize> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN && metadata.target().starts_with("sagabus")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut lines = self.0.lock().expect("nobody panics with it");
        *lines.entry(line.0).or_default() += 1;
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event says of itself, without what differs from time to time.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "what" {
            self.0 = format!("{value}: {}", self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.push_str(&format!("{value:?}"));
        }
    }
}
