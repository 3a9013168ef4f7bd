//! `sagabus locks`.

use clap::Subcommand;
use sagabus_core::Timestamp;
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::locks::{self, LockPage};
use sagabus_ops::shape;
use serde_json::json;

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::output::Output;
use crate::sight::KeyringArgument;
use crate::text::{ago, word};

/// What is asked of locks.
#[derive(Debug, Subcommand)]
pub(crate) enum LocksVerb {
    /// List those that somebody has: who, and who waits.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Go on behind the lock of this name.
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Take one from whoever has it; the next one who waits gets it.
    Break {
        /// Its name, as `list` shows it.
        name: String,
        #[command(flatten)]
        keys: KeyringArgument,
    },
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &LocksVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        LocksVerb::List { limit, after } => list(admin, now, after.as_deref(), *limit, out).await,
        LocksVerb::Break { name, .. } => break_lock(admin, name, who, out).await,
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    after: Option<&str>,
    limit: u32,
    out: &Output,
) -> Result<(), Failure> {
    let LockPage { locks: found, next } = locks::list(admin, after, limit).await?;
    let shaped = || found.iter().map(shape::lock).collect::<Vec<_>>();
    if out.json(|| json!({ "locks": shaped(), "next": next }))? {
        return Ok(());
    }
    let name = |(kind, key): &(String, String)| format!("{kind} {key}");
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let next = one.waiting.first().map_or_else(String::new, name);
            vec![
                one.resource.clone(),
                one.holder.as_ref().map_or_else(String::new, name),
                ago(now, one.changed_at),
                one.waiting.len().to_string(),
                next,
            ]
        })
        .collect();
    let columns = ["lock", "held by", "changed", "waiting", "next"];
    out.table(&columns, &rows, "nobody has a lock")?;
    if let Some(next) = next {
        let next = word(&next);
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

async fn break_lock(
    admin: &dyn StoreAdmin,
    name: &str,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let lock = locks::find(admin, name).await?;
    let holder = match &lock.holder {
        Some((kind, key)) => format!("{kind} {key}"),
        None => "whoever has it".to_owned(),
    };
    let what = format!("take lock `{name}` from {holder}");
    if confirm(who, &what)? == Answer::Preview {
        if out.json(|| json!({ "preview": { "count": 1 }, "what": what }))? {
            return Ok(());
        }
        return out.line(&what);
    }
    let lock = locks::break_lock(admin, &operator(who), name).await?;
    if out.json(|| json!({ "broken": shape::lock(&lock) }))? {
        return Ok(());
    }
    out.line("broken: the host that keeps the locks tells its holder")
}
