//! What the server says of the plans of hot statements, those inside of our functions included: no
//! table is read from end to end, no statement reads more than its few rows, and every index that was
//! made for one of them is used.
//!
//! Tables are as full as [`ROWS`] says; `cargo xtask bench plans --rows 1000000` runs this with more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus_core::backlog::{Measure, Wanted};
use sagabus_core::clock::Timestamp;
use sagabus_core::endpoint::EndpointName;
use sagabus_core::envelope::{Due, Timer};
use sagabus_core::store::{
    Claim, ClaimFrom, Extension, Question, Retention, Scan, Store, StoreAdmin as _,
};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::{
    DeadLetter, InstanceChange, InstanceStatus, KeyAfterDeath, Label, LabelId, Reason, RowKey,
    Settle, Source, Start, UnitOfWork,
};
use sagabus_core::{HostId, InstanceId, MessageId, Outcome};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::postgres_support::Database;
use super::postgres_units::{Site, change, outgoing};

/// Says how many rows each table has; without it enough that reading them all stands out.
const ROWS: &str = "SAGABUS_PLAN_ROWS";
const ROWS_DEFAULT: u64 = 20_000;
/// The most rows that one step of one plan may read: pages and groups here have at most a tenth.
const READ_MAX: f64 = 1_000.0;
/// Rows of a claim, of a group and of a page.
const PART: u32 = 20;

/// Tables that grow, and the indexes by which hot statements find their rows.
const MEANT: &[(&str, &[&str])] = &[
    (
        "outbox",
        &[
            "outbox_pkey",
            "outbox_due",
            "outbox_order",
            "outbox_timer",
            "outbox_parked",
        ],
    ),
    ("inbox", &["inbox_pkey"]),
    ("instance", &["instance_pkey"]),
    ("label", &["label_pkey", "label_owner"]),
    ("history", &["history_pkey"]),
    ("dead_letter", &["dead_letter_once", "dead_letter_status"]),
    ("sent", &["sent_old"]),
    ("audit", &["audit_pkey"]),
];

/// Statements that read more, by a part of their text, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "(select from sagabus.inbox b where b.message_id = $1",
        "looks through what waits at one endpoint: few rows where a broker carries messages",
    ),
    (
        "limit m.n + 10000",
        "steps over 10,000 timers at most where it counts what waits",
    ),
];

/// What fills the tables; `ROWS` is how full. Most rows of the outbox are for others or for later.
const FILL: &str = "
    create temp table n as select n from generate_series(1, ROWS) n;
    insert into sagabus.endpoint (name) select 'endpoint-' || n from generate_series(0, 7) n;
    insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, body,
        available_at, parked, timer_kind, timer_key, timer_name, timer_generation, created_at)
        select gen_random_uuid(), 'shop.order-placed',
        (array['@orders', '@parcels', '@endpoint-1', '@endpoint-2', 'event/a', 'event/b'])[1 + n % 6],
        'key-' || (n % 1000), n % 2 = 0, '{}', '{}', 9000000000000000 + n,
        case when n % 7 = 0 then 'unroutable' end, case when n % 3 = 0 then 'order' end,
        case when n % 3 = 0 then n::text end, case when n % 3 = 0 then 'deadline' end,
        case when n % 3 = 0 then 1 end, n from n;
    insert into sagabus.inbox (message_id, endpoint_id, accepted_at)
        select gen_random_uuid(), 1, sagabus.now_micros() from n;
    insert into sagabus.instance (kind, key, version, state, schema_version, data, timers, created_at,
        updated_at) select 'order', n::text, 1, 'open', 1, '{}', '{}', n, n from n;
    insert into sagabus.label (kind, name, value, key) select 'order', 'payment', n::text, n::text from n;
    insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id, detail)
        select sagabus.now_micros(), 1, gen_random_uuid(), 'shop.order-placed', gen_random_uuid(), '{}'
        from n;
    insert into sagabus.dead_letter (at, endpoint, message_id, message_type, reason, key, headers, body,
        attempts, fingerprint, status) select sagabus.now_micros(), 'orders', gen_random_uuid(),
        'shop.order-placed', 'terminal', 'key-' || n, '{}', '{}', '[]', 'gateway ' || (n % 40),
        case n % 3 when 0 then 'redriven' else 'open' end from n;
    insert into sagabus.sent (id, message_id, message_type, destination, per_key, headers, body, sent_at,
        kept_until) select 9000000000 + n, gen_random_uuid(), 'shop.order-placed', 'event/a', false, '{}',
        '{}', n, 9000000000000000 from n;
    insert into sagabus.audit (at, who, action, why, detail)
        select sagabus.now_micros(), 'somebody', 'redrive', '', '[]' from n;
    drop table n";

