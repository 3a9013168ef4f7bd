//! `sagabus operations`, and driving one.

use sagabus_core::Timestamp;
use sagabus_core::admin::{Command, OperationState, StoreAdmin, StoredOperation, Verb};
use sagabus_ops::operations::{self, Drive, Progress};
use sagabus_ops::{Operator, shape};
use serde_json::json;

use crate::arguments::{OperationsVerb, OperatorArguments, PageArguments};
use crate::bulk::words;
use crate::confirm::operator;
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::gauge::Gauge;
use crate::output::Output;
use crate::text::ago;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &OperationsVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        OperationsVerb::List(page) => list(admin, now, page, out).await,
        OperationsVerb::Show { id } => show(admin, now, *id, out).await,
        OperationsVerb::Pause { id } => tell(admin, now, *id, Command::Pause, who, out).await,
        OperationsVerb::Resume { id } if who.dry_run => {
            preview(admin, now, *id, Command::Resume, out).await
        }
        OperationsVerb::Resume { id } => drive(admin, &operator(who), *id, out).await,
        OperationsVerb::Cancel { id } => tell(admin, now, *id, Command::Cancel, who, out).await,
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    arguments: &PageArguments,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.operations(None, page(arguments)).await?;
    let next = (found.len() == arguments.limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(|one| shape::operation(one, now));
        json!({ "operations": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.id.to_string(),
                ago(now, one.created_at),
                one.who.clone(),
                doing(&one.verb),
                state(one, now),
                format!("{} of {}", one.taken, one.total),
                one.note.clone().unwrap_or_else(|| one.why.clone()),
            ]
        })
        .collect();
    let columns = ["id", "began", "who", "what", "state", "done", "why"];
    out.table(&columns, &rows, "no operations")?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

/// Says what it does, and with what.
fn doing(verb: &Verb) -> String {
    format!("{} {}", words(verb).todo, verb.subject().as_str())
}

/// Says where it is; one that runs and that nobody drives is not going on.
fn state(one: &StoredOperation, now: Timestamp) -> String {
    match one.state == OperationState::Running && !one.is_driven(now) {
        true => "left".to_owned(),
        false => one.state.as_str().to_owned(),
    }
}

async fn show(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    id: i64,
    out: &Output,
) -> Result<(), Failure> {
    let progress = operations::show(admin, id).await?;
    if out.json(|| shape::progress(&progress, now))? {
        return Ok(());
    }
    let Progress {
        operation: one,
        redriven,
    } = progress;
    let done = words(&one.verb).done;
    out.line(&format!("operation {} ({})", one.id, state(&one, now)))?;
    out.field("what", Some(&doing(&one.verb)))?;
    out.field("to", one.verb.to())?;
    out.field("which", Some(&one.selection.to_string()))?;
    let endpoints = Some(one.endpoints.join(", ")).filter(|all| !all.is_empty());
    out.field("endpoints", endpoints.as_deref())?;
    out.field("who", Some(&one.who))?;
    out.field(
        "why",
        Some(&one.why)
            .filter(|why| !why.is_empty())
            .map(String::as_str),
    )?;
    out.field("began", Some(&one.created_at.to_string()))?;
    out.field("moved", Some(&one.updated_at.to_string()))?;
    let driver = one.driver.as_deref().filter(|_| one.is_driven(now));
    out.field("driven by", driver)?;
    out.field("paused for", one.note.as_deref())?;
    let rate = one.pace.rate.map(|rate| format!("{rate} in a second"));
    out.field("rate", rate.as_deref())?;
    out.line(&format!("{:<12} {} of {}", done, one.changed, one.total))?;
    let passed_over = one.taken - one.changed;
    if passed_over > 0 {
        out.field("passed over", Some(&passed_over.to_string()))?;
    }
    if matches!(one.verb, Verb::Redrive { .. }) {
        out.field("waiting", Some(&redriven.waiting.to_string()))?;
        out.field("failed once", Some(&redriven.retrying.to_string()))?;
        out.field("died again", Some(&redriven.died_again.to_string()))?;
    }
    Ok(())
}

async fn tell(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    id: i64,
    command: Command,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    if who.dry_run {
        return preview(admin, now, id, command, out).await;
    }
    let one = operations::tell(admin, &operator(who), id, command).await?;
    if out.json(|| shape::operation(&one, now))? {
        return Ok(());
    }
    let (taken, total, state) = (one.taken, one.total, one.state.as_str());
    out.line(&format!(
        "operation {id} is {state} after {taken} of {total}"
    ))
}

/// Says what a command would do to an operation as it is now.
async fn preview(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    id: i64,
    command: Command,
    out: &Output,
) -> Result<(), Failure> {
    let one = operations::look(admin, now, id, command).await?;
    if out.json(|| json!({ "preview": shape::operation(&one, now) }))? {
        return Ok(());
    }
    let todo = match command {
        Command::Pause => "pause",
        Command::Resume => "go on with",
        Command::Cancel => "cancel",
    };
    let (taken, total, state) = (one.taken, one.total, state(&one, now));
    out.line(&format!(
        "would {todo} operation {id}, which is {state} after {taken} of {total}"
    ))
}

/// Drives an operation to its end, or until it is paused: by an operator, by failures, or by
/// Ctrl-C here.
pub(crate) async fn drive(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    id: i64,
    out: &Output,
) -> Result<(), Failure> {
    let mut drive = Drive::take(admin, operator, id).await?;
    let verb = drive.operation().verb.clone();
    let mut gauge = Gauge::new(words(&verb).done, drive.operation().total, out);
    loop {
        let goes_on = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                let stopped = Operator { why: "stopped by Ctrl-C".to_owned(), ..operator.clone() };
                operations::tell(admin, &stopped, id, Command::Pause).await?;
                return Err(half_way(drive.operation(), "stopped"));
            }
            turn = drive.turn() => match turn {
                Ok(goes_on) => goes_on,
                Err(error) => {
                    let fact = sagabus_core::error::chain(&error);
                    return Err(half_way(drive.operation(), &fact));
                }
            },
        };
        if !goes_on {
            break;
        }
        let (one, seen) = (drive.operation(), drive.redriven());
        let failed = seen.retrying + seen.died_again;
        let note = match verb {
            Verb::Redrive { .. } => format!(", {failed} failed again"),
            _ => String::new(),
        };
        gauge.at(one.changed, &note);
    }
    drop(gauge);
    finish(admin, drive.operation(), out).await
}

fn half_way(one: &StoredOperation, why: &str) -> Failure {
    let (id, taken, total) = (one.id, one.taken, one.total);
    let what = one.verb.subject().as_str();
    Failure::HalfWay(format!(
        "{why} after {taken} of {total} {what}; `sagabus operations resume {id}` goes on [SB0306]"
    ))
}

async fn finish(
    admin: &dyn StoreAdmin,
    one: &StoredOperation,
    out: &Output,
) -> Result<(), Failure> {
    let state = one.state.as_str();
    if one.state != OperationState::Done {
        let note = one.note.as_deref().unwrap_or_default();
        return Err(half_way(
            one,
            format!("{state} ({note})").trim_end_matches(" ()"),
        ));
    }
    let now = admin.about().await?.now;
    if out.json(|| shape::operation(one, now))? {
        return Ok(());
    }
    let words = words(&one.verb);
    let (id, done, changed) = (one.id, words.done, one.changed);
    let what = one.verb.subject().as_str();
    out.line(&format!("{done} {changed} {what} (operation {id})"))?;
    let passed_over = one.taken - one.changed;
    if passed_over > 0 {
        out.line(&format!("{passed_over} {}", words.left))?;
    }
    Ok(())
}
