//! Races, counted: what several hosts do at once ends as if they had taken turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagabus_core::error::StoreError;
use sagabus_core::id::MessageId;
use sagabus_core::store::{CommitReport, Group, Store};
use sagabus_core::unit_of_work::Outcome;

use super::build::{Plan, broker, message};
use super::harness::{HOUR, Harness, claim, instance};

/// How many hosts race. More than the two cores of a small machine.
const HOSTS: usize = 4;

/// Runs a task per host, two of them through connections of their own, and waits for all.
async fn race<F>(at: &Arc<Harness>, run: impl Fn(usize, Arc<Harness>, Arc<dyn Store>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut hosts = tokio::task::JoinSet::new();
    for host in 0..HOSTS {
        let store = if host % 2 == 0 { &at.store } else { &at.peer };
        hosts.spawn(run(host, Arc::clone(at), Arc::clone(store)));
    }
    while let Some(ended) = hosts.join_next().await {
        ended.expect("a host of the race ends by itself");
    }
}

/// Commits, again where the store asks for it.
async fn commit(store: &dyn Store, group: &Group) -> CommitReport {
    loop {
        match store.commit(group).await {
            Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
            answer => return answer.expect("the group is taken"),
        }
    }
}

/// A generator of numbers that is the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).expect("a small bound");
        usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("below a small bound")
    }
}

/// Everybody creates the same instances; each is created once, and the others are told.
pub async fn concurrent_creators_of_one_instance_converge(at: Arc<Harness>) {
    const INSTANCES: usize = 40;
    let committed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&committed);
    race(&at, move |_, at, store| {
        let committed = Arc::clone(&counter);
        async move {
            for index in 0..INSTANCES {
                let plan = broker(&at.orders(), MessageId::new())
                    .moves(&instance(&index.to_string()), 0)
                    .sends(message(&at.audit()));
                let report = commit(&*store, &at.group([plan])).await;
                match report.outcomes[0] {
                    Outcome::Committed => _ = committed.fetch_add(1, Ordering::Relaxed),
                    Outcome::Conflict => {}
                    Outcome::Duplicate => panic!("every message is a new one"),
                }
            }
        }
    })
    .await;
    assert_eq!(committed.load(Ordering::Relaxed), INSTANCES);
    let counts = at.counts().await;
    let expected = INSTANCES as u64;
    assert_eq!((counts.running, counts.inbox), (expected, expected));
    assert_eq!(counts.outbox, expected, "no ghost of a loser");
}

/// Everybody handles the same messages; each has one effect.
pub async fn concurrent_copies_of_one_message_have_one_effect(at: Arc<Harness>) {
    const MESSAGES: usize = 60;
    let ids: Arc<Vec<_>> = Arc::new((0..MESSAGES).map(|_| MessageId::new()).collect());
    race(&at, |host, at, store| {
        let ids = Arc::clone(&ids);
        async move {
            // Each in another order, so that groups overlap.
            let mut order: Vec<_> = ids.iter().copied().collect();
            order.rotate_left(host * 7);
            for some in order.chunks(5) {
                let plans = some
                    .iter()
                    .map(|id| broker(&at.orders(), *id).sends(message(&at.audit())));
                let report = commit(&*store, &at.group(plans)).await;
                assert!(!report.outcomes.contains(&Outcome::Conflict));
            }
        }
    })
    .await;
    let counts = at.counts().await;
    assert_eq!((counts.inbox, counts.outbox), (60, 60));
}

/// One message of the mixed race: which one, and which instance it moves.
#[derive(Clone, Copy)]
struct Job {
    id: MessageId,
    instance: usize,
}

/// Loads, runs and commits jobs in one group, and returns those that have to be run again.
async fn run_jobs(at: &Harness, store: &dyn Store, jobs: Vec<Job>) -> Vec<Job> {
    let (mut now, mut later) = (Vec::<(Job, Plan)>::new(), Vec::new());
    for job in jobs {
        // A group has one unit per instance and per message.
        let is_taken =
            |(other, _): &(Job, Plan)| other.instance == job.instance || other.id == job.id;
        if now.iter().any(is_taken) {
            later.push(job);
            continue;
        }
        let id = instance(&job.instance.to_string());
        let question = sagabus_core::store::Question {
            instance: Some(id.clone()),
            ..Default::default()
        };
        let answers = store.load(&[question]).await.expect("load is answered");
        let version = answers[0]
            .instance
            .as_ref()
            .map_or(0, |found| found.version);
        let plan = broker(&at.orders(), job.id)
            .moves(&id, version)
            .records(&at.orders(), job.id)
            .sends(message(&at.audit()).keyed(&job.id.to_string()));
        now.push((job, plan));
    }
    let group = at.group(now.iter().map(|(_, plan)| plan.clone()));
    let report = commit(store, &group).await;
    for ((job, _), outcome) in now.iter().zip(report.outcomes) {
        if outcome == Outcome::Conflict {
            later.push(*job);
        }
    }
    later
}

