//! Listen-to-yourself: what is announced goes to the broker first, and our own endpoint applies it.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use sagabus_core::backlog::Extended;
use sagabus_core::error::{BusError, HandlerError, StoreError};
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Fate, Group, Question,
    Registration, Retention, Store, Swept,
};
use sagabus_core::{HostBuilder, MessageId, State};

use super::scene::{Done, Log, Scene, start, stop};
use crate::wait::eventually;

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(20);
/// Short enough to be over before what is held up goes on.
const SHORT: Duration = Duration::from_millis(60);

async fn apply(event: Done, log: State<Log>) {
    log.add(format!("applied {}", event.n));
}

async fn refuse(event: Done, log: State<Log>) -> Result<(), HandlerError> {
    log.add(format!("refused {}", event.n));
    Err(HandlerError::new("this cannot be").terminal())
}

/// Stands before a store and lets calls through while the database is said to be up.
#[derive(Debug)]
struct Door {
    store: Arc<dyn Store>,
    is_down: AtomicBool,
}

impl Door {
    fn pass<'a, T: Send + 'a>(
        &'a self,
        call: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.is_down.load(Ordering::SeqCst) {
            let error = StoreError::Unavailable("the database is down".into());
            return std::future::ready(Err(error)).boxed();
        }
        call
    }
}

impl Store for Door {
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        self.pass(self.store.attach(registration, lifecycle))
    }

    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        self.pass(self.store.load(questions))
    }

    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        self.pass(self.store.commit(group))
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        self.pass(self.store.claim(claim))
    }

    fn extend<'a>(
        &'a self,
        extension: &'a Extension,
    ) -> BoxFuture<'a, Result<Extended, StoreError>> {
        self.pass(self.store.extend(extension))
    }

    fn sweep<'a>(&'a self, retention: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        self.pass(self.store.sweep(retention))
    }
}

fn announcing(scene: &Scene) -> HostBuilder {
    scene.builder("host").announces::<Done>()
}

pub async fn what_is_announced_is_applied_and_that_is_told(scene: Scene) {
    let builder = scene.with_broker(announcing(&scene));
    let host = start(builder.endpoint("orders", |e| e.handle(apply))).await;
    let fate = host
        .bus()
        .announce(Done { n: 1 })
        .applied_within(LONG)
        .await;
    assert_eq!(fate.expect("the broker takes it"), Fate::Applied);
    assert_eq!(scene.log.lines(), ["applied 1"]);
    stop(host).await;
    assert_eq!(scene.counts().await.outbox, 0, "no row was needed");
}

/// Where the database is the bus it is an ordinary event.
pub async fn without_a_broker_what_is_announced_is_an_event_of_the_outbox(scene: Scene) {
    let builder = announcing(&scene);
    let host = start(builder.endpoint("orders", |e| e.handle(apply))).await;
    let fate = host
        .bus()
        .announce(Done { n: 1 })
        .applied_within(LONG)
        .await;
    assert_eq!(fate.expect("it is stored"), Fate::Applied);
    stop(host).await;
    assert_eq!(scene.log.lines(), ["applied 1"]);
}

pub async fn what_is_announced_and_cannot_be_applied_is_a_dead_letter(scene: Scene) {
    let builder = scene.with_broker(announcing(&scene));
    let builder = builder.endpoint("orders", |e| e.handle(refuse));
    // The one that applies does not hide the one that does not.
    let host = start(builder.endpoint("audit", |e| e.handle(apply))).await;
    let fate = host
        .bus()
        .announce(Done { n: 1 })
        .applied_within(LONG)
        .await;
    assert_eq!(fate.expect("the broker takes it"), Fate::DeadLettered);
    assert_eq!(scene.dead_letters(1).await.len(), 1);
    stop(host).await;
}

