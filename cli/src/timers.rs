//! `sagabus timers`.

use std::time::Duration;

use clap::Subcommand;
use sagabus_core::Timestamp;
use sagabus_core::admin::{StoreAdmin, StoredRow};
use sagabus_ops::shape;
use sagabus_ops::timers::{self, Verb};
use serde_json::json;

use crate::arguments::{OperatorArguments, PageArguments};
use crate::confirm::{Answer, confirm, operator};
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::messages;
use crate::output::Output;
use crate::sagas::instance;
use crate::sight::SightArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum TimersVerb {
    /// List those that are armed.
    #[command(after_help = "Example:\n  sagabus timers list --kind order --key 4711")]
    List {
        /// Only this message type.
        #[arg(long = "type", value_name = "TYPE")]
        message_type: Option<String>,
        /// Only those of the instance of this kind and `--key`.
        #[arg(long, requires = "key")]
        kind: Option<String>,
        /// Only those of the instance of `--kind` and this key.
        #[arg(long, requires = "kind")]
        key: Option<String>,
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show one: whose it is, when it is due, its message.
    #[command(after_help = "Example:\n  sagabus timers show 4711")]
    Show {
        /// Its id, as `list` shows it.
        id: i64,
        #[command(flatten)]
        sight: SightArguments,
    },
    /// Let one be due at another time.
    #[command(after_help = "Example:\n  sagabus timers move 4711 2h --yes --why 'bank holiday'")]
    Move {
        /// Its id.
        id: i64,
        /// How long from now: 90s, 15m, 2h, 3d.
        #[arg(value_name = "FROM_NOW", value_parser = crate::filter::age)]
        from_now: Duration,
    },
    /// Let one be due now.
    #[command(after_help = "Example:\n  sagabus timers fire 4711 --yes")]
    Fire {
        /// Its id.
        id: i64,
    },
    /// Cancel one: its instance waits for it no more.
    #[command(after_help = "Example:\n  sagabus timers cancel 4711 --yes --why 'paid by phone'")]
    Cancel {
        /// Its id.
        id: i64,
    },
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &TimersVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (verb, id) = match verb {
        TimersVerb::List {
            message_type,
            kind,
            key,
            page: arguments,
        } => {
            let owner = kind.as_deref().zip(key.as_deref());
            let owner = owner.map(|(kind, key)| instance(kind, key));
            let found = timers::list(admin, message_type.as_deref(), owner, page(arguments));
            return list(&found.await?, arguments.limit, out);
        }
        TimersVerb::Show { id, .. } => return show(&timers::show(admin, *id).await?, out),
        TimersVerb::Move { id, from_now } => (Verb::Move(now.plus(*from_now)), *id),
        TimersVerb::Fire { id } => (Verb::Fire, *id),
        TimersVerb::Cancel { id } => (Verb::Cancel, *id),
    };
    change(admin, verb, id, who, out).await
}

fn list(found: &[StoredRow], limit: u32, out: &Output) -> Result<(), Failure> {
    let next = (found.len() == limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::row);
        json!({ "timers": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found.iter().map(cells).collect();
    let columns = ["id", "due", "kind", "key", "timer", "type"];
    out.table(&columns, &rows, "no timer is armed")?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

fn cells(one: &StoredRow) -> Vec<String> {
    let timer = one.timer.as_ref();
    let of = |get: fn(&sagabus_core::envelope::Timer) -> String| timer.map(get).unwrap_or_default();
    vec![
        one.id.to_string(),
        one.available_at.to_string(),
        of(|timer| timer.owner.kind.to_string()),
        of(|timer| timer.owner.key.to_string()),
        of(|timer| timer.name.clone()),
        one.envelope.message_type.to_string(),
    ]
}

fn show(one: &StoredRow, out: &Output) -> Result<(), Failure> {
    if out.json(|| shape::row(one))? {
        return Ok(());
    }
    let timer = one.timer.as_ref();
    let name = timer.map_or("", |timer| timer.name.as_str());
    out.line(&format!("timer {} ({name})", one.id))?;
    let owner = timer.map(|timer| format!("{} {}", timer.owner.kind, timer.owner.key));
    out.field("of", owner.as_deref())?;
    out.field("due", Some(&one.available_at.to_string()))?;
    out.field("type", Some(&one.envelope.message_type))?;
    out.field("message", Some(&one.envelope.id.to_string()))?;
    messages::envelope(&one.envelope, one.body_bytes, &one.attempts, out)
}

async fn change(
    admin: &dyn StoreAdmin,
    verb: Verb,
    id: i64,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let known = timers::show(admin, id).await?;
    let of = known.timer.as_ref().map(|timer| {
        let (name, owner) = (&timer.name, &timer.owner);
        format!(", `{name}` of {} {}", owner.kind, owner.key)
    });
    let timer = format!("timer {id}{}", of.unwrap_or_default());
    let (what, done) = match verb {
        Verb::Move(at) => (format!("move {timer}, to {at}"), "moved"),
        Verb::Fire => (format!("fire {timer}, now"), "fired"),
        Verb::Cancel => (format!("cancel {timer}"), "cancelled"),
    };
    if confirm(who, &what)? == Answer::Preview {
        let document = || json!({ "preview": { "count": 1 }, "sample": [shape::row(&known)] });
        if out.json(document)? {
            return Ok(());
        }
        return out.line(&what);
    }
    timers::change(admin, &operator(who), verb, id).await?;
    if out.json(|| json!({ "changed": 1, "id": id }))? {
        return Ok(());
    }
    out.line(done)
}