/// Repeated messages, hot instances, groups of every size: afterwards every message has exactly one
/// effect, and versions count exactly the messages.
pub async fn concurrent_groups_of_mixed_size_lose_nothing_and_double_nothing(at: Arc<Harness>) {
    const MESSAGES: usize = 240;
    const INSTANCES: usize = 12;
    let jobs: Arc<Vec<_>> = Arc::new(
        (0..MESSAGES)
            .map(|n| Job {
                id: MessageId::new(),
                instance: n % INSTANCES,
            })
            .collect(),
    );
    let lost_races = Arc::new(AtomicUsize::new(0));
    race(&at, |host, at, store| {
        let (jobs, lost_races) = (Arc::clone(&jobs), Arc::clone(&lost_races));
        async move {
            let mut dice = Dice(host as u64);
            // Every message comes to two of the hosts.
            let mine = |n: &usize| n % HOSTS == host || (n + 1) % HOSTS == host;
            let mut waiting: Vec<_> = (0..MESSAGES).filter(mine).map(|n| jobs[n]).collect();
            while !waiting.is_empty() {
                let size = (1 + dice.below(20)).min(waiting.len());
                let group = waiting.drain(..size).collect();
                let again = run_jobs(&at, &*store, group).await;
                lost_races.fetch_add(again.len(), Ordering::Relaxed);
                waiting.extend(again);
            }
        }
    })
    .await;

    println!("run again: {}", lost_races.load(Ordering::Relaxed));
    let counts = at.counts().await;
    let expected = MESSAGES as u64;
    assert_eq!(
        (counts.inbox, counts.history, counts.outbox),
        (expected, expected, expected)
    );
    for n in 0..INSTANCES {
        let found = at.instance(&instance(&n.to_string())).await;
        let version = found.map(|found| found.version);
        let handled = i64::try_from(MESSAGES / INSTANCES).expect("few");
        assert_eq!(version, Some(handled), "instance {n}");
    }
    let mut effects: HashMap<String, usize> = HashMap::new();
    loop {
        let rows = claim(&*at.store, &[(&at.audit(), 50)], HOUR).await;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            *effects.entry(row.key.unwrap_or_default()).or_default() += 1;
        }
    }
    assert_eq!(effects.len(), MESSAGES, "an effect per message");
    assert!(effects.values().all(|count| *count == 1));
}

/// Rows that several hosts claim, answer and send on arrive once each, in the order of their key.
pub async fn concurrent_hosts_keep_the_order_of_a_key(at: Arc<Harness>) {
    const ROWS: usize = 60;
    let parcels = at.parcels();
    let keys = ["a", "b", "c"];
    let sent: Vec<_> = (0..ROWS)
        .map(|n| message(&parcels).keyed(keys[n % keys.len()]))
        .collect();
    let ids: HashMap<_, _> = sent
        .iter()
        .enumerate()
        .map(|(n, one)| (one.id(), n))
        .collect();
    let plan = sent.into_iter().fold(super::api(), Plan::sends);
    at.write(plan).await;

    let handled = Arc::new(std::sync::Mutex::new(Vec::new()));
    race(&at, |_, at, store| {
        let (handled, parcels) = (Arc::clone(&handled), parcels.clone());
        async move {
            while at.counts().await.outbox > 0 {
                for one in claim(&*store, &[(&parcels, 2)], HOUR).await {
                    // Recorded while the row is still held, as a handler's effect would be.
                    let entry = (one.key.clone(), one.envelope.id);
                    handled.lock().expect("no host panics here").push(entry);
                    let report = commit(&*store, &at.group([super::row(one.row)])).await;
                    assert_eq!(report.outcomes, [Outcome::Committed]);
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let handled = handled.lock().expect("no host panicked");
    assert_eq!(handled.len(), ROWS);
    for key in keys {
        let of_key: Vec<_> = handled
            .iter()
            .filter(|(its, _)| its.as_deref() == Some(key))
            .map(|(_, id)| ids[id])
            .collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
}
