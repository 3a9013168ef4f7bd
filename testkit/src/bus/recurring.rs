//! What recurs: fired once for all hosts, as declared and as operators want it.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{Action, Change};
use sagabus_core::schedule::{Schedule, ScheduleVerb, schedule_id};
use sagabus_core::{HostBuilder, Missed, Overlap, Recurrence, RunError, State, Timestamp, cron};
use tokio::sync::Semaphore;

use super::scene::{Do, Log, Scene, start, stop};
use crate::wait::{eventually, grow_older};

/// Every second: as often as a cron expression can say.
const OFTEN: &str = "* * * * * *";
/// Not within the time of a test.
const SELDOM: &str = "0 0 29 2 *";

async fn note(command: Do, log: State<Log>) {
    log.add(command.n.to_string());
}

/// A command that tells by its number for which second it is.
fn tick(due: Timestamp) -> Do {
    let seconds = due.as_micros().div_euclid(1_000_000).rem_euclid(1 << 30);
    Do {
        n: u32::try_from(seconds).expect("it was just bounded"),
    }
}

fn ticking(builder: HostBuilder, recurrence: Recurrence) -> HostBuilder {
    let builder = builder.endpoint("ticks", |e| e.handle(note));
    builder.recurring("tick", recurrence, tick)
}

fn seconds(lines: &[String]) -> Vec<u32> {
    let numbers = lines.iter().map(|line| line.parse());
    let numbers: Result<Vec<u32>, _> = numbers.collect();
    numbers.expect("every line is a number")
}

/// Reads the schedule and how it stands.
async fn stored(scene: &Scene) -> Option<(String, Schedule)> {
    let found = scene.admin().instance(&schedule_id("tick")).await;
    let found = found.expect("it can be read")?;
    let schedule = serde_json::from_slice(&found.data).expect("it is what a schedule holds");
    Some((found.state.expect("it has a state"), schedule))
}

/// Does what an operator does, and returns how many schedules that changed.
async fn operate(scene: &Scene, verb: ScheduleVerb) -> usize {
    let action = Action::ChangeSchedule {
        name: "tick".to_owned(),
        verb,
    };
    let change = Change {
        who: "ada".to_owned(),
        why: "a test".to_owned(),
        action,
    };
    let changed = scene.admin().change(&change).await;
    changed.expect("it can be changed").len()
}

async fn stands(scene: &Scene, state: &str) {
    let look = || async { (stored(scene).await?.0 == state).then_some(()) };
    eventually(state, look).await;
}

pub async fn what_recurs_is_fired_once_for_all_hosts(scene: Scene) {
    let all = cron(OFTEN).missed(Missed::All { max: 100 });
    let first = start(ticking(scene.builder("host"), all.clone())).await;
    let second = start(ticking(scene.builder_on("host", scene.peer()), all)).await;
    scene.log.wait_for(4).await;
    stop(first).await;
    // The other one goes on alone.
    let n = scene.log.lines().len();
    scene.log.wait_for(n + 2).await;
    stop(second).await;
    let lines = seconds(&scene.log.lines());
    let distinct: BTreeSet<_> = lines.iter().copied().collect();
    assert_eq!(distinct.len(), lines.len(), "no second twice: {lines:?}");
    let (first, last) = (distinct.first(), distinct.last());
    let span = last.zip(first).map(|(last, first)| last - first + 1);
    let n = u32::try_from(lines.len()).expect("they are few");
    assert_eq!(span, Some(n), "no second is left out: {lines:?}");
    let (_, schedule) = stored(&scene).await.expect("it is kept");
    assert!(schedule.fired >= u64::from(n), "{schedule:?}");
}

pub async fn times_that_passed_without_a_host_are_made_up_for(scene: Scene) {
    let all = cron(OFTEN).missed(Missed::All { max: 100 });
    let host = start(ticking(scene.builder("host"), all.clone())).await;
    scene.log.wait_for(1).await;
    stop(host).await;
    grow_older(Duration::from_millis(3200)).await;
    let heir = start(ticking(scene.builder("host"), all)).await;
    scene.log.wait_for(5).await;
    stop(heir).await;
    let mut lines = seconds(&scene.log.lines());
    lines.sort_unstable();
    let next = |pair: &[u32]| pair[1] == pair[0] + 1;
    assert!(lines.windows(2).all(next), "each second once: {lines:?}");
}