/// Has every server process of the database say what it did, statements inside of functions included.
const TELL: &str = "
    alter database NAME set session_preload_libraries = 'auto_explain';
    alter database NAME set auto_explain.log_min_duration = 0;
    alter database NAME set auto_explain.log_nested_statements = on;
    alter database NAME set auto_explain.log_analyze = on;
    alter database NAME set auto_explain.log_timing = off;
    alter database NAME set auto_explain.log_format = 'json';
    alter database NAME set client_min_messages = 'log'";

/// Hears what servers say.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Words(&self.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Words<'a>(&'a Mutex<Vec<String>>);

impl Visit for Words<'_> {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0.lock().unwrap().push(value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A step of a plan that reads rows.
#[derive(Debug)]
struct Step {
    kind: String,
    table: Option<String>,
    index: Option<String>,
    rows: f64,
}

/// Returns the text of a statement and the steps of its plan that read rows.
fn plan(said: &str) -> Option<(String, Vec<Step>)> {
    let (_, plan) = said.split_once("plan:\n")?;
    let plan: Value = serde_json::from_str(plan).unwrap();
    let mut steps = Vec::new();
    collect(&plan["Plan"], &mut steps);
    Some((plan["Query Text"].as_str().unwrap().to_owned(), steps))
}

fn collect(node: &Value, steps: &mut Vec<Step>) {
    let word = |name: &str| node[name].as_str().map(str::to_owned);
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let kind = word("Node Type").unwrap();
    if kind.contains("Scan") {
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        steps.push(Step {
            kind,
            table: word("Relation Name"),
            index: word("Index Name"),
            rows: (number("Actual Rows") + removed) * number("Actual Loops"),
        });
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        collect(child, steps);
    }
}

/// What is wrong with a step, if anything is.
fn fault(step: &Step) -> Option<String> {
    let is_ours = |name: &str| MEANT.iter().any(|(table, _)| *table == name);
    let table = step.table.as_deref().filter(|table| is_ours(table));
    if let (Some(table), "Seq Scan") = (table, step.kind.as_str()) {
        return Some(format!("`{table}` is read from end to end"));
    }
    let is_of_ours = table.is_some() || step.index.is_some();
    (is_of_ours && step.rows > READ_MAX).then(|| format!("{} rows are read by {step:?}", step.rows))
}

fn rows() -> u64 {
    let set = std::env::var(ROWS).ok();
    set.map_or(ROWS_DEFAULT, |rows| rows.parse().unwrap())
}

/// A filled database whose servers say what they do; `None` where there is no server.
async fn filled() -> Option<(Database, Site)> {
    let (database, store) = Database::migrated().await?;
    let site = Site::new(store).await;
    site.stop().await;
    let fill = FILL.replace("ROWS", &rows().to_string());
    database.run_text(&fill).await;
    database.run("vacuum (analyze)").await;
    database
        .run_text(&TELL.replace("NAME", database.name()))
        .await;
    let site = Site::new(database.store().await).await;
    Some((database, site))
}

fn order(key: String) -> InstanceId {
    InstanceId {
        kind: "order".into(),
        key: key.as_str().into(),
    }
}

/// A unit that moves an order, cancels a timer, arms another and gives the order another label.
fn moves(site: &Site, n: u32) -> UnitOfWork {
    let key = (n * 3).to_string();
    let mut unit = site.unit(MessageId::new());
    let mut timer = outgoing("late");
    timer.due = Due::After(Duration::from_secs(900));
    timer.timer = Some(Timer {
        owner: order(key.clone()),
        name: "reminder".to_owned(),
        generation: 1,
    });
    unit.outgoing.push(timer);
    unit.instance = Some(InstanceChange {
        status: InstanceStatus::Running,
        disarmed: vec!["deadline".to_owned()],
        labels: Some(vec![Label {
            name: "payment".into(),
            value: format!("changed-{n}"),
        }]),
        ..change(&key, 1)
    });
    unit
}

