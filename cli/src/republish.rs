//! `sagabus outbox republish`.

use clap::Args;
use sagabus_core::Timestamp;
use sagabus_core::admin::{Selected, SentFilter, StoreAdmin, StoredSent, Verb};
use sagabus_ops::{sent, shape};

use crate::arguments::OperatorArguments;
use crate::bulk::{PaceArguments, Preview, Wanted, carry_out};
use crate::failure::Failure;
use crate::filter::When;
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    at_most: u64,
    /// How many in a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

impl RepublishArguments {
    fn at(&self, now: Timestamp) -> SentFilter {
        SentFilter {
            message: None,
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
    let found = sent::select(admin, which.at(now)).await?;
    let selected = Selected::Sent(Box::new(found.filter));
    let shapes = found.sample.iter().map(shape::sent).collect();
    let preview = Preview::new(selected, &found.tally, shapes);
    let pace = PaceArguments {
        rate: which.rate,
        at_most: Some(which.at_most),
    };
    let wanted = Wanted {
        verb: Verb::Republish,
        pace: pace.pace(),
        at_most: pace.at_most,
    };
    let table = || table(now, &found.sample, out);
    carry_out(admin, wanted, preview, table, (who, out)).await
}

fn table(now: Timestamp, sample: &[StoredSent], out: &Output) -> Result<(), Failure> {
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
    out.table(&columns, &lines, "")
}
