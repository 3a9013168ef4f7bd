//! `sagabus dead-letters`.

use bytes::Bytes;
use sagabus_core::Timestamp;
use sagabus_core::admin::{
    DeadLetterFilter, PAGE_MAX, Pace, Page, Selected, StoreAdmin, StoredDeadLetter, Verb,
};
use sagabus_ops::{Sight, dead_letters as letters, errands, operations, shape};
use serde_json::{Value, json};

use crate::arguments::{
    BulkArguments, DeadLettersVerb, Identity, OperatorArguments, PageArguments,
};
use crate::bulk::{Preview, Wanted, carry_out, words};
use crate::confirm::{Answer, confirm, operator, read_file};
use crate::errands::rehearse;
use crate::failure::Failure;
use crate::filter::{DeadLetters, Status, each_once};
use crate::messages;
use crate::output::Output;
use crate::text::ago;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &DeadLettersVerb,
    operator: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        DeadLettersVerb::List { filter, page } => list(admin, now, filter, page, out).await,
        DeadLettersVerb::Show { id, .. } => show(admin, *id, out).await,
        DeadLettersVerb::Groups { filter, limit } => groups(admin, now, filter, *limit, out).await,
        DeadLettersVerb::Rehearse { id } => {
            let subject = errands::of_dead_letter(admin, *id).await?;
            rehearse(admin, subject, operator, out).await
        }
        DeadLettersVerb::Retry(retry) => {
            let verb = Verb::Redrive {
                to: retry.to.clone(),
            };
            let pace = Pace {
                canary: retry.canary,
                failures_percent_max: retry.stop_at,
                ..retry.bulk.pace.pace()
            };
            change(admin, now, (verb, pace), &retry.bulk, operator, out).await
        }
        DeadLettersVerb::Discard(bulk) => {
            let what = (Verb::Discard, bulk.pace.pace());
            change(admin, now, what, bulk, operator, out).await
        }
        DeadLettersVerb::Edit {
            id,
            body,
            identity,
            sight,
        } => {
            let wanted = (read_file(body)?, *identity, sight.read()?);
            edit(admin, *id, wanted, operator, out).await
        }
        DeadLettersVerb::Restore(bulk) => {
            let what = (Verb::Restore, bulk.pace.pace());
            change(admin, now, what, bulk, operator, out).await
        }
    }
}

/// Makes a page out of its arguments, without bodies.
pub(crate) fn page(arguments: &PageArguments) -> Page {
    let page = match arguments.oldest_first {
        true => Page::oldest(arguments.limit),
        false => Page::latest(arguments.limit),
    };
    page.behind(arguments.after).without_bodies()
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: &DeadLetters,
    arguments: &PageArguments,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin
        .find_dead_letters(&filter.at(now), page(arguments))
        .await?;
    let next = (found.len() == arguments.limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::dead_letter);
        json!({ "dead_letters": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    table(now, &found, "no dead letters", out)?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

fn table(
    now: Timestamp,
    found: &[StoredDeadLetter],
    empty: &str,
    out: &Output,
) -> Result<(), Failure> {
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.id.to_string(),
                ago(now, one.at),
                one.endpoint.clone(),
                one.envelope.message_type.to_string(),
                one.key.clone().unwrap_or_default(),
                messages::try_count(&one.attempts).to_string(),
                one.fingerprint.clone(),
            ]
        })
        .collect();
    let columns = ["id", "when", "endpoint", "type", "key", "tries", "what"];
    out.table(&columns, &rows, empty)
}

async fn show(admin: &dyn StoreAdmin, id: i64, out: &Output) -> Result<(), Failure> {
    let one = letters::show(admin, id).await?;
    if out.json(|| shape::dead_letter(&one))? {
        return Ok(());
    }
    out.line(&format!("dead letter {} ({})", one.id, one.status.as_str()))?;
    out.field("endpoint", Some(&one.endpoint))?;
    out.field("type", Some(&one.envelope.message_type))?;
    out.field("message", Some(&one.envelope.id.to_string()))?;
    out.field("key", one.key.as_deref())?;
    let instance = one.instance.map(|id| format!("{} {}", id.kind, id.key));
    out.field("instance", instance.as_deref())?;
    out.field("given up", Some(&one.at.to_string()))?;
    out.field("reason", Some(&one.reason))?;
    out.field("fingerprint", Some(&one.fingerprint))?;
    messages::envelope(&one.envelope, one.body_bytes, &one.attempts, out)
}

