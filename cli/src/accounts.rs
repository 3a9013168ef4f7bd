//! `sagabus accounts`.

use sagabus_core::Timestamp;
use sagabus_core::admin::{AccountLine, StoreAdmin};
use sagabus_ops::accounts::{self, Balance};
use sagabus_ops::shape;

use crate::failure::Failure;
use crate::gauge::Waiting;
use crate::output::Output;
use crate::text::ago;

const COLUMNS: [&str; 11] = [
    "accepted",
    "created",
    "handled",
    "dead",
    "expired",
    "discarded",
    "moved",
    "pending",
    "missing",
    "endpoint",
    "type",
];

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    out: &Output,
) -> Result<(), Failure> {
    let waiting = Waiting::new("reading inbox, history and outbox", out);
    let balance = accounts::balance(admin).await?;
    drop(waiting);
    if !out.json(|| shape::balance(&balance))? {
        show(&balance, now, out)?;
    }
    match balance.accounts.missing_count() {
        0 => Ok(()),
        count => Err(Failure::Missing(count)),
    }
}

fn show(balance: &Balance, now: Timestamp, out: &Output) -> Result<(), Failure> {
    let accounts = &balance.accounts;
    let rows: Vec<_> = accounts.lines.iter().map(cells).collect();
    out.table(&COLUMNS, &rows, "no message came")?;
    out.line("")?;
    let came: u64 = accounts
        .lines
        .iter()
        .map(|line| line.accepted + line.created)
        .sum();
    let missing = accounts.missing_count();
    out.line(&match missing {
        0 => format!("balanced: all {came} messages are accounted for"),
        _ => format!("not balanced: of {came} messages, {missing} are missing"),
    })?;
    if accounts.since.as_micros() > 0 {
        out.line(&format!(
            "since {}: what was done before was swept",
            accounts.since
        ))?;
    }
    for endpoint in &balance.without_history {
        out.line(&format!(
            "endpoint `{endpoint}` keeps no history and has no account"
        ))?;
    }
    let named: Vec<_> = accounts
        .missing
        .iter()
        .map(|one| {
            vec![
                one.message.to_string(),
                ago(now, one.at),
                one.endpoint.clone(),
                one.message_type.clone().unwrap_or_default(),
            ]
        })
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&["missing message", "came", "endpoint", "type"], &named, "")?;
    out.note("`sagabus messages show ID` tells what is left of one: who sent it, and when");
    Ok(())
}

fn cells(line: &AccountLine) -> Vec<String> {
    let counts = [
        line.accepted,
        line.created,
        line.handled,
        line.dead,
        line.expired,
        line.discarded,
        line.moved,
        line.pending,
        line.missing,
    ];
    let mut cells: Vec<_> = counts.iter().map(u64::to_string).collect();
    cells.push(line.endpoint.clone());
    cells.push(line.message_type.clone().unwrap_or_else(|| "?".to_owned()));
    cells
}
