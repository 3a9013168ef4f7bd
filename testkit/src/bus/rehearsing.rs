//! Operators have a live host handle a message and undo it: nothing of that is left.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::time::Duration;

use sagabus_core::admin::{
    ANSWERED, Action, AuditFilter, Change, Errand, ErrandAnswer, Page, Parcel, RowFilter,
    StoreAdmin, Task, Verdict, errand_id,
};
use sagabus_core::{
    Envelope, HandlerError, Result, ResultExt, Retry, RunningHost, State, Timestamp,
};

use super::scene::{Do, Done, Log, Scene, start, stop};
use crate::wait::{eventually, grow_older};

/// Asks a host to do something, and waits for its answer.
///
/// # Panics
/// When the endpoint is about something else, or no answer comes.
pub async fn ask(admin: &dyn StoreAdmin, endpoint: &str, task: Task) -> ErrandAnswer {
    let version = put(admin, endpoint, task, Timestamp::NEVER).await;
    let look = || async {
        let row = admin.instance(&errand_id(endpoint)).await;
        let row = row.expect("the row can be read").expect("it was written");
        let is_there = row.version == version + 2 && row.state.as_deref() == Some(ANSWERED);
        is_there.then(|| serde_json::from_slice(&row.data).expect("it is an answer"))
    };
    eventually("an answer", look).await.0
}

async fn put(admin: &dyn StoreAdmin, endpoint: &str, task: Task, until: Timestamp) -> i64 {
    let errand = Errand {
        endpoint: endpoint.to_owned(),
        until,
        task,
    };
    let asked = change(admin, errand).await;
    asked.expect("the endpoint is about nothing else")
}

async fn change(admin: &dyn StoreAdmin, errand: Errand) -> Option<i64> {
    let change = Change {
        who: "ada".to_owned(),
        why: "an incident".to_owned(),
        action: Action::AskHost(Box::new(errand)),
    };
    let changed = admin.change(&change).await;
    changed.expect("it can be changed").pop()
}

/// Makes a rehearsal of a message.
pub fn rehearsal(envelope: &Envelope) -> Task {
    Task::Rehearse(Box::new(Parcel::new(envelope, None)))
}

fn of(n: u32) -> Task {
    rehearsal(&Envelope::new(&Do { n }).expect("it is JSON"))
}

/// Works, fails, or stops for good, as its number says; the log is what it does to the outside.
async fn work(command: Do, log: State<Log>) -> Result<Done> {
    log.add(format!("do {}", command.n));
    match command.n {
        13 => Err(HandlerError::new("gateway is away")),
        14 => Err(std::io::Error::other("no such account")).terminal(),
        n => Ok(Done { n }),
    }
}

async fn host_of(scene: &Scene, name: &str) -> RunningHost {
    let retry = Retry {
        immediate: 0,
        delayed: 1,
        delay: Duration::from_secs(10),
        delay_max: Duration::from_secs(10),
        ..Retry::default()
    };
    let work = |e: sagabus_core::EndpointBuilder| e.retry(retry).handle(work).rehearses::<Do>();
    start(scene.builder(name).endpoint("work", work)).await
}

/// Everything that a rehearsal must not touch, as words that can be compared.
async fn everything(scene: &Scene, host: &RunningHost) -> String {
    let admin = scene.admin();
    let rows = admin.rows(&RowFilter::default(), Page::oldest(100)).await;
    let dead = admin.dead_letters(100).await;
    let mut counters = host.counters().snapshot();
    // The errand's own row is written and answered, and the rest of its life goes on.
    for name in ["committed", "groups", "claims", "settled"] {
        counters.retain(|one| one.0 != name);
    }
    format!(
        "{:?}\n{rows:?}\n{dead:?}\n{counters:?}\n{:?}",
        scene.counts().await,
        host.endpoints()
    )
}

