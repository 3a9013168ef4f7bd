//! `sagabus dead-letters`.

use std::time::Duration;

use sagabus_core::Timestamp;
use sagabus_core::admin::{PAGE_MAX, Page, StoreAdmin, StoredDeadLetter};
use sagabus_ops::dead_letters::{self as letters, Selection, Verb, Work};
use sagabus_ops::shape;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::arguments::{BulkArguments, DeadLettersVerb, OperatorArguments, PageArguments};
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::filter::{DeadLetters, Status};
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
        DeadLettersVerb::Show { id } => show(admin, *id, out).await,
        DeadLettersVerb::Groups { filter, limit } => groups(admin, now, filter, *limit, out).await,
        DeadLettersVerb::Retry(bulk) => {
            change(admin, now, Verb::Redrive, bulk, operator, out).await
        }
        DeadLettersVerb::Discard(bulk) => {
            change(admin, now, Verb::Discard, bulk, operator, out).await
        }
        DeadLettersVerb::Restore(bulk) => {
            change(admin, now, Verb::Restore, bulk, operator, out).await
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

/// What a verb is called, before and after it is done.
fn words(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Redrive => ("retry", "retried"),
        Verb::Discard => ("discard", "discarded"),
        Verb::Restore => ("restore", "restored"),
    }
}

async fn change(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: Verb,
    bulk: &BulkArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    if bulk.filter.status != Status::Open {
        let fact = "`--status` is for reading; the verb says which state a change is for";
        return Err(Failure::Usage(fact.to_owned()));
    }
    match (bulk.ids.is_empty(), bulk.filter.is_empty(), bulk.all) {
        (false, true, false) => return change_named(admin, now, verb, bulk, who, out).await,
        (true, false, false) | (true, true, true) => {}
        (true, true, false) => {
            let (verb, _) = words(verb);
            return Err(Failure::Usage(format!(
                "which dead letters? name ids, or say which by `--endpoint`, `--fingerprint` .., \
                 or {verb} `--all` [SB0304]"
            )));
        }
        _ => {
            let fact = "ids, filters and `--all` exclude each other; say in one way which are meant [SB0304]";
            return Err(Failure::Usage(fact.to_owned()));
        }
    }
    let selection = letters::select(admin, verb, bulk.filter.at(now)).await?;
    let (todo, _) = words(verb);
    let count = selection.tally.count;
    if count == 0 {
        return finish(verb, 0, 0, None, out);
    }
    // Of a change that is made, JSON has the result only: one document.
    if out.is_for_people() {
        table(now, &selection.sample, "", out)?;
        let more = count.saturating_sub(selection.sample.len() as u64);
        if more > 0 {
            out.line(&format!(".. and {more} more"))?;
        }
    }
    if confirm(who, &format!("{todo} {count} dead letters"))? == Answer::Preview {
        return out.json(|| preview(&selection)).map(|_| ());
    }
    work_off(admin, &selection, bulk, who, out).await
}

fn preview(selection: &Selection) -> Value {
    let sample = selection.sample.iter().map(shape::dead_letter);
    json!({
        "preview": shape::tally(&selection.tally),
        "up_to": selection.filter.id_max,
        "sample": sample.collect::<Vec<_>>(),
    })
}

/// Changes those that are named, in one transaction.
async fn change_named(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: Verb,
    bulk: &BulkArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (todo, _) = words(verb);
    let mut found = Vec::new();
    for id in bulk.ids.iter().take(PAGE_MAX as usize) {
        found.push(letters::show(admin, *id).await?);
    }
    let sample = || {
        json!({ "preview": { "count": found.len() },
            "sample": found.iter().map(shape::dead_letter).collect::<Vec<_>>() })
    };
    if out.is_for_people() {
        table(now, &found, "", out)?;
    }
    if confirm(who, &format!("{todo} {} dead letters", found.len()))? == Answer::Preview {
        return out.json(sample).map(|_| ());
    }
    let changed = letters::change(admin, &operator(who), verb, bulk.ids.clone()).await?;
    let passed_over = bulk.ids.len() - changed.len();
    finish(verb, changed.len() as u64, passed_over as u64, None, out)
}

/// Works a selection off in batches, no faster than allowed.
async fn work_off(
    admin: &dyn StoreAdmin,
    selection: &Selection,
    bulk: &BulkArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let operator = operator(who);
    let mut work = Work::new(admin, &operator, selection);
    // Five batches a second let a slow rate be even.
    let per_batch = bulk
        .rate
        .map_or(bulk.batch, |rate| bulk.batch.min((rate / 5).max(1)));
    let started = Instant::now();
    let (_, done) = words(selection.verb);
    let count = selection.tally.count;
    let mut said = Instant::now();
    loop {
        let batch = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Err(half_way(&work, "stopped")),
            batch = work.batch(per_batch) => batch,
        };
        let progress = match batch {
            Ok(Some(progress)) => progress,
            Ok(None) => break,
            Err(error) => {
                let fact = sagabus_core::error::chain(&error);
                return Err(half_way(&work, &fact));
            }
        };
        if said.elapsed() > Duration::from_secs(1) {
            out.note(&format!("{done} {} of {count}", progress.changed));
            said = Instant::now();
        }
        if let Some(rate) = bulk.rate {
            let so_far = progress.changed + progress.passed_over;
            let due = Duration::from_secs_f64(so_far as f64 / f64::from(rate));
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Err(half_way(&work, "stopped")),
                () = tokio::time::sleep_until(started + due) => {}
            }
        }
    }
    let progress = work.progress();
    let up_to = selection.filter.id_max;
    finish(
        selection.verb,
        progress.changed,
        progress.passed_over,
        up_to,
        out,
    )
}

fn half_way(work: &Work<'_>, why: &str) -> Failure {
    let progress = work.progress();
    Failure::HalfWay(format!(
        "{why} after {} dead letters; the same command goes on, with `--up-to {}` for these only [SB0306]",
        progress.changed,
        work.selection().filter.id_max.unwrap_or_default()
    ))
}

fn finish(
    verb: Verb,
    changed: u64,
    passed_over: u64,
    up_to: Option<i64>,
    out: &Output,
) -> Result<(), Failure> {
    let document = json!({ "changed": changed, "passed_over": passed_over, "up_to": up_to });
    if out.json(|| document)? {
        return Ok(());
    }
    let (_, done) = words(verb);
    out.line(&format!("{done} {changed} dead letters"))?;
    if passed_over > 0 {
        out.line(&format!("{passed_over} were not in that state any more"))?;
    }
    Ok(())
}
