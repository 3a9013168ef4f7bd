//! `sagabus outbox`.

use sagabus_core::Timestamp;
use sagabus_core::admin::{
    RowFilter, RowState, RowVerb, Selected, StoreAdmin, StoredRow, Subject, Verb,
};
use sagabus_ops::endpoints::Verb as Hold;
use sagabus_ops::{demand_at_most, operations, outbox, shape, transports};
use serde_json::json;

use crate::arguments::{OperatorArguments, OutboxVerb, PageArguments, TransportArguments};
use crate::bulk::{PaceArguments, Preview, Wanted, carry_out, question, words};
use crate::confirm::{Answer, confirm, operator};
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::filter::each_once;
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
            self::change(admin, now, RowVerb::Park, change, (operator, out)).await
        }
        OutboxVerb::Release { change, to } => {
            let to = to.clone();
            let verb = to.map_or(RowVerb::Release, |to| RowVerb::Readdress { to });
            self::change(admin, now, verb, change, (operator, out)).await
        }
        OutboxVerb::Expedite(change) => {
            self::change(admin, now, RowVerb::Expedite, change, (operator, out)).await
        }
        OutboxVerb::Pause(which) => hold(admin, Hold::Pause, which, operator, out).await,
        OutboxVerb::Resume(which) => hold(admin, Hold::Resume, which, operator, out).await,
        OutboxVerb::Discard(change) => {
            self::change(admin, now, RowVerb::Discard, change, (operator, out)).await
        }
        OutboxVerb::Purge {
            filter,
            at_most,
            rate,
        } => {
            let filter = filter.at(now, None);
            let pace = PaceArguments {
                rate: *rate,
                at_most: Some(*at_most),
            };
            many(admin, now, (RowVerb::Purge, filter, pace), (operator, out)).await
        }
        OutboxVerb::Republish(which) => republish::run(admin, now, which, operator, out).await,
    }
}

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

async fn change(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: RowVerb,
    arguments: &RowChangeArguments,
    (who, out): (&OperatorArguments, &Output),
) -> Result<(), Failure> {
    let says = [
        !arguments.ids.is_empty(),
        !arguments.filter.is_empty(now),
        arguments.all,
    ];
    let of = Verb::Rows(verb.clone());
    if says.iter().filter(|one| **one).count() != 1 {
        return Err(Failure::Usage(format!(
            "which rows? name ids, or say which by `--destination`, `--type`, `--key` .., or {} \
             `--all`; one of these [SB0304]",
            words(&of).todo
        )));
    }
    operations::demand_place(admin, &of).await?;
    match arguments.ids.is_empty() {
        true => {
            let filter = arguments.filter.at(now, None);
            many(admin, now, (verb, filter, arguments.pace), (who, out)).await
        }
        false => named(admin, now, verb, arguments, (who, out)).await,
    }
}

/// Changes what a filter lets through, as an operation.
async fn many(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    (verb, filter, pace): (RowVerb, RowFilter, PaceArguments),
    (who, out): (&OperatorArguments, &Output),
) -> Result<(), Failure> {
    let found = outbox::select(admin, &verb, filter).await?;
    let selected = Selected::Rows(Box::new(found.filter));
    let shapes = found.sample.iter().map(shape::row).collect();
    let preview = Preview::new(selected, &found.tally, shapes);
    let wanted = Wanted {
        verb: Verb::Rows(verb),
        pace: pace.pace(),
        at_most: pace.at_most,
    };
    let table = || table(now, &found.sample, "", out);
    carry_out(admin, wanted, preview, table, (who, out)).await
}

/// Changes the rows that are named, at once.
async fn named(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: RowVerb,
    arguments: &RowChangeArguments,
    (who, out): (&OperatorArguments, &Output),
) -> Result<(), Failure> {
    if arguments.pace.rate.is_some() {
        let fact = "rows that are named are changed at once; leave `--rate` out [SB0308]";
        return Err(Failure::Usage(fact.to_owned()));
    }
    let ids = each_once(&arguments.ids);
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        found.push(outbox::show(admin, *id).await?);
    }
    let count = ids.len() as u64;
    demand_at_most((count, Subject::Rows.as_str()), arguments.pace.at_most)?;
    if out.is_for_people() {
        table(now, &found, "", out)?;
    }
    let of = Verb::Rows(verb.clone());
    if confirm(who, &question(&of, count))? == Answer::Preview {
        let sample: Vec<_> = found.iter().take(5).map(shape::row).collect();
        let document = json!({ "preview": { "count": count }, "sample": sample });
        return out.json(|| document).map(|_| ());
    }
    let changed = outbox::change(admin, &operator(who), verb, ids).await?;
    let left = found.len() - changed.len();
    if out.json(|| json!({ "changed": changed.len(), "passed_over": left }))? {
        return Ok(());
    }
    let words = words(&of);
    out.line(&format!("{} {} rows", words.done, changed.len()))?;
    match left {
        0 => Ok(()),
        left => out.line(&format!("{left} {}", words.left)),
    }
}
