//! A live system, examined: what `status` finds, and what takes a closer look. Every finding says
//! what to do.

use std::time::Duration;

use sagabus_core::Timestamp;
use sagabus_core::admin::{InstanceFilter, PAGE_MAX, StoreAdmin, StoredHost, Vitals};
use sagabus_core::unit_of_work::InstanceStatus;
use serde_json::Value;

use crate::error::OpsError;
use crate::status::{self, Finding, Status, is_alive};

/// How far a host's clock may be off: it stamps attempts and logs, which people put side by side.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// How long a transaction may be open before it keeps rows from being cleaned away: minutes are a
/// report, an hour is a session that somebody forgot.
const TRANSACTION_MAX: Duration = Duration::from_secs(15 * 60);
/// A delivery limit below this is reached by restarts and lost connections alone.
const DELIVERIES_MIN: u64 = 1_000;
/// How many transactions may pass while something still looks back: at 1,000/s, three hours.
const HORIZON_MAX: u64 = 10_000_000;
/// How long an instance without a timer may stand still before that is worth a word.
const IDLE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Instances that are looked at one by one for their timers.
const IDLE_LOOKED_AT: usize = 100;
/// A file of which more than half is free is worth shrinking once it is this large.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// What was examined, and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Examination {
    /// What `status` shows, its findings moved into [`checks`](Self::checks).
    pub status: Status,
    /// How the database is doing.
    pub vitals: Vitals,
    /// Every check, with what it found.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A word that programs can compare.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// What it found. Empty: all is well.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Returns what was found by all checks.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|check| &check.findings)
    }
}

/// Examines a live system. Looks through instances that stand still, which takes seconds where
/// there are millions.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer, or its schema is not of this release: that
/// is the first check, and nothing else can be looked at without it.
pub async fn examine(admin: &dyn StoreAdmin) -> Result<Examination, OpsError> {
    let mut status = status::status(admin).await?;
    let vitals = admin.vitals().await?;
    let now = status.about.now;
    let mut found = std::mem::take(&mut status.findings);
    found.extend(status.hosts.iter().filter_map(|host| skew(host, now)));
    found.extend(retention(&status.hosts, now));
    found.extend(deliveries(&status.hosts, now));
    found.extend(idle(admin, now).await?);
    found.extend(held(&vitals));
    found.extend(long_transaction(&vitals));
    found.extend(horizon(&vitals));
    found.extend(bloat(&vitals));
    found.extend(free(&vitals));
    let checks = CHECKS.iter().map(|(name, about, codes)| {
        let is_meant = |one: &&Finding| codes.contains(&one.code);
        Check {
            name,
            about,
            findings: found.iter().filter(is_meant).cloned().collect(),
        }
    });
    Ok(Examination {
        checks: checks.collect(),
        status,
        vitals,
    })
}

/// Every check: its name, what it looks at, and the codes of what it may find.
pub const CHECKS: &[(&str, &str, &[&str])] = &[
    ("schema", "the schema is whole and of this release", &[]),
    ("hosts", "a host of this database is alive", &["no_host"]),
    (
        "endpoints",
        "every endpoint is run by a live host, and none is paused",
        &["endpoint_without_host", "endpoint_paused"],
    ),
    (
        "transports",
        "no transport is paused",
        &["transport_paused"],
    ),
    (
        "due",
        "nothing has been due for more than a minute",
        &["overdue"],
    ),
    (
        "schedules",
        "what recurs is declared and fired",
        &["schedule_without_host", "schedule_overdue"],
    ),
    ("parked", "no row waits for an operator", &["parked"]),
    (
        "operations",
        "no change of many stands still half-way",
        &["operation"],
    ),
    (
        "dead_letters",
        "no message stopped being tried, and none holds up its key",
        &["dead_letters", "keys_held"],
    ),
    (
        "instances",
        "no instance stands still without a timer",
        &["instances_idle"],
    ),
    (
        "clocks",
        "the clocks of hosts and database agree",
        &["clock_skew"],
    ),
    (
        "retention",
        "messages are remembered for as long as they may come again",
        &["retention_short"],
    ),
    (
        "deliveries",
        "no broker gives up messages that hosts may still handle",
        &["delivery_limit_low", "delivery_limit_unknown"],
    ),
    (
        "transactions",
        "no old transaction keeps rows from being cleaned away",
        &["transaction_old", "horizon_old"],
    ),
    (
        "space",
        "the database has few dead or free pages",
        &["table_bloated", "file_mostly_free"],
    ),
];

