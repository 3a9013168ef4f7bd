//! `sagabus outbox`.

use sagabus_core::Timestamp;
use sagabus_core::admin::{RowFilter, RowState, StoreAdmin, StoredRow};
use sagabus_ops::endpoints::Verb as Hold;
use sagabus_ops::outbox::{self, Found, Verb};
use sagabus_ops::{shape, transports};
use serde_json::json;

use crate::arguments::{OperatorArguments, OutboxVerb, PageArguments, TransportArguments};
use crate::confirm::{Answer, confirm, operator};
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::filter::each_once;
use crate::gauge::Gauge;
use crate::messages;
use crate::output::Output;
use crate::republish;
use crate::row_filter::RowChangeArguments;
use crate::text::ago;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &OutboxVerb,
    operator: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        OutboxVerb::List => list(admin, now, out).await,
        OutboxVerb::Parked { filter, page } => {
            let filter = filter.at(now, Some(RowState::Parked));
            rows(admin, now, filter, page, out).await
        }
        OutboxVerb::Rows { filter, page } => {
            rows(admin, now, filter.at(now, None), page, out).await
        }
        OutboxVerb::Show { id, .. } => show(admin, *id, out).await,
        OutboxVerb::Park(change) => {
            self::change(admin, now, &Verb::Park, change, operator, out).await
        }
        OutboxVerb::Release { change, to } => {
            let verb = to.clone().map_or(Verb::Release, Verb::Readdress);
            self::change(admin, now, &verb, change, operator, out).await
        }
        OutboxVerb::Expedite(change) => {
            self::change(admin, now, &Verb::Expedite, change, operator, out).await
        }
        OutboxVerb::Pause(which) => hold(admin, Hold::Pause, which, operator, out).await,
        OutboxVerb::Resume(which) => hold(admin, Hold::Resume, which, operator, out).await,
        OutboxVerb::Discard(change) => {
            self::change(admin, now, &Verb::Discard, change, operator, out).await
        }
        OutboxVerb::Purge {
            destination,
            message_type,
            at_most,
        } => {
            let filter = RowFilter {
                destination: Some(destination.clone()),
                message_type: message_type.clone(),
                ..RowFilter::default()
            };
            purge(admin, now, &filter, *at_most, operator, out).await
        }
        OutboxVerb::Republish(which) => republish::run(admin, now, which, operator, out).await,
    }
}

/// Why a row is not released.
const NOT_RELEASED: &str = "not parked any more, or commands that nobody takes";
/// Why it is not released elsewhere.
const NOT_READDRESSED: &str = "not parked any more, or the endpoint was removed";

async fn hold(
    admin: &dyn StoreAdmin,
    verb: Hold,
    which: &TransportArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (todo, done) = match verb {
        Hold::Pause => ("pause", "paused within a second"),
        Hold::Resume => ("resume", "goes on within a second"),
    };
    let name = &which.transport;
    // What would be refused is said before anybody is asked.
    if !who.yes {
        transports::look(admin, verb, name).await?;
    }
    let what = format!("{todo} the sending by transport `{name}` in all hosts");
    if confirm(who, &what)? == Answer::Preview {
        if out.json(|| json!({ "preview": { "count": 1 }, "what": what }))? {
            return Ok(());
        }
        return out.line(&what);
    }
    transports::hold(admin, &operator(who), verb, name).await?;
    if out.json(|| json!({ "changed": 1, "transport": name }))? {
        return Ok(());
    }
    out.line(done)
}

async fn list(admin: &dyn StoreAdmin, now: Timestamp, out: &Output) -> Result<(), Failure> {
    let found = admin.destinations().await?;
    let document =
        || json!({ "destinations": found.iter().map(shape::destination).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let since = |at: Option<Timestamp>| at.map(|at| ago(now, at)).unwrap_or_default();
    let lines: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.destination.clone(),
                one.waiting.to_string(),
                one.due.to_string(),
                since(one.due_since),
                since(one.oldest_at),
                one.parked.to_string(),
            ]
        })
        .collect();
    let columns = [
        "destination",
        "waiting",
        "due",
        "due since",
        "oldest",
        "parked",
    ];
    out.table(&columns, &lines, "the outbox is empty")
}