/// Which process a handler runs in.
struct At(&'static str);

/// Every fifth cannot be applied.
async fn apply_or_refuse(event: Done, at: State<At>, log: State<Log>) -> Result<(), HandlerError> {
    let is_refused = event.n % 5 == 4;
    log.add(format!("{} {is_refused}", at.0.0));
    match is_refused {
        true => Err(HandlerError::new("this cannot be").terminal()),
        false => Ok(()),
    }
}

/// In whichever process the handler ran.
pub async fn what_another_host_did_with_an_announcement_is_told(scene: Scene) {
    let shared = scene.shared_broker();
    let begin = async |name: &'static str, store| {
        let builder = shared(scene.builder_on(name, store)).state(At(name));
        let builder = builder.announces::<Done>();
        start(builder.endpoint("orders", |e| e.handle(apply_or_refuse).capacity(4))).await
    };
    // First, so that it keeps most where a broker divides partitions: one of them has the events.
    let theirs = begin("theirs", scene.peer()).await;
    let ours = begin("ours", scene.store()).await;
    let bus = ours.bus();
    let by_them = |what: &str| scene.log.count(&format!("theirs {what}")) > 0;
    let mut n = 0;
    while !by_them("true") || !by_them("false") {
        assert!(n < 3_000, "the other host gets some of them");
        let announcing = (n..n + 20).map(|n| {
            let announced = bus.announce(Done { n }).applied_within(LONG);
            announced.map(move |fate| (n, fate))
        });
        for (n, fate) in join_all(announcing).await {
            let expected = match n % 5 {
                4 => Fate::DeadLettered,
                _ => Fate::Applied,
            };
            assert_eq!(fate.expect("the broker takes it"), expected, "{n}");
        }
        n += 20;
    }
    stop(ours).await;
    stop(theirs).await;
}

/// An API that was not answered asks again under the identity that it gave.
pub async fn an_identity_that_is_announced_twice_is_applied_once(scene: Scene) {
    let builder = scene.with_broker(announcing(&scene));
    let host = start(builder.endpoint("orders", |e| e.handle(apply))).await;
    let (bus, id) = (host.bus(), MessageId::new());
    for _ in 0..3 {
        let announcing = bus.announce(Done { n: 1 }).with_id(id);
        let fate = announcing.applied_within(LONG).await;
        assert_eq!(fate.expect("the broker takes it"), Fate::Applied);
    }
    stop(host).await;
    assert_eq!(scene.log.lines(), ["applied 1"]);
}

/// The API answers, and the event is applied when the database is back.
pub async fn an_announcement_needs_no_database(scene: Scene) {
    let door = Arc::new(Door {
        store: scene.store(),
        is_down: AtomicBool::new(false),
    });
    let builder = scene.builder_on("host", Arc::clone(&door) as Arc<dyn Store>);
    let builder = scene.with_broker(builder.announces::<Done>());
    let host = start(builder.endpoint("orders", |e| e.handle(apply))).await;
    let (bus, id) = (host.bus(), MessageId::new());

    door.is_down.store(true, Ordering::SeqCst);
    let announced = bus.announce(Done { n: 1 }).with_id(id);
    let fate = announced.applied_within(SHORT).await;
    assert_eq!(fate.expect("the broker takes it"), Fate::Pending);
    bus.announce(Done { n: 2 })
        .await
        .expect("the broker takes it");
    assert!(
        scene.log.lines().is_empty(),
        "nothing runs that is not known"
    );

    door.is_down.store(false, Ordering::SeqCst);
    let both = async || (scene.counts().await.inbox == 2).then_some(());
    eventually("both announcements applied", both).await;
    let again = bus.announce(Done { n: 1 }).with_id(id);
    let fate = again.applied_within(LONG).await;
    assert_eq!(fate.expect("the broker takes it"), Fate::Applied);
    stop(host).await;
    assert_eq!(scene.log.count("applied 1"), 1);
    assert_eq!(scene.log.count("applied 2"), 1);
}

pub async fn an_event_that_was_not_declared_is_not_announced(scene: Scene) {
    let builder = scene.with_broker(scene.builder("host"));
    let host = start(builder.endpoint("orders", |e| e.handle(apply))).await;
    let refused = host.bus().announce(Done { n: 1 }).await;
    match refused {
        Err(error @ BusError::NotAnnounced { .. }) => {
            let error = error.to_string();
            assert!(error.contains("`test.done`") && error.contains(".announces::<"));
        }
        other => panic!("an undeclared announcement was answered {other:?}"),
    }
    stop(host).await;
    assert!(scene.log.lines().is_empty());
}
