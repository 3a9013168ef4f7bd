//! Messages that wait for one instance, merged into one unit: many sources, one change from v to
//! v + k, all or none. So a hot instance is not limited to one message per commit.
//!
//! Only for handling that may be done again without harm: whatever is not plain is left to the way
//! of single messages.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::context::Staged;
use crate::faults::{self, Point};
use crate::handler::Subscriber;
use crate::handling::{Case, End, Endpoint, Held};
use crate::job::{Dispatched, Job};
use crate::pipeline::Next;
use crate::store::Instance;
use crate::unit_of_work::{InstanceChange, UnitOfWork};

/// Messages in one unit at most: a quarter of the places that an endpoint has, so that one hot
/// instance does not hold them all until its commit.
pub(crate) const MERGED_MAX: usize = 64;

/// Bytes that one unit writes at about most: a quarter of what a group may.
const BYTES_MAX: usize = 1024 * 1024;

/// One of the messages.
struct Member<'a> {
    case: Case<'a>,
    decoded: Dispatched,
    held: Held,
}

/// Handles messages of one instance: as one unit as far as that goes, the rest one by one.
pub(crate) async fn run(endpoint: &Endpoint, jobs: Vec<Job>) {
    let members = jobs.into_iter().map(|job| {
        let (case, decoded, held) = Case::open(endpoint, job);
        Member {
            case,
            decoded,
            held,
        }
    });
    let mut members: VecDeque<Member<'_>> = members.collect();
    // Where something failed lately, or a rate counts tries, each for itself passes the gate.
    if endpoint.gate.is_free() && members.iter().all(|member| member.case.is_plain()) {
        let _shared = endpoint.solo.read().await;
        merge(endpoint, &mut members).await;
    }
    for member in members {
        // What was handled in vain has used its message up.
        let envelope = member.case.arrival.envelope();
        let again = endpoint.dispatch.decode(envelope);
        let again = again.map(|(subscriber, decoded)| (Arc::clone(subscriber), decoded));
        member.case.run(again).await;
        member.held.let_go(endpoint);
    }
}

/// Settles as many members as can be merged, from the first on, and leaves the others.
async fn merge(endpoint: &Endpoint, members: &mut VecDeque<Member<'_>>) {
    let Some(instance) = load(endpoint, members).await else {
        return;
    };
    let (count, unit) = chain(members, instance).await;
    let Some(unit) = unit.filter(|_| count > 1) else {
        return;
    };
    let Some(first) = members.front() else {
        return;
    };
    let end = first.case.commit_grouped(unit).await;
    if matches!(end, End::Known) {
        // The unit was counted as one.
        endpoint.counters.duplicates.add(count as u64 - 1);
    }
    match end {
        End::Settled | End::Known => {
            for member in members.drain(..count) {
                member.case.ack().await;
                member.held.let_go(endpoint);
            }
        }
        End::Abandoned => {
            for member in members.drain(..count) {
                member.case.abandon().await;
                member.held.let_go(endpoint);
            }
        }
        // Somebody moved the instance or has handled a part of these: each for itself finds out.
        End::Reload(_) | End::Excused(_) | End::Failed(_) => {}
    }
}

/// Asks about all members, and settles those that were taken over before. `None`: they have to run
/// one by one.
async fn load(endpoint: &Endpoint, members: &mut VecDeque<Member<'_>>) -> Option<Option<Instance>> {
    let questions = members.iter().map(|member| {
        let (_, decoded) = member.decoded.as_ref().ok()?;
        Some(member.case.question(decoded))
    });
    let questions: Option<Vec<_>> = questions.collect();
    let questions = questions?;
    let asked = questions.iter().map(|one| endpoint.loader.ask(one));
    let loaded: Option<Vec<_>> = join_all(asked).await.into_iter().collect();
    let answers: Vec<_> = loaded?.into_iter().map(|one| one.answer).collect();
    faults::at(Point::Loaded);
    // They may have been read at different moments: the latest counts for all.
    let found = answers.iter().filter_map(|answer| answer.instance.clone());
    let instance = found.max_by_key(|instance| instance.version);
    let is_plain = |(member, answer): (&Member<'_>, &crate::store::Answer)| {
        !answer.is_blocked && !member.case.is_stale_timer(instance.as_ref())
    };
    if !members.iter().zip(&answers).all(is_plain) {
        return None;
    }
    let mut others = VecDeque::with_capacity(members.len());
    for (member, answer) in members.drain(..).zip(answers) {
        if answer.is_taken_over {
            endpoint.counters.duplicates.increment();
            member.case.ack().await;
            member.held.let_go(endpoint);
        } else {
            others.push_back(member);
        }
    }
    *members = others;
    Some(instance)
}

/// Handles members one after the other, each on what the one before left, and returns how many
/// could be, with their unit. An error ends the chain before it, and so do a timer that the chain
/// has cancelled and a copy of a message that it has.
async fn chain(
    members: &mut VecDeque<Member<'_>>,
    mut instance: Option<Instance>,
) -> (usize, Option<UnitOfWork>) {
    let mut merged: Option<UnitOfWork> = None;
    let mut count = 0;
    for member in members {
        // One before it may have cancelled or replaced the timer that this one is.
        if member.case.is_stale_timer(instance.as_ref()) {
            break;
        }
        // A copy that the broker delivered meanwhile finds out by itself.
        let source = member.case.source();
        if merged
            .as_ref()
            .is_some_and(|unit| unit.sources.contains(&source))
        {
            break;
        }
        let started = Instant::now();
        let Some(staged) = handle(member, instance.clone()).await else {
            break;
        };
        let Some(change) = &staged.instance else {
            break;
        };
        instance = Some(moved(change));
        let unit = member.case.unit(staged, started);
        merged = Some(match merged {
            None => unit,
            Some(before) => join(before, unit),
        });
        count += 1;
        if merged.as_ref().is_some_and(|unit| unit.size() > BYTES_MAX) {
            break;
        }
    }
    (count, merged.map(without_cancelled))
}

