//! `sagabus sagas`.

use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use sagabus_core::admin::{HistoryOf, InstanceFilter, Page, StoreAdmin, StoredHistory};
use sagabus_core::unit_of_work::{HistoryDetail, InstanceStatus, Label};
use sagabus_core::{InstanceId, Timestamp};
use sagabus_ops::{errands, instances, shape};
use serde_json::json;

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator, read_file};
use crate::errands::{PATIENCE, cancel, migrate, transition};
use crate::failure::Failure;
use crate::filter::{self, before};
use crate::messages;
use crate::output::Output;
use crate::text::{ago, word};

/// What is done with instances.
#[derive(Debug, Subcommand)]
pub(crate) enum SagasVerb {
    /// List instances in the order of kind and key.
    List {
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Only this key, whatever the kind.
        #[arg(long)]
        key: Option<String>,
        /// Only those with this label.
        #[arg(long, value_name = "NAME=VALUE", value_parser = filter::label)]
        label: Option<Label>,
        /// Only this state.
        #[arg(long)]
        state: Option<String>,
        /// Also those that are over.
        #[arg(long)]
        completed: bool,
        /// Only those that began longer ago: 90s, 15m, 2h, 3d.
        #[arg(long, value_name = "AGE", value_parser = filter::age)]
        older_than: Option<Duration>,
        /// Only those that did not move for so long: 90s, 15m, 2h, 3d.
        #[arg(long, value_name = "AGE", value_parser = filter::age)]
        idle_for: Option<Duration>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Go on behind the instance of this kind and `--after-key`.
        #[arg(long, value_name = "KIND", requires = "after_key")]
        after_kind: Option<String>,
        /// Go on behind the instance of `--after-kind` and this key.
        #[arg(long, value_name = "KEY", requires = "after_kind")]
        after_key: Option<String>,
    },
    /// Show one instance: state, labels, timers, data, and what happened to it.
    Show {
        /// Its kind, as `list` shows it.
        kind: String,
        /// Its key.
        key: String,
        /// How much of its history: the latest so many entries.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
        history: u32,
    },
    /// Give one other data, or another state.
    Alter {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
        /// The file with the new data, - for standard input; else it stays.
        #[arg(long, value_name = "FILE")]
        data: Option<String>,
        /// The new state of a machine. Without it the state stays.
        #[arg(long, required_unless_present = "data")]
        state: Option<String>,
        /// Do not have a live host read it first.
        #[arg(long)]
        unread: bool,
    },
    /// Have its machine move one to another state, with what it does on the way.
    Transition {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
        /// The state.
        #[arg(long, value_name = "STATE")]
        to: String,
    },
    /// Have its saga or machine end one that is not wanted any more.
    #[command(after_help = "Example:\n  sagabus sagas cancel order 7 --why 'the shop is closed'")]
    Cancel {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
    /// Have live hosts write the data of older releases anew in the shape of theirs.
    Migrate {
        /// The kind, as `list` shows it.
        kind: String,
        /// Refuse where more than this are meant.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        at_most: Option<u64>,
    },
    /// End one, and remove its timers.
    Complete {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &SagasVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        SagasVerb::List {
            kind,
            key,
            label,
            state,
            completed,
            older_than,
            idle_for,
            limit,
            after_kind,
            after_key,
        } => {
            let filter = InstanceFilter {
                kind: kind.clone(),
                key: key.clone(),
                label: label.clone(),
                state: state.clone(),
                status: (!completed).then_some(InstanceStatus::Running),
                created_before: older_than.map(|age| before(now, age)),
                idle_since: idle_for.map(|age| before(now, age)),
                after: after_kind
                    .as_ref()
                    .zip(after_key.as_ref())
                    .map(|(kind, key)| instance(kind, key)),
                schema_before: None,
            };
            list(admin, now, &filter, *limit, out).await
        }
        SagasVerb::Show { kind, key, history } => {
            show(admin, instance(kind, key), *history, out).await
        }
        SagasVerb::Alter {
            kind,
            key,
            data,
            state,
            unread,
        } => {
            let wanted = Wanted {
                file: data.as_deref(),
                state: state.clone(),
                is_read: !unread,
            };
            alter(admin, &instance(kind, key), wanted, who, out).await
        }
        SagasVerb::Transition { kind, key, to } => {
            transition(admin, &instance(kind, key), to, who, out).await
        }
        SagasVerb::Cancel { kind, key } => cancel(admin, &instance(kind, key), who, out).await,
        SagasVerb::Migrate { kind, at_most } => migrate(admin, kind, *at_most, who, out).await,
        SagasVerb::Complete { kind, key } => complete(admin, &instance(kind, key), who, out).await,
    }
}

/// Names an instance.
pub(crate) fn instance(kind: &str, key: &str) -> InstanceId {
    InstanceId {
        kind: kind.to_owned().into(),
        key: key.into(),
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    filter: &InstanceFilter,
    limit: u32,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.instances(filter, limit).await?;
    let next = (found.len() == limit as usize)
        .then(|| found.last().map(|one| &one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::overview);
        json!({ "instances": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let state = match one.status {
                InstanceStatus::Running => one.state.clone().unwrap_or_default(),
                InstanceStatus::Completed => "(completed)".to_owned(),
            };
            vec![
                one.id.kind.to_string(),
                state,
                one.version.to_string(),
                ago(now, one.updated_at),
                one.id.key.to_string(),
            ]
        })
        .collect();
    let columns = ["kind", "state", "version", "moved", "key"];
    out.table(&columns, &rows, "no such instances")?;
    if let Some(next) = next {
        out.note(&format!(
            "there may be more: go on with --after-kind {} --after-key {}",
            word(&next.kind),
            word(&next.key)
        ));
    }
    Ok(())
}

async fn show(
    admin: &dyn StoreAdmin,
    id: InstanceId,
    entries: u32,
    out: &Output,
) -> Result<(), Failure> {
    let one = instances::show(admin, &id).await?;
    let labels = admin.labels(&one.id).await?;
    let of = HistoryOf::Instance(id);
    let mut history = admin.history(&of, Page::latest(entries)).await?;
    history.reverse(); // As it happened.
    if out.json(|| shape::instance(&one, &labels, &history))? {
        return Ok(());
    }
    let status = match one.status {
        InstanceStatus::Running => "running",
        InstanceStatus::Completed => "completed",
    };
    out.line(&format!("{} {} ({status})", one.id.kind, one.id.key))?;
    out.field("state", one.state.as_deref())?;
    out.field("version", Some(&one.version.to_string()))?;
    for label in &labels {
        out.field(&label.name, Some(&label.value))?;
    }
    let names: Vec<_> = one.timers.keys().map(String::as_str).collect();
    let timers = (!names.is_empty()).then(|| names.join(", "));
    out.field("timers", timers.as_deref())?;
    let request = one.origin.map(|origin| origin.message_id.to_string());
    out.field("started by", request.as_deref())?;
    out.line("")?;
    messages::body(&one.data, one.data.len() as u64, out)?;
    out.line("")?;
    timeline(&history, out)
}

/// Tells what happened to an instance: what came, how it moved, what left.
fn timeline(history: &[StoredHistory], out: &Output) -> Result<(), Failure> {
    if history.is_empty() {
        return out.line("no history (forgotten by now, or not kept)");
    }
    for one in history {
        let (entry, detail) = (&one.entry, &one.entry.detail);
        let version = entry.instance.as_ref().map_or(0, |(_, version)| *version);
        let moved = moved(detail, version);
        let note = detail.note.as_deref().map(|note| format!(", {note}"));
        let host = detail.host.as_deref().map(|host| format!(", by {host}"));
        out.line(&format!(
            "{}  version {version}: {moved}{}{}",
            one.at,
            note.unwrap_or_default(),
            host.unwrap_or_default()
        ))?;
        out.line(&format!(
            "    came      {} {}",
            entry.message_type, entry.message_id
        ))?;
        for (message, message_type) in &detail.sent {
            out.line(&format!("    sent      {message_type} {message}"))?;
        }
        for timer in &detail.armed {
            out.line(&format!("    armed     {timer}"))?;
        }
        for timer in &detail.cancelled {
            out.line(&format!("    cancelled {timer}"))?;
        }
    }
    Ok(())
}

/// Says how an instance came to a version.
fn moved(detail: &HistoryDetail, version: i64) -> String {
    let from = detail.state_from.as_deref();
    match (from, detail.state_to.as_deref()) {
        (Some(from), _) if detail.is_over => format!("{from} to the end"),
        _ if detail.is_over => "to the end".to_owned(),
        (Some(from), Some(to)) if from == to => format!("stays {to}"),
        (from, Some(to)) => format!("{} to {to}", from.unwrap_or("(new)")),
        // A saga without states.
        (_, None) if version == 1 => "(new)".to_owned(),
        (_, None) => "goes on".to_owned(),
    }
}

/// What an operator would have an instance be.
struct Wanted<'a> {
    file: Option<&'a str>,
    state: Option<String>,
    /// Whether a live host reads it first.
    is_read: bool,
}

async fn alter(
    admin: &dyn StoreAdmin,
    id: &InstanceId,
    wanted: Wanted<'_>,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let data = match wanted.file {
        Some(file) => read_file(file)?,
        None => instances::show(admin, id).await?.data,
    };
    let plan = instances::plan(admin, id, data, wanted.state).await?;
    if out.is_for_people() {
        for (name, held) in [("before", &plan.before), ("after", &plan.after)] {
            let state = held.state.as_deref().unwrap_or_default();
            out.line(&format!("{name}: {state}"))?;
            messages::body(&held.data, held.data.len() as u64, out)?;
        }
    }
    if confirm(who, &format!("alter {}", named(id)))? == Answer::Preview {
        let shape = |data: &Bytes| shape::body(data, data.len() as u64);
        let document = || {
            json!({ "kind": id.kind, "key": id.key, "version": plan.version,
                "before": { "state": plan.before.state, "data": shape(&plan.before.data) },
                "after": { "state": plan.after.state, "data": shape(&plan.after.data) } })
        };
        return out.json(document).map(|_| ());
    }
    let operator = operator(who);
    let done = match wanted.is_read {
        false => "is altered, unread".to_owned(),
        true => match errands::check_alteration(admin, &operator, &plan, PATIENCE).await? {
            Some(host) => format!("is altered, read by {host}"),
            None => "is altered; no live host was there to read it".to_owned(),
        },
    };
    let version = instances::alter(admin, &operator, plan).await?;
    said(id, version, &done, out)
}

async fn complete(
    admin: &dyn StoreAdmin,
    id: &InstanceId,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let one = instances::show(admin, id).await?;
    let timers = one.timers.len();
    let what = format!("end {} and remove its {timers} timers", named(id));
    if confirm(who, &what)? == Answer::Preview {
        let preview = json!({ "kind": id.kind, "key": id.key, "timers": one.timers });
        return match out.json(|| preview)? {
            true => Ok(()),
            false => out.line(&what),
        };
    }
    let version = instances::complete(admin, &operator(who), id, one.version).await?;
    said(id, version, "is over", out)
}

/// Names an instance as the commands take it.
pub(crate) fn named(id: &InstanceId) -> String {
    format!("{} {}", id.kind, id.key)
}

fn said(id: &InstanceId, version: i64, what: &str, out: &Output) -> Result<(), Failure> {
    let document = json!({ "kind": id.kind, "key": id.key, "version": version });
    match out.json(|| document)? {
        true => Ok(()),
        false => out.line(&format!("{} {what}; its version is {version}", named(id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_an_instance_came_to_a_version_is_said_in_words() {
        let cases = [
            (1, None, Some("placed"), false, "(new) to placed"),
            (2, Some("placed"), Some("placed"), false, "stays placed"),
            (3, Some("placed"), Some("paid"), false, "placed to paid"),
            (4, Some("paid"), Some("paid"), true, "paid to the end"),
            (1, None, None, false, "(new)"),
            (2, None, None, false, "goes on"),
            (3, None, None, true, "to the end"),
        ];
        for (version, from, to, is_over, expected) in cases {
            let detail = HistoryDetail {
                state_from: from.map(Into::into),
                state_to: to.map(Into::into),
                is_over,
                ..HistoryDetail::default()
            };
            assert_eq!(moved(&detail, version), expected);
        }
    }
}