async fn groups(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: &DeadLetters,
    limit: u32,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.dead_letter_groups(&filter.at(now), limit).await?;
    let document = || json!({ "groups": found.iter().map(shape::group).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.count.to_string(),
                one.endpoint.clone(),
                ago(now, one.first_at),
                ago(now, one.last_at),
                one.example.to_string(),
                one.fingerprint.clone(),
            ]
        })
        .collect();
    let columns = ["count", "endpoint", "first", "last", "example", "what"];
    out.table(&columns, &rows, "no dead letters")
}

async fn change(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    (verb, pace): (Verb, Pace),
    bulk: &BulkArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    operations::demand_place(admin, &verb).await?;
    let (preview, sample) = match is_named(bulk, words(&verb).todo)? {
        true => named(admin, bulk).await?,
        false => matching(admin, &verb, bulk.filter.at(now)).await?,
    };
    let at_most = bulk.pace.at_most;
    let wanted = Wanted {
        verb,
        pace,
        at_most,
    };
    let table = || table(now, &sample, "", out);
    carry_out(admin, wanted, preview, table, (who, out)).await
}

async fn edit(
    admin: &dyn StoreAdmin,
    id: i64,
    (body, identity, sight): (Bytes, Identity, Sight),
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let identity = match identity {
        Identity::Keep => letters::Identity::Kept,
        Identity::New => letters::Identity::New,
    };
    let wanted = letters::Wanted {
        body: body.clone(),
        identity,
        keyring: sight.keyring.as_ref(),
    };
    let plan = letters::plan_edit(admin, id, wanted).await?;
    let shown = letters::show(admin, id).await?;
    let message_type = &shown.envelope.message_type;
    let after = sight.masked(admin, message_type, body).await?;
    let before = shown.envelope.body;
    if out.is_for_people() {
        for (name, body) in [("before", &before), ("after", &after)] {
            out.line(&format!("{name}:"))?;
            messages::body(body, body.len() as u64, out)?;
        }
    }
    let message = plan.message;
    let document = || {
        json!({ "id": id, "message_id": message,
            "before": shape::body(&before, before.len() as u64),
            "after": shape::body(&after, after.len() as u64) })
    };
    let answer = confirm(who, &format!("retry dead letter {id} with this body"))?;
    if answer == Answer::Go {
        letters::edit(admin, &operator(who), plan.clone()).await?;
    }
    match out.json(document)? || answer == Answer::Preview {
        true => Ok(()),
        false => out.line(&format!("retried dead letter {id} as message {message}")),
    }
}

/// Says whether single dead letters are named, and not a filter.
fn is_named(bulk: &BulkArguments, todo: &str) -> Result<bool, Failure> {
    if bulk.filter.status != Status::Open {
        let fact = "`--status` is for reading; the verb says which state a change is for [SB0308]";
        return Err(Failure::Usage(fact.to_owned()));
    }
    match (bulk.ids.is_empty(), bulk.filter.is_empty(), bulk.all) {
        (false, true, false) => Ok(true),
        (true, false, false) | (true, true, true) => Ok(false),
        (true, true, false) => Err(Failure::Usage(format!(
            "which dead letters? name ids, or say which by `--endpoint`, `--fingerprint` .., or \
             {todo} `--all` [SB0304]"
        ))),
        _ => Err(Failure::Usage(
            "ids, filters and `--all` exclude each other; say in one way which are meant [SB0304]"
                .to_owned(),
        )),
    }
}

/// A preview, and what its table shows.
type Shown = (Preview, Vec<StoredDeadLetter>);

fn shapes(sample: &[StoredDeadLetter]) -> Vec<Value> {
    sample.iter().map(shape::dead_letter).collect()
}

async fn named(admin: &dyn StoreAdmin, bulk: &BulkArguments) -> Result<Shown, Failure> {
    let ids = each_once(&bulk.ids);
    let mut sample = Vec::new();
    for id in ids.iter().take(PAGE_MAX as usize) {
        sample.push(letters::show(admin, *id).await?);
    }
    let preview = Preview {
        count: ids.len() as u64,
        tally: json!({ "count": ids.len() }),
        sample: shapes(&sample),
        selected: Selected::Named(ids),
    };
    Ok((preview, sample))
}

async fn matching(
    admin: &dyn StoreAdmin,
    verb: &Verb,
    filter: DeadLetterFilter,
) -> Result<Shown, Failure> {
    let found = letters::select(admin, verb, filter).await?;
    let selected = Selected::DeadLetters(Box::new(found.filter));
    let preview = Preview::new(selected, &found.tally, shapes(&found.sample));
    Ok((preview, found.sample))
}
