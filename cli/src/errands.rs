//! What a live host is asked: to rehearse a message, to move an instance.

use std::time::Duration;

use sagabus_core::InstanceId;
use sagabus_core::admin::{ErrandAnswer, Migrated, Report, Sent, Standing, StoreAdmin, Verdict};
use sagabus_ops::difference::{Difference, between};
use sagabus_ops::errands::{self, PlannedMove, Subject};
use sagabus_ops::{Operator, OpsError, demand_at_most, migration, shape};
use serde_json::{Value, json};

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::gauge::Gauge;
use crate::output::Output;
use crate::sagas::named;

/// How long an answer is waited for: as long as the database keeps others from asking.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of a value that people are shown; `--json` has it all.
const VALUE_CHARS_MAX: usize = 200;

/// Rehearses a message and tells what it would do.
pub(crate) async fn rehearse(
    admin: &dyn StoreAdmin,
    subject: Subject,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let endpoint = subject.endpoint.clone();
    let answer = errands::rehearse(admin, &operator(who), subject, PATIENCE).await?;
    if out.json(|| json!({ "rehearsal": shape::answer(&endpoint, &answer) }))? {
        return Ok(());
    }
    let ErrandAnswer { host, report } = &answer;
    let told = match &report.verdict {
        Verdict::Well => "would be handled",
        Verdict::Failed { .. } => "would fail",
        Verdict::Skipped { .. } => "was not run",
        Verdict::Refused { .. } => "could not be run",
    };
    out.line(&format!("{told}; nothing of it happened"))?;
    out.field("endpoint", Some(&format!("{endpoint}, by {host}")))?;
    tell(report, out)
}

/// Has an instance moved to another state by its machine.
pub(crate) async fn transition(
    admin: &dyn StoreAdmin,
    id: &InstanceId,
    to: &str,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let operator = operator(who);
    let planned = errands::plan_move(admin, &operator, id, to).await?;
    let before = planned.forced.before.as_ref();
    let from = before
        .and_then(|held| held.state.clone())
        .unwrap_or_default();
    let instance = named(id);
    let what =
        format!("move {instance} from {from} to {to}, with what its machine does on the way");
    let done = |host: &str| format!("{instance} is moved by {host} to {to}");
    carry_out(admin, &operator, planned, (what, &done), (who, out)).await
}

/// Has an instance ended by its saga or machine.
pub(crate) async fn cancel(
    admin: &dyn StoreAdmin,
    id: &InstanceId,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let operator = operator(who);
    let planned = errands::plan_cancel(admin, &operator, id).await?;
    let before = planned.forced.before.as_ref();
    let state = before.and_then(|held| held.state.as_deref());
    let state = state.map_or_else(String::new, |state| format!(" in state {state}"));
    let instance = named(id);
    let what = format!("cancel {instance}{state}, with what is done on the way to its end");
    let done = |host: &str| format!("{instance} is cancelled by {host}");
    carry_out(admin, &operator, planned, (what, &done), (who, out)).await
}

/// Has a live host make a move that was planned, after a question, and tells what came of it.
async fn carry_out(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    planned: PlannedMove,
    (what, done): (String, &(dyn Fn(&str) -> String + Sync)),
    (who, out): (&OperatorArguments, &Output),
) -> Result<(), Failure> {
    let (forced, endpoint) = (&planned.forced, planned.endpoint.clone());
    let id = forced.instance.clone();
    let from = forced.before.as_ref().and_then(|held| held.state.clone());
    let preview = json!({ "kind": id.kind, "key": id.key, "version": forced.version,
        "endpoint": endpoint, "from": from, "to": forced.to });
    if confirm(who, &what)? == Answer::Preview {
        return match out.json(|| preview)? {
            true => Ok(()),
            false => out.line(&format!("would {what}")),
        };
    }
    let answer = errands::move_instance(admin, operator, planned, PATIENCE).await?;
    let report = &answer.report;
    if report.verdict != Verdict::Well {
        return Err(OpsError::Refused(refusal(&id, &report.verdict)).into());
    }
    if out.json(|| json!({ "moved": shape::answer(&endpoint, &answer) }))? {
        return Ok(());
    }
    out.line(&done(&answer.host))?;
    tell(report, out)
}

