//! How the whole is doing, and what to do about it.

use std::time::Duration;

use sagabus_core::Timestamp;
use sagabus_core::admin::{
    About, Counts, DeadLetterFilter, DeadLetterGroup, DestinationOverview, OperationState, Page,
    StoreAdmin, StoredEndpoint, StoredHost, StoredOperation,
};

use crate::endpoints;
use crate::error::OpsError;
use crate::schedules::{self, StoredSchedule};
use crate::transports;

/// How long a row may be due before that is worth a word: an idle host looks every 200 ms, and a
/// scan of everything comes every 10 s.
const DUE_MAX: Duration = Duration::from_secs(60);
/// Groups of dead letters that a status shows.
const GROUPS: u32 = 5;
/// Operations that a status looks at, the latest ones.
const OPERATIONS: u32 = 20;
/// The lease of a host that does not say its own.
const LEASE: Duration = Duration::from_secs(15);

/// How the whole is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Which database.
    pub about: About,
    /// How many rows there are.
    pub counts: Counts,
    /// What the outbox holds.
    pub destinations: Vec<DestinationOverview>,
    /// Who runs, or ran.
    pub hosts: Vec<StoredHost>,
    /// The largest groups of open dead letters.
    pub groups: Vec<DeadLetterGroup>,
    /// What somebody should look at, the worst first. Empty: all is well.
    pub findings: Vec<Finding>,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word that programs can compare.
    pub code: &'static str,
    /// The thing and the fact.
    pub fact: String,
    /// What to do.
    pub remedy: String,
}

/// Reads how the whole is doing.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer, or its schema is not of this release.
pub async fn status(admin: &dyn StoreAdmin) -> Result<Status, OpsError> {
    let about = admin.about().await?;
    let counts = admin.counts().await?;
    let destinations = admin.destinations().await?;
    let hosts = admin.hosts().await?;
    let known = admin.endpoints().await?;
    let groups = admin
        .dead_letter_groups(&DeadLetterFilter::default(), GROUPS)
        .await?;
    let mut findings = Vec::new();
    findings.extend(no_host(&hosts, &known, about.now));
    findings.extend(
        destinations
            .iter()
            .filter_map(|one| overdue(one, about.now)),
    );
    findings.extend(without_host(&known, &hosts, about.now));
    findings.extend(paused(&endpoints::paused(admin).await?));
    findings.extend(held_back(&transports::paused(admin).await?));
    findings.extend(schedules(&schedules::list(admin).await?, about.now));
    findings.extend(dead(&counts));
    findings.extend(parked(&counts));
    let operations = admin.operations(None, Page::latest(OPERATIONS)).await?;
    findings.extend(operations.iter().filter_map(|one| standing(one, about.now)));
    Ok(Status {
        about,
        counts,
        destinations,
        hosts,
        groups,
        findings,
    })
}

/// Says whether a host has not said that it stopped, and was heard of within twice its lease; it
/// speaks three times in one.
pub fn is_alive(host: &StoredHost, now: Timestamp) -> bool {
    if host.stopped_at.is_some() {
        return false;
    }
    let lease = host.definitions["lease_seconds"].as_f64();
    let lease = lease.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    host.heartbeat_at
        .plus(lease.unwrap_or(LEASE).saturating_mul(2))
        >= now
}

/// Says whether a host described an endpoint as its own.
pub fn has_endpoint(host: &StoredHost, endpoint: &str) -> bool {
    let all = host.definitions["endpoints"].as_array();
    all.is_some_and(|all| all.iter().any(|one| one["endpoint"] == endpoint))
}

fn no_host(hosts: &[StoredHost], endpoints: &[StoredEndpoint], now: Timestamp) -> Option<Finding> {
    let is_dead = !endpoints.is_empty() && !hosts.iter().any(|host| is_alive(host, now));
    is_dead.then(|| Finding {
        code: "no_host",
        fact: "no host of this database is alive".to_owned(),
        remedy: "start the service; `sagabus hosts` shows who ran and until when".to_owned(),
    })
}

fn overdue(one: &DestinationOverview, now: Timestamp) -> Option<Finding> {
    let since = one.due_since.filter(|since| since.plus(DUE_MAX) < now)?;
    Some(Finding {
        code: "overdue",
        fact: format!(
            "{} rows for `{}` are due and nobody takes them, the oldest since {since}",
            one.due, one.destination
        ),
        remedy: match one.destination.starts_with('@') {
            true => "look whether a host with this endpoint runs and keeps up: `sagabus hosts`",
            false => "look whether a host with this transport runs and the broker takes messages",
        }
        .to_owned(),
    })
}

