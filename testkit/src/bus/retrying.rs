//! How often messages of one type are tried, whatever holds for the others of their endpoint.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::time::Duration;

use sagabus_core::admin::{Page, RowFilter};
use sagabus_core::{Breaker, Event, HandlerError, Kind, Message, Result, Retry, State};
use serde::{Deserialize, Serialize};

use super::scene::{Do, Done, Log, Scene, quick_retry, stop};
use crate::wait::eventually;

async fn fail(command: Do, log: State<Log>) -> Result {
    log.add(format!("do {}", command.n));
    Err(HandlerError::new("no luck"))
}

async fn fail_done(event: Done, log: State<Log>) -> Result {
    log.add(format!("done {}", event.n));
    Err(HandlerError::new("no luck"))
}

pub async fn a_type_is_tried_as_often_as_its_endpoint_says_for_it(scene: Scene) {
    let host = scene
        .host("work", |e| {
            let e = e.handle(fail).handle(fail_done);
            e.retry(quick_retry()).retry_for::<Done>(Retry::none())
        })
        .await;
    let bus = host.bus();
    bus.send(Do { n: 1 }).await.expect("it is stored");
    bus.publish(Done { n: 2 }).await.expect("it is stored");
    let dead = scene.dead_letters(2).await;
    let tries = |message_type: &str| {
        let mut found = dead.iter();
        let one = found.find(|one| &*one.envelope.message_type == message_type);
        one.map(|one| (one.reason.as_str(), one.attempts.len()))
    };
    assert_eq!(tries(Do::TYPE), Some(("attempts_exhausted", 4)));
    assert_eq!(tries(Done::TYPE), Some(("attempts_exhausted", 1)));
    scene.quiet().await;
    stop(host).await;
    assert_eq!((scene.log.count("do 1"), scene.log.count("done 2")), (4, 1));
}

/// In the database, where it takes no place of its host's and none of the broker's; not at the same
/// time as the others that failed with it.
pub async fn a_try_for_later_is_a_row_with_a_time_of_its_own(scene: Scene) {
    const MESSAGES: u32 = 30;
    const DELAY: Duration = Duration::from_secs(3600);
    let retry = Retry {
        delayed: 1,
        delay: DELAY,
        delay_max: DELAY,
        ..Retry::none()
    };
    let never = Breaker::never();
    let host = scene
        .host("work", |e| e.handle(fail).retry(retry).breaker(never))
        .await;
    let now = async || {
        let about = scene.admin().about().await;
        about.expect("the store answers").now
    };
    let before = now().await;
    for n in 0..MESSAGES {
        host.bus().send(Do { n }).await.expect("it is stored");
    }
    let of_work = RowFilter {
        destination: Some("@work".to_owned()),
        ..RowFilter::default()
    };
    let look = || async {
        let rows = scene.admin().rows(&of_work, Page::oldest(100)).await;
        let mut rows = rows.expect("rows are shown");
        rows.retain(|row| row.failures == 1);
        let is_free = host.endpoints()[0].in_hand == 0;
        (rows.len() == MESSAGES as usize && is_free).then_some(rows)
    };
    let (rows, _) = eventually("all tries for later", look).await;
    let (earliest, latest) = (before.plus(DELAY / 2), now().await.plus(DELAY));
    let mut times: Vec<_> = rows.iter().map(|row| row.available_at).collect();
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(first >= earliest && last <= latest, "{first} {last}");
    assert!(last >= first.plus(DELAY / 10), "{first} {last}");
    stop(host).await;
    assert_eq!(scene.log.lines().len(), MESSAGES as usize);
}

/// As a release before a new name sent it.
#[derive(Debug, Serialize, Deserialize)]
struct Book {
    n: u32,
}

impl Message for Book {
    const TYPE: &'static str = "test.book-once";
    const KIND: Kind = Kind::Event;
}
impl Event for Book {}

#[derive(Debug, Serialize, Deserialize)]
struct Reserve {
    n: u32,
}

impl Message for Reserve {
    const TYPE: &'static str = "test.reserve-once";
    const ALIASES: &'static [&'static str] = &[Book::TYPE];
    const KIND: Kind = Kind::Event;
}
impl Event for Reserve {}

async fn fail_reserve(event: Reserve, log: State<Log>) -> Result {
    log.add(format!("reserve {}", event.n));
    Err(HandlerError::new("no luck"))
}

pub async fn what_comes_under_a_former_name_is_tried_as_often(scene: Scene) {
    let host = scene
        .host("work", |e| {
            let e = e.handle(fail_reserve).retry(quick_retry());
            e.retry_for::<Reserve>(Retry::none())
        })
        .await;
    let bus = host.bus();
    bus.publish(Book { n: 1 }).await.expect("it is stored");
    bus.publish(Reserve { n: 2 }).await.expect("it is stored");
    let dead = scene.dead_letters(2).await;
    assert!(dead.iter().all(|one| one.attempts.len() == 1), "{dead:?}");
    scene.quiet().await;
    stop(host).await;
    let lines = scene.log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
}