/// Handles one member; `None` where it failed or did what cannot be merged.
async fn handle(member: &mut Member<'_>, instance: Option<Instance>) -> Option<Staged> {
    let (subscriber, decoded) = member.decoded.as_mut().ok()?;
    let subscriber: &dyn Subscriber = &**subscriber;
    let message = std::mem::replace(&mut decoded.message, Box::new(()));
    let cx = member.case.context(decoded.instance.clone(), instance);
    let pipeline = &member.case.endpoint.pipeline;
    let result = Next::new(pipeline, subscriber, message).run(&cx).await;
    faults::at(Point::Handled);
    let staged = cx.close();
    let transaction = cx.transaction().try_lock().map(|mut slot| slot.take());
    match transaction {
        Ok(None) => {}
        Ok(Some(transaction)) => {
            transaction.rollback().await;
            return None;
        }
        Err(_) => return None,
    }
    result.ok().map(|()| staged)
}

/// Returns the instance as a change leaves it.
fn moved(change: &InstanceChange) -> Instance {
    Instance {
        id: change.id.clone(),
        version: change.expected + 1,
        status: change.status,
        state: change.state.as_deref().map(str::to_owned),
        schema_version: change.schema_version,
        data: change.data.clone(),
        timers: change.timers.clone(),
        origin: change.origin.clone(),
    }
}

/// Puts a unit behind another of the same instance.
fn join(mut first: UnitOfWork, second: UnitOfWork) -> UnitOfWork {
    first.sources.extend(second.sources);
    first.outgoing.extend(second.outgoing);
    first.history.extend(second.history);
    first.instance = match (first.instance, second.instance) {
        (Some(before), Some(mut after)) => {
            after.expected = before.expected;
            let mut disarmed = before.disarmed;
            disarmed.append(&mut after.disarmed);
            disarmed.sort();
            disarmed.dedup();
            after.disarmed = disarmed;
            after.labels = after.labels.or(before.labels);
            Some(after)
        }
        (before, after) => after.or(before),
    };
    first
}

/// Leaves out timers that one member armed and a later one cancelled or armed anew.
fn without_cancelled(mut unit: UnitOfWork) -> UnitOfWork {
    let Some(change) = &unit.instance else {
        return unit;
    };
    unit.outgoing.retain(|outgoing| {
        let Some(timer) = &outgoing.timer else {
            return true;
        };
        change.timers.get(&timer.name) == Some(&timer.generation)
    });
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Destination;
    use crate::envelope::{Outgoing, Timer};
    use crate::id::InstanceId;
    use crate::scripted::{envelope, moving, rows};
    use crate::unit_of_work::Label;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Makes a unit that moves an instance from a version and cancels timers.
    fn moving_from(version: i64, disarmed: &[&str]) -> (UnitOfWork, InstanceChange) {
        let mut unit = moving(version, "k", 0);
        let mut change = unit.instance.take().expect("it moves one");
        change.expected = version;
        change.disarmed = owned(disarmed);
        change.state = Some(format!("after {version}").into());
        (unit, change)
    }

    #[test]
    fn who_comes_next_finds_the_instance_as_it_was_left() {
        let (_, change) = moving_from(4, &[]);
        let left = moved(&change);
        assert_eq!((left.version, left.state.as_deref()), (5, Some("after 4")));
    }

    #[test]
    fn units_of_one_instance_become_one_from_the_first_version_to_the_last_state() {
        let label = |value: &str| Label {
            name: "payment".into(),
            value: value.to_owned(),
        };
        for (second_labels, expected) in [(None, "1"), (Some(vec![label("2")]), "2")] {
            let (mut first, mut before) = moving_from(4, &["b", "c"]);
            before.labels = Some(vec![label("1")]);
            first.instance = Some(before);
            let (mut second, mut after) = moving_from(5, &["a", "b"]);
            after.labels = second_labels;
            second.instance = Some(after);
            let unit = join(first, second);
            assert_eq!(rows(std::slice::from_ref(&unit)), [4, 5]);
            let change = unit.instance.expect("it moves the instance");
            assert_eq!(
                (change.expected, change.state.as_deref()),
                (4, Some("after 5"))
            );
            assert_eq!(change.disarmed, ["a", "b", "c"]);
            assert_eq!(change.labels, Some(vec![label(expected)]));
        }
    }

    #[test]
    fn a_timer_that_is_replaced_or_cancelled_within_the_unit_is_not_written() {
        let timer = |name: &str, generation| Timer {
            owner: InstanceId {
                kind: "test".into(),
                key: "k".into(),
            },
            name: name.to_owned(),
            generation,
        };
        let (mut unit, mut change) = moving_from(4, &[]);
        change.timers = [("kept".to_owned(), 6)].into();
        unit.instance = Some(change);
        let all = [
            Some(timer("kept", 5)),
            Some(timer("cancelled", 5)),
            None,
            Some(timer("kept", 6)),
        ];
        unit.outgoing = all
            .into_iter()
            .map(|timer| {
                let mut one = Outgoing::from_envelope(envelope("test.do"), Destination::Owner);
                one.timer = timer;
                one
            })
            .collect();
        let written = without_cancelled(unit).outgoing;
        let written = written.into_iter().map(|one| one.timer);
        let expected = [None, Some(timer("kept", 6))];
        assert_eq!(written.collect::<Vec<_>>(), expected);
    }
}