async fn committed(site: &Site, name: &str, units: Vec<UnitOfWork>) {
    let report = site
        .store
        .commit(&site.group_to(name, units))
        .await
        .unwrap();
    let is_committed = |outcome: &Outcome| *outcome == Outcome::Committed;
    assert!(report.outcomes.iter().all(is_committed), "{report:?}");
}

async fn settled(site: &Site, settles: Vec<Settle>) {
    let mut group = site.group(Vec::new());
    group.settles = settles;
    site.store.commit(&group).await.unwrap();
}

fn answers(row: RowKey) -> UnitOfWork {
    UnitOfWork {
        sources: vec![Source::Row(row)],
        ..UnitOfWork::default()
    }
}

/// A unit that sends one message of a key.
fn keyed(site: &Site, n: u32) -> UnitOfWork {
    let mut unit = site.unit(MessageId::new());
    unit.outgoing[0].key = Some(format!("key-{}", n % 5));
    unit
}

async fn commits(site: &Site) {
    for part in [1, PART] {
        let units = || (0..part).map(|_| site.unit(MessageId::new())).collect();
        let group = site.group(units());
        // The second time all are duplicates, and the call for any group decides.
        site.store.commit(&group).await.unwrap();
        site.store.commit(&group).await.unwrap();
        let keyed = (0..part).map(|n| keyed(site, n)).collect();
        committed(site, "parcels", keyed).await;
    }
    committed(site, "orders", vec![moves(site, 1)]).await;
    let moved = (2..PART).map(|n| moves(site, n)).collect();
    committed(site, "orders", moved).await;
    let sent = UnitOfWork {
        outgoing: vec![outgoing("from an API")],
        ..UnitOfWork::default()
    };
    committed(site, "orders", vec![sent]).await;
}

async fn rows_in_hand(site: &Site) {
    let claim = |from, scan| Claim {
        from,
        lease: Duration::from_secs(3600),
        scan,
    };
    for scan in [Scan::Hot, Scan::Cold] {
        let transport = ClaimFrom::Transport {
            name: TransportName::default(),
            limit: PART,
            per_address: PART,
            bounds: vec![("event/b".to_owned(), 0)],
        };
        site.store.claim(&claim(transport, scan)).await.unwrap();
    }
    let rows = site.claim("orders", PART).await;
    assert!(rows.len() > 6, "{} rows were claimed", rows.len());
    let keys: Vec<RowKey> = rows.iter().map(|row| row.row).collect();
    committed(site, "orders", vec![answers(keys[0])]).await;
    committed(site, "orders", vec![answers(keys[1]), answers(keys[2])]).await;
    let release = |row, attempts| Settle::Release {
        row,
        after: Duration::from_secs(1),
        attempts,
        start: Start::Counted,
    };
    let settles = vec![
        Settle::StartSolo(keys[3]),
        release(keys[4], None),
        Settle::Park {
            row: keys[5],
            reason: Reason::Expired,
            attempts: Vec::new(),
        },
        Settle::Delete(keys[3]),
    ];
    for settle in settles {
        settled(site, vec![settle]).await;
    }
    let kept = Settle::Keep {
        row: keys[6],
        kept_for: Duration::from_secs(60),
    };
    settled(site, vec![kept]).await;
    for parcel in site.claim("parcels", PART).await {
        committed(site, "parcels", vec![answers(parcel.row)]).await;
    }
}

/// A message that is given up, whose key waits for it.
async fn dead_letters(site: &Site) {
    for _ in 0..3 {
        let mut unit = site.unit(MessageId::new());
        let message = unit.outgoing.remove(0).envelope;
        unit.failed = Some(Box::new(DeadLetter {
            endpoint: EndpointName::new("parcels").unwrap(),
            envelope: message,
            reason: Reason::Terminal,
            attempts: Vec::new(),
            key: Some("key-1".to_owned()),
            instance: None,
            key_after: KeyAfterDeath::Waits,
        }));
        unit.sources = vec![Source::Broker {
            endpoint: site.target("parcels").id,
            message_id: MessageId::new(),
        }];
        committed(site, "parcels", vec![unit]).await;
    }
}