async fn rows(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: RowFilter,
    arguments: &PageArguments,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.rows(&filter, page(arguments)).await?;
    let next = (found.len() == arguments.limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::row);
        json!({ "rows": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    table(now, &found, "no such rows", out)?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

fn table(now: Timestamp, found: &[StoredRow], empty: &str, out: &Output) -> Result<(), Failure> {
    let lines: Vec<_> = found
        .iter()
        .map(|one| {
            let error = match one.is_stub() {
                true => Some("holds the place of a dead letter".to_owned()),
                false => one.attempts.last().map(|last| last.error.clone()),
            };
            vec![
                one.id.to_string(),
                ago(now, one.created_at),
                one.destination.clone(),
                one.envelope.message_type.to_string(),
                one.key.clone().unwrap_or_default(),
                one.parked.clone().unwrap_or_default(),
                error.unwrap_or_default(),
            ]
        })
        .collect();
    let columns = [
        "id",
        "written",
        "destination",
        "type",
        "key",
        "parked",
        "last error",
    ];
    out.table(&columns, &lines, empty)
}

async fn show(admin: &dyn StoreAdmin, id: i64, out: &Output) -> Result<(), Failure> {
    let one = outbox::show(admin, id).await?;
    if out.json(|| shape::row(&one))? {
        return Ok(());
    }
    out.line(&format!("row {}", one.id))?;
    out.field("destination", Some(&one.destination))?;
    out.field("type", Some(&one.envelope.message_type))?;
    out.field("message", Some(&one.envelope.id.to_string()))?;
    out.field("key", one.key.as_deref())?;
    out.field("parked", one.parked.as_deref())?;
    out.field("written", Some(&one.created_at.to_string()))?;
    let available = match one.is_stub() {
        true => "never: holds the place of a dead letter".to_owned(),
        false => one.available_at.to_string(),
    };
    out.field("available", Some(&available))?;
    let expires = one.expires_at.map(|at| at.to_string());
    out.field("expires", expires.as_deref())?;
    let timer = one.timer.map(|timer| {
        let owner = timer.owner;
        format!("{} of {} {}", timer.name, owner.kind, owner.key)
    });
    out.field("timer", timer.as_deref())?;
    messages::envelope(&one.envelope, one.body_bytes, &one.attempts, out)
}

/// What a verb is called, before and after it is done, and why it leaves rows as they are.
fn words(verb: &Verb) -> (&'static str, &'static str, &'static str) {
    match verb {
        Verb::Park => (
            "park",
            "parked",
            "sent or handled, parked already, or timers",
        ),
        Verb::Release => ("release", "released", NOT_RELEASED),
        Verb::Readdress(_) => ("release", "released", NOT_READDRESSED),
        Verb::Expedite => ("expedite", "expedited", "due, in hand, parked, or timers"),
        Verb::Discard => ("discard", "discarded", "not parked"),
    }
}

async fn change(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &Verb,
    arguments: &RowChangeArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (todo, done, stay) = words(verb);
    let says = [
        !arguments.ids.is_empty(),
        !arguments.filter.is_empty(now),
        arguments.all,
    ];
    if says.iter().filter(|one| **one).count() != 1 {
        return Err(Failure::Usage(format!(
            "which rows? name ids, or say which by `--destination`, `--type`, `--key` .., or {todo} \
             `--all`; one of these [SB0304]"
        )));
    }
    outbox::demand_place(admin, verb).await?;
    let Found { rows: found, next } = match arguments.ids.is_empty() {
        true => {
            let filter = arguments.filter.at(now, None);
            outbox::select(admin, verb, &filter, arguments.after).await?
        }
        false => named(admin, &each_once(&arguments.ids)).await?,
    };
    let sample = || {
        json!({ "preview": { "count": found.len() },
            "sample": found.iter().take(5).map(shape::row).collect::<Vec<_>>() })
    };
    if !found.is_empty() {
        if out.is_for_people() {
            table(now, &found, "", out)?;
        }
        let what = match verb {
            Verb::Readdress(to) => format!("release {} parked rows to `{to}`", found.len()),
            Verb::Release | Verb::Discard => format!("{todo} {} parked rows", found.len()),
            Verb::Park | Verb::Expedite => format!("{todo} {} rows", found.len()),
        };
        if confirm(who, &what)? == Answer::Preview {
            return out.json(sample).map(|_| ());
        }
    }
    let changed = match found.is_empty() {
        true => Vec::new(),
        false => outbox::change(admin, &operator(who), verb, &found).await?,
    };
    let left = found.len() - changed.len();
    let document = || json!({ "changed": changed.len(), "passed_over": left, "next": next });
    if out.json(document)? {
        return Ok(());
    }
    out.line(&format!("{done} {} rows", changed.len()))?;
    if left > 0 {
        out.line(&format!("{left} stay as they are: {stay}"))?;
    }
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

/// Removes all that waits for a destination.
async fn purge(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: &RowFilter,
    at_most: u64,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let plan = outbox::plan_purge(admin, filter, at_most).await?;
    let (count, mut removed) = (plan.count(), 0);
    if count > 0 {
        let place = filter.destination.as_deref().unwrap_or_default();
        let what = format!("remove {count} rows for `{place}`, for good");
        // Of a change that is made, JSON has the result only: one document.
        if out.is_for_people() {
            table(now, &plan.sample, "", out)?;
            if count > plan.sample.len() {
                out.line(&format!(".. and {} more", count - plan.sample.len()))?;
            }
        }
        if confirm(who, &what)? == Answer::Preview {
            let sample = plan.sample.iter().map(shape::row).collect::<Vec<_>>();
            let document = || json!({ "preview": { "count": count }, "sample": sample });
            return match out.json(document)? {
                true => Ok(()),
                false => out.line(&what),
            };
        }
        let mut gauge = Gauge::new("removed", count as u64, out);
        let told = |removed| gauge.at(removed, "");
        removed = outbox::purge(admin, &operator(who), &plan, told).await?;
    }
    let left = count as u64 - removed;
    if out.json(|| json!({ "changed": removed, "passed_over": left }))? {
        return Ok(());
    }
    out.line(&format!("removed {removed} rows"))?;
    match left {
        0 => Ok(()),
        left => out.line(&format!("{left} had been sent or handled meanwhile")),
    }
}

/// Reads the rows that are named.
async fn named(admin: &dyn StoreAdmin, ids: &[i64]) -> Result<Found, Failure> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        rows.push(outbox::show(admin, *id).await?);
    }
    Ok(Found { rows, next: None })
}
