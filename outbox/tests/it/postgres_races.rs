//! Many committers at once, and what the database looks like afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::envelope::{Due, Timer};
use sagabus_core::store::{Group, Question, Store};
use sagabus_core::unit_of_work::{Outcome, RowKey, Source, UnitOfWork};
use sagabus_core::{InstanceId, MessageId, StoreError};
use tokio::time::Instant;

use crate::postgres_support::Database;
use crate::postgres_units::{Dice, Site, change, outgoing};

/// How long the committers race.
const RACE: Duration = Duration::from_secs(6);

/// What one committer saw.
#[derive(Default)]
struct Seen {
    committed: u64,
    duplicates: u64,
    conflicts: u64,
    busy: u64,
}

/// Commits until the store decides, as the engine does.
async fn decide(site: &Site, group: &Group, seen: &mut Seen) -> Vec<Outcome> {
    loop {
        match site.store.commit(group).await {
            Ok(report) => return report.outcomes,
            Err(StoreError::Busy(_)) => seen.busy += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Groups of 1 to 100 units, a fifth of them repeated messages, over few hot instances; some units
/// answer several messages.
async fn race(site: Arc<Site>, pool: Arc<Vec<MessageId>>, seed: u64) -> Seen {
    let mut dice = Dice::new(seed);
    let mut seen = Seen::default();
    let until = Instant::now() + RACE;
    while Instant::now() < until {
        let size = 1 + dice.below(100);
        let mut units: HashMap<MessageId, UnitOfWork> = HashMap::new();
        for _ in 0..size {
            let id = match dice.below(5) {
                0 => pool[dice.below(pool.len() as u64) as usize],
                _ => MessageId::new(),
            };
            units.insert(id, site.unit(id));
        }
        let mut units: Vec<UnitOfWork> = units.into_values().collect();
        move_instances(&site, &mut units, &mut dice).await;
        let outcomes = decide(&site, &site.group(units), &mut seen).await;
        for outcome in outcomes {
            match outcome {
                Outcome::Committed => seen.committed += 1,
                Outcome::Duplicate => seen.duplicates += 1,
                Outcome::Conflict => seen.conflicts += 1,
            }
        }
    }
    seen
}

/// Gives half of the units a hot instance each, at the version that it has now, and some of those
/// a second message.
async fn move_instances(site: &Site, units: &mut [UnitOfWork], dice: &mut Dice) {
    let keys: Vec<String> = (0..units.len().min(60))
        .map(|n| format!("hot-{n}"))
        .collect();
    let question = |key: &String| Question {
        instance: Some(change(key, 0).id),
        ..Question::default()
    };
    let questions: Vec<_> = keys.iter().map(question).collect();
    let answers = site.store.load(&questions).await.unwrap();
    for ((unit, key), answer) in units.iter_mut().zip(&keys).zip(answers) {
        if dice.below(2) == 0 {
            continue;
        }
        let version = answer.instance.map_or(0, |instance| instance.version);
        unit.instance = Some(change(key, version));
        if dice.below(4) == 0 {
            let second = site.unit(MessageId::new());
            unit.sources.extend(second.sources);
            unit.history.extend(second.history);
            unit.outgoing.extend(second.outgoing);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_racing_committers_lose_nothing_and_write_nothing_twice() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let other = database.store().await;
    let sites = [
        Arc::new(Site::new(store).await),
        Arc::new(Site::new(other).await),
    ];
    let pool: Arc<Vec<_>> = Arc::new((0..2000).map(|_| MessageId::new()).collect());
    let races: Vec<_> = (1..=4)
        .map(|seed| race(Arc::clone(&sites[seed % 2]), Arc::clone(&pool), seed as u64))
        .collect();
    let seen = futures_util::future::join_all(races).await;
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (committed, duplicates) = (sum(|one| one.committed), sum(|one| one.duplicates));
    let (conflicts, busy) = (sum(|one| one.conflicts), sum(|one| one.busy));
    println!("committed {committed}, duplicate {duplicates}, conflict {conflicts}, busy {busy}");
    assert!(
        committed > 0 && duplicates > 0 && conflicts > 0,
        "the race met every outcome"
    );

    // One inbox row, one history row and one outgoing row for each message, and no others.
    for (what, sql) in [
        (
            "messages without one history row",
            "select count(*) from (select i.message_id from \
            sagabus.inbox i left join sagabus.history h using (message_id) \
            group by 1 having count(h.id) <> 1) x",
        ),
        (
            "history without inbox row",
            "select count(*) from sagabus.history h where not exists \
            (select 1 from sagabus.inbox i where i.message_id = h.message_id)",
        ),
        (
            "messages without one outgoing row",
            "select count(*) from (select i.message_id from \
            sagabus.inbox i left join sagabus.outbox o \
            on convert_from(o.body, 'utf8')::uuid = i.message_id \
            group by 1 having count(o.id) <> 1) x",
        ),
        (
            "outgoing rows without inbox row",
            "select count(*) from sagabus.outbox o where not \
            exists (select 1 from sagabus.inbox i \
            where i.message_id = convert_from(o.body, 'utf8')::uuid)",
        ),
        (
            "deadlocks",
            "select deadlocks from pg_stat_database \
            where datname = current_database()",
        ),
    ] {
        assert_eq!(database.number(sql).await, 0, "{what}");
    }
    for site in sites {
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_a_raced_instance_count_its_messages() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Arc::new(Site::new(store).await);
    let push = |site: Arc<Site>| async move {
        let mut moved = 0;
        while moved < 50 {
            let question = Question {
                instance: Some(change("one", 0).id),
                ..Question::default()
            };
            let answer = site.store.load(&[question]).await.unwrap().remove(0);
            let version = answer.instance.map_or(0, |instance| instance.version);
            let unit = UnitOfWork {
                instance: Some(change("one", version)),
                ..site.unit(MessageId::new())
            };
            let outcomes = decide(&site, &site.group(vec![unit]), &mut Seen::default()).await;
            moved += u32::from(outcomes == [Outcome::Committed]);
        }
    };
    futures_util::future::join_all((0..4).map(|_| push(Arc::clone(&site)))).await;
    let version = database
        .number("select version from sagabus.instance")
        .await;
    assert_eq!(version, 200);
    let written = database.number("select count(*) from sagabus.inbox").await;
    assert_eq!(written, 200, "no loser left an inbox row");
    site.stop().await;
}

/// Two hosts get the same messages for the same instances in opposite orders. What is locked is
/// locked in the order of its keys, so that they wait for each other in line and never in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_the_same_keys_in_opposite_orders_never_wait_in_a_circle() {
    const ROUNDS: u64 = 100;
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let mut seen = [Seen::default(), Seen::default()];
    for _ in 0..ROUNDS {
        // Identities of version 7 rise; hashed ones have no order.
        let ids =
            (0..40).map(|n: u32| MessageId::from_foreign(&format!("{n} {}", MessageId::new())));
        let unit = |id: MessageId| UnitOfWork {
            instance: Some(change(&id.to_string(), 0)),
            ..site.unit(id)
        };
        let units: Vec<_> = ids.map(unit).collect();
        let forth = site.group(units.clone());
        let back = site.group(units.into_iter().rev().collect());
        // The instances alone: what has no source waits for nothing before.
        let alone = |group: &Group| {
            let strip = |unit: &UnitOfWork| UnitOfWork {
                instance: unit.instance.clone().map(|one| change(&one.id.key, 1)),
                ..UnitOfWork::default()
            };
            site.group(group.units.iter().map(strip).collect())
        };
        let (forth_alone, back_alone) = (alone(&forth), alone(&back));
        let [first, second] = &mut seen;
        for (one, other) in [(forth, back), (forth_alone, back_alone)] {
            let (one, other) =
                tokio::join!(decide(&site, &one, first), decide(&site, &other, second));
            for (one, other) in one.iter().zip(other.iter().rev()) {
                let wins = [one, other].map(|one| u32::from(*one == Outcome::Committed));
                assert_eq!(wins[0] + wins[1], 1, "one of two wins: {one:?}, {other:?}");
            }
        }
    }
    // A circle ends by time-out, and would do so in most rounds; a slow disk may do so once.
    let busy = seen[0].busy + seen[1].busy;
    assert!(busy * 20 <= ROUNDS, "{busy} calls waited too long");
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
    site.stop().await;
}

/// A timer fires on one host while the event that cancels it is handled on another: whoever comes
/// second loses by version, and neither waits for the other in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firing_and_cancelling_a_timer_never_deadlock() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Arc::new(Site::new(store).await);
    let mut outcomes = HashMap::new();
    for round in 0..60 {
        let keys: Vec<String> = (0..5).map(|n| format!("{round}-{n}")).collect();
        let arm = keys.iter().map(|key| armed(key)).collect();
        let report = site.store.commit(&site.group(arm)).await.unwrap();
        assert!(report.outcomes.iter().all(|one| *one == Outcome::Committed));
        let rows = site.claim("orders", 5).await;
        assert_eq!(rows.len(), 5);
        let fire = rows
            .iter()
            .map(|one| fired(one.row, one.key.as_deref().unwrap()));
        let fire = site.group(fire.collect());
        // The other way round, so that the two meet in opposite orders.
        let cancel = keys.iter().rev().map(|key| cancelled(&site, key));
        let cancel = site.group(cancel.collect());
        let (mut first, mut second) = (Seen::default(), Seen::default());
        let (fired, cancelled) = tokio::join!(
            decide(&site, &fire, &mut first),
            decide(&site, &cancel, &mut second)
        );
        assert_eq!(first.busy + second.busy, 0, "nobody waited too long");
        for (key, one) in rows
            .iter()
            .map(|one| one.key.as_deref().unwrap())
            .zip(fired)
        {
            let at = keys.iter().rev().position(|other| other == key).unwrap();
            *outcomes.entry((one, cancelled[at])).or_insert(0) += 1;
            let wins = [one, cancelled[at]];
            let wins = wins.iter().filter(|one| **one == Outcome::Committed);
            assert_eq!(wins.count(), 1, "exactly one of the two moved the instance");
        }
        let left = database.number("select count(*) from sagabus.outbox").await;
        assert_eq!(left, 0, "no timer is left");
    }
    println!("{outcomes:?}");
    site.stop().await;
}

fn armed(key: &str) -> UnitOfWork {
    let mut timer = outgoing("late");
    timer.key = Some(key.to_owned());
    timer.due = Due::Now;
    timer.timer = Some(Timer {
        owner: owner(key),
        name: "deadline".to_owned(),
        generation: 1,
    });
    UnitOfWork {
        instance: Some(change(key, 0)),
        outgoing: vec![timer],
        ..UnitOfWork::default()
    }
}

fn fired(row: RowKey, key: &str) -> UnitOfWork {
    UnitOfWork {
        sources: vec![Source::Row(row)],
        instance: Some(change(key, 1)),
        ..UnitOfWork::default()
    }
}

fn cancelled(site: &Site, key: &str) -> UnitOfWork {
    let mut moved = change(key, 1);
    moved.disarmed = vec!["deadline".to_owned()];
    UnitOfWork {
        sources: site.unit(MessageId::new()).sources,
        instance: Some(moved),
        ..UnitOfWork::default()
    }
}

fn owner(key: &str) -> InstanceId {
    change(key, 0).id
}
