//! `sagabus outbox republish`.

use clap::Args;
use sagabus_core::Timestamp;
use sagabus_core::admin::{SentFilter, StoreAdmin, StoredSent};
use sagabus_ops::sent::REPUBLISH_MAX;
use sagabus_ops::{sent, shape};
use serde_json::json;

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::filter::When;
use crate::gauge::Gauge;
use crate::output::Output;
use crate::text::ago;

/// Which messages are sent again.
#[derive(Debug, Args)]
pub(crate) struct RepublishArguments {
    /// What was sent since: an age (15m, 2h, 3d), or a time (RFC 3339).
    #[arg(long, value_name = "WHEN", value_parser = When::read)]
    since: When,
    /// What was sent before; up to now, where it is left out.
    #[arg(long, value_name = "WHEN", value_parser = When::read)]
    until: Option<When>,
    /// Only for this destination: an address, as `list` showed it.
    #[arg(long)]
    destination: Option<String>,
    /// Only this message type.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Refuse where more messages than this are meant.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=REPUBLISH_MAX))]
    at_most: u64,
}

impl RepublishArguments {
    fn at(&self, now: Timestamp) -> SentFilter {
        SentFilter {
            since: Some(self.since.at(now)),
            until: self.until.map(|until| until.at(now)),
            destination: self.destination.clone(),
            message_type: self.message_type.clone(),
        }
    }
}

/// Sends again what brokers took within a window.
pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    which: &RepublishArguments,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let planned = sent::plan(admin, &which.at(now), which.at_most).await?;
    let (count, mut again) = (planned.count(), 0);
    if count > 0 {
        // Of a change that is made, JSON has the result only: one document.
        if out.is_for_people() {
            table(now, &planned.sample, count, out)?;
        }
        let what = format!("send {count} messages again");
        if confirm(who, &what)? == Answer::Preview {
            let sample = planned.sample.iter().map(shape::sent);
            let sample: Vec<_> = sample.collect();
            let preview = json!({ "preview": { "count": count }, "sample": sample });
            return out.json(|| preview).map(|_| ());
        }
        let mut gauge = Gauge::new("sent again", count as u64, out);
        let told = |again| gauge.at(again, "");
        again = sent::republish(admin, &operator(who), &planned, told).await?;
    }
    let left = count as u64 - again;
    if out.json(|| json!({ "changed": again, "passed_over": left }))? {
        return Ok(());
    }
    out.line(&format!("{again} messages are in the outbox again"))?;
    match left {
        0 => Ok(()),
        left => out.line(&format!(
            "{left} were sent again by somebody else meanwhile"
        )),
    }
}

fn table(now: Timestamp, sample: &[StoredSent], count: usize, out: &Output) -> Result<(), Failure> {
    let line = |one: &StoredSent| {
        vec![
            one.id.to_string(),
            ago(now, one.sent_at),
            one.destination.clone(),
            one.message_type.clone(),
            one.key.clone().unwrap_or_default(),
        ]
    };
    let lines: Vec<_> = sample.iter().map(line).collect();
    let columns = ["id", "sent", "destination", "type", "key"];
    out.table(&columns, &lines, "")?;
    match count - sample.len() {
        0 => Ok(()),
        more => out.line(&format!(".. and {more} more")),
    }
}