pub async fn a_rehearsal_says_what_would_happen_and_leaves_nothing(scene: Scene) {
    let host = host_of(&scene, "one").await;
    host.bus().send(Do { n: 14 }).await.expect("it is stored");
    scene.dead_letters(1).await;
    scene.quiet().await;
    // A host counts a dead letter when its commit is answered: later than it can be seen.
    let counted = || async {
        let counters = host.counters().snapshot();
        counters.contains(&("dead_lettered", 1)).then_some(())
    };
    eventually("a counted dead letter", counted).await;
    let before = everything(&scene, &host).await;
    let answer = ask(scene.admin(), "work", of(7)).await;
    assert_eq!(answer.host, "one");
    let report = answer.report;
    assert_eq!(report.verdict, Verdict::Well, "{report:?}");
    let sent = report.sent.iter();
    let sent: Vec<_> = sent
        .map(|one| (&*one.message_type, &*one.to, &*one.body))
        .collect();
    assert_eq!(sent, [("test.done", "its subscribers", "{\"n\":7}")]);
    assert_eq!((report.sent_count, report.instance), (1, None));

    let report = ask(scene.admin(), "work", of(13)).await.report;
    let Verdict::Failed { class, then, error } = report.verdict else {
        panic!("it fails: {report:?}");
    };
    let told = (class.as_str(), then.as_str(), error.as_str());
    assert_eq!(
        told,
        ("retry", "tried again after 10.0 s", "gateway is away")
    );

    let report = ask(scene.admin(), "work", of(14)).await.report;
    let Verdict::Failed { class, then, .. } = report.verdict else {
        panic!("it fails: {report:?}");
    };
    assert_eq!((&*class, &*then), ("terminal", "a dead letter, terminal"));

    let mut odd = Envelope::new(&Do { n: 1 }).expect("it is JSON");
    odd.body = "{".into();
    let report = ask(scene.admin(), "work", rehearsal(&odd)).await.report;
    let reason = |verdict| match verdict {
        Verdict::Refused { reason, .. } => reason,
        other => panic!("it cannot be run: {other:?}"),
    };
    assert_eq!(reason(report.verdict).as_deref(), Some("undecodable"));
    odd.message_type = "test.unknown".into();
    let report = ask(scene.admin(), "work", rehearsal(&odd)).await.report;
    assert_eq!(reason(report.verdict).as_deref(), Some("no_handler"));

    assert_eq!(scene.log.lines(), ["do 14", "do 7", "do 13", "do 14"]);
    // A claim that finds nothing has places in hand for as long as it takes.
    let as_before = || async { (everything(&scene, &host).await == before).then_some(()) };
    eventually("everything to be as it was", as_before).await;
    let audit = scene
        .admin()
        .audit(&AuditFilter::default(), Page::oldest(10))
        .await;
    let audit = audit.expect("the audit can be read");
    assert_eq!(audit.len(), 5, "{audit:?}");
    let entry = (audit[0].action.as_str(), audit[0].who.as_str());
    assert_eq!(entry, ("rehearse_message", "ada"));
    assert_eq!(audit[0].detail[0]["message_type"], "test.do");
    stop(host).await;
}

pub async fn what_may_touch_the_outside_is_not_rehearsed(scene: Scene) {
    let host = scene.host("work", |e| e.handle(work)).await;
    let report = ask(scene.admin(), "work", of(7)).await.report;
    let Verdict::Skipped { why } = report.verdict else {
        panic!("it is not run: {report:?}");
    };
    assert!(
        why.contains("`test.do`") && why.contains(".rehearses"),
        "{why}"
    );
    assert_eq!(scene.log.lines(), [""; 0]);
    stop(host).await;
}

pub async fn an_errand_is_done_by_one_host_and_while_its_endpoint_is_paused(scene: Scene) {
    let endpoint = "work".to_owned();
    let pause = Change {
        who: "ada".to_owned(),
        why: String::new(),
        action: Action::PauseEndpoint { endpoint },
    };
    let (one, two) = (host_of(&scene, "one").await, host_of(&scene, "two").await);
    let paused = scene.admin().change(&pause).await;
    assert_eq!(paused.expect("it can be paused").len(), 1);
    for n in 1..=3 {
        let report = ask(scene.admin(), "work", of(n)).await.report;
        assert_eq!(report.verdict, Verdict::Well);
    }
    assert_eq!(scene.log.lines(), ["do 1", "do 2", "do 3"]);
    stop(one).await;
    stop(two).await;
}

pub async fn an_errand_that_nobody_waits_for_is_not_done(scene: Scene) {
    let nobody = Errand {
        endpoint: "nowhere".to_owned(),
        until: Timestamp::NEVER,
        task: of(1),
    };
    assert_eq!(change(scene.admin(), nobody.clone()).await, None, "unknown");
    let host = host_of(&scene, "one").await;
    let past = Timestamp::from_micros(1);
    let version = put(scene.admin(), "work", of(1), past).await;
    let again = Errand {
        endpoint: "work".to_owned(),
        ..nobody
    };
    assert_eq!(change(scene.admin(), again).await, None, "it is busy");
    grow_older(Duration::from_millis(1500)).await;
    assert_eq!(scene.log.lines(), [""; 0]);
    let row = scene.admin().instance(&errand_id("work")).await;
    let row = row.expect("the row can be read").expect("it was written");
    assert_eq!(
        (row.version, row.state.as_deref()),
        (version, Some("asked"))
    );
    assert_eq!(
        scene.counts().await.running,
        0,
        "it is no instance of users"
    );
    stop(host).await;
}