/// Has all instances of a kind written anew that are of an older version than what hosts run.
pub(crate) async fn migrate(
    admin: &dyn StoreAdmin,
    kind: &str,
    at_most: Option<u64>,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let plan = migration::plan(admin, kind).await?;
    let (count, to) = (plan.count(), plan.to);
    demand_at_most((count, "instances"), at_most)?;
    let from = plan
        .from
        .iter()
        .map(|(version, n)| format!("{n} of version {version}"));
    let from: Vec<_> = from.collect();
    let what = format!(
        "migrate {count} running `{kind}` to version {to} ({})",
        from.join(", ")
    );
    let mut done = Migrated::default();
    if count > 0 {
        if confirm(who, &what)? == Answer::Preview {
            let from = plan.from.iter();
            let from = from.map(|(version, n)| json!({ "version": version, "count": n }));
            let from: Vec<_> = from.collect();
            let preview = json!({ "preview": { "count": count }, "to": to, "from": from });
            return match out.json(|| preview)? {
                true => Ok(()),
                false => out.line(&format!("would {what}")),
            };
        }
        let mut gauge = Gauge::new("migrated", count, out);
        let told = |done: &Migrated| {
            let so_far = done.migrated + done.current + done.failed.len() as u64;
            let failed = done.failed.len();
            gauge.at(so_far, &format!(", {failed} failed"));
        };
        done = migration::run(admin, &operator(who), &plan, PATIENCE, told).await?;
    }
    let failed = done.failed.len();
    let is_json = out.json(|| json!({ "migrated": done, "to": to }))?;
    if !is_json {
        out.line(&format!(
            "migrated {} `{kind}` to version {to}",
            done.migrated
        ))?;
        if done.current > 0 {
            let moved = done.current;
            out.line(&format!(
                "{moved} were moved by messages meanwhile, or ended"
            ))?;
        }
        for (key, error) in &done.failed {
            out.line(&format!("{key} stays as it was: {error}"))?;
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(Failure::HalfWay(format!(
            "{n} could not be migrated; `sagabus sagas alter` gives one data that can be read [SB0306]"
        ))),
    }
}

fn refusal(id: &InstanceId, verdict: &Verdict) -> String {
    let error = match verdict {
        Verdict::Refused { error, .. } | Verdict::Failed { error, .. } => error.as_str(),
        Verdict::Skipped { why } => why.as_str(),
        Verdict::Well => "",
    };
    format!("{id} was not moved: {error} [SB0402]")
}

fn tell(report: &Report, out: &Output) -> Result<(), Failure> {
    out.field("handler", report.handler.as_deref())?;
    match &report.verdict {
        Verdict::Well => {}
        Verdict::Failed { class, then, error } => {
            out.field("error", Some(error))?;
            out.field("class", Some(class))?;
            out.field("then", Some(then))?;
        }
        Verdict::Skipped { why } => out.field("why", Some(why))?,
        Verdict::Refused { reason, error } => {
            out.field("error", Some(error))?;
            out.field("reason", reason.as_deref())?;
        }
    }
    out.field("note", report.note.as_deref())?;
    if report.verdict != Verdict::Well {
        return Ok(());
    }
    if let Some(moved) = &report.instance {
        let (kind, key) = (&moved.kind, &moved.key);
        out.line("")?;
        match (&moved.before, &moved.after) {
            (before, Some(after)) => {
                let word = if before.is_some() { "moves" } else { "begins" };
                out.line(&format!("{kind} {key} {word}"))?;
                for one in between(&held(before.as_ref()), &held(Some(after))) {
                    out.line(&format!("  {}", words(&one)))?;
                }
            }
            (_, None) => out.line(&format!("{kind} {key} stays as it is"))?,
        }
    }
    for (name, value) in report.labels.iter().flatten() {
        out.line(&format!("  label {name} is {value}"))?;
    }
    for name in &report.cancelled {
        out.line(&format!("  cancels timer {name}"))?;
    }
    sent(report, out)
}

fn sent(report: &Report, out: &Output) -> Result<(), Failure> {
    out.line("")?;
    if report.sent.is_empty() {
        return out.line("sends nothing");
    }
    for one in &report.sent {
        out.line(&format!(
            "sends {} to {}{}",
            one.message_type,
            one.to,
            when(one)
        ))?;
        out.line(&format!("    {}", cut(&one.body)))?;
    }
    let more = report.sent_count.saturating_sub(report.sent.len() as u64);
    match more {
        0 => Ok(()),
        more => out.line(&format!(".. and {more} more")),
    }
}

fn when(one: &Sent) -> String {
    let timer = one.timer.as_ref().map(|name| format!(", timer {name}"));
    let after = one.after_seconds.map(|time| format!(", after {time} s"));
    format!("{}{}", timer.unwrap_or_default(), after.unwrap_or_default())
}

/// What is compared of an instance.
fn held(one: Option<&Standing>) -> Value {
    one.map_or(Value::Object(Default::default()), |one| {
        json!({ "version": one.version, "over": one.is_over, "state": one.state,
            "timers": one.timers, "data": one.data })
    })
}

fn words(one: &Difference) -> String {
    let place = one.path.trim_start_matches('/');
    let shown = |value: &Option<Value>| match value {
        Some(Value::String(text)) => cut(text),
        Some(value) => cut(&value.to_string()),
        None => "(nothing)".to_owned(),
    };
    format!("{place}: {} -> {}", shown(&one.before), shown(&one.after))
}

fn cut(text: &str) -> String {
    crate::text::cut(text, VALUE_CHARS_MAX)
}
