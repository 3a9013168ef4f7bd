//! Which rows of the outbox are meant, in words of the command line.

use std::time::Duration;

use clap::Args;
use sagabus_core::admin::{RowFilter, RowState};
use sagabus_core::{MessageId, Timestamp};

use crate::bulk::PaceArguments;
use crate::filter::{before, each_once};

/// Which rows of the outbox.
#[derive(Debug, Args)]
pub(crate) struct RowArguments {
    /// Only for this destination: `@endpoint`, or an address.
    #[arg(long)]
    pub(crate) destination: Option<String>,
    /// Only this message type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) message_type: Option<String>,
    /// Only rows parked for this reason.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Only what has this text in its last error or its reason.
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Only this business key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only this message.
    #[arg(long, value_name = "ID")]
    pub(crate) message: Option<MessageId>,
    /// Only what was written longer ago: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    pub(crate) older_than: Option<Duration>,
    /// Only what was written later than that.
    #[arg(long, value_name = "AGE", value_parser = crate::filter::age)]
    pub(crate) younger_than: Option<Duration>,
}

/// Which rows are listed.
#[derive(Debug, Args)]
pub(crate) struct RowListArguments {
    /// These ones.
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: RowArguments,
}

impl RowListArguments {
    /// Makes the filter, with ages counted from the database's time.
    pub(crate) fn at(&self, now: Timestamp, state: Option<RowState>) -> RowFilter {
        RowFilter {
            ids: (!self.ids.is_empty()).then(|| each_once(&self.ids)),
            ..self.filter.at(now, state)
        }
    }
}

/// Which rows a change is for.
#[derive(Debug, Args)]
pub(crate) struct RowChangeArguments {
    /// These ones.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<i64>,
    #[command(flatten)]
    pub(crate) filter: RowArguments,
    /// All there are: needed where nothing else says which.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) pace: PaceArguments,
}

impl RowArguments {
    /// Makes the filter, with ages counted from the database's time.
    pub(crate) fn at(&self, now: Timestamp, state: Option<RowState>) -> RowFilter {
        RowFilter {
            state,
            destination: self.destination.clone(),
            message_type: self.message_type.clone(),
            reason: self.reason.clone(),
            error: self.error.clone(),
            message: self.message,
            key: self.key.clone(),
            since: self.younger_than.map(|age| before(now, age)),
            until: self.older_than.map(|age| before(now, age)),
            ..RowFilter::default()
        }
    }

    pub(crate) fn is_empty(&self, now: Timestamp) -> bool {
        self.at(now, None) == RowFilter::default()
    }
}
