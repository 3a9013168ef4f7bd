//! What a host answers to whoever keeps it running.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::backlog::Extended;
use sagabus_core::memory::MemoryStore;
use sagabus_core::message::Command;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Group, Question, Registration,
    Retention, Swept,
};
use sagabus_core::{Host, Kind, Lifecycle, Message, Store, StoreError};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Ping;

impl Message for Ping {
    const TYPE: &'static str = "health.ping";
    const KIND: Kind = Kind::Command;
}
impl Command for Ping {}

async fn pong(_: Ping) {}

/// A store that can be attached to, and answers nothing after that: calls hang, or fail.
#[derive(Debug)]
struct Away {
    store: MemoryStore,
    hangs: bool,
}

impl Away {
    fn answer<'a, T: Send + 'a>(&'a self) -> BoxFuture<'a, Result<T, StoreError>> {
        match self.hangs {
            true => futures_util::future::pending().boxed(),
            false => async { Err(StoreError::Unavailable("it is away".into())) }.boxed(),
        }
    }
}

impl Store for Away {
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        self.store.attach(registration, lifecycle)
    }

    fn load<'a>(&'a self, all: &'a [Question]) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        self.store.load(all)
    }

    fn commit<'a>(&'a self, _: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        self.answer()
    }

    fn claim<'a>(&'a self, _: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        self.answer()
    }

    fn extend<'a>(&'a self, _: &'a Extension) -> BoxFuture<'a, Result<Extended, StoreError>> {
        self.answer()
    }

    fn sweep<'a>(&'a self, _: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        self.answer()
    }
}

async fn started(store: impl Store) -> sagabus_core::RunningHost {
    let host = Host::builder("probed").store(store);
    let host = host.endpoint("pings", |e| e.handle(pong));
    let host = host.build().expect("it is put together well");
    host.start().await.expect("it starts")
}

#[tokio::test(start_paused = true)]
async fn a_host_that_works_is_live_and_ready_and_one_that_drains_is_not_ready() {
    let host = started(MemoryStore::new()).await;
    let health = host.health();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (live, ready) = (health.liveness(), health.readiness());
    assert!(live.is_well && live.reasons.is_empty(), "{live:?}");
    assert!(ready.is_well && ready.reasons.is_empty(), "{ready:?}");
    assert!(host.stop(Duration::from_secs(5)).await);
    let ready = health.readiness();
    assert!(!ready.is_well, "{ready:?}");
    assert_eq!(ready.reasons, ["the host drains"]);
    assert!(health.liveness().is_well, "nobody restarts what stops");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_a_reason_not_to_be_ready_and_none_to_restart() {
    let (store, hangs) = (MemoryStore::new(), false);
    let health = started(Away { store, hangs }).await.health();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let ready = health.readiness();
    assert!(!ready.is_well, "{ready:?}");
    assert!(
        ready.reasons[0].starts_with("the database has not answered for "),
        "{ready:?}"
    );
    assert!(health.liveness().is_well);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_stuck_is_a_reason_to_restart() {
    let (store, hangs) = (MemoryStore::new(), true);
    let health = started(Away { store, hangs }).await.health();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(health.liveness().is_well, "a call may take its time");
    tokio::time::sleep(Duration::from_secs(50)).await;
    let live = health.liveness();
    assert!(!live.is_well, "{live:?}");
    assert!(live.reasons[0].starts_with("no heartbeat was tried for "));
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn probes_are_answered_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let host = started(MemoryStore::new()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port can be listened on");
    let address = listener.local_addr().expect("it has an address");
    let router = sagabus_core::health_routes(host.health());
    let serving = axum::serve(listener, router).into_future();
    let ask = async {
        let mut answers = Vec::new();
        for path in ["/livez", "/readyz"] {
            let mut stream = tokio::net::TcpStream::connect(address)
                .await
                .expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let sent = stream.write_all(request.as_bytes()).await;
            sent.expect("it reads");
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer).await;
            read.expect("it answers in text");
            answers.push(answer);
        }
        answers
    };
    tokio::select! {
        _ = serving => panic!("the server goes on"),
        answers = ask => for answer in answers {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.ends_with("{\"is_well\":true,\"reasons\":[]}"), "{answer}");
        }
    }
    assert!(host.stop(Duration::from_secs(5)).await);
}

/// Counts what is logged on this thread.
#[derive(Default)]
struct Heard(std::sync::atomic::AtomicUsize);

impl tracing::Subscriber for Heard {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target().starts_with("sagabus") {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_probe_says_nothing_in_the_log() {
    let host = started(MemoryStore::new()).await;
    let health = host.health();
    let heard = std::sync::Arc::new(Heard::default());
    let count = || heard.0.load(std::sync::atomic::Ordering::SeqCst);
    tracing::subscriber::with_default(std::sync::Arc::clone(&heard), || {
        for _ in 0..1000 {
            assert!(health.liveness().is_well && health.readiness().is_well);
        }
        assert_eq!(count(), 0);
        tracing::info!(target: "sagabus_core::health", "it is listened to");
        assert_eq!(count(), 1);
    });
    assert!(host.stop(Duration::from_secs(5)).await);
}