pub async fn operators_pause_resume_and_fire_what_recurs(scene: Scene) {
    let host = start(ticking(scene.builder("host"), cron(SELDOM))).await;
    stands(&scene, "waiting").await;
    assert_eq!(operate(&scene, ScheduleVerb::Resume).await, 0, "it goes on");
    assert_eq!(operate(&scene, ScheduleVerb::Fire).await, 1);
    scene.log.wait_for(1).await;
    stands(&scene, "waiting").await;
    assert_eq!(operate(&scene, ScheduleVerb::Pause).await, 1);
    assert_eq!(
        operate(&scene, ScheduleVerb::Pause).await,
        0,
        "it is paused"
    );
    assert_eq!(operate(&scene, ScheduleVerb::Fire).await, 1);
    scene.log.wait_for(2).await;
    stands(&scene, "paused").await;
    assert_eq!(operate(&scene, ScheduleVerb::Resume).await, 1);
    stands(&scene, "waiting").await;
    stop(host).await;
    let (_, schedule) = stored(&scene).await.expect("it is kept");
    assert_eq!((schedule.fired, schedule.firings.len()), (2, 2));
    assert_eq!(operate(&scene, ScheduleVerb::Remove).await, 1);
    assert!(stored(&scene).await.is_none());
    let (every, page) = (
        sagabus_core::admin::AuditFilter::default(),
        sagabus_core::admin::Page::latest(50),
    );
    let audit = scene
        .admin()
        .audit(&every, page)
        .await
        .expect("it can be read");
    let actions: Vec<_> = audit.iter().rev().map(|one| one.action.as_str()).collect();
    let fire = "fire_schedule";
    let done = [
        fire,
        "pause_schedule",
        fire,
        "resume_schedule",
        "remove_schedule",
    ];
    assert_eq!(actions, done);
}

pub async fn what_is_paused_is_not_fired_and_not_made_up_for(scene: Scene) {
    let all = cron(OFTEN).missed(Missed::All { max: 100 });
    let host = start(ticking(scene.builder("host"), all)).await;
    scene.log.wait_for(1).await;
    assert_eq!(operate(&scene, ScheduleVerb::Pause).await, 1);
    let (_, before) = stored(&scene).await.expect("it is kept");
    grow_older(Duration::from_millis(2500)).await;
    let (state, after) = stored(&scene).await.expect("it is kept");
    assert_eq!((state.as_str(), after.fired), ("paused", before.fired));
    assert_eq!(operate(&scene, ScheduleVerb::Resume).await, 1);
    let fired = usize::try_from(before.fired).expect("they are few");
    scene.log.wait_for(fired + 2).await;
    stop(host).await;
    let mut lines = seconds(&scene.log.lines());
    lines.sort_unstable();
    let gap = lines[fired] - lines[fired - 1];
    assert!(gap > 2, "what passed meanwhile is left out: {lines:?}");
}

pub async fn what_is_declared_otherwise_is_taken_over(scene: Scene) {
    let old = start(ticking(scene.builder("host"), cron(OFTEN))).await;
    scene.log.wait_for(1).await;
    // A new release beside the old one: from its start on, the old one fires nothing.
    let new = scene.builder_on("host", scene.peer());
    let new = start(ticking(new, cron(SELDOM))).await;
    let (state, schedule) = stored(&scene).await.expect("it is kept");
    assert_eq!(state, "waiting");
    assert_eq!(schedule.declared.recurrence, cron(SELDOM));
    grow_older(Duration::from_millis(2500)).await;
    let (_, later) = stored(&scene).await.expect("it is kept");
    assert_eq!(later, schedule, "nobody fires by the old declaration");
    stop(old).await;
    stop(new).await;
    // A release that does not declare it leaves it as it is.
    let without = scene.builder("host").endpoint("ticks", |e| e.handle(note));
    stop(start(without).await).await;
    let (_, kept) = stored(&scene).await.expect("it is kept");
    assert_eq!(kept, schedule);
}

pub async fn what_another_host_declared_is_refused(scene: Scene) {
    let host = start(ticking(scene.builder("reports"), cron(SELDOM))).await;
    let other = scene.builder_on("billing", scene.peer());
    let other = other.recurring("tick", cron(SELDOM), tick);
    let other = other.build().expect("the host is put together well");
    let refused = match other.start().await {
        Err(RunError::Store(error)) => error.to_string(),
        other => panic!("it is refused, not {other:?}"),
    };
    for text in ["`tick`", "`reports`", "sagabus schedules remove tick"] {
        assert!(refused.contains(text), "{refused}");
    }
    stop(host).await;
}

pub async fn what_is_still_handled_is_not_fired_again(scene: Scene) {
    async fn hold(command: Do, log: State<Log>, gate: State<Arc<Semaphore>>) {
        log.add(command.n.to_string());
        let permit = gate.acquire().await.expect("nobody closes it");
        permit.forget();
    }
    for overlap in [Overlap::Skip, Overlap::Wait] {
        let gate = Arc::new(Semaphore::new(0));
        let before = scene.log.lines().len();
        let builder = scene.builder("host").state(Arc::clone(&gate));
        let builder = builder.endpoint("ticks", |e| e.handle(hold));
        let host = builder.recurring("tick", cron(OFTEN).overlap(overlap), tick);
        let host = start(host).await;
        scene.log.wait_for(before + 1).await;
        grow_older(Duration::from_millis(2500)).await;
        assert_eq!(scene.log.lines().len(), before + 1, "{overlap:?}");
        gate.add_permits(1);
        scene.log.wait_for(before + 2).await;
        gate.add_permits(1000);
        stop(host).await;
    }
}