fn skew(host: &StoredHost, now: Timestamp) -> Option<Finding> {
    let behind = host.behind.filter(|_| is_alive(host, now))?;
    let off = Duration::from_micros(behind.unsigned_abs());
    (off > SKEW_MAX).then(|| Finding {
        code: "clock_skew",
        fact: format!(
            "the clock of host `{}` ({}) is {:.1} s {} the database's",
            host.name,
            host.id,
            off.as_secs_f64(),
            if behind > 0 { "behind" } else { "ahead of" }
        ),
        remedy: "set its clock by NTP; nothing is fired or retried by it, but its logs and the \
                 times of attempts mislead"
            .to_owned(),
    })
}

/// The shortest memory of any live host decides for all: each of them sweeps the one inbox.
fn retention(hosts: &[StoredHost], now: Timestamp) -> Option<Finding> {
    let alive = || hosts.iter().filter(|host| is_alive(host, now));
    let kept = |host: &StoredHost| host.definitions["inbox_retention_seconds"].as_f64();
    let (short, seconds) = alive()
        .filter_map(|host| Some((host, kept(host)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    let horizons = alive().flat_map(|host| {
        let all = host.definitions["endpoints"].as_array();
        all.into_iter().flatten().filter_map(move |one| {
            let horizons = retries(one).filter_map(|one| one["horizon_seconds"].as_f64());
            let horizon = horizons.reduce(f64::max)?;
            Some((host, one["endpoint"].as_str()?, horizon))
        })
    });
    let (host, endpoint, horizon) = horizons.max_by(|a, b| a.2.total_cmp(&b.2))?;
    (seconds < horizon).then(|| Finding {
        code: "retention_short",
        fact: format!(
            "host `{}` forgets messages after {seconds:.0} s, and endpoint `{endpoint}` of host \
             `{}` tries them for {horizon:.0} s",
            short.name, host.name
        ),
        remedy: format!(
            "raise `.retention(..)` of host `{}`: a message that comes again later is taken for \
             a new one",
            short.name
        ),
    })
}

/// What live hosts know of the limits of their brokers, which drop messages by themselves.
fn deliveries(hosts: &[StoredHost], now: Timestamp) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for host in hosts.iter().filter(|host| is_alive(host, now)) {
        let transports = host.definitions["transports"].as_array();
        let all = transports.into_iter().flatten();
        found.extend(all.filter_map(|one| delivery_limit(host, one)));
    }
    // The replicas of a service say the same.
    found.dedup();
    found
}

/// Holds the limit of a host's broker against the tries of the endpoints that read from it.
fn delivery_limit(host: &StoredHost, transport: &Value) -> Option<Finding> {
    let name = transport["transport"].as_str()?;
    let broker = transport["broker"].as_str().unwrap_or("the broker");
    let endpoints = host.definitions["endpoints"].as_array();
    let reading = endpoints
        .into_iter()
        .flatten()
        .filter(|one| one["reads_from"] == name);
    let tries = |one: &Value| retries(one).map(tries_of).max().unwrap_or(1);
    let tried = reading.filter_map(|one| Some((tries(one), one["endpoint"].as_str()?)));
    let (tries, endpoint) = tried.max()?;
    let names = format!("{} (transport `{name}` of host `{}`)", broker, host.name);
    let limit = &transport["delivery_limit"];
    if limit == "unknown" {
        return Some(Finding {
            code: "delivery_limit_unknown",
            fact: format!(
                "{names} has queues that somebody else declared, and does not tell after how many \
                 deliveries it drops a message; endpoint `{endpoint}` tries one up to {tries} times, \
                 and every lost connection counts"
            ),
            remedy: "`rabbitmqctl list_queues name arguments effective_policy_definition` shows the \
                     limit: RabbitMQ 4 has 20 where nobody said otherwise; set `x-delivery-limit`, or \
                     a policy's `delivery-limit`, to at least 1000"
                .to_owned(),
        });
    }
    let limit = limit.as_u64()?;
    (limit < tries.max(DELIVERIES_MIN)).then(|| Finding {
        code: "delivery_limit_low",
        fact: format!(
            "{names} drops a message after {limit} deliveries; endpoint `{endpoint}` tries one up \
             to {tries} times, and every lost connection counts"
        ),
        remedy: format!(
            "raise `delivery_limit` of that transport to {} at least; a queue that is there takes \
             another limit only when it is made anew",
            tries.max(DELIVERIES_MIN)
        ),
    })
}

/// What an endpoint says of its retries, and what its handlers say otherwise.
fn retries(endpoint: &Value) -> impl Iterator<Item = &Value> {
    let handlers = endpoint["handlers"].as_array().into_iter().flatten();
    let each = handlers.map(|handler| &handler["retry"]);
    let said = each.filter(|retry| retry.is_object());
    std::iter::once(&endpoint["retry"]).chain(said)
}

fn tries_of(retry: &Value) -> u64 {
    let count = |what: &str| retry[what].as_u64().unwrap_or(0);
    (count("immediate") + 1).saturating_mul(count("delayed") + 1)
}

/// Instances that nothing will move by itself.
async fn idle(admin: &dyn StoreAdmin, now: Timestamp) -> Result<Option<Finding>, OpsError> {
    let since = now.as_micros() - i64::try_from(IDLE_MAX.as_micros()).unwrap_or(i64::MAX);
    let filter = InstanceFilter {
        status: Some(InstanceStatus::Running),
        idle_since: Some(Timestamp::from_micros(since)),
        ..InstanceFilter::default()
    };
    let found = admin.instances(&filter, PAGE_MAX).await?;
    let mut stuck = Vec::new();
    for one in found.iter().take(IDLE_LOOKED_AT) {
        let stored = admin.instance(&one.id).await?;
        let waits = stored.is_some_and(|stored| stored.timers.is_empty());
        stuck.extend(waits.then_some(&one.id));
    }
    let Some(first) = stuck.first() else {
        return Ok(None);
    };
    let many = if found.len() > IDLE_LOOKED_AT {
        "at least "
    } else {
        ""
    };
    Ok(Some(Finding {
        code: "instances_idle",
        fact: format!(
            "{many}{} instances did not move for 7 days and have no timer that would move them, \
             for example `{} {}`",
            stuck.len(),
            first.kind,
            first.key
        ),
        remedy:
            "`sagabus sagas list --idle-for 7d` lists them, `sagabus sagas show KIND KEY` says \
                 what came last; give the machine a timer for what may never come"
                .to_owned(),
    }))
}

fn held(vitals: &Vitals) -> Option<Finding> {
    (vitals.held > 0).then(|| Finding {
        code: "keys_held",
        fact: format!(
            "{} dead letters hold up the later messages of their keys",
            vitals.held
        ),
        remedy: "retry or discard them: `sagabus dead-letters list`; what waits behind them goes \
                 on by itself"
            .to_owned(),
    })
}

fn long_transaction(vitals: &Vitals) -> Option<Finding> {
    let age = vitals.oldest_transaction?;
    (age > TRANSACTION_MAX).then(|| Finding {
        code: "transaction_old",
        fact: format!("a transaction is open for {} min", age.as_secs() / 60),
        remedy: "`select pid, usename, xact_start, query from pg_stat_activity order by \
                 xact_start` names it; end it with `select pg_terminate_backend(pid)`"
            .to_owned(),
    })
}

fn horizon(vitals: &Vitals) -> Option<Finding> {
    let transactions = vitals.horizon_transactions?;
    (transactions > HORIZON_MAX).then(|| Finding {
        code: "horizon_old",
        fact: format!(
            "something looks back over {transactions} transactions: no row that went since can be \
             cleaned away"
        ),
        remedy: "look for old sessions (`pg_stat_activity.backend_xmin`), prepared transactions \
                 (`pg_prepared_xacts`) and replication slots that nobody reads \
                 (`pg_replication_slots`), and end them"
            .to_owned(),
    })
}

fn bloat(vitals: &Vitals) -> Option<Finding> {
    let worst = vitals.tables.first()?;
    Some(Finding {
        code: "table_bloated",
        fact: format!(
            "table `{}` has {} dead rows beside {} live ones{}",
            worst.name,
            worst.dead_rows,
            worst.rows,
            match vitals.tables.len() {
                1 => String::new(),
                n => format!(", and {} others have many, too", n - 1),
            }
        ),
        remedy: format!(
            "`vacuum (analyze) sagabus.{}`; if it comes back, autovacuum is held up (see \
             transactions) or too slow: lower `autovacuum_vacuum_cost_delay`",
            worst.name
        ),
    })
}

fn free(vitals: &Vitals) -> Option<Finding> {
    let free = vitals.free_bytes?;
    (vitals.bytes > FREE_BYTES_MIN && free > vitals.bytes / 2).then(|| Finding {
        code: "file_mostly_free",
        fact: format!(
            "{} of the file's {} MiB are free",
            free >> 20,
            vitals.bytes >> 20
        ),
        remedy: "nothing has to be done: the space is used again; `vacuum` while no host runs \
                 gives it back"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use sagabus_core::HostId;
    use sagabus_core::admin::TableVitals;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    fn host(name: &str, behind: Option<i64>, retention: f64, horizon: f64) -> StoredHost {
        StoredHost {
            id: HostId::new(),
            name: name.to_owned(),
            started_at: NOW,
            heartbeat_at: NOW,
            stopped_at: None,
            behind,
            definitions: json!({
                "inbox_retention_seconds": retention,
                "endpoints": [{
                    "endpoint": format!("{name}-work"),
                    "retry": { "horizon_seconds": horizon },
                }],
            }),
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named_with_its_direction() {
        let fact = |behind| skew(&host("shop", behind, 1.0, 1.0), NOW).map(|one| one.fact);
        assert_eq!(fact(None), None);
        assert_eq!(fact(Some(1_900_000)), None);
        let behind = fact(Some(90_000_000)).expect("it is off");
        assert!(behind.contains("90.0 s behind"), "{behind}");
        let ahead = fact(Some(-3_000_000)).expect("it is off");
        assert!(ahead.contains("3.0 s ahead of"), "{ahead}");
        // What a dead host's clock said is of no use to anybody.
        let later = NOW.plus(Duration::from_secs(3600));
        assert_eq!(skew(&host("shop", Some(90_000_000), 1.0, 1.0), later), None);
    }

    #[test]
    fn the_shortest_memory_is_held_against_the_longest_tries() {
        let fine = [host("a", None, 700.0, 600.0), host("b", None, 800.0, 10.0)];
        assert_eq!(retention(&fine, NOW), None);
        let short = [host("a", None, 700.0, 10.0), host("b", None, 900.0, 800.0)];
        let found = retention(&short, NOW).expect("`a` forgets what `b` still tries");
        assert!(found.fact.contains("host `a` forgets"), "{found:?}");
        assert!(found.fact.contains("endpoint `b-work`"), "{found:?}");
        let mut patient = host("a", None, 700.0, 600.0);
        let handler = json!({ "retry": { "horizon_seconds": 800.0 } });
        patient.definitions["endpoints"][0]["handlers"] = json!([{ "retry": null }, handler]);
        let found = retention(&[patient], NOW).expect("one type is tried for longer");
        assert!(found.fact.contains("tries them for 800 s"), "{found:?}");
    }

    #[test]
    fn a_broker_that_gives_up_too_early_is_named_with_what_it_would_drop() {
        let with = |limit: Value, immediate: u64| {
            let mut host = host("shop", None, 700.0, 600.0);
            host.definitions["transports"] = json!([
                { "transport": "default", "broker": "rabbitmq", "delivery_limit": limit },
                { "transport": "archive", "broker": "kafka", "delivery_limit": null },
            ]);
            host.definitions["endpoints"][0]["reads_from"] = json!("default");
            let retry = json!({ "immediate": immediate, "delayed": 4 });
            host.definitions["endpoints"][0]["retry"] = retry;
            host
        };
        for fine in [json!(1_000_000), json!(1_000), json!(null)] {
            assert_eq!(deliveries(&[with(fine, 2)], NOW), []);
        }
        let hosts = [with(json!(20), 2), with(json!(20), 2)];
        let [low] = &deliveries(&hosts, NOW)[..] else {
            panic!("it is found, once for two replicas");
        };
        assert_eq!(low.code, "delivery_limit_low");
        assert!(low.fact.contains("after 20 deliveries"), "{low:?}");
        assert!(low.fact.contains("endpoint `shop-work`"), "{low:?}");
        assert!(low.fact.contains("up to 15 times"), "{low:?}");
        assert!(low.remedy.contains("to 1000 at least"), "{low:?}");
        let patient = deliveries(&[with(json!(1_000), 999)], NOW);
        assert!(patient[0].remedy.contains("to 5000 at least"));
        let mut by_type = with(json!(1_000), 2);
        let often = json!({ "retry": { "immediate": 999, "delayed": 4 } });
        by_type.definitions["endpoints"][0]["handlers"] = json!([often]);
        let patient = deliveries(&[by_type], NOW);
        assert!(patient[0].fact.contains("up to 5000 times"), "{patient:?}");
        let unknown = deliveries(&[with(json!("unknown"), 2)], NOW);
        assert_eq!(unknown[0].code, "delivery_limit_unknown");
        assert!(unknown[0].remedy.contains("rabbitmqctl list_queues"));
        // A transport from which nothing is read drops nothing of ours; nor does a dead host's.
        let mut sends = with(json!(20), 2);
        sends.definitions["endpoints"][0]["reads_from"] = json!("database");
        assert_eq!(deliveries(&[sends], NOW), []);
        let later = NOW.plus(Duration::from_secs(3600));
        assert_eq!(deliveries(&hosts, later), []);
    }

    #[test]
    fn what_keeps_rows_from_being_cleaned_away_is_found() {
        let vitals = |seconds, transactions| Vitals {
            oldest_transaction: Some(Duration::from_secs(seconds)),
            horizon_transactions: Some(transactions),
            ..Vitals::default()
        };
        assert_eq!(long_transaction(&vitals(900, 0)), None);
        assert!(long_transaction(&vitals(901, 0)).is_some());
        assert_eq!(horizon(&vitals(0, HORIZON_MAX)), None);
        assert!(horizon(&vitals(0, HORIZON_MAX + 1)).is_some());
        assert_eq!(long_transaction(&Vitals::default()), None);
        assert_eq!(horizon(&Vitals::default()), None);
    }

    #[test]
    fn space_that_is_lost_is_found() {
        let table = TableVitals {
            name: "outbox".to_owned(),
            rows: 10,
            dead_rows: 50_000,
        };
        let vitals = Vitals {
            tables: vec![table.clone(), table],
            ..Vitals::default()
        };
        let found = bloat(&vitals).expect("it has dead rows");
        assert!(found.fact.contains("and 1 others"), "{found:?}");
        assert!(found.remedy.contains("sagabus.outbox"), "{found:?}");
        assert_eq!(bloat(&Vitals::default()), None);
        let file = |bytes, free| Vitals {
            bytes,
            free_bytes: Some(free),
            ..Vitals::default()
        };
        assert_eq!(free(&file(100 << 20, 99 << 20)), None, "it is small");
        assert_eq!(free(&file(1000 << 20, 500 << 20)), None);
        assert!(free(&file(1000 << 20, 501 << 20)).is_some());
    }
}