/// Endpoints that live hosts do not have, while others live: forgotten, or half rolled out.
fn without_host(
    endpoints: &[StoredEndpoint],
    hosts: &[StoredHost],
    now: Timestamp,
) -> Vec<Finding> {
    let alive: Vec<_> = hosts.iter().filter(|host| is_alive(host, now)).collect();
    if alive.is_empty() {
        return Vec::new();
    }
    let is_orphan = |one: &&StoredEndpoint| !alive.iter().any(|host| has_endpoint(host, &one.name));
    let orphans = endpoints.iter().filter(is_orphan);
    orphans
        .map(|one| Finding {
            code: "endpoint_without_host",
            fact: format!("endpoint `{}` is run by no live host", one.name),
            remedy: format!(
                "start a host with it, or `sagabus endpoints remove {}`: its events pile up",
                one.name
            ),
        })
        .collect()
}

/// What an operator paused, and may have forgotten.
fn paused(all: &[(String, Timestamp)]) -> Vec<Finding> {
    let finding = |(endpoint, since): &(String, Timestamp)| Finding {
        code: "endpoint_paused",
        fact: format!("endpoint `{endpoint}` is paused by an operator since {since}"),
        remedy: format!(
            "`sagabus audit` says by whom and why; `sagabus endpoints resume {endpoint}`"
        ),
    };
    all.iter().map(finding).collect()
}

/// What nothing is sent by, and may have been forgotten.
fn held_back(all: &[(String, Timestamp)]) -> Vec<Finding> {
    let finding = |(transport, since): &(String, Timestamp)| Finding {
        code: "transport_paused",
        fact: format!("transport `{transport}` is paused by an operator since {since}"),
        remedy: format!(
            "`sagabus audit` says by whom and why; `sagabus outbox resume --transport {transport}`"
        ),
    };
    all.iter().map(finding).collect()
}

fn dead(counts: &Counts) -> Option<Finding> {
    (counts.dead_letters > 0).then(|| Finding {
        code: "dead_letters",
        fact: format!("{} messages are dead letters", counts.dead_letters),
        remedy: "`sagabus dead-letters groups` shows why; retry them when the cause is gone"
            .to_owned(),
    })
}

fn parked(counts: &Counts) -> Option<Finding> {
    (counts.parked > 0).then(|| Finding {
        code: "parked",
        fact: format!("{} outgoing rows are parked", counts.parked),
        remedy: "`sagabus outbox parked` shows why; release or discard them".to_owned(),
    })
}

/// What recurs and does not: nobody declares it any more, or nobody fires it.
fn schedules(all: &[StoredSchedule], now: Timestamp) -> Vec<Finding> {
    let late = |one: &StoredSchedule| {
        let next = one.schedule.as_ref()?.next?;
        let patience = DUE_MAX.saturating_add(one.schedule.as_ref()?.declared.recurrence.delay());
        (one.state == "waiting" && next.plus(patience) < now).then_some(next)
    };
    let finding = |one: &StoredSchedule| {
        let name = &one.name;
        let (code, fact, remedy) = match (one.declared_by, late(one)) {
            (0, _) => (
                "schedule_without_host",
                format!("schedule `{name}` is declared by no live host: nobody fires it"),
                format!("start a host that declares it, or `sagabus schedules remove {name}`"),
            ),
            (_, Some(next)) => (
                "schedule_overdue",
                format!("schedule `{name}` was to be fired at {next} and was not"),
                format!(
                    "look at the log of the host that declares it; with `Overlap::Wait` the \
                     message before it may still be under way: `sagabus schedules show {name}`"
                ),
            ),
            _ => return None,
        };
        Some(Finding { code, fact, remedy })
    };
    all.iter().filter_map(finding).collect()
}

/// An operation that is not over and that nobody drives.
fn standing(one: &StoredOperation, now: Timestamp) -> Option<Finding> {
    let why = match one.state {
        OperationState::Paused => one.note.as_deref().unwrap_or("an operator"),
        OperationState::Running if !one.is_driven(now) => "the process that drove it is gone",
        OperationState::Running | OperationState::Done | OperationState::Cancelled => return None,
    };
    let (id, taken, total) = (one.id, one.taken, one.total);
    Some(Finding {
        code: "operation",
        fact: format!("operation {id} stands still after {taken} of {total}: {why}"),
        remedy: format!("`sagabus operations show {id}` tells more; resume it, or cancel it"),
    })
}
