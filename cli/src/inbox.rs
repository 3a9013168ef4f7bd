//! `sagabus inbox`.

use clap::{Args, Subcommand};
use sagabus_core::admin::{InboxFilter, StoreAdmin, TakenOver};
use sagabus_core::{MessageId, Timestamp};
use sagabus_ops::{OpsError, shape};
use serde_json::json;

use crate::failure::Failure;
use crate::filter::before;
use crate::output::Output;
use crate::text::ago;

/// Endpoints that one message is shown at, at most.
const ENDPOINTS_MAX: u32 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum InboxVerb {
    /// List them, the largest identity first: ours grow with time.
    List(InboxArguments),
    /// Show where one was taken over and handled: when, by which host, after how many attempts.
    Show {
        /// Its identity.
        id: MessageId,
    },
}

/// Which messages of the inbox.
#[derive(Debug, Args)]
pub(crate) struct InboxArguments {
    /// Only what this endpoint took over.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Only what was taken over longer ago: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    pub(crate) older_than: Option<std::time::Duration>,
    /// Only what was taken over later than that.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    pub(crate) younger_than: Option<std::time::Duration>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// Go on behind this message.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<MessageId>,
    /// Go on behind it at this endpoint.
    #[arg(long, value_name = "ENDPOINT", requires = "after")]
    pub(crate) after_endpoint: Option<String>,
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &InboxVerb,
    out: &Output,
) -> Result<(), Failure> {
    match verb {
        InboxVerb::List(arguments) => list(admin, now, arguments, out).await,
        InboxVerb::Show { id } => show(admin, *id, out).await,
    }
}

async fn list(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    arguments: &InboxArguments,
    out: &Output,
) -> Result<(), Failure> {
    let filter = InboxFilter {
        message: None,
        endpoint: arguments.endpoint.clone(),
        since: arguments.younger_than.map(|age| before(now, age)),
        until: arguments.older_than.map(|age| before(now, age)),
        after: arguments
            .after
            .map(|message| (message, arguments.after_endpoint.clone())),
    };
    let found = admin.inbox(&filter, arguments.limit).await?;
    let next = found.last();
    let next = next.filter(|_| found.len() == arguments.limit as usize);
    let document = || {
        json!({
            "inbox": found.iter().map(shape::inbox).collect::<Vec<_>>(),
            "next": next.map(|one| json!({ "message_id": one.message, "endpoint": one.endpoint })),
        })
    };
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found.iter().map(|one| cells(one, now)).collect();
    let columns = [
        "message",
        "taken over",
        "endpoint",
        "handled",
        "host",
        "type",
    ];
    out.table(&columns, &rows, "nothing of that is in the inbox")?;
    if let Some(next) = next {
        let endpoint = next.endpoint.as_deref();
        let endpoint = endpoint.map(|name| format!(" --after-endpoint {name}"));
        out.note(&format!(
            "there may be more: go on with --after {}{}",
            next.message,
            endpoint.unwrap_or_default()
        ));
    }
    Ok(())
}

fn cells(one: &TakenOver, now: Timestamp) -> Vec<String> {
    let handled = one.handled.as_ref();
    let host = handled.and_then(|done| done.entry.detail.host.clone());
    let message_type = handled.map(|done| done.entry.message_type.to_string());
    vec![
        one.message.to_string(),
        ago(now, one.at),
        endpoint(one).to_owned(),
        handled.map(|done| ago(now, done.at)).unwrap_or_default(),
        host.unwrap_or_default(),
        message_type.unwrap_or_default(),
    ]
}

fn endpoint(one: &TakenOver) -> &str {
    one.endpoint.as_deref().unwrap_or("(removed)")
}

async fn show(admin: &dyn StoreAdmin, id: MessageId, out: &Output) -> Result<(), Failure> {
    let filter = InboxFilter {
        message: Some(id),
        ..InboxFilter::default()
    };
    let found = admin.inbox(&filter, ENDPOINTS_MAX).await?;
    if found.is_empty() {
        return Err(OpsError::NotFound(format!(
            "the inbox does not remember message {id}: no broker or API brought it, or it was \
             swept since (after 7 days by default); `sagabus messages show {id}` looks everywhere \
             [SB0401]"
        ))
        .into());
    }
    if out.json(|| json!({ "inbox": found.iter().map(shape::inbox).collect::<Vec<_>>() }))? {
        return Ok(());
    }
    for one in &found {
        out.line(&format!("{}  taken over at {}", one.at, endpoint(one)))?;
        let Some(done) = &one.handled else {
            out.line("    no unit has handled it there yet, or no history is kept")?;
            continue;
        };
        let (detail, host) = (&done.entry.detail, done.entry.detail.host.as_deref());
        out.line(&format!(
            "{}  {} handled by {}, attempt {}, {} us, {} sent{}",
            done.at,
            done.entry.message_type,
            host.unwrap_or("an unnamed host"),
            detail.attempt,
            detail.micros,
            detail.sent.len(),
            detail
                .note
                .as_ref()
                .map(|note| format!(", {note}"))
                .unwrap_or_default()
        ))?;
    }
    Ok(())
}