async fn questions(site: &Site) {
    let endpoint = site.target("orders").id;
    let known = || Question {
        taken_over: Some((endpoint, MessageId::new())),
        ..Question::default()
    };
    let parcels = EndpointName::new("parcels").unwrap();
    let whole = |n: u32| Question {
        instance: Some(order(n.to_string())),
        blocked: Some((parcels.clone(), format!("key-{n}"))),
        ..known()
    };
    let labelled = Question {
        label: Some(LabelId {
            kind: "order".into(),
            label: Label {
                name: "payment".into(),
                value: "4711".to_owned(),
            },
        }),
        ..known()
    };
    let fate = Question {
        fate: Some((endpoint, MessageId::new())),
        ..Question::default()
    };
    let all: [Vec<Question>; 4] = [
        (0..PART).map(|_| known()).collect(),
        (1..PART).map(whole).collect(),
        vec![labelled],
        vec![fate],
    ];
    for questions in all {
        site.store.load(&questions).await.unwrap();
    }
}

async fn upkeep(site: &Site) {
    let rows = site.claim("orders", PART).await;
    let extension = Extension {
        is_last: false,
        host: HostId::new(),
        clock: Timestamp::from_micros(1),
        rows: rows.iter().map(|row| row.row).collect(),
        lease: Duration::from_secs(60),
        measure: Measure {
            endpoints: vec![(EndpointName::new("orders").unwrap(), 100)],
            oldest: Wanted::Yes,
        },
    };
    site.store.extend(&extension).await.unwrap();
    let retention = Retention {
        rows_max: 100,
        ..Retention::default()
    };
    site.store.sweep(&retention).await.unwrap();
}

#[tokio::test]
async fn hot_statements_find_their_rows_by_index_however_full_the_tables_are() {
    let Some((database, site)) = filled().await else {
        return;
    };
    let heard = Heard::default();
    let listening = tracing::subscriber::set_default(heard.clone());
    commits(&site).await;
    rows_in_hand(&site).await;
    dead_letters(&site).await;
    questions(&site).await;
    upkeep(&site).await;
    drop(listening);
    site.stop().await;
    drop(database);

    let said = heard.0.lock().unwrap();
    let plans: Vec<_> = said.iter().filter_map(|said| plan(said)).collect();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = BTreeSet::new();
    let mut excused = BTreeSet::new();
    for (text, steps) in &plans {
        let mut exceptions = EXCEPTIONS.iter().map(|(part, _)| *part);
        let exception = exceptions.find(|part| text.contains(part));
        for step in steps {
            match (fault(step), exception) {
                (Some(_), Some(part)) => drop(excused.insert(part)),
                (fault, _) => wrong.extend(fault.map(|fault| format!("{fault}: {text}"))),
            }
            let index = step.index.iter().cloned();
            index.for_each(|index| *used.entry(index).or_default() += 1);
        }
    }
    println!(
        "{} rows a table, {} plans, indexes: {used:?}",
        rows(),
        plans.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is mended must not stay an exception.
    assert_eq!(excused.len(), EXCEPTIONS.len(), "{excused:?}");
    let meant = MEANT.iter().flat_map(|(_, indexes)| *indexes);
    let unused: Vec<_> = meant.filter(|index| !used.contains_key(**index)).collect();
    assert!(unused.is_empty(), "nobody used {unused:?}: {used:?}");
}

#[tokio::test]
async fn a_table_that_is_read_from_end_to_end_is_seen() {
    let Some((_database, site)) = filled().await else {
        return;
    };
    let heard = Heard::default();
    let listening = tracing::subscriber::set_default(heard.clone());
    site.store.counts().await.unwrap();
    drop(listening);
    let said = heard.0.lock().unwrap();
    let plans: Vec<_> = said.iter().filter_map(|said| plan(said)).collect();
    let faults = plans.iter().flat_map(|(_, steps)| steps).filter_map(fault);
    assert!(faults.count() > 0, "nothing was said of {said:?}");
}
