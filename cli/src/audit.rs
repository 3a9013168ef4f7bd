//! `sagabus audit`.

use std::time::Duration;

use clap::Args;
use sagabus_core::Timestamp;
use sagabus_core::admin::{AuditEntry, AuditFilter, Page, StoreAdmin};
use sagabus_ops::{OpsError, shape};
use serde_json::{Value, json};

use crate::arguments::PageArguments;
use crate::dead_letters::page;
use crate::failure::Failure;
use crate::filter::before;
use crate::output::Output;
use crate::text::ago;

/// Which changes.
#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Show this one, with what was before and after.
    #[arg(conflicts_with_all = ["by", "action", "operation", "older_than", "younger_than", "after"])]
    id: Option<i64>,
    /// Only what this operator did.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only this, as the list names it: `redrive_dead_letters`.
    #[arg(long)]
    action: Option<String>,
    /// Only what belongs to this operation.
    #[arg(long, value_name = "ID")]
    operation: Option<i64>,
    /// Only what is older than this: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    older_than: Option<Duration>,
    /// Only what is younger than this.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    younger_than: Option<Duration>,
    #[command(flatten)]
    pub(crate) page: PageArguments,
}

impl AuditArguments {
    fn at(&self, now: Timestamp) -> AuditFilter {
        AuditFilter {
            id: self.id,
            who: self.by.clone(),
            action: self.action.clone(),
            operation: self.operation,
            since: self.younger_than.map(|age| before(now, age)),
            until: self.older_than.map(|age| before(now, age)),
        }
    }
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    arguments: &AuditArguments,
    out: &Output,
) -> Result<(), Failure> {
    let filter = arguments.at(now);
    match arguments.id {
        Some(id) => show(admin, (id, &filter), now, out).await,
        None => list(admin, &filter, &arguments.page, now, out).await,
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    filter: &AuditFilter,
    arguments: &PageArguments,
    now: Timestamp,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.audit(filter, page(arguments)).await?;
    let next = (found.len() == arguments.limit as usize)
        .then(|| found.last().map(|one| one.id))
        .flatten();
    let document = || {
        let all = found.iter().map(shape::audit);
        json!({ "audit": all.collect::<Vec<_>>(), "next": next })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.id.to_string(),
                ago(now, one.at),
                one.who.clone(),
                one.action.clone(),
                changed(one).len().to_string(),
                one.why.clone(),
            ]
        })
        .collect();
    let columns = ["id", "when", "who", "action", "rows", "why"];
    let none = match *filter == AuditFilter::default() {
        true => "no operator changed anything",
        false => "no operator changed anything like it",
    };
    out.table(&columns, &rows, none)?;
    if let Some(next) = next {
        out.note(&format!("there may be more: go on with --after {next}"));
    }
    Ok(())
}

async fn show(
    admin: &dyn StoreAdmin,
    (id, filter): (i64, &AuditFilter),
    now: Timestamp,
    out: &Output,
) -> Result<(), Failure> {
    let found = admin.audit(filter, Page::latest(1)).await?;
    let Some(one) = found.first() else {
        let fact = format!("the audit has no entry {id}; `sagabus audit` lists them [SB0401]");
        return Err(OpsError::NotFound(fact).into());
    };
    if out.json(|| shape::audit(one))? {
        return Ok(());
    }
    let (when, who, action) = (ago(now, one.at), &one.who, &one.action);
    out.line(&format!("{action}, by {who}, {when}"))?;
    if !one.why.is_empty() {
        out.line(&format!("why: {}", one.why))?;
    }
    if let Some(operation) = one.operation {
        out.line(&format!("operation {operation}"))?;
    }
    for row in changed(one) {
        out.line(&format!("  {row}"))?;
    }
    Ok(())
}

/// Returns what an entry says of each row.
fn changed(one: &AuditEntry) -> &[Value] {
    match &one.detail {
        Value::Array(rows) => rows,
        other => std::slice::from_ref(other),
    }
}
